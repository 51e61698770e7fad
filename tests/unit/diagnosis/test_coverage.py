"""What a diagnosis keeps of the past, what it says it covered, and what becomes of a detector that raises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from eegwatch.diagnosis.engine import PAST_OF_A_RULE, Diagnosis
from eegwatch.run.columns import block_of
from eegwatch.run.history import StepBlock
from eegwatch.run.records import Eval, Run, Step
from eegwatch.schedule import parse

COSINE = {"name": "cosine", "total_steps": 1000, "max_lr": 1e-3}
RUN = Run(schedule=COSINE, total_steps=1000, steps_per_epoch=100, lr_precision="float64")


def steps(lrs: Any, first: int = 1, **fields: Any) -> StepBlock:
    return block_of([Step(step=first + i, lr=float(lr), **fields) for i, lr in enumerate(lrs)])


def test_a_fault_that_healed_is_kept_with_its_first_and_last_step() -> None:
    lrs = parse(COSINE).rate(np.arange(300))
    lrs[100:200] = lrs[100]
    diagnosis = Diagnosis()
    diagnosis.feed(RUN)
    diagnosis.feed(steps(lrs))
    assert diagnosis.findings == []
    (past,) = diagnosis.past
    assert (past.rule, past.severity, past.since_step) == ("lr_stuck", "error", 101)
    assert past.until_step is not None and 200 < past.until_step <= 203
    assert past.as_dict()["until_step"] == past.until_step


def test_a_fault_that_a_resume_ended_is_of_the_past_too() -> None:
    diagnosis = Diagnosis()
    diagnosis.feed(RUN)
    diagnosis.feed(steps(np.full(100, 1e-3)))
    (fault,) = diagnosis.findings
    assert fault.until_step is None and diagnosis.past == []
    diagnosis.feed(Run(schedule=COSINE, total_steps=1000, step=100, attempt=2, lr_precision="float64"))
    assert [(f.rule, f.until_step) for f in diagnosis.past] == [("lr_stuck", 100)]


def test_a_log_that_goes_wrong_and_right_for_ever_keeps_a_bounded_past() -> None:
    losses = [float("nan") if i % 2 else 0.5 for i in range(5000)]
    diagnosis = Diagnosis()
    diagnosis.feed(Run())
    diagnosis.feed(block_of([Step(step=i + 1, loss="nan" if x != x else x) for i, x in enumerate(losses)]))
    nonfinite = [f for f in diagnosis.past if f.rule == "loss_nonfinite"]
    assert len(nonfinite) == PAST_OF_A_RULE and nonfinite[-1].until_step == 4999


def test_it_says_which_rules_could_judge_and_why_the_others_could_not() -> None:
    diagnosis = Diagnosis()
    assert diagnosis.coverage()[0] == []
    diagnosis.feed(RUN)
    diagnosis.feed(steps(parse(COSINE).rate(np.arange(10)), loss=0.5))
    checked, skipped = diagnosis.coverage()
    why = {one["rule"]: one["why"] for one in skipped}
    assert {"lr_stuck", "lr_off_schedule", "loss_nonfinite", "loss_spike"} <= set(checked)
    assert (
        why["grad_zero"] == "no gradient norm is logged" and why["overfitting"] == "no evaluation with a loss is logged"
    )
    diagnosis.feed(Eval(step=10, loss=0.4))
    assert "overfitting" in diagnosis.coverage()[0]
    assert not set(checked) & set(why)


def test_a_log_without_a_schedule_or_without_rates_says_so() -> None:
    diagnosis = Diagnosis()
    diagnosis.feed(Run(detectors={"loss_spike": False}))
    diagnosis.feed(block_of([Step(step=1, loss=0.5)]))
    why = {one["rule"]: one["why"] for one in diagnosis.coverage()[1]}
    assert why["lr_stuck"] == "no schedule is declared" and why["loss_spike"] == "silenced under detectors:"
    diagnosis = Diagnosis()
    diagnosis.feed(RUN)
    diagnosis.feed(block_of([Step(step=1, loss=0.5)]))
    why = {one["rule"]: one["why"] for one in diagnosis.coverage()[1]}
    assert why["lr_stuck"] == "no learning rate is logged"


@pytest.mark.detector_raises
def test_a_detector_that_raises_is_switched_off_with_a_notice_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    diagnosis = Diagnosis()
    diagnosis.feed(RUN)
    assert diagnosis.lr is not None

    def broken(_: StepBlock) -> None:
        raise ZeroDivisionError("float division by zero")

    monkeypatch.setattr(diagnosis.lr, "feed", broken)
    (notice,) = [f for f in diagnosis.feed(steps([1e-3, 1e-3])) if f.rule == "rates_failed"]
    assert notice.severity == "info" and "ZeroDivisionError" in notice.message
    assert diagnosis.feed(steps([1e-3], 3, loss="nan"))[0].rule == "loss_nonfinite"
    checked, skipped = diagnosis.coverage()
    assert "lr_stuck" not in checked
    assert any(one["rule"] == "lr_stuck" and "ZeroDivisionError" in one["why"] for one in skipped)
    assert "Traceback" in diagnosis.isolation.failures["rates"]
