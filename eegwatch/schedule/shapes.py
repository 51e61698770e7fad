"""Learning-rate curves as pure functions: position p (from 0, any shape) -> rate, float64.

Step n of a run uses position n - 1. Each function names the torch class whose rate it equals; the closed forms
agree with torch's schedulers to 1e-14 of the peak (torch computes some of them by recursion, which drifts).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Rates = NDArray[np.float64]


def _cos(start: float, end: float, fraction: Rates) -> Rates:
    """torch's OneCycleLR._annealing_cos, in its order of operations, so that the result is the same to the bit."""
    return end + (start - end) / 2.0 * (np.cos(np.pi * fraction) + 1)


def _linear(start: float, end: float, fraction: Rates) -> Rates:
    """torch's OneCycleLR._annealing_linear."""
    return (end - start) * fraction + start


def _anneal(strategy: str, start: float, end: float, fraction: Rates) -> Rates:
    return _cos(start, end, fraction) if strategy == "cos" else _linear(start, end, fraction)


def one_cycle(
    position: ArrayLike,
    *,
    total_steps: float,
    max_lr: float,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    anneal_strategy: str = "cos",
    three_phase: bool = False,
) -> Rates:
    """torch `OneCycleLR`. `final_div_factor` divides the *initial* rate: the floor is max_lr / div / final_div.

    Torch allows one step too many (p = T), where a cosine turns up again, and raises after it: beyond T the
    value at T is held.
    """
    p = np.minimum(np.asarray(position, np.float64), total_steps)
    initial = max_lr / div_factor
    floor = initial / final_div_factor
    if three_phase:
        first = float(pct_start * total_steps) - 1
        phases = [
            (first, initial, max_lr),
            (float(2 * pct_start * total_steps) - 2, max_lr, initial),
            (total_steps - 1, initial, floor),
        ]
    else:
        phases = [(float(pct_start * total_steps) - 1, initial, max_lr), (total_steps - 1, max_lr, floor)]
    rate = np.empty_like(p)
    start = 0.0
    for number, (end, low, high) in enumerate(phases):
        span = end - start
        # pct_start 0 (or a run of one step) leaves a phase without length: torch never evaluates it before its end.
        fraction = (p - start) / span if span else np.ones_like(p)
        here = p > start if number else np.ones(p.shape, bool)
        rate = np.where(here, _anneal(anneal_strategy, low, high, fraction), rate)
        start = end
    return rate


def warm_up(position: Rates, curve: Rates, *, warmup_steps: float, initial_lr: float, max_lr: float) -> Rates:
    """`curve`, with a straight line initial -> max over the first `warmup_steps` in its place."""
    if warmup_steps <= 0:
        return curve
    return np.where(position < warmup_steps, initial_lr + (max_lr - initial_lr) * position / warmup_steps, curve)


def warmup_hold_anneal(
    position: ArrayLike,
    *,
    total_steps: float,
    initial_lr: float,
    max_lr: float,
    final_lr: float,
    warmup: float = 0.1,
    hold_until: float = 0.5,
    anneal_strategy: str = "cos",
) -> Rates:
    """initial -> max over p <= W, max for W < p <= H, max -> final over H < p <= T - 1 (the mission's three bands)."""
    p = np.minimum(np.asarray(position, np.float64), total_steps - 1)
    rise_end, hold_end = warmup * total_steps, hold_until * total_steps
    rising = _anneal(anneal_strategy, initial_lr, max_lr, p / rise_end) if rise_end else np.full_like(p, max_lr)
    falling = _anneal(anneal_strategy, max_lr, final_lr, (p - hold_end) / max(total_steps - 1 - hold_end, 1e-300))
    return np.where(p <= rise_end, rising, np.where(p <= hold_end, max_lr, falling))


def cosine(
    position: ArrayLike,
    *,
    total_steps: float,
    max_lr: float,
    final_lr: float = 0.0,
    warmup_steps: float = 0,
    initial_lr: float = 0.0,
) -> Rates:
    """Linear warm-up, then torch `CosineAnnealingLR(T_max = T - warmup_steps, eta_min = final_lr)`.

    Past the end the floor is held (torch's cosine would rise again).
    """
    p = np.asarray(position, np.float64)
    span = total_steps - warmup_steps
    fraction = np.clip((p - warmup_steps) / span, 0, 1) if span else np.ones_like(p)
    curve = final_lr + (max_lr - final_lr) * (1 + np.cos(np.pi * fraction)) / 2
    return warm_up(p, curve, warmup_steps=warmup_steps, initial_lr=initial_lr, max_lr=max_lr)


def linear(
    position: ArrayLike,
    *,
    total_steps: float,
    max_lr: float,
    final_lr: float = 0.0,
    warmup_steps: float = 0,
    initial_lr: float = 0.0,
) -> Rates:
    """Linear warm-up, then a straight line to `final_lr` at p = T (torch `LinearLR(1, final/max, T - warmup)`)."""
    p = np.asarray(position, np.float64)
    span = total_steps - warmup_steps
    fraction = np.clip((p - warmup_steps) / span, 0, 1) if span else np.ones_like(p)
    curve = max_lr + (final_lr - max_lr) * fraction
    return warm_up(p, curve, warmup_steps=warmup_steps, initial_lr=initial_lr, max_lr=max_lr)


def cosine_restarts(position: ArrayLike, *, max_lr: float, final_lr: float = 0.0, T_0: int, T_mult: int = 1) -> Rates:
    """torch `CosineAnnealingWarmRestarts`: cycles of T_0, T_0 * T_mult, T_0 * T_mult^2, … positions."""
    p = np.asarray(position, np.float64)
    if T_mult == 1:
        within, length = p % T_0, np.full_like(p, T_0)
    else:
        # torch: n = int(log(p / T_0 * (T_mult - 1) + 1, T_mult)); the correction guards the rounding of that log
        cycle = np.floor(np.log(p / T_0 * (T_mult - 1) + 1) / np.log(T_mult))
        begin = T_0 * (T_mult**cycle - 1) / (T_mult - 1)
        after = T_0 * (T_mult ** (cycle + 1) - 1) / (T_mult - 1)
        cycle = np.where(p >= after, cycle + 1, np.where(p < begin, cycle - 1, cycle))
        within = p - T_0 * (T_mult**cycle - 1) / (T_mult - 1)
        length = T_0 * T_mult**cycle
    return final_lr + (max_lr - final_lr) * (1 + np.cos(np.pi * within / length)) / 2


def polynomial(position: ArrayLike, *, total_steps: float, max_lr: float, power: float = 1.0) -> Rates:
    """torch `PolynomialLR(total_iters = T)`; zero from T on."""
    p = np.asarray(position, np.float64)
    return max_lr * (1.0 - np.minimum(p, total_steps) / total_steps) ** power


def exponential(position: ArrayLike, *, max_lr: float, gamma: float) -> Rates:
    """torch `ExponentialLR`."""
    return max_lr * np.power(float(gamma), np.asarray(position, np.float64))


def step(position: ArrayLike, *, max_lr: float, step_size: int, gamma: float = 0.1) -> Rates:
    """torch `StepLR`."""
    return max_lr * np.power(float(gamma), np.floor(np.asarray(position, np.float64) / step_size))


def multistep(position: ArrayLike, *, max_lr: float, milestones: Sequence[int], gamma: float = 0.1) -> Rates:
    """torch `MultiStepLR`: one factor gamma at every milestone reached (a milestone named twice counts twice)."""
    p = np.asarray(position, np.float64)
    passed = np.searchsorted(np.sort(np.asarray(milestones, np.float64)), p, side="right")
    return max_lr * np.power(float(gamma), passed)


def constant(position: ArrayLike, *, lr: float, warmup_steps: float = 0, initial_lr: float = 0.0) -> Rates:
    """Linear warm-up, then `lr`."""
    p = np.asarray(position, np.float64)
    return warm_up(p, np.full_like(p, lr), warmup_steps=warmup_steps, initial_lr=initial_lr, max_lr=lr)


def half_cosine(position: ArrayLike, *, from_step: float, total_steps: float, lr: float, final_lr: float) -> Rates:
    """`lr` at p = from_step, down half a cosine to `final_lr` at p = T - 1 (the `anneal` of a manual resume)."""
    p = np.asarray(position, np.float64)
    span = total_steps - 1 - from_step
    fraction = np.clip((p - from_step) / span, 0, 1) if span > 0 else np.zeros_like(p)
    return _cos(lr, final_lr, fraction)
