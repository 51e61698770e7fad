"""A long log at a glance: steps found by seeking are those of the log, spread over it, in the same time for any length."""

from __future__ import annotations

import numpy as np

from eegwatch.run import skeleton as module
from eegwatch.run.skeleton import skeleton
from eegwatch.schedule import parse
from tests.conftest import ONE_CYCLE, LogWriter

LONG = ONE_CYCLE | {"total_steps": 40_000}


def test_steps_are_real_ones_spread_over_the_log(log_writer: LogWriter) -> None:
    log_writer.run(LONG)
    log_writer.healthy(1, 30_000, LONG)
    history = skeleton(log_writer.folder / "run.jsonl")
    assert history is not None and history.run is not None and history.run.total_steps == 40_000
    assert history.step[0] == 1 and history.step[-1] >= 29_990
    assert history.length > 1500 and np.diff(history.step).max() < 60
    np.testing.assert_array_equal(history.lr, parse(LONG).rate(history.step - 1))


def test_rewound_steps_are_those_of_the_newest_attempt(log_writer: LogWriter) -> None:
    log_writer.run(LONG)
    log_writer.healthy(1, 20_000, LONG)
    log_writer.run(LONG, attempt=2, step=10_000)
    log_writer.steps(np.full(15_000, 5e-4), first=10_001)
    history = skeleton(log_writer.folder / "run.jsonl")
    assert history is not None and (np.diff(history.step) > 0).all()
    assert (history.lr[history.step > 10_200] == 5e-4).all() and history.step[-1] >= 24_990


def test_short_missing_and_foreign_logs_have_none(log_writer: LogWriter) -> None:
    log_writer.run()
    log_writer.healthy(1, 100)
    assert skeleton(log_writer.folder / "run.jsonl") is None
    assert skeleton(log_writer.folder / "nowhere") is None
    garbage = log_writer.folder / "garbage"
    garbage.write_bytes(b"\xff\x00 nonsense\n" * (module.WORTH_IT_BYTES // 8))
    assert skeleton(garbage) is None
