"""What a `run` record says against itself, before the first step: a schedule of another length, an endless warm-up."""

from __future__ import annotations

from typing import Any

import pytest

from eegwatch.diagnosis.engine import Diagnosis
from eegwatch.run.records import Run


def rules(schedule: dict[str, Any], **run: Any) -> list[str]:
    return [f.rule for f in Diagnosis().feed(Run(schedule=schedule, **run))]


@pytest.mark.parametrize("warmup, ends", [(998, True), (999, True), (1000, False), (1001, False)])
def test_a_warm_up_that_the_last_step_completes_ends(warmup: int, ends: bool) -> None:
    schedule = {"name": "constant", "lr": 1e-3, "warmup_steps": warmup, "total_steps": 1000}
    assert rules(schedule, total_steps=1000) == ([] if ends else ["schedule_length"])


def test_a_schedule_built_for_the_micro_batches_is_told_at_once() -> None:
    schedule = {"name": "one_cycle", "max_lr": 1e-3, "total_steps": 600}
    assert rules(schedule, total_steps=150, accumulate=4) == ["schedule_length"]
    assert rules(schedule, total_steps=600, accumulate=4) == []


def test_a_run_that_is_cut_short_by_intent_is_not_told_more_than_that() -> None:
    schedule = {"name": "cosine", "max_lr": 1e-3, "total_steps": 1000}
    assert "schedule_length" not in rules(schedule, total_steps=1000, steps_per_epoch=10, epochs=100)
