"""Laws found from rates alone: what is found reproduces every record and goes on as the schedule does."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from eegwatch.diagnosis.rate.precision import Precision
from eegwatch.schedule import parse
from eegwatch.schedule.inference import Known, Law, Records, cells, find
from eegwatch.schedule.inference.short_decimals import digits, roundest, shortest

Rates = NDArray[np.float64]
M = {"max_lr": 1.5e-3}


def records_of(steps: NDArray[np.int64], rates: Rates, printed: int | None = None) -> Records:
    values = rates if printed is None else np.array([float(f"{r:.{printed - 1}e}") for r in rates])
    precision = Precision()
    precision.learn(values)
    low, high = cells(values, *precision.cell(values))
    return Records(steps, values, low, high)


def law_of(
    declared: dict[str, Any], steps: int, every: int = 1, printed: int | None = None, lag: int = 0, per_epoch: int = 1
) -> Law | None:
    n = np.arange(every, steps + 1, every)
    return find(records_of(n, parse(declared).rate((n - 1 + lag) // per_epoch), printed))


WARM = {"warmup_steps": 100, "initial_lr": 0.0}
SCHEDULES: dict[str, dict[str, Any]] = {
    "linear": {"name": "linear", **M},
    "linear, warm-up": {"name": "linear", **M, **WARM},
    "cosine": {"name": "cosine", **M},
    "cosine, warm-up": {"name": "cosine", **M, **WARM},
    "cosine, warm-up from a rate, a floor": {"name": "cosine", **M, "final_lr": 1e-5, "warmup_steps": 100, "initial_lr": 1e-6},
    "polynomial": {"name": "polynomial", **M, "power": 2.0},
    "polynomial, warm-up": {"name": "polynomial", **M, "power": 0.9, **WARM},
    "exponential": {"name": "exponential", **M, "gamma": 0.999},
    "inverse square root": {"name": "inverse_sqrt", **M, **WARM},
    "one-cycle": {"name": "one_cycle", **M, "pct_start": 0.3},
    "restarts": {"name": "cosine_restarts", **M, "T_0": 400, "T_mult": 2},
    "restarts, warm-up": {"name": "cosine_restarts", **M, "T_0": 400, **WARM},
    "triangles": {"name": "cyclic", **M, "base_lr": 3e-4, "step_size_up": 250, "step_size_down": 250},
    "stable, then down": {"name": "warmup_stable_decay", **M, "decay_steps": 500, "decay_type": "1-sqrt", **WARM},
    "a cosine below the warm-up": {"name": "cosine", **M, "warmup_steps": 100, "initial_lr": 1.5e-6, "warmup_mode": "join"},
    "mmcv's warm-up": {"name": "cosine", **M, "warmup_steps": 100, "initial_lr": 1.5e-6, "warmup_mode": "multiply"},
    "YOLO's warm-up": {"name": "linear", **M, "final_lr": 0.0, "warmup_steps": 100, "initial_lr": 1e-4, "warmup_mode": "blend"},
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("every", [1, 10, 25])
@pytest.mark.parametrize("lag", [0, 1])
def test_exact_rates_tell_their_law(name: str, every: int, lag: int) -> None:
    declared = SCHEDULES[name] | {"total_steps": 2000}
    law = law_of(declared, 1990, every, lag=lag)
    assert law is not None and law.name == declared["name"]
    ahead = np.arange(1, 2000)
    assert law.rate(ahead) == pytest.approx(parse(declared).rate(ahead - 1 + lag), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", ["linear, warm-up", "cosine", "cosine, warm-up", "polynomial, warm-up", "exponential"])
@pytest.mark.parametrize("printed", [4, 6])
def test_few_digits_tell_it_too_when_enough_of_it_was_seen(name: str, printed: int) -> None:
    declared = SCHEDULES[name] | {"total_steps": 2000}
    law = law_of(declared, 1990, 10, printed)
    assert law is not None and law.name == declared["name"]
    if law.ends is not None:
        assert law.ends[0] - 1 <= 2000 <= law.ends[1] + 1


@pytest.mark.parametrize("every", [1, 50])
def test_a_schedule_that_moves_once_an_epoch(every: int) -> None:
    declared = {"name": "cosine", "total_steps": 30, "max_lr": 1e-3, "final_lr": 1e-5}
    law = law_of(declared, 30 * 390, every, per_epoch=390)
    assert law is not None and (law.name, law.steps_per_epoch, law.schedule.total_steps) == ("cosine", 390, 30)


def test_a_hold_a_rise_and_steps_decide_no_law() -> None:
    for declared in (
        {"name": "constant", "lr": 1e-3, **WARM},
        {"name": "linear", **M, "warmup_steps": 2000},
        {"name": "multistep", **M, "milestones": [400, 900, 1500]},
    ):
        assert law_of(declared | {"total_steps": 2000}, 2000) is None


def test_rates_of_no_family_decide_none() -> None:
    x, rng = np.arange(3000) / 3000, np.random.default_rng(0)
    n = np.arange(1, 3001)
    for y in (
        1e-3 / (1 + 7 * x),
        1e-3 / (1 + np.exp(8 * (x - 0.5))),
        1e-3 * np.exp(np.cumsum(rng.normal(0, 0.01, 3000))),
        1e-3 * np.exp(-np.cumsum(rng.exponential(1e-3, 3000))),
    ):
        for printed in (None, 3, 6):
            assert find(records_of(n[::10], y[::10], printed)) is None


def test_skipped_steps_are_part_of_the_law() -> None:
    """fp16: accelerate does not step the scheduler where the scaler skipped the optimizer."""
    n = np.arange(10, 3001, 10)
    skipped = np.searchsorted([4, 8, 1200, 2210], n, side="right")
    rates = parse({"name": "cosine", "total_steps": 3000, "max_lr": 1e-4, "warmup_steps": 300}).rate(n - skipped)
    law = find(records_of(n, rates), Known(3000))
    assert law is not None and law.name == "cosine" and len(law.skips) in (3, 4)
    assert law.rate(n) == pytest.approx(rates, rel=1e-9)
    assert 1200 in law.skips and 2210 in law.skips


def test_an_open_length_is_an_interval() -> None:
    declared = {"name": "linear", "total_steps": 10_000, "max_lr": 3e-4}
    law = law_of(declared, 4000, 100, printed=4)
    assert law is not None and law.ends is not None and law.total_steps is None
    least, most = law.as_dict()["total_steps"]
    assert least <= 10_000 <= most


def test_numbers_are_those_that_a_person_writes() -> None:
    assert shortest(2.9951e-4, 3.0049e-4) == [3e-4]
    assert shortest(-1e-9, 1e-9) == [0.0] and shortest(2.0, 1.0) == []
    assert shortest(-math.inf, 1.0) == shortest(0.5, math.inf) == shortest(0.5, math.nan) == []
    assert 0.00125 in shortest(0.0012499, 0.0012501)
    assert digits(3e-4) == 1 and digits(1.5e-3) == 2 and digits(1 / 3) > 8
    assert roundest(9_812, 10_140) == 10_000 and roundest(1.2, 1.9) is None
