"""What a trained run says of its models is computed again, by plain formulas, from the predictions that it keeps."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eegpt_daemon.link import Attempt, NullLink
from eegpt_daemon.trainer.attempt import Trainer
from eegpt_daemon.trainer.process_group import ProcessGroup
from eegwatch.run import config as configuration
from eegwatch.run.folder import CHECKPOINTS, CONFIG, RUN_LOG
from tests.unit.scores.cohorts import plain_auroc, plain_figures


def train(folder: Path, config: Path, attempt: Attempt | None = None) -> list[dict[str, Any]]:
    """One attempt to its end in this process; the records of the run's log."""
    (folder / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(configuration.dump(configuration.load(config)))
    assert Trainer(folder, attempt or Attempt(), NullLink(), ProcessGroup()).run() == 0
    return records(folder)


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / RUN_LOG).read_text().splitlines()]


def evaluations(folder: Path, split: str) -> list[dict[str, Any]]:
    return [r for r in records(folder) if r["type"] == "eval" and r["split"] == split]


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def by_recording(file: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(label, logits, subject) of the recordings."""
    numbers = sorted(set(file["recording"].tolist()))
    rows = [file["recording"] == number for number in numbers]
    logits = np.array([file["logits"].astype(np.float64)[row].mean(axis=0) for row in rows])
    return (
        np.array([file["label"][row][0] for row in rows]),
        logits,
        np.array([file["subject"][row][0] for row in rows]),
    )


def best_threshold(score: np.ndarray, label: np.ndarray) -> float:
    """As docs/evaluation.md defines it, by trying each place between two scores."""
    values = np.unique(score)
    places = [(a + b) / 2 for a, b in itertools.pairwise(values)]
    index = [(score > t)[label == 1].mean() + (score <= t)[label == 0].mean() for t in places]
    return min((t for t, one in zip(places, index) if one >= max(index) - 1e-12), key=abs)


def recomputed(file: dict[str, np.ndarray], val: dict[str, np.ndarray]) -> dict[str, float]:
    label, logits, _ = by_recording(file)
    val_label, val_logits, _ = by_recording(val)
    window = best_threshold(val["score"], val["label"])
    recording = best_threshold(val_logits[:, 1] - val_logits[:, 0], val_label)
    of_windows = plain_figures(file["label"], file["logits"].astype(np.float64), window)
    of_recordings = plain_figures(label, logits, recording)
    return of_windows | {f"recording_{name}": value for name, value in of_recordings.items()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_corpus: Path, feature_cache: Path) -> Path:
    """A run whose best model is not its final one: the rate is far too high at its end."""
    import yaml

    folder = tmp_path_factory.mktemp("trained")
    path = folder / "config.yaml"
    tree = {
        "experiment": {"name": "tiny", "seed": 2},
        "data": {
            "root_dir": str(tiny_corpus), "cache_dir": str(feature_cache), "batch_size": 8, "scaling": "zscore",
            "min_duration": 10.0, "val_fraction": 0.25,
        },
        "model": {"backbone": {"preset": "small"}, "probe": {"type": "linear", "dropout": 0.1}},
        "training": {"max_epochs": 6, "scheduler": {"name": "linear", "max_lr": 1e-3, "final_lr": 1.0}},
        "logging": {"save_top_k": 1},
    }  # fmt: skip
    path.write_text(yaml.safe_dump(tree))
    train(folder / "run", path)
    return folder / "run"


def test_every_figure_follows_from_the_predictions(trained: Path) -> None:
    val, test = arrays(trained / "predictions-val.npz"), arrays(trained / "predictions-eval.npz")
    last = evaluations(trained, "val")[-1]
    assert last["metrics"] == pytest.approx(recomputed(val, val), abs=1e-9)
    final = evaluations(trained, "eval")[-1]
    assert final["model"] == "final" and final["step"] == int(test["step"]) == int(val["step"])
    assert final["metrics"] == pytest.approx(recomputed(test, val), abs=1e-9)
    for record in (last, final):
        for name in ("auroc", "balanced_accuracy", "recording_auroc"):
            assert record[name] == record["metrics"][name]
    label, logits, subject = by_recording(test)
    assert (final["n"], final["recordings"], final["subjects"]) == (len(test["label"]), len(label), len(set(subject)))
    called = (test["score"] > final["metrics"]["threshold"]).astype(int)
    table = [[int(((test["label"] == a) & (called == b)).sum()) for b in (0, 1)] for a in (0, 1)]
    assert final["confusion"]["window"] == table and np.sum(final["confusion"]["recording"]) == len(label)


def test_the_best_model_is_evaluated_beside_the_final_one_and_each_look_is_counted(trained: Path) -> None:
    best, final = evaluations(trained, "eval")
    assert [best["model"], final["model"]] == ["best", "final"] and [best["looks"], final["looks"]] == [1, 2]
    scores = {e["step"]: e["auroc"] for e in evaluations(trained, "val")}
    assert scores[best["step"]] == max(scores.values()) > scores[final["step"]]
    val, test = (arrays(trained / "best" / f"predictions-{split}.npz") for split in ("val", "eval"))
    assert int(val["step"]) == int(test["step"]) == best["step"]
    assert best["metrics"] == pytest.approx(recomputed(test, val), abs=1e-9)
    assert plain_auroc(val["score"], val["label"] == 1) == pytest.approx(scores[best["step"]], abs=1e-9)


def test_predictions_hold_numbers_and_no_names(trained: Path, tiny_corpus: Path) -> None:
    names = {path.stem.split("_")[0] for path in tiny_corpus.rglob("*.edf")}
    for path in trained.rglob("predictions-*.npz"):
        file = arrays(path)
        assert all(file[name].dtype.kind in "iuf" for name in file if name != "corpus")
        assert not any(name.encode() in path.read_bytes() for name in names)
        starts = file["start"][file["recording"] == 0]
        np.testing.assert_array_equal(starts, 2.0 * np.arange(len(starts)))


def test_a_figure_that_is_not_defined_is_left_out_and_said(
    config_file: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A rate at which the weights leave the range of numbers."""
    folder = tmp_path / "run"
    config = config_file(scheduler={"name": "constant", "lr": 1e38}, max_epochs=2, gradient_clip_val=None)
    train(folder, config)
    for record in evaluations(folder, "val") + evaluations(folder, "eval"):
        assert record["auroc"] == "nan" and record["metrics"] == {} and "ci95" not in record
    said = capsys.readouterr().out
    assert "window scores are not finite" in said and "recording scores are not finite" in said


def test_without_a_validation_set_the_threshold_is_0_and_only_the_final_model_is_reported(
    config_file: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    train(folder, config_file(data={"val_fraction": 0.0}, max_epochs=2))
    (final,) = evaluations(folder, "eval")
    assert final["model"] == "final" and final["metrics"]["threshold"] == 0.0
    assert final["metrics"]["balanced_accuracy"] == final["metrics"]["balanced_accuracy_at_threshold"]
    assert sorted(path.name for path in folder.rglob("predictions-*")) == ["predictions-eval.npz"]


def test_the_final_models_threshold_is_its_own_where_it_was_not_evaluated_at_its_last_step(
    config_file: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    log = train(folder, config_file(max_epochs=2, val_check_interval=7.0))
    val, test = arrays(folder / "predictions-val.npz"), arrays(folder / "predictions-eval.npz")
    final = evaluations(folder, "eval")[-1]
    assert int(val["step"]) == int(test["step"]) == final["step"] == log[-1]["step"]
    assert evaluations(folder, "val")[-1]["step"] < final["step"]
    assert final["metrics"] == pytest.approx(recomputed(test, val), abs=1e-9)


def test_an_evaluation_leaves_the_random_states_as_they_were(trained: Path) -> None:
    """In a process of its own, where scikit-learn is not imported yet."""
    pytest.importorskip("sklearn")
    program = """
import random, sys
from pathlib import Path
from types import SimpleNamespace
from eegpt_daemon.trainer.evaluator import Evaluator
from eegpt_daemon.trainer.process_group import ProcessGroup
from eegwatch.scores.predictions import Predictions
prepared = SimpleNamespace(processes=ProcessGroup(), learner=None, data=None, steps_per_epoch=10)
evaluator = Evaluator(prepared, None, None, None)
random.seed(1)
state = random.getstate()
evaluator._scored(Predictions.load(Path(sys.argv[1])), "val", {})
print("sklearn" in sys.modules, random.getstate() == state)
"""
    arguments = [sys.executable, "-c", program, str(trained / "predictions-val.npz")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]


def test_a_best_checkpoint_that_is_damaged_is_said_and_the_final_model_is_reported(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The attempt goes on from the last checkpoint of a run that has ended: it looks at the evaluation set again."""
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    best, final = evaluations(folder, "eval")
    (folder / CHECKPOINTS / f"step-{best['step']:08d}.pt").write_bytes(b"damaged")
    newest = f"{CHECKPOINTS}/step-{final['step']:08d}.pt"
    train(folder, folder / CONFIG, Attempt(attempt=2, checkpoint=newest))
    again = evaluations(folder, "eval")[2:]
    assert [(e["model"], e["looks"]) for e in again] == [("final", 3)]
    assert again[0]["metrics"] == final["metrics"]
    assert "the best model is not evaluated" in capsys.readouterr().out


def test_the_trainer_is_watched_for_silent_errors_and_has_none(trained: Path) -> None:
    from eegwatch.check import open_run

    outcome = open_run(trained, None, None).read_to_end()
    watched = [record for record in records(trained) if record["type"] == "watch"]
    assert {record["look"] for record in watched} == {
        *("attached", "split", "step", "evaluating", "state", "cost"),
        *("signals", "labels", "headers", "encoder"),
    }
    assert all(record["values"]["looked"] for record in watched if record["look"] == "step")
    assert [record["values"]["name"] for record in watched if record["look"] == "split"] == ["train", "val", "eval"]
    assert [f.rule for f in [*outcome.findings, *outcome.past] if f.family in ("equality", "fact")] == []
    assert {"splits_overlap", "update_differs", "evaluation_changed_model"} <= set(outcome.checked)
    assert {"signal_in_two_splits", "class_in_header", "encoder_in_train_mode"} <= set(outcome.checked)


def test_a_checkpoint_that_was_trained_on_other_features_is_not_resumed_from(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    import torch

    for change, says in (
        ({"channels": ["O2", "O1"]}, "data.channels: 2 then, 19 now; number 1 was O2, is FP1"),
        ({"scaling": "uv100"}, "data.scaling was uv100, is zscore"),
        ({"weights": "0"}, "features of another encoder: the weights are not the same"),
    ):
        folder = tmp_path / next(iter(change))
        shutil.copytree(trained, folder)
        newest = sorted((folder / CHECKPOINTS).glob("step-*.pt"))[-1]
        state = torch.load(newest, weights_only=True)
        assert state["features"]["rate"] == 256 and state["features"]["scaling"] == "zscore"
        torch.save(state | {"features": state["features"] | change}, newest)
        attempt = Attempt(attempt=2, checkpoint=f"{CHECKPOINTS}/{newest.name}")
        assert Trainer(folder, attempt, NullLink(), ProcessGroup()).run() == 78
        assert says in capsys.readouterr().err


def test_a_run_on_a_recording_that_lies_in_two_splits_says_so_in_its_log(tmp_path: Path) -> None:
    import shutil

    from eegwatch.check import open_run
    from tests.unit.daemon.corpora import config_of, corpus

    root = corpus(tmp_path / "corpus")
    shutil.copy(root / "train/normal/tn0000_s001_t000.edf", root / "eval/normal/zz9999_s001_t000.edf")
    config_of(root, tmp_path / "cache", log_file_names=True)
    train(tmp_path / "run", tmp_path / "cache.yaml")
    outcome = open_run(tmp_path / "run", None, None).read_to_end()
    errors = [finding for finding in outcome.findings if finding.severity == "error"]
    assert [finding.rule for finding in errors] == ["signal_in_two_splits"]
    assert "train/normal/tn0000_s001_t000.edf" in errors[0].message
