"""A schedule as the `run` record declares it: validated parameters that know their rate at a position.

`parse` turns the record's object into a `Schedule`; `schedule.rate(p)` is vectorised over positions.
`unit` is "step", or "epoch" where the author wants one move an epoch: then T and p count epochs.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from eegwatch.schedule import shapes
from eegwatch.schedule.shapes import Rates

Strategy = Literal["cos", "linear"]
Then = Literal["anneal", "hold", "scale"]
SCALE_FLOOR_RATIO = 10  # `scale` divides by base(from_step): below ten times the final rate the factor explodes


class ScheduleError(ValueError):
    """The declared schedule is not one: which parameter is wrong, and how."""


class Schedule(msgspec.Struct, frozen=True, kw_only=True, tag_field="name"):
    """Common part of every schedule: its length T, and whether positions count steps or epochs."""

    total_steps: int
    unit: Literal["step", "epoch"] = "step"
    positive: ClassVar[tuple[str, ...]] = ("max_lr",)

    def rate(self, position: ArrayLike) -> Rates:
        """The learning rate at each position (any shape, float64)."""
        raise TypeError(f"{type(self).__name__} has no curve")

    def phases(self) -> list[tuple[str, float, float]]:
        """Named bands (name, first position, end position) for the chart."""
        return []

    def parameters(self) -> dict[str, Any]:
        return {n: getattr(self, n) for n in self.__struct_fields__ if n not in ("total_steps", "unit")}


def _warm_bands(warmup: float, rest: str, total: float) -> list[tuple[str, float, float]]:
    return ([("warm-up", 0.0, float(warmup))] if warmup > 0 else []) + [(rest, float(warmup), float(total))]


class OneCycle(Schedule, frozen=True, kw_only=True, tag="one_cycle"):
    max_lr: float
    pct_start: float = 0.3
    div_factor: float = 25.0
    final_div_factor: float = 1e4
    anneal_strategy: Strategy = "cos"
    three_phase: bool = False
    positive: ClassVar[tuple[str, ...]] = ("max_lr", "div_factor", "final_div_factor")

    def rate(self, position: ArrayLike) -> Rates:
        return shapes.one_cycle(position, total_steps=self.total_steps, **self.parameters())

    def phases(self) -> list[tuple[str, float, float]]:
        peak = max(self.pct_start * self.total_steps - 1, 0.0)
        if self.three_phase:
            second = 2 * self.pct_start * self.total_steps - 2
            return [("warm-up", 0, peak), ("cool-down", peak, second), ("annihilation", second, self.total_steps)]
        return [("warm-up", 0, peak), ("annealing", peak, self.total_steps)]


class WarmupHoldAnneal(Schedule, frozen=True, kw_only=True, tag="warmup_hold_anneal"):
    initial_lr: float
    max_lr: float
    final_lr: float
    warmup: float = 0.1
    hold_until: float = 0.5
    anneal_strategy: Strategy = "cos"

    def rate(self, position: ArrayLike) -> Rates:
        return shapes.warmup_hold_anneal(position, total_steps=self.total_steps, **self.parameters())

    def phases(self) -> list[tuple[str, float, float]]:
        rise, hold, total = self.warmup * self.total_steps, self.hold_until * self.total_steps, self.total_steps
        return [("warm-up", 0, rise), ("hold", rise, hold), ("annealing", hold, total)]


class Cosine(Schedule, frozen=True, kw_only=True, tag="cosine"):
    max_lr: float
    final_lr: float = 0.0
    warmup_steps: float = 0
    initial_lr: float = 0.0

    def rate(self, position: ArrayLike) -> Rates:
        return shapes.cosine(position, total_steps=self.total_steps, **self.parameters())

    def phases(self) -> list[tuple[str, float, float]]:
        return _warm_bands(self.warmup_steps, "annealing", self.total_steps)


class Linear(Schedule, frozen=True, kw_only=True, tag="linear"):
    max_lr: float
    final_lr: float = 0.0
    warmup_steps: float = 0
    initial_lr: float = 0.0

    def rate(self, position: ArrayLike) -> Rates:
        return shapes.linear(position, total_steps=self.total_steps, **self.parameters())

    def phases(self) -> list[tuple[str, float, float]]:
        return _warm_bands(self.warmup_steps, "decay", self.total_steps)


class CosineRestarts(Schedule, frozen=True, kw_only=True, tag="cosine_restarts"):
    max_lr: float
    T_0: int
    final_lr: float = 0.0
    T_mult: int = 1
    positive: ClassVar[tuple[str, ...]] = ("max_lr", "T_0", "T_mult")

    def rate(self, position: ArrayLike) -> Rates:
        return shapes.cosine_restarts(position, **self.parameters())


class Polynomial(Schedule, frozen=True, kw_only=True, tag="polynomial"):
    max_lr: float
    power: float = 1.0

    def rate(self, position: ArrayLike) -> Rates:
        return shapes.polynomial(position, total_steps=self.total_steps, **self.parameters())


class Exponential(Schedule, frozen=True, kw_only=True, tag="exponential"):
    max_lr: float
    gamma: float
    positive: ClassVar[tuple[str, ...]] = ("max_lr", "gamma")

    def rate(self, position: ArrayLike) -> Rates:
        return shapes.exponential(position, **self.parameters())


class StepDecay(Schedule, frozen=True, kw_only=True, tag="step"):
    max_lr: float
    step_size: int
    gamma: float = 0.1
    positive: ClassVar[tuple[str, ...]] = ("max_lr", "step_size", "gamma")

    def rate(self, position: ArrayLike) -> Rates:
        return shapes.step(position, **self.parameters())


class MultiStep(Schedule, frozen=True, kw_only=True, tag="multistep"):
    max_lr: float
    milestones: list[int]
    gamma: float = 0.1
    positive: ClassVar[tuple[str, ...]] = ("max_lr", "gamma")

    def rate(self, position: ArrayLike) -> Rates:
        return shapes.multistep(position, **self.parameters())


class Constant(Schedule, frozen=True, kw_only=True, tag="constant"):
    lr: float
    warmup_steps: float = 0
    initial_lr: float = 0.0
    positive: ClassVar[tuple[str, ...]] = ("lr",)

    def rate(self, position: ArrayLike) -> Rates:
        return shapes.constant(position, **self.parameters())

    def phases(self) -> list[tuple[str, float, float]]:
        return _warm_bands(self.warmup_steps, "constant", self.total_steps)


class Manual(Schedule, frozen=True, kw_only=True, tag="manual"):
    """`base` until `from_step`; from there an LR that a person chose, and what then becomes of it."""

    from_step: int
    lr: float
    base: dict[str, Any]
    then: Then = "anneal"
    final_lr: float | None = None
    steps_per_epoch: int | None = None  # set where the base counts epochs: a manual schedule itself counts steps
    positive: ClassVar[tuple[str, ...]] = ("lr",)

    @property
    def base_schedule(self) -> Schedule:
        return parse(self.base)

    def rate(self, position: ArrayLike) -> Rates:
        p = np.asarray(position, np.float64)
        base = self.base_schedule

        def base_rate(steps: ArrayLike) -> Rates:
            return base.rate(np.floor_divide(steps, self.steps_per_epoch) if self.steps_per_epoch else steps)

        before = base_rate(p)
        if self.then == "hold":
            after = np.full_like(before, self.lr)
        elif self.then == "scale":
            after = before * (self.lr / float(base_rate(self.from_step)))
        else:
            floor = final_rate(base) if self.final_lr is None else self.final_lr
            after = shapes.half_cosine(
                p, from_step=self.from_step, total_steps=self.total_steps, lr=self.lr, final_lr=floor
            )
        return np.where(p < self.from_step, before, after)

    def phases(self) -> list[tuple[str, float, float]]:
        start = float(self.from_step)
        kept = [(name, a, min(b, start)) for name, a, b in self.base_schedule.phases() if a < start]
        return [*kept, (f"manual {self.then}", start, float(self.total_steps))]


AnySchedule = (
    OneCycle
    | WarmupHoldAnneal
    | Cosine
    | Linear
    | CosineRestarts
    | Polynomial
    | Exponential
    | StepDecay
    | MultiStep
    | Constant
    | Manual
)


def parse(declared: dict[str, Any]) -> Schedule:
    """The schedule of a `run` record. Raises ScheduleError, in one line, for anything that is not one."""
    try:
        schedule: Schedule = msgspec.convert(declared, AnySchedule, strict=False)
    except msgspec.ValidationError as error:
        raise ScheduleError(f"schedule: {error}") from None
    if schedule.total_steps < 1:
        raise ScheduleError(f"schedule: total_steps must be at least 1, not {schedule.total_steps}")
    for name, value in schedule.parameters().items():
        if isinstance(value, float | int) and not isinstance(value, bool):
            if not math.isfinite(value) or value < 0:
                raise ScheduleError(f"schedule: {name} must be finite and not negative, not {value}")
            if name in schedule.positive and value == 0:
                raise ScheduleError(f"schedule: {name} must be above 0")
    for name in ("pct_start", "warmup", "hold_until"):
        value = getattr(schedule, name, 0.0)
        if value > 1:
            raise ScheduleError(f"schedule: {name} is a fraction of the run, between 0 and 1, not {value}")
    if isinstance(schedule, WarmupHoldAnneal) and schedule.hold_until < schedule.warmup:
        raise ScheduleError("schedule: hold_until must not be below warmup")
    if isinstance(schedule, Manual):
        parse(schedule.base)
    return schedule


def as_dict(schedule: Schedule) -> dict[str, Any]:
    """The schedule as the `run` record holds it."""
    built: dict[str, Any] = msgspec.to_builtins(schedule)
    return built


def declared_base(schedule: Schedule) -> Schedule:
    """The author's schedule under any manual changes: what a resume without an LR goes back to."""
    while isinstance(schedule, Manual):
        schedule = schedule.base_schedule
    return schedule


def initial_rate(schedule: Schedule) -> float:
    return float(schedule.rate(0))


def final_rate(schedule: Schedule) -> float:
    """The rate of the last step, p = T - 1."""
    return float(schedule.rate(schedule.total_steps - 1))


def peak_rate(schedule: Schedule) -> float:
    """The highest rate over the run: the declared parameter, or the curve's own maximum under a manual change."""
    declared = getattr(schedule, "max_lr", None)
    if declared is not None:
        return float(declared)
    positions = np.unique(np.linspace(0, schedule.total_steps - 1, 4097).round())
    return float(schedule.rate(positions).max())


def position_at(schedule: Schedule, step: ArrayLike, steps_per_epoch: int | None) -> Rates:
    """The schedule position that step n (counted from 1) uses: n - 1, or its epoch where the unit is "epoch"."""
    p = np.asarray(step, np.float64) - 1
    if schedule.unit == "epoch":
        if not steps_per_epoch:
            raise ScheduleError("schedule: unit epoch needs steps_per_epoch in the run record")
        return np.floor_divide(p, steps_per_epoch)
    return p


def rate_at(schedule: Schedule, step: ArrayLike, steps_per_epoch: int | None = None) -> Rates:
    """The rate that step n (counted from 1) should use, float64, shaped as `step`."""
    return schedule.rate(position_at(schedule, step, steps_per_epoch))


def length_in_steps(schedule: Schedule, steps_per_epoch: int | None) -> int:
    return schedule.total_steps * (steps_per_epoch or 1) if schedule.unit == "epoch" else schedule.total_steps


def resumed(
    schedule: Schedule,
    from_step: int,
    lr: float | None,
    then: Then = "anneal",
    *,
    steps_per_epoch: int | None = None,
    force: bool = False,
) -> Schedule:
    """The schedule that a `resume` at `from_step` leads to: rejoin without `lr`, else a manual one over the declared.

    Raises ScheduleError for an LR that is not finite or not positive or (without `force`) above the declared peak,
    for a position past the end, and for `scale` where the declared rate is under ten times its final one.
    """
    base = declared_base(schedule)
    if lr is None:
        return base
    if not math.isfinite(lr) or lr <= 0:
        raise ScheduleError(f"the learning rate must be a finite number above 0, not {lr}")
    if lr > peak_rate(base) and not force:
        raise ScheduleError(f"{lr:g} is above the declared peak {peak_rate(base):g}; force it if that is meant")
    total = length_in_steps(base, steps_per_epoch)
    if from_step >= total:
        raise ScheduleError(f"step {from_step} is the end of the run ({total} steps): nothing is left")
    floor = final_rate(base)
    if then == "scale" and float(rate_at(base, from_step + 1, steps_per_epoch)) < SCALE_FLOOR_RATIO * floor:
        raise ScheduleError(
            f"scale: the declared rate at step {from_step} is under ten times its final {floor:.3g}; use anneal or hold"
        )
    return Manual(
        from_step=from_step,
        lr=lr,
        then=then,
        final_lr=min(floor, lr),
        total_steps=total,
        base=as_dict(base),
        steps_per_epoch=steps_per_epoch if base.unit == "epoch" else None,
    )
