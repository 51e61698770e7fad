"""The LR-fault corpus in short: every real issue named at its theoretical minimum, no false alarm on healthy runs.

`python -m tests.bench.faults` runs it at length and prints the table beside the baselines.
"""

from __future__ import annotations

import os

import pytest

from tests.bench.faults.generated import KINDS, faulty, healthy
from tests.bench.faults.loop import Case
from tests.bench.faults.real_issues import CASES
from tests.bench.faults.score import first_alarm, ours, theoretical_minimum, verdict

FULL = bool(os.environ.get("EEGWATCH_FULL"))


@pytest.mark.parametrize("name", CASES)
def test_a_fault_of_a_public_project_is_named_at_the_first_record_that_shows_it(name: str) -> None:
    cause, reference, make = CASES[name]
    case = Case(name, reference, cause, make().attempts)
    score = ours(case)
    assert score.cause == case.cause, (score, case.reference)
    assert score.first == theoretical_minimum(case)


@pytest.mark.parametrize("kind", KINDS)
def test_healthy_runs_and_deliberate_oddities_raise_no_alarm(kind: str) -> None:
    """The first of each kind record by record, the others in blocks as they are read from a file that grows."""
    alone = 10 if FULL else 1
    runs = [trial for trial in healthy(70) if trial[0].name.startswith(f"healthy-{kind}-")]
    assert len(runs) == 10
    wrong = [case.name for i, (case, form, every) in enumerate(runs)
             if first_alarm(case, form, every, chunk=1 if i < alone else 16)[0] is not None]  # fmt: skip
    assert wrong == []


def test_generated_faults_are_named_or_the_truth_is_among_what_remains() -> None:
    missed = []
    for case, form, every in faulty(40):
        cause, alternatives = verdict(case, form, every)
        if case.cause not in (cause, *alternatives):
            missed.append((case.name, form, every, cause, alternatives))
    assert missed == []
