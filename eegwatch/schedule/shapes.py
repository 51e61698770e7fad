"""Learning-rate curves as pure functions: position p (from 0, any shape) -> rate, float64.

Step n of a run uses position n - 1. Each function names the torch class whose rate it equals; the closed forms
agree with torch's schedulers to 1e-14 of the peak (torch computes some of them by recursion, which drifts).
`q` counts from the warm-up's end (families.py puts the two together).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Rates = NDArray[np.float64]
WarmupType = Literal["linear", "constant", "exponential", "cosine", "1-sqrt"]


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
    rate, later = p, np.zeros(p.shape, bool)
    for number, (end, low, high) in reversed(list(enumerate(phases))):  # most often all positions lie in one phase
        start = phases[number - 1][0] if number else 0.0
        inside = p > start if number else np.ones(p.shape, bool)
        if number and not inside.any():
            continue
        span = end - start
        # pct_start 0 (or a run of one step) leaves a phase without length: torch never evaluates it before its end.
        fraction = (p - start) / span if span else np.ones_like(p)
        rate = np.where(later, rate, _anneal(anneal_strategy, low, high, fraction))
        if inside.all():
            break
        later = later | inside
    return rate


def rise(x: Rates, start: float, end: float | Rates, kind: WarmupType = "linear") -> Rates:
    """The way from `start` to `end` as x goes from 0 to 1, in one of the shapes that warm-ups have."""
    if kind == "constant":
        return np.where(x < 1, start, end)
    if kind == "exponential":  # mmcv's "exp": geometric in between; from 0 there is no such way
        return (
            np.asarray(end * np.power(start / end, 1.0 - x)) if start and np.all(end) else np.where(x < 1, start, end)
        )
    if kind == "cosine":
        x = 0.5 * (1.0 - np.cos(np.pi * x))
    elif kind == "1-sqrt":
        x = 1.0 - np.sqrt(1.0 - x)
    return start + (end - start) * x


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


def fraction_of(q: Rates, length: float) -> Rates:
    """The completed fraction of a decay of `length` positions, from 0 to 1; 1 if the length is 0."""
    return np.minimum(q / length, 1.0) if length > 0 else np.ones_like(q)


def cosine(
    q: Rates,
    length: float,
    *,
    max_lr: float,
    final_lr: float,
    cycles: float = 0.5,
    restarts: float = 0,
    rises: bool = False,
) -> Rates:
    """torch `CosineAnnealingLR`; `cycles` and `restarts` are transformers' num_cycles (waves, hard restarts).

    Past the end the floor is held, or with `rises` the cosine goes on, as torch's and transformers' do. transformers
    never goes below 0.
    """
    if length <= 0:
        return np.full_like(q, final_lr)
    done = q / length if rises else np.minimum(q / length, 1.0)
    if restarts:  # in transformers' order of operations: a restart falls on the same position to the bit
        wave = np.where(done >= 1.0, 1.0, (restarts * done) % 1.0)
    else:
        wave = 2.0 * cycles * done
    return final_lr + (max_lr - final_lr) * (1 + np.cos(np.pi * wave)) / 2


def linear(q: Rates, length: float, *, max_lr: float, final_lr: float) -> Rates:
    """A straight line to `final_lr` at q = length, held from there: torch `LinearLR(1, final/max, length)`."""
    return max_lr + (final_lr - max_lr) * fraction_of(q, length)


def cosine_restarts(
    q: Rates,
    *,
    max_lr: float,
    final_lr: float = 0.0,
    T_0: float,
    T_mult: float = 1,
    cycle_decay: float = 1.0,
    cycle_limit: int | None = None,
) -> Rates:
    """torch `CosineAnnealingWarmRestarts`: cycles of T_0, T_0 * T_mult, T_0 * T_mult^2, … positions.

    timm's: the peak of cycle i is max_lr * cycle_decay^i, and after `cycle_limit` cycles the floor is held.
    """
    if T_mult == 1:
        cycle = np.floor_divide(q, T_0)
        within, length = q - cycle * T_0, np.full_like(q, T_0)
    else:
        # torch: n = int(log(p / T_0 * (T_mult - 1) + 1, T_mult)); the correction guards the rounding of that log
        cycle = np.floor(np.log(q / T_0 * (T_mult - 1) + 1) / np.log(T_mult))
        begin = T_0 * (T_mult**cycle - 1) / (T_mult - 1)
        after = T_0 * (T_mult ** (cycle + 1) - 1) / (T_mult - 1)
        cycle = np.where(q >= after, cycle + 1, np.where(q < begin, cycle - 1, cycle))
        within = q - T_0 * (T_mult**cycle - 1) / (T_mult - 1)
        length = T_0 * T_mult**cycle
    peak = max_lr * cycle_decay**cycle if cycle_decay != 1 else max_lr
    rate = final_lr + (peak - final_lr) * (1 + np.cos(np.pi * within / length)) / 2
    return rate if cycle_limit is None else np.where(cycle < cycle_limit, rate, final_lr)


def polynomial(q: Rates, length: float, *, max_lr: float, final_lr: float = 0.0, power: float = 1.0) -> Rates:
    """torch `PolynomialLR(total_iters = length)`; `final_lr` from the end on, as transformers' lr_end."""
    return (max_lr - final_lr) * (1.0 - fraction_of(q, length)) ** power + final_lr


def tanh(q: Rates, length: float, *, max_lr: float, final_lr: float, lower: float, upper: float) -> Rates:
    """timm `TanhLRScheduler` of one cycle; `final_lr` from its end on."""
    done = fraction_of(q, length)
    rate = final_lr + 0.5 * (max_lr - final_lr) * (1.0 - np.tanh(lower * (1.0 - done) + upper * done))
    return np.where(done < 1.0, rate, final_lr)


def inverse_sqrt(q: Rates, *, max_lr: float, timescale: float) -> Rates:
    """transformers' and fairseq's inverse square root, q positions after the warm-up's end."""
    return max_lr * (1.0 / np.sqrt((q + timescale) / timescale))


def stable_decay(
    q: Rates,
    *,
    max_lr: float,
    final_lr: float,
    stable_steps: float,
    decay_steps: float,
    decay_type: str,
    cycles: float,
) -> Rates:
    """transformers `get_wsd_schedule` after its warm-up: a hold, a decay, then `final_lr`."""
    done = (q - stable_steps) / max(decay_steps, 1.0)
    x = np.clip(done, 0.0, 1.0)
    if decay_type == "linear":
        factor = 1.0 - x
    elif decay_type == "cosine":
        factor = 0.5 * (1.0 + np.cos(np.pi * 2.0 * cycles * x))
    else:
        factor = 1.0 - np.sqrt(x)
    falling = final_lr + (max_lr - final_lr) * factor
    return np.where(q < stable_steps, max_lr, np.where(q < stable_steps + decay_steps, falling, final_lr))


def cyclic(
    p: Rates, *, base_lr: float, max_lr: float, step_size_up: float, step_size_down: float, mode: str, gamma: float
) -> Rates:
    """torch `CyclicLR`, in its order of operations."""
    size = step_size_up + step_size_down
    ratio = step_size_up / size
    cycle = np.floor(1 + p / size)
    x = 1.0 + p / size - cycle
    height = (max_lr - base_lr) * np.where(x <= ratio, x / ratio, (x - 1) / (ratio - 1))
    if mode == "triangular2":
        return base_lr + height * (1 / 2.0 ** (cycle - 1))
    return base_lr + height * np.power(gamma, p) if mode == "exp_range" else base_lr + height


def exponential(q: Rates, *, max_lr: float, gamma: float) -> Rates:
    """torch `ExponentialLR`."""
    return max_lr * np.power(float(gamma), q)


def step(q: Rates, *, max_lr: float, step_size: float, gamma: float = 0.1) -> Rates:
    """torch `StepLR`."""
    return max_lr * np.power(float(gamma), np.floor(q / step_size))


def multistep(q: Rates, *, max_lr: float, milestones: Rates, gamma: float = 0.1) -> Rates:
    """torch `MultiStepLR`: a factor gamma at every milestone reached (a milestone named twice counts twice; sorted)."""
    return max_lr * np.power(float(gamma), np.searchsorted(milestones, q, side="right"))


def half_cosine(position: ArrayLike, *, from_step: float, total_steps: float, lr: float, final_lr: float) -> Rates:
    """`lr` at p = from_step, down half a cosine to `final_lr` at p = T - 1 (the `anneal` of a manual resume)."""
    p = np.asarray(position, np.float64)
    span = total_steps - 1 - from_step
    fraction = np.clip((p - from_step) / span, 0, 1) if span > 0 else np.zeros_like(p)
    return _cos(lr, final_lr, fraction)
