"""A run in memory: columns, attempts, and what a resume supersedes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from eegwatch.run.history import History, StepBlock
from eegwatch.run.items import items
from eegwatch.run.log import read_all, run_decoder
from eegwatch.run.records import Checkpoint, End, Eval, Progress, Run, Step


def history_of(*records: object) -> History:
    history = History()
    for item in items(records):  # type: ignore[arg-type]
        history.append(item)
    return history


def steps(first: int, last: int, lr: float = 1e-3) -> list[Step]:
    return [Step(time=float(n), step=n, lr=lr, loss=1.0 / n) for n in range(first, last + 1)]


def test_steps_become_columns_and_rates_keep_every_bit() -> None:
    history = history_of(Run(total_steps=5), *[Step(step=n, lr=2.8365154082891954e-03 / n) for n in range(1, 4)])
    assert history.step.tolist() == [1, 2, 3]
    assert history.lr.tolist() == [2.8365154082891954e-03 / n for n in range(1, 4)]
    assert history.lr.dtype == np.float64 and history.loss.dtype == np.float32


def test_a_new_attempt_supersedes_later_steps_but_forgets_nothing() -> None:
    history = history_of(
        Run(attempt=1), *steps(1, 10), Eval(step=10, auroc=0.7), Run(attempt=2, step=6), *steps(7, 8, lr=2e-3)
    )
    assert history.step.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert history.lr[-2:].tolist() == [2e-3, 2e-3]
    (old,) = history.superseded
    assert (old.attempt, old.step.tolist()) == (1, [7, 8, 9, 10])
    assert history.evals == []  # the evaluation at step 10 was of weights that are no more
    assert [a.attempt for a in history.attempts] == [1, 2]


def test_only_an_evaluation_between_steps_breaks_a_block_apart() -> None:
    records = [Run(), *steps(1, 3), Checkpoint(step=3), *steps(4, 6), Eval(step=6), *steps(7, 9)]
    blocks = [item for item in items(records) if isinstance(item, StepBlock)]
    assert [len(block) for block in blocks] == [6, 3]


def test_progress_is_over_when_done_or_when_steps_begin() -> None:
    history = history_of(Run(), Progress(what="features", done=3, total=10))
    assert history.progress is not None
    history.append(Progress(what="features", done=10, total=10))
    assert history.progress is None


def test_a_real_log_reads_back_as_it_was_written(log_writer, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    log_writer.run()
    log_writer.healthy(1, 500)
    log_writer.eval(200, 0.8)
    log_writer.add(End(step=500, reason="stopped"))
    history = history_of(*read_all(log_writer.folder / "run.jsonl", run_decoder()))
    assert history.length == 500 and history.step_done == 500
    assert history.end is not None and history.end.reason == "stopped"
    assert history.evals[0].auroc == 0.8


def test_steps_that_go_back_without_a_new_attempt_are_left_out_counted_and_named() -> None:
    from eegwatch.run.items import ItemReader

    reader, history = ItemReader(), History()
    for records in (
        [Run(), *steps(1, 10)],
        [*steps(8, 12), Step(step=-3), Step(step=13)],
        [Run(attempt=2, step=5), *steps(6, 7)],
    ):
        for item in reader.items(records):
            history.append(item)
    assert history.step.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert reader.disorder == 4 and reader.first_disorder == "step 8 follows step 10"
