"""Every schedule equals torch's scheduler of its name over its whole length, for random parameters."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eegpt_daemon.trainer.scheduler import effective, torch_scheduler
from eegwatch.schedule import Schedule, final_rate, initial_rate, parse, peak_rate, resumed

TOLERANCE = 1e-13  # of the peak: torch's recursions drift, the closed forms do not

lengths = st.integers(20, 3000)
rates = st.floats(1e-5, 1.0)


def torch_rates(schedule: Schedule, steps: int) -> np.ndarray[Any, Any]:
    """What torch's optimizer really uses at each of `steps` optimizer steps."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch_scheduler(schedule, optimizer)
    used = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns where a scheduler is stepped without a real optimizer step
        for n in range(steps):
            used.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if n < steps - 1:
                scheduler.step()
    return np.array(used)


def agrees(declared: dict[str, Any], steps: int | None = None) -> None:
    schedule = parse(declared)
    steps = steps or schedule.total_steps
    ours = schedule.rate(np.arange(steps))
    theirs = torch_rates(schedule, steps)
    assert np.abs(ours - theirs).max() <= TOLERANCE * np.abs(theirs).max()


@given(
    total=lengths,
    max_lr=rates,
    pct=st.floats(0.05, 0.45),
    div=st.floats(1.5, 100),
    final=st.floats(1.5, 1e5),
    strategy=st.sampled_from(["cos", "linear"]),
    three=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_one_cycle(total: int, max_lr: float, pct: float, div: float, final: float, strategy: str, three: bool) -> None:
    agrees(
        {
            "name": "one_cycle",
            "total_steps": total,
            "max_lr": max_lr,
            "pct_start": max(pct, 2.5 / total),
            "div_factor": div,
            "final_div_factor": final,
            "anneal_strategy": strategy,
            "three_phase": three,
        }
    )


def test_one_cycle_equals_torch_bit_for_bit_at_the_incidents_length() -> None:
    schedule = parse(
        {"name": "one_cycle", "total_steps": 58285, "max_lr": 3e-3, "pct_start": 0.2, "final_div_factor": 1000}
    )
    assert np.array_equal(schedule.rate(np.arange(58285)), torch_rates(schedule, 58285))


def test_the_one_step_too_many_that_torch_allows_rises_again() -> None:
    schedule = parse({"name": "one_cycle", "total_steps": 1000, "max_lr": 3e-3, "pct_start": 0.2})
    assert schedule.rate(1000) == torch_rates(schedule, 1001)[-1] > schedule.rate(999)
    assert schedule.rate(5000) == schedule.rate(1000)


@given(total=lengths, max_lr=rates, floor=st.floats(0, 0.5))
@settings(max_examples=25, deadline=None)
def test_cosine_and_linear(total: int, max_lr: float, floor: float) -> None:
    agrees({"name": "cosine", "total_steps": total, "max_lr": max_lr, "final_lr": floor * max_lr})
    agrees({"name": "linear", "total_steps": total, "max_lr": max_lr, "final_lr": floor * max_lr})


@given(max_lr=rates, first=st.integers(1, 200), mult=st.integers(1, 4), steps=st.integers(2, 3000))
@settings(max_examples=40, deadline=None)
def test_cosine_restarts(max_lr: float, first: int, mult: int, steps: int) -> None:
    declared = {"name": "cosine_restarts", "total_steps": steps, "max_lr": max_lr, "T_0": first, "T_mult": mult}
    agrees(declared)


@given(total=lengths, max_lr=rates, power=st.floats(0.5, 3))
@settings(max_examples=25, deadline=None)
def test_polynomial(total: int, max_lr: float, power: float) -> None:
    schedule = parse({"name": "polynomial", "total_steps": total, "max_lr": max_lr, "power": power})
    ours, theirs = schedule.rate(np.arange(total + 3)), torch_rates(schedule, total + 3)
    # torch multiplies factors step by step: near zero its error is relative to the factors, not to the peak
    assert np.abs(ours - theirs).max() <= 1e-11 * max_lr


@given(total=lengths, max_lr=rates, gamma=st.floats(0.9, 0.9999), size=st.integers(1, 300))
@settings(max_examples=25, deadline=None)
def test_exponential_step_and_multistep(total: int, max_lr: float, gamma: float, size: int) -> None:
    agrees({"name": "exponential", "total_steps": total, "max_lr": max_lr, "gamma": gamma})
    agrees({"name": "step", "total_steps": total, "max_lr": max_lr, "step_size": size, "gamma": gamma})
    milestones = [size, 2 * size, 2 * size, 5 * size]
    agrees({"name": "multistep", "total_steps": total, "max_lr": max_lr, "milestones": milestones, "gamma": gamma})


def test_constant() -> None:
    agrees({"name": "constant", "total_steps": 50, "lr": 3e-4})


@given(
    total=lengths,
    at=st.floats(0.0, 0.95),
    lr=st.floats(1e-6, 3e-3),
    then=st.sampled_from(["anneal", "hold", "scale"]),
)
@settings(max_examples=60, deadline=None)
def test_a_manual_schedule_is_its_base_before_and_the_chosen_lr_from_there(
    total: int, at: float, lr: float, then: Any
) -> None:
    base = parse({"name": "cosine", "total_steps": total, "max_lr": 3e-3, "final_lr": 3e-6})
    start = int(at * total)
    if then == "scale" and float(base.rate(start)) < 10 * final_rate(base):
        return
    manual = resumed(base, start, lr, then)
    p = np.arange(total)
    ours = manual.rate(p)
    assert np.array_equal(ours[:start], base.rate(p)[:start])
    assert ours[start] == pytest.approx(lr, rel=1e-12)
    if then == "hold":
        assert (ours[start:] == lr).all()
    elif then == "scale":
        ratio = ours[start:] / base.rate(p)[start:]
        assert ratio == pytest.approx(np.full(total - start, ratio[0]), rel=1e-9)
    elif start < total - 1:
        assert ours[-1] == pytest.approx(min(final_rate(base), lr), rel=1e-9)
        assert (np.diff(ours[start:]) <= 1e-18).all()


def test_overrides_fold_in_order_and_a_rejoin_goes_back_to_the_declared_schedule() -> None:
    base = parse({"name": "one_cycle", "total_steps": 1000, "max_lr": 3e-3})
    first = {"from_step": 100, "lr": 1e-3, "then": "hold"}
    second = {"from_step": 200, "lr": 5e-4, "then": "anneal"}
    assert float(effective(base, [first], 100).rate(150)) == 1e-3
    assert float(effective(base, [first, second], 100).rate(200)) == pytest.approx(5e-4)
    assert effective(base, [first, second, {"from_step": 300}], 100) == base


def test_initial_and_peak_are_what_torch_begins_with_and_reaches() -> None:
    schedule = parse({"name": "one_cycle", "total_steps": 500, "max_lr": 3e-3, "pct_start": 0.3})
    theirs = torch_rates(schedule, 500)
    assert initial_rate(schedule) == theirs[0]
    assert peak_rate(schedule) == pytest.approx(theirs.max(), rel=1e-3)
