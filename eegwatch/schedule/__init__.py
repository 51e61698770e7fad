"""The expected learning rate: pure functions of (parameters, position), equal to torch's schedulers of that name."""

from eegwatch.schedule.base import Schedule, ScheduleError
from eegwatch.schedule.composed import Manual
from eegwatch.schedule.spec import (
    FAMILIES,
    as_dict,
    declared_base,
    final_rate,
    initial_rate,
    length_in_steps,
    parse,
    parse_for_run,
    peak_rate,
    position_at,
    rate_at,
    resumed,
)

__all__ = [
    "FAMILIES",
    "Manual",
    "Schedule",
    "ScheduleError",
    "as_dict",
    "declared_base",
    "final_rate",
    "initial_rate",
    "length_in_steps",
    "parse",
    "parse_for_run",
    "peak_rate",
    "position_at",
    "rate_at",
    "resumed",
]
