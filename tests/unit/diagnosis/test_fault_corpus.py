"""The LR-fault corpus in short: every real issue named at its theoretical minimum, no false alarm on healthy runs.

`python -m tests.bench.faults` runs it at length and prints the table beside the baselines.
"""

from __future__ import annotations

import pytest

from tests.bench.faults.generated import faulty, healthy
from tests.bench.faults.loop import Case
from tests.bench.faults.real_issues import CASES
from tests.bench.faults.score import ours, theoretical_minimum


@pytest.mark.parametrize("name", CASES)
def test_a_fault_of_a_public_project_is_named_at_the_first_record_that_shows_it(name: str) -> None:
    cause, reference, make = CASES[name]
    case = Case(name, reference, cause, make().attempts)
    score = ours(case)
    assert score.cause == case.cause, (score, case.reference)
    assert score.first == theoretical_minimum(case)


def test_healthy_runs_and_deliberate_oddities_raise_no_alarm() -> None:
    wrong = [case.name for case, form, every in healthy(70) if ours(case, form, every).first is not None]
    assert wrong == []


def test_generated_faults_are_named_or_the_truth_is_among_what_remains() -> None:
    missed = []
    for case, form, every in faulty(40):
        score = ours(case, form, every)
        if case.cause not in (score.cause, *score.alternatives):
            missed.append((case.name, form, every, score))
    assert missed == []
