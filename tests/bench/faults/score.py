"""What a detector makes of a case: alarms, when, and which cause, beside the baselines that people use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eegwatch.diagnosis.engine import Diagnosis
from eegwatch.diagnosis.findings import RESOLVED
from eegwatch.diagnosis.rate.precision import Precision
from eegwatch.schedule import parse, rate_at
from tests.bench.faults.loop import Case


@dataclass(frozen=True)
class Score:
    """The first alarm (step, rule), and the cause at the end with what else explains the records."""

    first: int | None
    rule: str | None
    cause: str | None
    alternatives: tuple[str, ...]


def ours(case: Case, form: str | None = None, every: int = 1) -> Score:
    """Twice through the case: record by record to the first alarm, then in blocks to the verdict at the end."""
    first, rule = first_alarm(case, form, every, chunk=1)
    return Score(first, rule, *verdict(case, form, every))


def verdict(case: Case, form: str | None, every: int) -> tuple[str | None, tuple[str, ...]]:
    """(cause, what else explains the records) at the end, read in blocks."""
    _, _, diagnosis = _watch(case, form, every, chunk=200, to_the_end=True)
    fault = diagnosis.lr.fault if diagnosis.lr else None
    cause = fault.cause() if fault else None
    return cause.name if cause else None, cause.alternatives if cause else ()


def first_alarm(case: Case, form: str | None, every: int, *, chunk: int) -> tuple[int | None, str | None]:
    """(step, rule) of the first alarm when `chunk` records are read at a time."""
    return _watch(case, form, every, chunk=chunk, to_the_end=False)[:2]


def _watch(
    case: Case, form: str | None, every: int, *, chunk: int, to_the_end: bool
) -> tuple[int | None, str | None, Diagnosis]:
    digits = None if form is None else int(form[2]) + 1
    diagnosis = Diagnosis(Precision(digits, full=form is None))
    for attempt in case.attempts:
        diagnosis.feed(attempt.run)
        block = attempt.block(form, every)
        for begin in range(0, len(block), chunk):
            for finding in diagnosis.feed(block[slice(begin, begin + chunk)]):
                if not to_the_end and finding.severity != RESOLVED and finding.is_fact:
                    return finding.step, finding.rule, diagnosis
    return None, None, diagnosis


def theoretical_minimum(case: Case, form: str | None = None, every: int = 1) -> int | None:
    """The first record at which a run on schedule is impossible, by brute force: it would have logged another value.

    Beside the value itself, two equal values while the declared rate moved by more than their rounding could hide.
    """
    for attempt in case.attempts:
        declared = attempt.run.schedule
        assert declared is not None
        block = attempt.block(form, every)
        expected = rate_at(parse(declared), block.step, attempt.run.steps_per_epoch)
        printed = expected if form is None else np.array([float(form % v) for v in expected])
        wrong = np.abs(block.lr - printed) > 1e-9 * np.abs(printed)
        if form is None:
            moved = np.abs(np.diff(expected, prepend=expected[0])) > 1e-12 * expected.max()
            wrong |= (np.diff(block.lr, prepend=np.nan) == 0) & moved
        total = attempt.run.total_steps or 0
        wrong |= block.step > total
        if wrong.any():
            return int(block.step[int(np.argmax(wrong))])
    return None


def unchanged(case: Case, form: str | None = None, every: int = 1) -> int | None:
    """The incident's own cure: abs(lr - last) < 1e-10."""
    return _pairs(case, form, every, lambda a, b: np.abs(a - b) < 1e-10)


def allclose(case: Case, form: str | None = None, every: int = 1) -> int | None:
    """SageMaker Debugger's UnchangedTensor: np.allclose with rtol 1e-5, atol 1e-8."""
    return _pairs(case, form, every, lambda a, b: np.isclose(a, b, rtol=1e-5, atol=1e-8))


def _pairs(case: Case, form: str | None, every: int, alike) -> int | None:  # type: ignore[no-untyped-def]
    for attempt in case.attempts:
        block = attempt.block(form, every)
        hits = alike(block.lr[1:], block.lr[:-1])
        if hits.any():
            return int(block.step[1:][int(np.argmax(hits))])
    return None
