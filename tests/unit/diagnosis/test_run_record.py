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


@pytest.mark.parametrize(
    ("built", "run", "says", "change"),
    [
        (600, {"total_steps": 150, "accumulate": 4}, "counts the micro-batches, 4 of which make one", "total_steps=150"),
        # an epoch of 13 batches makes 4 optimizer steps of 4: the last of each epoch is smaller
        (39, {"total_steps": 12, "steps_per_epoch": 4, "epochs": 3, "accumulate": 4}, "counts the micro-batches", "total_steps=12"),
        (50, {"total_steps": 200, "steps_per_epoch": 50, "epochs": 4}, "built for one epoch of 4", "total_steps=200"),
        (4, {"total_steps": 200, "steps_per_epoch": 50, "epochs": 4}, "its length is the number of epochs, 4", "step it once an epoch"),
        (400, {"total_steps": 200, "world_size": 2}, "counts the steps of all 2 processes", "stepped 2 times a step"),
        (100, {"total_steps": 200, "world_size": 2}, "divided by the 2 processes once too often", "total_steps=200"),
        (50, {"total_steps": 200, "accumulate": 4}, "divided by the 4 accumulated micro-batches", "total_steps=200"),
    ],
)  # fmt: skip
def test_a_length_that_was_built_for_something_else_is_told_with_the_line_to_change(
    built: int, run: dict[str, Any], says: str, change: str
) -> None:
    schedule = {"name": "cosine", "max_lr": 1e-3, "total_steps": built}
    (finding,) = Diagnosis().feed(Run(schedule=schedule, **run))
    assert finding.rule == "schedule_length" and says in finding.message and change in finding.remedy
    assert f"built for {built:,} steps, the run takes {run['total_steps']:,}" in finding.message
    assert rules(schedule | {"total_steps": run["total_steps"]}, **run) == []


def test_a_schedule_of_epochs_as_long_as_the_runs_steps_is_told() -> None:
    schedule = {"name": "cosine", "max_lr": 1e-3, "total_steps": 200, "unit": "epoch"}
    (finding,) = Diagnosis().feed(Run(schedule=schedule, total_steps=200, steps_per_epoch=50, epochs=4))
    assert "counts epochs, but its length is the run's 200 steps" in finding.message and "1/50 of" in finding.message
    assert rules(schedule | {"total_steps": 4}, total_steps=200, steps_per_epoch=50, epochs=4) == []


@pytest.mark.parametrize(("built", "run"), [
    (700, {"total_steps": 200}), (190, {"total_steps": 200, "accumulate": 4}), (300, {"total_steps": 200, "world_size": 2}),
])  # fmt: skip
def test_another_length_that_nothing_explains_is_left_to_the_rates(built: int, run: dict[str, Any]) -> None:
    assert rules({"name": "cosine", "max_lr": 1e-3, "total_steps": built}, **run) == []


def test_a_run_that_is_cut_short_by_intent_is_not_told_more_than_that() -> None:
    schedule = {"name": "cosine", "max_lr": 1e-3, "total_steps": 1000}
    assert "schedule_length" not in rules(schedule, total_steps=1000, steps_per_epoch=10, epochs=100)


@pytest.mark.parametrize(("name", "ends"), [("cosine", "past_end"), ("linear", None), ("polynomial", None)])
def test_a_decay_that_ends_after_as_many_steps_as_there_are_epochs_is_told(name: str, ends: str | None) -> None:
    schedule = {"name": name, "max_lr": 1e-3, "total_steps": 200} | ({ends: "rise"} if ends else {})
    run = {"total_steps": 200, "steps_per_epoch": 50, "epochs": 4}
    (finding,) = Diagnosis().feed(Run(schedule=schedule | {"decay_steps": 4}, **run))
    assert finding.rule == "schedule_length" and "its length is the number of epochs, 4" in finding.message
    assert rules(schedule | {"decay_steps": 4, "warmup_steps": 10}, **run) == ["schedule_length"]
    assert rules(schedule | {"decay_steps": 50}, **run) == []  # a fall over one epoch
    assert rules(schedule | {"decay_steps": 190, "warmup_steps": 10}, **run) == []
    assert rules(schedule | {"decay_steps": 30}, **run) == []


def test_a_schedule_that_accelerate_steps_once_for_each_process_is_told() -> None:
    inner = {"name": "cosine", "max_lr": 1e-2, "total_steps": 24}
    paced = {"name": "paced", "total_steps": 12, "of": inner, "steps": 2}
    (finding,) = Diagnosis().feed(Run(schedule=paced, total_steps=24, world_size=2))
    assert finding.rule == "schedule_length" and "accelerate steps it 2 times in each" in finding.message
    whole = paced | {"total_steps": 24, "of": inner | {"total_steps": 48}}
    assert rules(whole, total_steps=24, world_size=2) == []
    assert rules(paced, total_steps=24) == []  # one process: something else moves it twice a step
