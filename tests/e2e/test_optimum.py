"""`eegpt-daemon optimum` on runs that were trained: proved of one, said not to apply to others."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from eegpt_daemon.analysis.optimum_of_run import reach_of
from eegpt_daemon.link import Attempt
from eegwatch.run.config import ConfigError
from eegwatch.run.results.optimum import sentences
from tests.e2e.trainers import Zygote, new_run

ConfigFile = Callable[..., Path]


def test_the_command_proves_how_far_a_run_is_from_its_optimum(
    zygote: Zygote, config_file: ConfigFile, tmp_path: Path
) -> None:
    run = new_run(tmp_path, "20261126-000000-tiny", config_file(weighted_loss=True, max_epochs=2))
    assert zygote.train(run, Attempt(), None) == 0
    command = [sys.executable, "-m", "eegpt_daemon.cli", "optimum", run.name, "--logs", str(tmp_path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    reach = json.loads(done.stdout)
    assert reach == json.loads((run / "optimum.json").read_text()) and reach["class_weighted"]
    model = reach["models"][0]
    assert model["lower"] <= model["upper"] < model["loss"] and model["upper"] - model["lower"] < 1e-3
    assert all(point["gap"] <= 1e-9 for point in reach["path"])
    chosen = [point for point in reach["path"] if point["eval_auroc"] is not None]
    assert [point["lam"] for point in chosen] == [reach["chosen"]], "the evaluation set was looked at once"
    assert chosen[0]["val_auroc"] == max(point["val_auroc"] for point in reach["path"])


@pytest.mark.parametrize("probe", [{"type": "two_layer"}, {"use_channel_adapter": True}])
def test_a_model_whose_loss_is_not_convex_gets_no_bound(
    config_file: ConfigFile, tmp_path: Path, probe: dict[str, object]
) -> None:
    run = new_run(tmp_path, "run", config_file({"model": {"backbone": {"preset": "small"}, "probe": probe}}))
    reach = reach_of(run, print)
    assert not reach.models and not reach.path
    assert "not convex" in sentences(reach)[0]


def test_a_run_of_a_script_is_said_to_have_no_data_that_is_known(tmp_path: Path) -> None:
    config = tmp_path / "script.yaml"
    config.write_text("script: {command: [python, train.py]}\n")
    with pytest.raises(ConfigError, match="script of one's own"):
        reach_of(new_run(tmp_path, "run", config), print)
