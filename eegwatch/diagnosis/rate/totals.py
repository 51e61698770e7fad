"""Other lengths that a scheduler may have been built for, by mistake or as the records themselves ask for."""

from __future__ import annotations

import numpy as np

from eegwatch.diagnosis.rate.causes import Evidence, Situation
from eegwatch.schedule.lengths import over_length, with_total


def other_totals(s: Situation, latest: Evidence) -> dict[int, tuple[str, int]]:
    """Lengths that a scheduler is built for by mistake, with why; then those that the latest record itself asks for."""
    T, totals = s.schedule.total_steps, dict[int, tuple[str, int]]()

    def propose(total: float, why: str, rank: int) -> None:
        if total >= 1 and total == int(total):
            totals.setdefault(int(total), (why, rank))

    if s.restored_total:
        propose(s.restored_total, "as the checkpoint restored it", 0)
    for factor, why in ((s.accumulate, "gradient accumulation"), (s.world_size, "the number of processes")):
        if factor > 1:
            propose(T * factor, f"{why} left out", 2)
            propose(T // factor, f"{why} counted twice", 3)
    if s.steps_per_epoch:
        propose(s.steps_per_epoch, "one epoch", 4)
        propose(T + s.steps_per_epoch, "one epoch too many", 4)
        propose(T - s.steps_per_epoch, "one epoch too few", 4)
    if s.start:
        propose(T - s.start, "the steps left at the resume", 4)
        propose(T + s.start, "the steps done added", 4)
    for place, total in enumerate(_totals_through(s, latest)):
        propose(total, "as the rate itself says", 6 if place == 0 else 7)
    return totals


def _totals_through(s: Situation, latest: Evidence) -> list[int]:
    """Totals T' with f_T'(step - 1) near the latest record's rate, the nearest first, if few enough to be an answer."""
    p = float(latest.step[0]) - 1
    if with_total(s.schedule, s.schedule.total_steps + 1) is None or p < 1:
        return []
    target = (float(latest.low[0]) + float(latest.high[0])) / 2

    def miss(total: float) -> float:
        variant = over_length(s.schedule, total)
        return float(variant.rate(p)) - target if variant is not None else np.nan

    grid = np.geomspace(max(p + 1, s.schedule.total_steps / 64), s.schedule.total_steps * 64, 600)
    misses = np.array([miss(total) for total in grid])
    through: list[tuple[float, int]] = []  # (how far its rate is from the record's, total)
    for i in np.flatnonzero(np.sign(misses[:-1]) * np.sign(misses[1:]) < 0):
        a, b = float(grid[i]), float(grid[i + 1])
        for _ in range(60):
            middle = (a + b) / 2
            a, b = (middle, b) if np.sign(miss(middle)) == np.sign(misses[i]) else (a, middle)
        through += [(abs(miss(total)), total) for total in (round(a) - 1, round(a), round(a) + 1)]
    return [total for _, total in sorted(through)] if len(through) <= 12 else []
