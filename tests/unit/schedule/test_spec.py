"""Declared schedules: what is accepted, what is refused, the mission's bands, positions from steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eegwatch.schedule import Manual, ScheduleError, as_dict, final_rate, parse, parse_for_run, rate_at, resumed
from eegwatch.schedule.inverse import position_intervals

BANDS = {
    "name": "warmup_hold_anneal",
    "total_steps": 1000,
    "initial_lr": 1.2e-4,
    "max_lr": 3e-3,
    "final_lr": 3e-6,
    "warmup": 0.1,
    "hold_until": 0.5,
}


def test_the_missions_table_is_a_schedule() -> None:
    schedule = parse(BANDS)
    assert float(schedule.rate(0)) == pytest.approx(1.2e-4)
    assert float(schedule.rate(100)) == pytest.approx(3e-3)
    assert (schedule.rate(np.arange(101, 501)) == 3e-3).all()
    assert float(schedule.rate(999)) == pytest.approx(3e-6)
    assert (np.diff(schedule.rate(np.arange(501, 1000))) < 0).all()


def test_the_floor_divides_the_initial_rate_not_the_peak() -> None:
    declared = {"name": "one_cycle", "total_steps": 1000, "max_lr": 3e-3, "div_factor": 25}
    assert final_rate(parse({**declared, "final_div_factor": 1000})) == pytest.approx(1.2e-7)
    assert final_rate(parse({**declared, "final_div_factor": 40})) == pytest.approx(3e-6)


def test_unit_epoch_moves_once_an_epoch() -> None:
    schedule = parse({"name": "cosine", "total_steps": 10, "max_lr": 1.0, "unit": "epoch"})
    rates = rate_at(schedule, np.arange(1, 101), 10)
    assert len(np.unique(rates)) == 10
    assert rates[9] == rates[0] != rates[10]
    with pytest.raises(ScheduleError, match="steps_per_epoch"):
        rate_at(schedule, 1)


def test_a_manual_change_of_an_epoch_schedule_counts_steps() -> None:
    base = parse({"name": "cosine", "total_steps": 10, "max_lr": 1.0, "unit": "epoch"})
    manual = resumed(base, 35, 0.1, "hold", steps_per_epoch=10)
    assert rate_at(manual, 35, 10) == rate_at(base, 35, 10)
    assert rate_at(manual, 36, 10) == 0.1


@pytest.mark.parametrize(
    "declared",
    [
        {"name": "one_cycle", "total_steps": 0, "max_lr": 1},
        {"name": "one_cycle", "total_steps": 10},
        {"name": "one_cycle", "total_steps": 10, "max_lr": "nan"},
        {"name": "spiral", "total_steps": 10},
        {"name": "one_cycle", "total_steps": 10, "max_lr": 1, "pct_start": 3},
        {"name": "manual", "total_steps": 10, "from_step": 1, "lr": 1, "base": {"name": "spiral"}},
        {**BANDS, "hold_until": 0.05},
        {},
    ],
)
def test_what_is_no_schedule_is_refused_in_one_line(declared: dict[str, Any]) -> None:
    with pytest.raises(ScheduleError) as error:
        parse(declared)
    assert "\n" not in str(error.value)


def nested(kind: str, levels: int) -> dict[str, Any]:
    declared: dict[str, Any] = {"name": "constant", "total_steps": 10, "lr": 1.0}
    for _ in range(levels):
        if kind == "manual":
            declared = {"name": kind, "total_steps": 10, "from_step": 1, "lr": 1, "then": "scale", "base": declared}
        elif kind == "paced":
            declared = {"name": kind, "total_steps": 10, "of": declared}
        else:
            declared = {"name": kind, "total_steps": 10, "lr": 1.0, "factors": [declared]}
    return declared


COSINE = {"name": "cosine", "total_steps": 100, "max_lr": 1e-3}


@pytest.mark.parametrize(
    "declared",
    [
        [],
        "cosine",
        {**COSINE, "total_steps": 10**400},
        {**COSINE, "total_steps": "9" * 6000},
        {**COSINE, "total_steps": 2**63},
        {**COSINE, "max_lr": 10**400},
        {**COSINE, "max_lr": "1e400"},
        {**COSINE, "max_lr": 1e300},
        {**COSINE, "max_lr": -(10**400)},
        {**COSINE, "warmup_steps": float("inf")},
        {**COSINE, "warmup_mode": "sideways"},
        {**COSINE, "final_lr": [1e-5]},
        {"name": "multistep", "total_steps": 10, "max_lr": 1, "milestones": [1, float("nan")]},
        {"name": "multistep", "total_steps": 10, "max_lr": 1, "milestones": [10**400]},
        {"name": "step", "total_steps": 10, "max_lr": 1, "step_size": 0},
        {"name": "cosine_restarts", "total_steps": 10, "max_lr": 1, "T_0": 5, "T_mult": 0.5},
        {"name": "sequence", "total_steps": 10, "schedules": [COSINE], "milestones": [5]},
        {"name": "sequence", "total_steps": 10, "schedules": [], "milestones": []},
        {"name": "sequence", "total_steps": 10, "schedules": [COSINE, COSINE, COSINE], "milestones": [7, 5]},
        {"name": "sequence", "total_steps": 10, "schedules": [COSINE, {"name": "spiral"}], "milestones": [5]},
        {"name": "product", "total_steps": 10, "lr": 1, "factors": []},
        {"name": "paced", "total_steps": 10, "of": COSINE, "every": 0},
        {"name": "paced", "total_steps": 10, "of": {"name": "paced"}},
        {"name": "epoch_mean", "total_steps": 10, "of": COSINE, "steps_per_epoch": 0},
        nested("manual", 900),
        nested("paced", 900),
        nested("product", 900),
        {**nested("manual", 1), "steps_per_epoch": 0},
    ],
)  # fmt: skip
def test_hostile_schedules_are_refused_in_one_short_line(declared: Any) -> None:
    with pytest.raises(ScheduleError) as error:
        parse(declared)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


@pytest.mark.parametrize(
    "declared",
    [
        nested("manual", 12),
        nested("paced", 12),
        {**COSINE, "gamma": "an unknown key is read past"},
        {"name": "exponential", "total_steps": 10**15, "max_lr": 1e-3, "gamma": 1e-300},
        {"name": "exponential", "total_steps": 10**15, "max_lr": 1e-3, "gamma": 1e90},
        {"name": "multistep", "total_steps": 10**6, "max_lr": 1, "milestones": list(range(100_000)), "gamma": 0.999},
        {"name": "multistep", "total_steps": 10, "max_lr": 1, "milestones": []},
        {"name": "cosine", "total_steps": 1, "max_lr": 1e-3, "warmup_steps": 5e17},
        {"name": "cosine_restarts", "total_steps": 10**15, "max_lr": 1, "T_0": 1, "T_mult": 1000},
        {"name": "cyclic", "total_steps": 10**15, "base_lr": 0, "max_lr": 1, "step_size_up": 1e-18},
        {"name": "epoch_mean", "total_steps": 3, "of": COSINE, "steps_per_epoch": 10**15},
        {"name": "one_cycle", "total_steps": 1, "max_lr": 1, "final_div_factor": 1e20, "div_factor": 1e-18},
        {"name": "warmup_stable_decay", "total_steps": 5, "max_lr": 1, "decay_steps": 0},
        {"name": "inverse_sqrt", "total_steps": 5, "max_lr": 1},
    ],
)
@pytest.mark.filterwarnings("error")
def test_extreme_schedules_have_a_rate_everywhere_and_warn_of_nothing(declared: dict[str, Any]) -> None:
    schedule = parse(declared)
    for position in (0, 1, 3, schedule.total_steps - 1, schedule.total_steps, 10**17):
        assert np.shape(schedule.rate(position)) == ()
    assert schedule.rate(np.arange(5)).shape == (5,) and schedule.rate(np.zeros((2, 3))).shape == (2, 3)
    schedule.peak(), schedule.phases(), as_dict(schedule)
    assert parse(as_dict(schedule)) == schedule


def test_a_unit_of_epochs_of_unknown_length_is_refused_where_it_is_parsed_for_a_run() -> None:
    declared = {"name": "cosine", "total_steps": 10, "max_lr": 1.0, "unit": "epoch"}
    with pytest.raises(ScheduleError, match="needs steps_per_epoch"):
        parse_for_run(declared, None)
    assert parse_for_run(declared, 10) == parse(declared)


def test_what_a_manual_schedule_is_based_on_is_parsed_once() -> None:
    manual = parse(nested("manual", 3))
    assert isinstance(manual, Manual)
    assert manual.base_schedule is manual.base_schedule


@pytest.mark.parametrize(
    ("lr", "then", "at", "words"),
    [
        (float("nan"), "anneal", 10, "finite number above 0"),
        (float("inf"), "anneal", 10, "finite number above 0"),
        (0.0, "anneal", 10, "finite number above 0"),
        (-1e-3, "hold", 10, "finite number above 0"),
        (4e-3, "hold", 10, "above the declared peak"),
        (1e-4, "anneal", 1000, "nothing is left"),
        (1e-5, "scale", 990, "under ten times its final"),
    ],
)
def test_a_manual_lr_that_the_contract_refuses(lr: float, then: Any, at: int, words: str) -> None:
    base = parse({"name": "one_cycle", "total_steps": 1000, "max_lr": 3e-3, "final_div_factor": 40})
    with pytest.raises(ScheduleError, match=words):
        resumed(base, at, lr, then)


def test_the_declared_peak_itself_needs_no_force() -> None:
    base = parse({"name": "one_cycle", "total_steps": 1000, "max_lr": 3e-3})
    assert float(resumed(base, 10, 3e-3, "hold").rate(10)) == 3e-3


def test_force_allows_an_lr_above_the_peak() -> None:
    base = parse({"name": "one_cycle", "total_steps": 1000, "max_lr": 3e-3})
    assert float(resumed(base, 10, 4e-3, "hold", force=True).rate(10)) == 4e-3


def test_a_resume_of_a_manual_schedule_goes_back_to_the_authors() -> None:
    base = parse({"name": "one_cycle", "total_steps": 1000, "max_lr": 3e-3})
    manual = resumed(base, 100, 1e-3)
    assert resumed(manual, 200, None) == base
    assert as_dict(resumed(manual, 200, 5e-4))["base"]["name"] == "one_cycle"


@given(at=st.integers(0, 58284))
@settings(max_examples=60, deadline=None)
def test_the_inverse_finds_the_position_that_a_rate_came_from(at: int) -> None:
    schedule = parse(
        {"name": "one_cycle", "total_steps": 58285, "max_lr": 3e-3, "pct_start": 0.2, "final_div_factor": 1000}
    )
    y = float(schedule.rate(at))
    found = position_intervals(schedule, y * (1 - 1e-9), y * (1 + 1e-9))
    assert any(low <= at <= high for low, high in found)
    for low, high in found:
        inside = schedule.rate(np.array([low, high]))
        assert (inside >= y * (1 - 1e-9)).all() and (inside <= y * (1 + 1e-9)).all()


def test_the_incidents_rate_comes_from_where_its_history_says() -> None:
    schedule = parse(
        {"name": "one_cycle", "total_steps": 2914250, "max_lr": 3e-3, "pct_start": 0.2, "final_div_factor": 1000}
    )
    assert float(schedule.rate(932560)) == pytest.approx(2.836515e-3, rel=1e-6)
    falling = position_intervals(schedule, 2.835e-3, 2.845e-3)[-1]
    assert falling == (923198, 934207)  # as docs/detection.md computed it: one epoch boundary, 16 x 58,285, inside
