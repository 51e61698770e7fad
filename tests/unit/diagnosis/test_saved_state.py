"""A judge that is kept and taken up again says what one says that was never interrupted; bytes of others run nothing."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from eegwatch.diagnosis.saved_state import Judge, decoded, encoded
from eegwatch.run.history import Item
from eegwatch.run.records import Checkpoint, End, Eval, Watch
from tests.bench.faults.generated import faulty, healthy
from tests.bench.faults.loop import Case
from tests.bench.faults.real_issues import CASES

FULL = bool(os.environ.get("EEGWATCH_FULL"))


def items_of(case: Case, form: str | None = None, every: int = 1, *, declared: bool = True) -> Iterator[Item]:
    """A case as its log would give it, in blocks, with other records among them."""
    for attempt in case.attempts:
        run = attempt.run if declared else msgspec.structs.replace(attempt.run, schedule=None, groups=None)
        yield run
        block = attempt.block(form, every)
        for begin in range(0, len(block), 400):
            part = block[slice(begin, begin + 400)]
            yield part
            last = int(part.step[-1])
            yield Eval(time=float(last), step=last, auroc=0.6)
            yield Checkpoint(time=float(last), step=last, path="x", best=True)
            yield Watch(time=float(last), step=last, look="update", values={"a": [1]})
        yield End(time=1e9, step=attempt.run.step + len(attempt.lrs), reason="stopped")


def known_to(judge: Judge) -> dict[str, Any]:
    diagnosis = judge.diagnosis
    return {
        "findings": [f.as_dict() for f in diagnosis.findings],
        "past": [f.as_dict() for f in diagnosis.past],
        "coverage": diagnosis.coverage(),
        "law": repr(diagnosis.law),
        "events": list(judge.events),
        "says": judge.says(),
        "failures": diagnosis.isolation.failures,
    }


def assert_interruptions_change_nothing(items: list[Item], seed: int) -> None:
    random = np.random.default_rng(seed)
    judge, again = Judge(), Judge()
    for item in items:
        assert judge.feed(item) == again.feed(item)
        if random.random() < 0.1:
            data = encoded(again)
            assert data is not None
            taken = decoded(data)
            assert taken is not None
            again = taken
    for of_time in (lambda one: one.clock(2e9, training=True), lambda one: one.settle(over=True)):
        assert of_time(judge.diagnosis) == of_time(again.diagnosis)
    assert known_to(judge) == known_to(again)
    assert not judge.diagnosis.isolation.failures


@pytest.mark.parametrize("name", list(CASES) if FULL else list(CASES)[::8])
def test_over_a_fault_of_a_public_project(name: str) -> None:
    case = Case(name, "", None, CASES[name][2]().attempts)
    assert_interruptions_change_nothing(list(items_of(case)), 0)
    assert_interruptions_change_nothing(list(items_of(case, declared=False)), 1)


def test_over_generated_runs() -> None:
    for seed, (case, form, every) in enumerate([*faulty(80 if FULL else 2), *healthy(70 if FULL else 1)]):
        assert_interruptions_change_nothing(list(items_of(case, form, every)), seed)
        assert_interruptions_change_nothing(list(items_of(case, form, every, declared=False)), seed)


class Runs:
    """What a pickle of somebody else's does when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_bytes_of_others_are_refused_and_run_nothing(tmp_path: Path) -> None:
    assert decoded(pickle.dumps(Runs(tmp_path / "ran"))) is None
    assert not (tmp_path / "ran").exists()
    for module, name in (("builtins", "eval"), ("eegwatch.diagnosis.saved_state", "Judge.feed"), ("os", "system"),
                         ("eegwatch.diagnosis.saved_state", "encoded"), ("eegwatch.run.folder", "write_whole")):  # fmt: skip
        call = f"c{module}\n{name}\n(V{tmp_path}/ran\ntR."
        assert decoded(call.encode()) is None
    assert not list(tmp_path.iterdir())
    data = encoded(Judge())
    assert data is not None
    for cut in (0, 10, len(data) // 2, len(data) - 1):
        assert decoded(data[:cut]) is None
    assert decoded(pickle.dumps({"not": "a judge"})) is None
