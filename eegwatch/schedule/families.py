"""The families of schedules, each with its parameters; docs/schedules.md holds the table of their formulas."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar, Literal

import numpy as np

from eegwatch.schedule import shapes
from eegwatch.schedule.base import Bands, Schedule, Warmed
from eegwatch.schedule.shapes import Rates

Strategy = Literal["cos", "linear"]
DEFAULT_TIMESCALE = 10_000  # transformers' inverse_sqrt without warm-up


class OneCycle(Schedule, frozen=True, kw_only=True, tag="one_cycle"):
    """torch `OneCycleLR`: up from max_lr / div_factor to max_lr, then down to that / final_div_factor."""

    max_lr: float
    pct_start: float = 0.3
    div_factor: float = 25.0
    final_div_factor: float = 1e4
    anneal_strategy: Strategy = "cos"
    three_phase: bool = False
    positive: ClassVar[tuple[str, ...]] = ("div_factor", "final_div_factor")

    def at(self, position: Rates) -> Rates:
        return shapes.one_cycle(position, total_steps=self.total_steps, **self.parameters())

    def phases(self) -> Bands:
        peak = max(self.pct_start * self.total_steps - 1, 0.0)
        if self.three_phase:
            second = 2 * self.pct_start * self.total_steps - 2
            return [("warm-up", 0, peak), ("cool-down", peak, second), ("annihilation", second, self.total_steps)]
        return [("warm-up", 0, peak), ("annealing", peak, self.total_steps)]


class WarmupHoldAnneal(Schedule, frozen=True, kw_only=True, tag="warmup_hold_anneal"):
    """Three bands: a rise, a hold at `max_lr`, a fall; `warmup` and `hold_until` are fractions of the run."""

    initial_lr: float
    max_lr: float
    final_lr: float
    warmup: float = 0.1
    hold_until: float = 0.5
    anneal_strategy: Strategy = "cos"

    def at(self, position: Rates) -> Rates:
        return shapes.warmup_hold_anneal(position, total_steps=self.total_steps, **self.parameters())

    def check(self) -> str | None:
        return "hold_until must not be below warmup" if self.hold_until < self.warmup else None

    def phases(self) -> Bands:
        rise, hold, total = self.warmup * self.total_steps, self.hold_until * self.total_steps, self.total_steps
        return [("warm-up", 0, rise), ("hold", rise, hold), ("annealing", hold, total)]


class Cosine(Warmed, frozen=True, kw_only=True, tag="cosine"):
    """`decay_steps`: torch's T_max where it is not the rest of the run; `past_end`: `rise` as torch's cosine does."""

    max_lr: float
    final_lr: float = 0.0
    cycles: float = 0.5
    restarts: float = 0
    decay_steps: float | None = None
    past_end: Literal["hold", "rise"] = "hold"
    decay_name: ClassVar[str] = "annealing"

    def curve(self, q: Rates, length: float) -> Rates:
        return shapes.cosine(
            q,
            length,
            max_lr=self.max_lr,
            final_lr=self.final_lr,
            cycles=self.cycles,
            restarts=self.restarts,
            rises=self.past_end == "rise",
        )

    def rest_name(self) -> str:
        return "rising again" if self.past_end == "rise" else "floor"


class Linear(Warmed, frozen=True, kw_only=True, tag="linear"):
    """A straight line; a `final_lr` above `max_lr` rises (torch LinearLR with start_factor < end_factor)."""

    max_lr: float
    final_lr: float = 0.0
    decay_steps: float | None = None

    def curve(self, q: Rates, length: float) -> Rates:
        return shapes.linear(q, length, max_lr=self.max_lr, final_lr=self.final_lr)

    def rest_name(self) -> str:
        return "held"


class CosineRestarts(Warmed, frozen=True, kw_only=True, tag="cosine_restarts"):
    """torch `CosineAnnealingWarmRestarts`; `cycle_decay` and `cycle_limit` are those of timm's cosine."""

    max_lr: float
    T_0: int | float
    final_lr: float = 0.0
    T_mult: int | float = 1
    cycle_decay: float = 1.0
    cycle_limit: int | None = None
    positive: ClassVar[tuple[str, ...]] = ("T_0", "T_mult", "cycle_decay")
    decay_name: ClassVar[str] = "restarts"

    def curve(self, q: Rates, length: float) -> Rates:
        return shapes.cosine_restarts(
            q,
            max_lr=self.max_lr,
            final_lr=self.final_lr,
            T_0=self.T_0,
            T_mult=self.T_mult,
            cycle_decay=self.cycle_decay,
            cycle_limit=self.cycle_limit,
        )

    def check(self) -> str | None:
        return "T_mult must be at least 1" if self.T_mult < 1 else None


class Polynomial(Warmed, frozen=True, kw_only=True, tag="polynomial"):
    """torch `PolynomialLR`; with `final_lr` above 0 transformers' polynomial decay."""

    max_lr: float
    final_lr: float = 0.0
    power: float = 1.0
    decay_steps: float | None = None

    def curve(self, q: Rates, length: float) -> Rates:
        return shapes.polynomial(q, length, max_lr=self.max_lr, final_lr=self.final_lr, power=self.power)


class Tanh(Warmed, frozen=True, kw_only=True, tag="tanh"):
    """timm's TanhLRScheduler: its `lb` and `ub` are `lower` and `upper`."""

    max_lr: float
    final_lr: float = 0.0
    lower: float = -7.0
    upper: float = 3.0
    decay_steps: float | None = None
    signed: ClassVar[tuple[str, ...]] = ("lower", "upper")

    def curve(self, q: Rates, length: float) -> Rates:
        return shapes.tanh(q, length, max_lr=self.max_lr, final_lr=self.final_lr, lower=self.lower, upper=self.upper)


class Exponential(Warmed, frozen=True, kw_only=True, tag="exponential"):
    """torch `ExponentialLR`: the peak times `gamma` to the number of positions since the warm-up."""

    max_lr: float
    gamma: float
    positive: ClassVar[tuple[str, ...]] = ("gamma",)

    def curve(self, q: Rates, length: float) -> Rates:
        return shapes.exponential(q, max_lr=self.max_lr, gamma=self.gamma)

    def peak(self) -> float:
        return super().peak() if self.gamma <= 1 else self.highest()


class StepDecay(Warmed, frozen=True, kw_only=True, tag="step"):
    """torch `StepLR`: times `gamma` after each `step_size` positions."""

    max_lr: float
    step_size: int | float
    gamma: float = 0.1
    positive: ClassVar[tuple[str, ...]] = ("step_size", "gamma")
    decay_name: ClassVar[str] = "steps"

    def curve(self, q: Rates, length: float) -> Rates:
        return shapes.step(q, max_lr=self.max_lr, step_size=self.step_size, gamma=self.gamma)

    def peak(self) -> float:
        return super().peak() if self.gamma <= 1 else self.highest()


class MultiStep(Warmed, frozen=True, kw_only=True, tag="multistep"):
    """torch `MultiStepLR`: times `gamma` at each milestone."""

    max_lr: float
    milestones: list[int | float]
    gamma: float = 0.1
    positive: ClassVar[tuple[str, ...]] = ("gamma",)
    decay_name: ClassVar[str] = "steps"

    @cached_property
    def sorted_milestones(self) -> Rates:
        return np.sort(np.asarray(self.milestones, np.float64))

    def curve(self, q: Rates, length: float) -> Rates:
        return shapes.multistep(q, max_lr=self.max_lr, milestones=self.sorted_milestones, gamma=self.gamma)

    def peak(self) -> float:
        return super().peak() if self.gamma <= 1 else self.highest()


class InverseSqrt(Warmed, frozen=True, kw_only=True, tag="inverse_sqrt"):
    """`timescale`: W unless given (10,000 without warm-up), as in transformers; fairseq's has none but W."""

    max_lr: float
    timescale: float | None = None
    positive: ClassVar[tuple[str, ...]] = ("timescale",)

    def curve(self, q: Rates, length: float) -> Rates:
        timescale = self.timescale or self.warmup_steps or DEFAULT_TIMESCALE
        return shapes.inverse_sqrt(q, max_lr=self.max_lr, timescale=timescale)


class StableDecay(Warmed, frozen=True, kw_only=True, tag="warmup_stable_decay"):
    """transformers' WSD: warm-up, `stable_steps` at the peak, `decay_steps` down to `final_lr`, then held there."""

    max_lr: float
    decay_steps: float
    stable_steps: float | None = None  # what the warm-up and the decay leave of the run
    final_lr: float = 0.0
    decay_type: Literal["linear", "cosine", "1-sqrt"] = "cosine"
    cycles: float = 0.5

    @property
    def stable(self) -> float:
        if self.stable_steps is not None:
            return self.stable_steps
        return max(self.total_steps - self.warmup_steps - self.decay_steps, 0.0)

    def curve(self, q: Rates, length: float) -> Rates:
        return shapes.stable_decay(
            q,
            max_lr=self.max_lr,
            final_lr=self.final_lr,
            stable_steps=self.stable,
            decay_steps=self.decay_steps,
            decay_type=self.decay_type,
            cycles=self.cycles,
        )

    def phases(self) -> Bands:
        W, total = float(self.warmup_steps), float(self.total_steps)
        fall = W + self.stable
        end = min(fall + self.decay_steps, total)
        bands: Bands = [("warm-up", 0.0, W), ("stable", W, fall), ("decay", fall, end), ("floor", end, total)]
        return [(name, a, b) for name, a, b in bands if b > a]


class Cyclic(Schedule, frozen=True, kw_only=True, tag="cyclic"):
    """torch `CyclicLR`: triangles between `base_lr` and `max_lr`."""

    base_lr: float
    max_lr: float
    step_size_up: float = 2000
    step_size_down: float | None = None
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular"
    gamma: float = 1.0
    positive: ClassVar[tuple[str, ...]] = ("step_size_up", "step_size_down", "gamma")

    def at(self, position: Rates) -> Rates:
        return shapes.cyclic(
            position,
            base_lr=self.base_lr,
            max_lr=self.max_lr,
            step_size_up=self.step_size_up,
            step_size_down=self.step_size_up if self.step_size_down is None else self.step_size_down,
            mode=self.mode,
            gamma=self.gamma,
        )

    def peak(self) -> float:
        if self.mode == "exp_range" and self.gamma > 1:
            return self.highest()
        return max(self.base_lr, self.max_lr)

    def phases(self) -> Bands:
        return [("cycles", 0.0, float(self.total_steps))]


class Constant(Warmed, frozen=True, kw_only=True, tag="constant"):
    """One rate after the warm-up: transformers' `constant` and `constant_with_warmup`."""

    lr: float
    decay_name: ClassVar[str] = "constant"

    def top(self) -> float:
        return float(self.lr)

    def curve(self, q: Rates, length: float) -> Rates:
        return np.full_like(q, self.lr)
