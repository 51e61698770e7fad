"""Three classes on features of an encoder of one's own: trained, scored by macro averages, bounded, beside baselines."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from eegpt_daemon.analysis.baselines import baselines_of
from eegpt_daemon.analysis.optimum_of_run import reach_of
from eegpt_daemon.link import Attempt
from eegwatch.run.follow import history_of
from eegwatch.scores.predictions import Predictions
from tests.e2e.trainers import Zygote, new_run


def macro_auroc(predictions: Predictions) -> float:
    """Mean over the classes of the share of pairs in the right order, by the log-odds of each class against the rest."""
    logits = predictions.logits.astype(np.float64)
    found = []
    for one in range(logits.shape[1]):
        others = np.delete(logits, one, axis=1)
        odds = logits[:, one] - np.log(np.exp(others).sum(1))
        pairs = odds[predictions.label == one][:, None] - odds[predictions.label != one][None, :]
        found.append((pairs > 0).mean() + 0.5 * (pairs == 0).mean())
    return float(np.mean(found))


def test_three_classes_from_an_encoder_of_ones_own_to_the_table(
    zygote: Zygote, config_file: Callable[..., Path], tiny_corpus: Path, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(tiny_corpus, corpus)
    for split in ("train", "eval"):  # every second recording of a class becomes the third class
        for label in ("normal", "abnormal"):
            for file in sorted((corpus / "edf" / split / label).rglob("*.edf"))[1::3]:
                (corpus / "edf" / split / "other").mkdir(exist_ok=True)
                file.rename(corpus / "edf" / split / "other" / file.name)
    data = {"root_dir": str(corpus), "labels": ["normal", "abnormal", "other"], "sampling_rate": 128}
    model = {"model": {"backbone": {"entry": "tests.encoders:spread"}, "probe": {"type": "linear"}}}
    run = new_run(tmp_path, "run", config_file(model, data=data, max_epochs=2, weighted_loss=True))
    assert zygote.train(run, Attempt(), None) == 0, (run / "run.jsonl").read_text()
    final = [record for record in history_of(run).evals if record.split == "eval"][-1]
    assert final.auroc == pytest.approx(macro_auroc(Predictions.load(run / "predictions-eval.npz")), abs=1e-9)
    reach = reach_of(run, print)
    assert reach.classes == 3 and reach.models[0].lower <= reach.models[0].upper <= reach.models[0].loss
    assert max(point.gap for point in reach.path) <= 1e-9
    rows = {row.name: row for row in baselines_of(run, ["chance", "ridge", "random"], print).rows}
    assert "ridge, closed form" in rows and not any("random" in name for name in rows)
    assert rows["chance"].eval["auroc"] == 0.5
