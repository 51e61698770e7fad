"""The schedule read backwards: at which positions could a printed rate have been produced?"""

from __future__ import annotations

import numpy as np

from eegwatch.schedule.base import Schedule

GRID = 1 << 14


def position_intervals(schedule: Schedule, low: float, high: float) -> list[tuple[int, int]]:
    """Integer positions p in [0, T - 1] with low <= f(p) <= high, as closed intervals in order.

    Works for any curve: f is sampled on a grid and each crossing refined by bisection. A stretch shorter than
    T / 16384 in which f enters and leaves the cell between two grid points can be missed (a step that nobody logs).
    """
    last = schedule.total_steps - 1
    grid = np.unique(np.linspace(0, last, min(last + 1, GRID + 1)).round().astype(np.int64))
    below = schedule.rate(grid) < low
    above = schedule.rate(grid) > high
    state = above.astype(np.int8) - below.astype(np.int8)  # -1 below the cell, 0 in it, 1 above it

    def side(p: int) -> int:
        rate = float(schedule.rate(p))
        return -1 if rate < low else 1 if rate > high else 0

    def first_where(a: int, b: int, wanted: int) -> int:
        """The first position in (a, b] from which the side is `wanted` or beyond it, f being monotone between."""
        start = side(a)
        while b - a > 1:
            middle = (a + b) // 2
            now = side(middle)
            if now == start or (now - wanted) * (start - wanted) > 0:
                a = middle
            else:
                b = middle
        return b

    found: list[tuple[int, int]] = []
    changes = np.flatnonzero(np.diff(state))
    begin: int | None = int(grid[0]) if state[0] == 0 else None
    for i in changes:
        a, b, was, now = int(grid[i]), int(grid[i + 1]), int(state[i]), int(state[i + 1])
        if was != 0 and now == 0:
            begin = first_where(a, b, 0)
        elif was == 0 and begin is not None:
            found.append((begin, first_where(a, b, now) - 1))
            begin = None
        elif was != 0 and now != 0:  # through the whole cell between two grid points
            enter = first_where(a, b, 0)
            leave = first_where(enter - 1, b, now)
            if leave > enter and side(enter) == 0:
                found.append((enter, leave - 1))
    if begin is not None:
        found.append((begin, int(grid[-1])))
    return found
