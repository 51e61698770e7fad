"""Numbers that cease to be finite: named at their step, and not where a loss scaler explains them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from eegwatch.diagnosis.engine import Diagnosis
from eegwatch.diagnosis.findings import Finding
from eegwatch.run.columns import block_of
from eegwatch.run.items import items
from eegwatch.run.records import Run, Step


def changes_of(steps: list[Step], run: Run | None = None, size: int = 1) -> list[Finding]:
    diagnosis = Diagnosis()
    changes = diagnosis.feed(run or Run(total_steps=10_000))
    for i in range(0, len(steps), size):
        changes += diagnosis.feed(block_of(steps[i : i + size]))
    return changes


def steps_with(norms: list[Any], first: int = 1, **fields: Any) -> list[Step]:
    return [Step(step=first + i, loss=0.5, grad_norm=norm, **fields) for i, norm in enumerate(norms)]


def told(changes: list[Finding], rule: str) -> list[tuple[str, int, int]]:
    return [(c.severity, c.step, c.since_step) for c in changes if c.rule == rule]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_gradient_norm_that_stays_nan_is_told_at_its_step_and_becomes_an_error(size: int) -> None:
    changes = changes_of(steps_with([1.0] * 200 + ["nan"] * 20), size=size)
    assert told(changes, "grad_nonfinite") == [("info", 201, 201), ("warning", 202, 201), ("error", 203, 201)]


@pytest.mark.parametrize(
    "norms", [["inf"] * 5 + [1.0] * 300, ["nan", "inf", 2.0, "inf", 1.0], [1.0] * 50 + ["inf", 1.0]]
)
def test_the_first_skipped_steps_of_an_fp16_run_are_healthy(norms: list[Any]) -> None:
    assert told(changes_of(steps_with(norms)), "grad_nonfinite") == []


def test_one_skip_in_mid_run_is_no_warning() -> None:
    changes = changes_of(steps_with([1.0] * 2000 + ["inf"] + [1.0] * 50))
    assert told(changes, "grad_nonfinite") == [("info", 2001, 2001), ("resolved", 2002, 2001)]


def test_an_overflow_that_the_scaler_counted_is_no_finding() -> None:
    steps = [Step(step=i, grad_norm="inf" if i == 300 else 1.0, skipped=int(i >= 300)) for i in range(1, 400)]
    assert told(changes_of(steps), "grad_nonfinite") == []


def test_gradients_that_are_nan_from_the_first_step_on_are_an_error() -> None:
    assert ("error", 17, 1) in told(changes_of(steps_with(["nan"] * 200)), "grad_nonfinite")


def test_a_norm_that_is_not_logged_is_not_one_that_is_nan() -> None:
    assert told(changes_of(steps_with([1.0] * 200 + [None] * 20)), "grad_nonfinite") == []


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_rate_that_is_not_finite_is_said_to_be_just_that(value: Any) -> None:
    schedule = {"name": "cosine", "total_steps": 1000, "max_lr": 1e-3}
    lrs = [1e-3 * (1 + math.cos(math.pi * i / 1000)) / 2 for i in range(50)]
    steps = [Step(step=i + 1, lr=value if i >= 20 else lr) for i, lr in enumerate(lrs)]
    changes = changes_of(steps, Run(schedule=schedule, total_steps=1000, lr_precision="float64"))
    (finding,) = changes
    assert (finding.rule, finding.severity, finding.step) == ("lr_nonfinite", "error", 21)
    assert finding.message == f"the learning rate is not finite since step 21: it is {value}"


def test_a_nan_in_the_log_survives_the_columns_and_their_slices() -> None:
    block = block_of([Step(step=1, lr=1e-3), Step(step=2, lr="nan"), Step(step=3), Step(step=4, grad_norm="nan")])
    from eegwatch.run.history import StepBlock, logged_nan

    assert logged_nan(block.lr).tolist() == [False, True, False, False]
    assert logged_nan(StepBlock.joined(block[1:3], block[3:]).lr).tolist() == [True, False, False]
    assert logged_nan(block.grad_norm).tolist() == [False, False, False, True]
    assert np.isnan(block.lr[1:]).all() and list(items([Step(step=1)]))
