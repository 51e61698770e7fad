"""The expected learning rate: pure functions of (parameters, position), equal to torch's schedulers of that name."""

from eegwatch.schedule.spec import (
    Manual,
    Schedule,
    ScheduleError,
    as_dict,
    declared_base,
    final_rate,
    initial_rate,
    length_in_steps,
    parse,
    peak_rate,
    position_at,
    rate_at,
    resumed,
)

__all__ = [
    "Manual",
    "Schedule",
    "ScheduleError",
    "as_dict",
    "declared_base",
    "final_rate",
    "initial_rate",
    "length_in_steps",
    "parse",
    "peak_rate",
    "position_at",
    "rate_at",
    "resumed",
]
