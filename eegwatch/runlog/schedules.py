"""The schedules in a RunLog's records: the laws of the parameter groups, and positions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from eegwatch.schedule import Schedule, as_dict, from_torch, parse, parse_for_run
from eegwatch.schedule.lengths import has_length

Law = dict[str, Any]
TORCH = "torch.optim.lr_scheduler"
STEPPED_AT_EACH_BATCH = ("OneCycleLR", "CyclicLR", "LambdaLR")  # LambdaLR: read where transformers has made it
MOST_EPOCHS = 300  # that a run takes, where its length is not known


def laws_of(
    schedule: Any,
    *,
    unit: str | None,
    every: int,
    steps_per_epoch: int | None,
    total_steps: int | None,
    fresh: bool,
    warn: Callable[[str], None],
) -> list[Law | None]:
    """The law of each parameter group that is known; of a dict or a Schedule, the law of the first.

    `unit`, `every`: as of RunLog; `fresh`: the scheduler has not been stepped yet. What cannot be read off a scheduler
    goes to `warn`. Raises ScheduleError for a dict that is not a schedule.
    """
    if schedule is None:
        return []
    if isinstance(schedule, Mapping | Schedule):
        declared: Law = as_dict(schedule) if isinstance(schedule, Schedule) else dict(schedule)
        declared.setdefault("unit", unit or "step")
        parse_for_run(declared, steps_per_epoch)
        return [declared]
    unit = unit or from_torch.reading_of(schedule, total_steps, fresh=fresh).unit
    if unit == "epoch" and not steps_per_epoch:
        warn(f"{no_schedule(schedule)}: it counts epochs, and steps_per_epoch is not given")
        return []
    pace = every * (steps_per_epoch or 1 if unit == "epoch" else 1)
    length = None if total_steps is None else -(-total_steps // pace)  # a last epoch that is cut short is one
    reading = from_torch.reading_of(schedule, length, fresh=fresh)
    if reading.why is not None:
        unread = [number for number, law in enumerate(reading.groups) if law is None]
        where = "" if len(unread) == len(reading.groups) else f" for parameter group {unread[0]}"
        warn(f"{no_schedule(schedule)}{where}: {reading.why}; rates are logged without one")
    within = steps_per_epoch if unit == "step" else None
    return [None if law is None else paced(law, every, within) | {"unit": unit} for law in reading.groups]


def may_count_epochs(scheduler: Any, law: Law, epochs: int | None, total_steps: int | None) -> bool:
    """May this scheduler be meant to be stepped once an epoch, though its law was read in steps?

    One of torch's is, unless its documentation asks for a step a batch (OneCycleLR, CyclicLR) or its law, taken in
    epochs, would not end or not move within the run. `epochs`, `total_steps`: of the run, None where not known.
    """
    kind = type(scheduler)
    if kind.__module__ != TORCH or kind.__name__ in STEPPED_AT_EACH_BATCH or law.get("unit", "step") != "step":
        return False
    curve, length = parse(law), law["total_steps"]
    if total_steps is None or length != total_steps:  # it has a length of its own
        most = epochs if epochs else total_steps / 2 if total_steps else MOST_EPOCHS
        if length > most:
            return False
    elif has_length(curve):
        return False
    positions = np.arange(min(epochs or MOST_EPOCHS, length))
    return len(np.unique(curve.rate(positions))) > 1


def no_schedule(schedule: Any) -> str:
    """The beginning of a warning about a scheduler that is not understood."""
    return f"eegwatch reads no schedule off this {type(schedule).__name__}"


def paced(law: Law, every: int, within: int | None) -> Law:
    """The law of a scheduler that is stepped once in `every` steps, counted anew after `within` of them."""
    if every == 1:
        return law
    length = law["total_steps"] * every
    if within is not None:
        length = law["total_steps"] * within // max(1, within // every)
    return {"name": "paced", "total_steps": length, "of": law, "every": every, "within": within}


def described(groups: list[dict[str, Any]], laws: list[Law | None]) -> list[dict[str, Any]]:
    """The entry of each parameter group in the run record: its name, where it has one, and its law."""
    known = laws if len(laws) == len(groups) else [*laws[:1], *[None] * len(groups)]
    return [
        {"name": str(group["name"]) if "name" in group else None, "schedule": law} for group, law in zip(groups, known)
    ]


def position_reader(scheduler: Any, law: Law | None) -> Callable[[], float | None]:
    """A function that tells the scheduler's position in units of its law, or None where it keeps none."""
    inner, steps = scheduler, 1.0
    if law is not None and law["name"] == "paced":
        if law.get("every", 1) != 1:
            return lambda: None
        steps = float(law.get("steps", 1))
    for _ in range(8):
        if isinstance(getattr(inner, "last_epoch", None), int | float):
            at = inner
            return lambda: float(at.last_epoch) / steps
        members = getattr(inner, "_schedulers", None)
        inner = members[0] if isinstance(members, list | tuple) and members else getattr(inner, "scheduler", None)
        if inner is None:
            break
    return lambda: None
