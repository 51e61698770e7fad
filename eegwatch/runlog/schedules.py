"""The schedules in a RunLog's records: the laws of the parameter groups, and positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Law = dict[str, Any]


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
