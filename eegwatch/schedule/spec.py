"""A schedule as the `run` record declares it: validated parameters that know their rate at a position.

`parse` turns the record's object into a `Schedule`; `schedule.rate(p)` is vectorised over positions.
`unit` is "step", or "epoch" where the author wants one move an epoch: then T and p count epochs.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from eegwatch.schedule.base import Schedule, ScheduleError
from eegwatch.schedule.composed import EpochMean, Manual, Paced, Product, Sequence, Then
from eegwatch.schedule.families import (
    Constant,
    Cosine,
    CosineRestarts,
    Cyclic,
    Exponential,
    InverseSqrt,
    Linear,
    MultiStep,
    OneCycle,
    Polynomial,
    StableDecay,
    StepDecay,
    Tanh,
    WarmupHoldAnneal,
)
from eegwatch.schedule.shapes import Rates

SCALE_FLOOR_RATIO = 10  # `scale` divides by base(from_step): below ten times the final rate the factor explodes
LARGEST = 1e18  # a count: beyond it float64 no longer tells neighbouring positions apart
LARGEST_FACTOR = 1e100  # anything else: people do write final_div_factor 1e20, to end at 0
MOST_MILESTONES = 1_000_000
MOST_SCHEDULES = 1000  # in a sequence or a product
DEEPEST = 32  # levels of nesting: a change by hand of a sequence of products is 6

AnySchedule = (
    OneCycle
    | WarmupHoldAnneal
    | Cosine
    | Linear
    | CosineRestarts
    | Polynomial
    | Tanh
    | Exponential
    | StepDecay
    | MultiStep
    | InverseSqrt
    | StableDecay
    | Cyclic
    | Constant
    | Sequence
    | Product
    | Paced
    | EpochMean
    | Manual
)
FAMILIES: dict[str, type[Schedule]] = {str(family.__struct_config__.tag): family for family in AnySchedule.__args__}


def parse(declared: dict[str, Any]) -> Schedule:
    """The schedule of a `run` record. Raises ScheduleError, in one line, for anything that is not one."""
    if not isinstance(declared, dict):
        raise ScheduleError(f"schedule: an object with a name, not {_short(declared)}")
    if _depth(declared) > DEEPEST:
        raise ScheduleError(f"schedule: schedules inside schedules more than {DEEPEST} levels deep")
    try:
        schedule: Schedule = msgspec.convert(declared, AnySchedule, strict=False)
    except (ValueError, TypeError, OverflowError) as error:
        raise ScheduleError(f"schedule: {_one_line(error)}") from None
    if schedule.total_steps < 1:
        raise ScheduleError(f"schedule: total_steps must be at least 1, not {_short(schedule.total_steps)}")
    for name, value in (("total_steps", schedule.total_steps), *schedule.parameters().items()):
        _check_number(schedule, name, value)
    _check_nested(schedule)
    wrong = schedule.check()
    if wrong:
        raise ScheduleError(f"schedule: {wrong}")
    return schedule


def parse_for_run(declared: dict[str, Any], steps_per_epoch: int | None) -> Schedule:
    """As `parse`, for a run with these counts: refuses a schedule that counts epochs of an unknown length, too."""
    schedule = parse(declared)
    if schedule.unit == "epoch" and not steps_per_epoch:
        raise ScheduleError("schedule: unit epoch needs steps_per_epoch in the run record")
    return schedule


def _check_number(schedule: Schedule, name: str, value: Any) -> None:
    if isinstance(value, list):
        if len(value) > (MOST_MILESTONES if name == "milestones" else MOST_SCHEDULES):
            raise ScheduleError(f"schedule: {name} has {len(value):,} entries: more than any schedule needs")
        for item in value:
            _check_number(schedule, name, item)
    if isinstance(value, bool) or not isinstance(value, float | int):
        return
    # abs() of an int of any size compares exactly with a float, where float() and isfinite() would overflow
    if isinstance(value, float) and not math.isfinite(value):
        raise ScheduleError(f"schedule: {name} must be finite and not negative, not {value}")
    if value < 0 and name not in getattr(schedule, "signed", ()):
        raise ScheduleError(f"schedule: {name} must be finite and not negative, not {_short(value)}")
    largest = LARGEST if isinstance(value, int) else LARGEST_FACTOR
    if abs(value) > largest:
        raise ScheduleError(f"schedule: {name} must be at most {largest:g}, not {_short(value)}")
    if name in schedule.positive and value == 0:
        raise ScheduleError(f"schedule: {name} must be above 0")
    if name in ("pct_start", "warmup", "hold_until") and value > 1:
        raise ScheduleError(f"schedule: {name} is a fraction of the run, between 0 and 1, not {_short(value)}")


def _check_nested(schedule: Schedule) -> None:
    """Parse the schedules inside this one; they are kept."""
    try:
        if isinstance(schedule, Manual):
            _ = schedule.base_schedule
        elif isinstance(schedule, Sequence | Product):
            _ = schedule.parts
        elif isinstance(schedule, Paced | EpochMean):
            _ = schedule.inner
    except ScheduleError as error:
        raise ScheduleError(f"schedule: {schedule.__struct_config__.tag}: {_bare(error)}") from None


def _bare(error: ScheduleError) -> str:
    return str(error).removeprefix("schedule: ")


def _depth(value: Any) -> int:
    """Levels of objects and lists, without recursion, at most one more than is allowed."""
    level, deep = [value], 0
    while level and deep <= DEEPEST:
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner += [v for v in item.values() if isinstance(v, dict | list)]
            elif isinstance(item, list) and item and isinstance(item[0], dict | list):
                inner += [v for v in item if isinstance(v, dict | list)]
        level, deep = inner, deep + 1
    return deep


def _short(value: Any) -> str:
    """A value as a message shows it: an integer of 5,000 digits is not printed."""
    if isinstance(value, int) and abs(value) > LARGEST:
        return "a number beyond 1e18" if value > 0 else "a number below -1e18"
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:197] + "..."


def as_dict(schedule: Schedule) -> dict[str, Any]:
    """The schedule as the `run` record holds it. Warm-up fields of a family without warm-up are left out."""
    built: dict[str, Any] = msgspec.to_builtins(schedule)
    if getattr(schedule, "warmup_mode", None) == "reset":
        del built["warmup_mode"]
    if getattr(schedule, "warmup_type", None) == "linear":
        del built["warmup_type"]
    return {name: value for name, value in built.items() if value is not None}


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
    """The highest rate over the run: the declared parameter where there is one, else the curve's own maximum."""
    return schedule.peak()


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
        raise ScheduleError(f"{lr:g} is above the declared peak {peak_rate(base):g}; use force if that is intended")
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
