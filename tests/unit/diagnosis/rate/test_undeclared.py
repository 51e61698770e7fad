"""Logs without a declared schedule: what is said of their rates, and that it is never more than they show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from eegwatch.diagnosis.engine import Diagnosis
from eegwatch.diagnosis.findings import Finding
from eegwatch.run.columns import block_of
from eegwatch.run.records import End, Run, Step
from eegwatch.schedule import parse

Rates = NDArray[np.float64]
N = np.arange(6000.0)


def curve(name: str, total_steps: int = 6000, **given: Any) -> Rates:
    return parse({"name": name, "total_steps": total_steps} | given).rate(N)


def findings_of(rates: Rates, every: int = 1, digits: int | None = None, blocks: int = 7) -> dict[str, Finding]:
    diagnosis = Diagnosis.of_foreign()
    steps = [
        Step(time=float(n), step=n, lr=float(f"{rates[n - 1]:.{digits - 1}e}") if digits else float(rates[n - 1]))
        for n in range(every, len(rates) + 1, every)
    ]
    for part in np.array_split(np.arange(len(steps)), blocks):
        if len(part):
            diagnosis.feed(block_of([steps[i] for i in part]))
    return {f.rule: f for f in diagnosis.findings}


HELD: dict[str, tuple[Rates, str]] = {
    "constant after a warm-up": (curve("constant", lr=3e-4, warmup_steps=700), "a hold after the warm-up"),
    "constant from the start": (np.full(6000, 1e-3), "a constant rate"),
    "steps": (curve("step", max_lr=1e-2, step_size=1500), "a step or plateau schedule"),
    "several factors": (
        curve("multistep", max_lr=2e-2, milestones=[2000, 4500]),
        "after 2e-2, 2e-3: a step or plateau schedule",
    ),
    "the schedule is over": (curve("linear", 4000, max_lr=3e-4), "the end of the schedule"),
}


@pytest.mark.parametrize("name", HELD)
@pytest.mark.parametrize("digits", [None, 3])
@pytest.mark.parametrize("every", [1, 10])
def test_a_rate_that_stands_is_an_information_with_the_ways_it_can_be_meant(
    name: str, digits: int | None, every: int
) -> None:
    rates, says = HELD[name]
    found = findings_of(rates, every, digits)
    assert set(found) == {"lr_stuck"}
    assert found["lr_stuck"].severity == "info" and says in found["lr_stuck"].message
    assert "cosine" not in found["lr_stuck"].message


@pytest.mark.parametrize("digits", [None, 4])
def test_a_floor_at_which_a_found_law_ends_is_not_mentioned(digits: int | None) -> None:
    rates = parse({"name": "cosine", "total_steps": 3000, "max_lr": 3e-4, "final_lr": 3e-5}).rate(N)
    assert findings_of(rates, 10, digits) == {}


@pytest.mark.parametrize("every", [1, 50])
def test_a_one_cycle_printed_with_three_digits_does_not_stand_at_its_peak(every: int) -> None:
    rates = parse({"name": "one_cycle", "total_steps": 60_000, "max_lr": 3e-3, "pct_start": 0.2}).rate(
        np.arange(60_000)
    )
    assert findings_of(rates, every, 3) == {}


def test_how_long_a_rate_has_stood_is_said_for_this_moment() -> None:
    diagnosis = Diagnosis.of_foreign()
    for begin in range(1, 3001, 1000):
        diagnosis.feed(block_of([Step(time=float(n), step=n, lr=1e-3) for n in range(begin, begin + 1000)]))
    (finding,) = diagnosis.findings
    assert "for 2,999 steps" in finding.message and finding.step == 3000


def test_a_rate_that_moves_again_resolves_it() -> None:
    diagnosis = Diagnosis.of_foreign()
    changes = []
    for n in range(1, 900):
        changes += diagnosis.feed(block_of([Step(time=float(n), step=n, lr=1e-3 if n < 800 else 1e-3 - n * 1e-7)]))
    assert [c.severity for c in changes] == ["info", "resolved"] and diagnosis.findings == []


def ended_run(rate: Callable[[int], float], steps: int, total: int | None) -> dict[str, Finding]:
    diagnosis = Diagnosis()
    diagnosis.feed(Run(time=0.0, run_id="r", total_steps=total))
    diagnosis.feed(block_of([Step(time=float(n), step=n, lr=rate(n), position=n - 1) for n in range(1, steps + 1)]))
    if total is None:
        diagnosis.feed(End(time=1.0, step=steps, reason="completed"))
    return {f.rule: f for f in diagnosis.findings}


@pytest.mark.parametrize("total", [None, 1000])
def test_a_run_that_is_all_warm_up_is_said_when_it_is_over(total: int | None) -> None:
    found = ended_run(lambda n: 2.5e-4 * n / 1000, 1000, total)
    assert found["warmup_never_ends"].severity == "info"
    assert "rose to the last record" in found["warmup_never_ends"].message
    assert ended_run(lambda n: 2.5e-4 * n / 1000, 500, 1000) == {}
    assert ended_run(lambda n: 2.5e-4 * min(n, 800) / 1000, 1000, total) == {}


def test_a_rate_of_zero_in_every_record_is_a_warning() -> None:
    found = ended_run(lambda n: 0.0 * n, 300, None)
    assert found["lr_zero"].severity == "warning" and "300 of them" in found["lr_zero"].message
    assert "lr_zero" not in ended_run(lambda n: 1e-3 * (n > 1), 300, None)
    rounded = findings_of(np.zeros(300))
    assert rounded["lr_zero"].severity == "info" and "too small for the digits printed" in rounded["lr_zero"].message
