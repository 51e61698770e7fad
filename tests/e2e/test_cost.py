"""`eegwatch cost`: the twin of a faulty run is the run without its fault, to the bit, and the difference is theirs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from eegpt_daemon.analysis import retrain
from eegpt_daemon.analysis.cost import arm_config, cost_of, rates_of
from eegpt_daemon.data.corpus import CorpusError
from eegpt_daemon.link import Attempt
from eegwatch.run import config as configuration
from eegwatch.run.folder import runs
from eegwatch.run.follow import history_of
from eegwatch.scores.predictions import Predictions
from tests.e2e import warm
from tests.e2e.trainers import Zygote, new_run
from tests.patience import PATIENCE_S

ConfigFile = Callable[..., Path]


def plain_auroc(predictions: Predictions) -> float:
    """The share of pairs that are in the right order, counted one by one."""
    score, label = predictions.score, predictions.label
    pairs = score[label == 1][:, None] - score[label == 0][None, :]
    return float((pairs > 0).mean() + 0.5 * (pairs == 0).mean())


def test_the_twin_is_the_run_without_its_fault_and_the_cost_is_their_difference(
    zygote: Zygote, config_file: ConfigFile, tmp_path: Path
) -> None:
    logs = tmp_path / "logs"
    faulty = new_run(
        logs, "20261126-000000-faulty", config_file({"inject": "scheduler_stepped_per_epoch"}, max_epochs=3)
    )
    right = new_run(tmp_path, "right", config_file(max_epochs=3))
    assert zygote.train(faulty, Attempt(), None) == 0 and zygote.train(right, Attempt(), None) == 0
    words = ["cost", str(faulty), "--seeds", "2", "--json"]
    done = warm.run([sys.executable, "-m", "eegpt_daemon.cli", *words], PATIENCE_S)
    assert done.returncode == 0, done.stderr
    cost = json.loads(done.stdout)
    assert cost["fault"] == "scheduler_stepped_per_epoch" and cost["since"] == 2 and cost["seeds"] == [1, 2]
    twin = faulty / "twin" / "seed-1-right"
    np.testing.assert_array_equal(history_of(twin).loss, history_of(right).loss)
    for split in ("val", "eval"):
        ours, theirs = (Predictions.load(folder / f"predictions-{split}.npz") for folder in (twin, faulty))
        row = next(
            r for r in cost["rows"] if (r["model"], r["split"], r["level"], r["seeds"]) == ("final", split, "window", 1)
        )
        assert row["cost"] == pytest.approx(plain_auroc(ours) - plain_auroc(theirs), abs=1e-9)
    both = next(
        r for r in cost["rows"] if (r["model"], r["split"], r["level"], r["seeds"]) == ("final", "eval", "window", 2)
    )
    second = [
        Predictions.load(faulty / "twin" / f"seed-2-{side}" / "predictions-eval.npz") for side in ("right", "faulty")
    ]
    one = next(
        r for r in cost["rows"] if (r["model"], r["split"], r["level"], r["seeds"]) == ("final", "eval", "window", 1)
    )
    assert both["cost"] == pytest.approx((one["cost"] + plain_auroc(second[0]) - plain_auroc(second[1])) / 2, abs=1e-9)
    assert runs(logs) == [faulty], "an arm is never a run of the log root"
    began = {path: path.stat().st_mtime_ns for path in (faulty / "twin").rglob("run.jsonl")}
    assert len(began) == 3
    command = [sys.executable, "-m", "eegwatch.cli", *words]  # trains nothing: all arms are there
    again = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert again["rows"] == cost["rows"] and {path: path.stat().st_mtime_ns for path in began} == began


def test_a_fault_that_only_the_log_knows_is_replayed_to_the_bit(
    zygote: Zygote, config_file: ConfigFile, tmp_path: Path
) -> None:
    run = new_run(tmp_path, "run", config_file({"inject": "scheduler_stepped_per_epoch"}, max_epochs=2))
    assert zygote.train(run, Attempt(), None) == 0
    config, history = configuration.load(run / "config.yaml"), history_of(run)
    observed, _ = rates_of(config, history)
    replayed = tmp_path / "replayed"
    retrain.prepare(replayed, arm_config(config, 1, right=True), observed)
    assert retrain.train(replayed) == 0 and retrain.ended(replayed)
    np.testing.assert_array_equal(history_of(replayed).loss, history.loss)
    np.testing.assert_array_equal(history_of(replayed).lr, history.lr)


def test_a_run_at_its_declared_rates_and_one_that_goes_on_have_no_cost(
    zygote: Zygote, config_file: ConfigFile, tmp_path: Path
) -> None:
    run = new_run(tmp_path, "run", config_file(max_epochs=1))
    with pytest.raises(CorpusError, match="holds no step"):
        cost_of(run, 1, print)
    assert zygote.train(run, Attempt(), None) == 0
    assert "was the declared one" in (cost_of(run, 1, print).reason or "")
    log = run / "run.jsonl"
    log.write_text("".join(line for line in log.read_text().splitlines(True) if '"type":"end"' not in line))
    assert "has not completed" in (cost_of(run, 1, print).reason or "")
