"""How often the official evaluation set was looked at: by the run itself, and by commands about it."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from eegwatch.run.follow import history_of
from eegwatch.run.records import Eval
from eegwatch.run.results import evaluation_tables
from eegwatch.run.results.evaluation_set_uses import LOOKS, record_use, uses_beside, uses_in_words, uses_of


def report(writer: Any, model: str, looks: int) -> None:
    metrics = {"auroc": 0.8, "recording_auroc": 0.9}
    confusion = {"window": [[1, 0], [0, 1]]}
    writer.add(
        Eval(
            time=time.time(), step=2, split="eval", n=2, model=model, looks=looks, metrics=metrics, confusion=confusion
        )
    )


@pytest.fixture
def reported(log_writer: Any) -> Path:
    """A run that has reported on its best and its final model."""
    log_writer.run()
    log_writer.healthy(1, 2)
    report(log_writer, "best", 1)
    report(log_writer, "final", 2)
    return Path(log_writer.folder)


def test_a_run_alone_counts_its_own_reports(reported: Path) -> None:
    assert uses_of(reported / "run.jsonl") == 2 and uses_beside(reported).total() == 0
    assert evaluation_tables.lines(history_of(reported).evals, reported)[-1] == (
        "this run has looked at the official evaluation set 2 times"
    )


def test_looks_by_commands_and_by_the_arms_of_a_cost_are_said_beside(reported: Path) -> None:
    for what in ("ridge", "band power"):
        record_use(reported, "baselines", what)
    record_use(reported, "optimum", "lambda 0.1")
    arm = reported / "twin" / "seed-1-right"
    arm.mkdir(parents=True)
    shutil.copy(reported / "run.jsonl", arm / "run.jsonl")
    assert uses_beside(reported) == {"baselines": 2, "optimum": 1, "cost": 2}
    assert evaluation_tables.lines(history_of(reported).evals, reported)[-1] == (
        "this run has looked at the official evaluation set 2 times, and it was looked at 5 times by commands about it "
        "(baselines 2, cost 2, optimum 1)"
    )


def test_a_torn_file_of_looks_counts_what_is_whole(reported: Path) -> None:
    record_use(reported, "optimum", "x")
    with (reported / LOOKS).open("ab") as file:
        file.write(b'{"type":"look","ti')
    assert uses_in_words(uses_beside(reported)) == "1 time by commands about it (optimum 1)"
    record_use(reported, "optimum", "y")
    assert uses_beside(reported) == {"optimum": 2}
