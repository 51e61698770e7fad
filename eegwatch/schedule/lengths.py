"""The same curve over another length: whether a schedule has a length of its own at all."""

from __future__ import annotations

import msgspec
import numpy as np

from eegwatch.schedule.base import Schedule
from eegwatch.schedule.composed import Manual


def over_length(schedule: Schedule, total: float) -> Schedule | None:
    """The schedule over another length; None where no such run exists."""
    if total < 1 or isinstance(schedule, Manual):
        return None
    if getattr(schedule, "pct_start", 0) and schedule.pct_start * total <= 1:  # type: ignore[attr-defined]
        return None  # torch itself divides by a warm-up of no length
    return msgspec.structs.replace(schedule, total_steps=total)


def with_total(schedule: Schedule, total: float) -> Schedule | None:
    """The same, or None where length is not a parameter of its curve."""
    other = over_length(schedule, total)
    if other is None:
        return None
    probe = np.linspace(0, schedule.total_steps - 1, 9)
    return other if not np.array_equal(other.rate(probe), schedule.rate(probe)) else None


def has_length(schedule: Schedule) -> bool:
    """Is its length a parameter of its curve? Step, exponential and constant ones go on as long as the run does."""
    return with_total(schedule, 2 * schedule.total_steps) is not None
