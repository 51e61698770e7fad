"""Every family against the scheduler it is named after: torch's, transformers', and the published formulas of others."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler as S

from eegwatch.schedule import as_dict, final_rate, initial_rate, parse, peak_rate

EXACT = 1e-14  # of the peak, for schedulers with a closed form of their own
DRIFTS = 1e-12  # of the peak, for those that torch computes by recursion

lengths = st.integers(20, 1500)
rates = st.floats(1e-5, 1.0)


def used(make: Callable[[torch.optim.Optimizer], Any], steps: int, lr: float) -> np.ndarray[Any, Any]:
    """The rates of `steps` real optimizer steps under the scheduler that `make` builds."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    seen = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = make(optimizer)
        for _ in range(steps):
            seen.append(float(optimizer.param_groups[0]["lr"]))
            optimizer.step()
            scheduler.step()
    return np.array(seen)


def agrees(declared: dict[str, Any], theirs: np.ndarray[Any, Any], within: float = EXACT) -> None:
    schedule = parse(declared)
    ours = schedule.rate(np.arange(len(theirs)))
    assert np.abs(ours - theirs).max() <= within * np.abs(theirs).max()
    again = parse(as_dict(schedule))
    assert np.array_equal(again.rate(np.arange(len(theirs))), ours)
    assert initial_rate(schedule) == pytest.approx(ours[0], rel=1e-14)  # one at a time, numpy rounds pow() otherwise
    if len(theirs) >= schedule.total_steps:
        assert final_rate(schedule) == pytest.approx(ours[schedule.total_steps - 1], rel=1e-14)
    assert peak_rate(schedule) >= ours[: schedule.total_steps].max() * (1 - 1e-9)


# ---- transformers ----------------------------------------------------------------------------------------------------


def transformers(name: str, **given: Any) -> Callable[[Any], Any]:
    def make(optimizer: Any) -> Any:
        from transformers import optimization

        return getattr(optimization, name)(optimizer, **given)

    return make


@given(total=lengths, share=st.floats(0, 0.5), lr=rates, cycles=st.sampled_from([0.5, 1.0, 1.5, 0.25, 2.3]))
@settings(max_examples=25, deadline=None)
def test_transformers_cosine_its_waves_and_its_floor(total: int, share: float, lr: float, cycles: float) -> None:
    warm = int(share * total)
    given = {"num_warmup_steps": warm, "num_training_steps": total, "num_cycles": cycles}
    ours = {"name": "cosine", "total_steps": total, "max_lr": lr, "warmup_steps": warm, "past_end": "rise"}
    ours["cycles"] = cycles
    agrees(ours, used(transformers("get_cosine_schedule_with_warmup", **given), total + 30, lr))
    make = transformers("get_cosine_with_min_lr_schedule_with_warmup", **given, min_lr_rate=0.1)
    agrees(ours | {"final_lr": lr * 0.1}, used(make, total + 30, lr))


@given(total=lengths, share=st.floats(0, 0.5), lr=rates, restarts=st.integers(1, 7))
@settings(max_examples=25, deadline=None)
def test_transformers_hard_restarts_fall_on_the_same_steps(total: int, share: float, lr: float, restarts: int) -> None:
    warm = int(share * total)
    given = {"num_warmup_steps": warm, "num_training_steps": total, "num_cycles": restarts}
    ours = {"name": "cosine", "total_steps": total, "max_lr": lr, "warmup_steps": warm, "restarts": restarts}
    agrees(ours, used(transformers("get_cosine_with_hard_restarts_schedule_with_warmup", **given), total + 30, lr))


@given(total=lengths, share=st.floats(0, 0.9), lr=rates, power=st.floats(0.5, 3), end=st.floats(0, 0.5))
@settings(max_examples=25, deadline=None)
def test_transformers_polynomial(total: int, share: float, lr: float, power: float, end: float) -> None:
    warm = min(int(share * total), total - 1)
    given = {"num_warmup_steps": warm, "num_training_steps": total, "lr_end": end * lr, "power": power}
    ours = {"name": "polynomial", "total_steps": total, "max_lr": lr, "warmup_steps": warm}
    ours |= {"final_lr": end * lr, "power": power}
    agrees(ours, used(transformers("get_polynomial_decay_schedule_with_warmup", **given), total + 30, lr))


@given(total=lengths, warm=st.integers(0, 400), lr=rates, timescale=st.sampled_from([None, 50, 3000]))
@settings(max_examples=25, deadline=None)
def test_transformers_inverse_sqrt(total: int, warm: int, lr: float, timescale: int | None) -> None:
    make = transformers("get_inverse_sqrt_schedule", num_warmup_steps=warm, timescale=timescale)
    ours = {"name": "inverse_sqrt", "total_steps": total, "max_lr": lr, "warmup_steps": warm, "timescale": timescale}
    agrees(ours, used(make, total, lr))


@given(
    warm=st.integers(0, 100),
    stable=st.integers(0, 200),
    decay=st.integers(1, 300),
    lr=rates,
    floor=st.floats(0, 0.5),
    up=st.sampled_from(["linear", "cosine", "1-sqrt"]),
    down=st.sampled_from(["linear", "cosine", "1-sqrt"]),
)
@settings(max_examples=40, deadline=None)
def test_transformers_warmup_stable_decay(
    warm: int, stable: int, decay: int, lr: float, floor: float, up: str, down: str
) -> None:
    make = transformers(
        "get_wsd_schedule", num_warmup_steps=warm, num_stable_steps=stable, num_decay_steps=decay,
        warmup_type=up, decay_type=down, min_lr_ratio=floor,
    )  # fmt: skip
    ours = {"name": "warmup_stable_decay", "total_steps": warm + stable + decay, "max_lr": lr, "final_lr": floor * lr}
    ours |= {"warmup_steps": warm, "initial_lr": floor * lr, "warmup_type": up, "decay_type": down}
    agrees(ours | {"decay_steps": decay, "stable_steps": stable}, used(make, warm + stable + decay + 20, lr))
    agrees(ours | {"decay_steps": decay}, used(make, warm + stable + decay + 20, lr))  # the hold is what is left


# ---- torch -----------------------------------------------------------------------------------------------------------


@given(period=st.integers(2, 200), lr=rates, floor=st.floats(0, 0.5))
@settings(max_examples=25, deadline=None)
def test_torchs_cosine_rises_again_past_its_t_max(period: int, lr: float, floor: float) -> None:
    theirs = used(lambda o: S.CosineAnnealingLR(o, period, eta_min=floor * lr), 5 * period + 3, lr)
    ours = {"name": "cosine", "total_steps": len(theirs), "max_lr": lr, "final_lr": floor * lr, "past_end": "rise"}
    # just above the floor the recursion divides by 1 + cos(pi (T - 1) / T), about (pi / T)^2 / 2
    agrees(ours | {"decay_steps": period}, theirs, within=1e-10)


@given(total=lengths, begin=st.floats(0.01, 1), end=st.floats(0, 1), length=st.integers(1, 300), lr=rates)
@settings(max_examples=25, deadline=None)
def test_linear_of_any_factors_is_held_after_its_end(
    total: int, begin: float, end: float, length: int, lr: float
) -> None:
    theirs = used(lambda o: S.LinearLR(o, begin, end, total_iters=length), total, lr)
    ours = {"name": "linear", "total_steps": total, "max_lr": lr * begin, "final_lr": lr * end}
    agrees(ours | {"decay_steps": length}, theirs, within=DRIFTS)


@given(total=lengths, factor=st.floats(0.01, 1), length=st.integers(1, 100), lr=rates)
@settings(max_examples=20, deadline=None)
def test_constant_with_a_factor(total: int, factor: float, length: int, lr: float) -> None:
    theirs = used(lambda o: S.ConstantLR(o, factor, total_iters=length), total, lr)
    ours = {"name": "constant", "total_steps": total, "lr": lr, "warmup_steps": length, "initial_lr": lr * factor}
    agrees(ours | {"warmup_type": "constant"}, theirs)


@given(
    base=st.floats(1e-5, 1e-3),
    lift=st.floats(1.5, 100),
    up=st.integers(1, 60),
    down=st.none() | st.integers(1, 90),
    mode=st.sampled_from(["triangular", "triangular2", "exp_range"]),
    gamma=st.floats(0.99, 1.0),
)
@settings(max_examples=40, deadline=None)
def test_cyclic(base: float, lift: float, up: int, down: int | None, mode: Any, gamma: float) -> None:
    theirs = used(
        lambda o: S.CyclicLR(o, base, base * lift, up, down, mode=mode, gamma=gamma, cycle_momentum=False), 700, base
    )
    ours = {"name": "cyclic", "total_steps": 700, "base_lr": base, "max_lr": base * lift, "mode": mode, "gamma": gamma}
    agrees(ours | {"step_size_up": up, "step_size_down": down}, theirs)


@pytest.mark.parametrize("milestones", [(1, 2), (30, 90), (1, 400)])
def test_a_sequence_counts_each_schedule_from_its_milestone(milestones: tuple[int, int]) -> None:
    lr = 3e-3

    def make(o: Any) -> Any:
        parts = [S.LinearLR(o, 0.1, total_iters=30), S.ConstantLR(o, 1.0), S.CosineAnnealingLR(o, 200, 1e-6)]
        return S.SequentialLR(o, parts, milestones=list(milestones))

    parts = [
        {"name": "linear", "total_steps": 30, "max_lr": lr * 0.1, "final_lr": lr, "decay_steps": 30},
        {"name": "constant", "total_steps": 100, "lr": lr},
        {"name": "cosine", "total_steps": 200, "max_lr": lr, "final_lr": 1e-6, "past_end": "rise"},
    ]
    ours = {"name": "sequence", "total_steps": 600, "schedules": parts, "milestones": list(milestones)}
    agrees(ours, used(make, 600, lr), within=1e-9)


def test_a_product_multiplies_its_factors() -> None:
    def make(o: Any) -> Any:
        return S.ChainedScheduler([S.LinearLR(o, 0.1, total_iters=40), S.ExponentialLR(o, 0.99), S.StepLR(o, 50, 0.5)])

    factors = [
        {"name": "linear", "total_steps": 40, "max_lr": 0.1, "final_lr": 1, "decay_steps": 40},
        {"name": "exponential", "total_steps": 300, "max_lr": 1, "gamma": 0.99},
        {"name": "step", "total_steps": 300, "max_lr": 1, "step_size": 50, "gamma": 0.5},
    ]
    agrees({"name": "product", "total_steps": 300, "lr": 0.02, "factors": factors}, used(make, 300, 0.02), DRIFTS)


# ---- others, by their published formulas -----------------------------------------------------------------------------


def test_fairseqs_inverse_sqrt_with_a_warm_up_from_above_zero() -> None:
    lr, init, W = 5e-4, 1e-7, 400
    step = (lr - init) / W
    theirs = np.array([init + p * step if p < W else lr * W**0.5 * p**-0.5 for p in range(3000)])
    ours = {"name": "inverse_sqrt", "total_steps": 3000, "max_lr": lr, "warmup_steps": W, "initial_lr": init}
    agrees(ours, theirs)


@pytest.mark.parametrize("kind", ["constant", "linear", "exp"])
def test_mmcvs_warm_ups_multiply_the_running_schedule(kind: str) -> None:
    """mmcv's LrUpdaterHook.get_warmup_lr over its StepLrUpdaterHook and CosineAnnealingLrUpdaterHook."""
    base, W, ratio, total = 0.02, 50, 1e-3, 300
    running = {
        "multistep": [base * 0.1 ** sum(p >= m for m in (30, 200)) for p in range(total)],
        "cosine": [base * 0.5 * (math.cos(math.pi * p / total) + 1) for p in range(total)],
    }
    factor = {
        "constant": lambda _: ratio,
        "linear": lambda p: 1 - (1 - p / W) * (1 - ratio),
        "exp": lambda p: ratio ** (1 - p / W),
    }[kind]
    warm = {"warmup_steps": W, "initial_lr": base * ratio, "warmup_mode": "multiply"}
    warm["warmup_type"] = {"exp": "exponential"}.get(kind, kind)
    for name, curve in running.items():
        theirs = np.array([r * factor(p) if p < W else r for p, r in enumerate(curve)])
        more = {"milestones": [30, 200]} if name == "multistep" else {}
        agrees({"name": name, "total_steps": total, "max_lr": base} | warm | more, theirs)


def test_detectron2s_warm_up_leads_to_where_the_schedule_then_is() -> None:
    """WarmupParamScheduler(CosineParamScheduler(1, 0)): start = factor * s(0), end = s(W)."""
    base, W, total = 0.1, 100, 1000
    curve = [base * 0.5 * (1 + math.cos(math.pi * p / total)) for p in range(total)]
    start, end = 0.001 * base, curve[W]
    theirs = np.array([start * (1 - p / W) + end * p / W if p < W else curve[p] for p in range(total)])
    warm = {"warmup_steps": W, "initial_lr": start, "warmup_mode": "join"}
    agrees({"name": "cosine", "total_steps": total, "max_lr": base} | warm, theirs)


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_yolos_warm_up_counts_batches_and_its_schedule_epochs(shape: str) -> None:
    lr0, lrf, epochs, nb = 0.01, 0.01, 20, 37
    nw = max(3 * nb, 100)
    if shape == "linear":
        lf = lambda x: max(1 - x / epochs, 0) * (1.0 - lrf) + lrf  # noqa: E731
    else:
        lf = lambda x: max((1 - math.cos(x * math.pi / epochs)) / 2, 0) * (lrf - 1) + 1  # noqa: E731
    theirs = []
    for ni in range(epochs * nb):
        rate = lr0 * lf(ni // nb)
        theirs.append(float(np.interp(ni, [0, nw], [0.0, rate])) if ni <= nw else rate)
    inner = {"name": shape, "total_steps": epochs, "max_lr": lr0, "final_lr": lr0 * lrf}
    ours = {"name": "paced", "total_steps": epochs * nb, "of": inner, "every": nb}
    agrees(ours | {"warmup_steps": nw, "warmup_mode": "blend"}, np.array(theirs))


def test_the_mean_over_an_epoch_of_a_rate_that_moves_per_step() -> None:
    """MAE's lr_sched: half a cosine over fractional epochs after a linear warm-up; its log keeps the epoch's mean."""
    lr, low, warm, epochs, B = 1.5e-4, 1e-6, 4, 20, 53
    means = []
    for e in range(epochs):
        here = []
        for i in range(B):
            at = i / B + e
            fall = low + (lr - low) * 0.5 * (1.0 + math.cos(math.pi * (at - warm) / (epochs - warm)))
            here.append(lr * at / warm if at < warm else fall)
        means.append(sum(here) / B)
    of = {"name": "cosine", "total_steps": epochs * B, "max_lr": lr, "final_lr": low, "warmup_steps": warm * B}
    agrees({"name": "epoch_mean", "total_steps": epochs, "of": of, "steps_per_epoch": B}, np.array(means), 1e-13)


def test_a_scheduler_stepped_in_each_of_four_processes_or_every_twentieth_step() -> None:
    cosine = {"name": "cosine", "total_steps": 400, "max_lr": 1.0}
    four = parse({"name": "paced", "total_steps": 100, "of": cosine, "steps": 4})
    assert np.array_equal(four.rate(np.arange(100)), parse(cosine).rate(np.arange(0, 400, 4)))
    slow = parse({"name": "paced", "total_steps": 8000, "of": cosine, "every": 20})
    assert np.array_equal(slow.rate(np.arange(8000)), parse(cosine).rate(np.arange(8000) // 20))


def test_a_frozen_group_has_a_law_of_zero() -> None:
    for declared in (
        {"name": "cosine", "total_steps": 50, "max_lr": 0.0, "warmup_steps": 5},
        {"name": "cosine", "total_steps": 50, "max_lr": 0.0, "warmup_steps": 5, "warmup_mode": "multiply"},
        {"name": "one_cycle", "total_steps": 50, "max_lr": 0.0},
        {"name": "constant", "total_steps": 50, "lr": 0.0},
        {"name": "exponential", "total_steps": 50, "max_lr": 0.0, "gamma": 0.9},
    ):
        schedule = parse(declared)
        assert not schedule.rate(np.arange(60)).any()
        assert peak_rate(schedule) == final_rate(schedule) == initial_rate(schedule) == 0.0


def test_the_peak_of_what_grows_is_where_it_ends() -> None:
    grows = parse({"name": "exponential", "total_steps": 100, "max_lr": 1e-3, "gamma": 1.01})
    assert peak_rate(grows) == final_rate(grows) > 2.6e-3
    assert peak_rate(parse({"name": "linear", "total_steps": 100, "max_lr": 1e-3, "final_lr": 5e-3})) == 5e-3


@pytest.mark.parametrize("wave", [1, 2])
def test_phases_cover_the_run_without_gaps(wave: int) -> None:
    one = {"name": "cosine", "total_steps": 90, "max_lr": 1.0, "warmup_steps": 10, "decay_steps": 40}
    two = {"name": "warmup_stable_decay", "total_steps": 90, "max_lr": 1.0, "warmup_steps": 10, "decay_steps": 20}
    parts = {"name": "sequence", "total_steps": 180, "schedules": [one, two][:2], "milestones": [90]}
    for declared in (one, two, parts, {"name": "paced", "total_steps": 180, "of": one, "every": 2}):
        bands = parse(declared).phases()
        assert bands[0][1] == 0.0 and bands[-1][2] == declared["total_steps"]
        assert all(a[2] == b[1] for a, b in pairwise(bands))


def test_a_frequency_that_is_counted_anew_in_each_epoch() -> None:
    step = {"name": "step", "total_steps": 100, "max_lr": 1.0, "step_size": 1, "gamma": 0.5}
    law = parse({"name": "paced", "total_steps": 36, "of": step, "every": 10, "within": 12})
    moves = np.cumsum([0.0] + [(n % 12 + 1) % 10 == 0 for n in range(35)])  # after batches 10, 22 and 34
    assert np.array_equal(law.rate(np.arange(36)), 0.5**moves)


def test_tanh_is_the_formula_of_timm() -> None:
    """timm/scheduler/tanh_lr.py: lr_min + 0.5 (lr_max - lr_min) (1 - tanh(lb (1 - tr) + ub tr)), tr = t / t_initial."""
    law = parse({"name": "tanh", "total_steps": 40, "max_lr": 0.1, "final_lr": 0.01, "lower": -7.0, "upper": 3.0})
    expected = [0.01 + 0.5 * 0.09 * (1.0 - math.tanh(-7.0 * (1.0 - t / 40) + 3.0 * t / 40)) for t in range(40)]
    assert law.rate(range(40)) == pytest.approx(expected, rel=1e-12)
    assert expected[0] == pytest.approx(0.1, rel=1e-5)
