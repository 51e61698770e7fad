"""The schedule read backwards: at which positions could a printed rate have been produced?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eegwatch.schedule.base import Schedule

GRID = 1 << 14


def position_intervals(schedule: Schedule, low: float, high: float) -> list[tuple[int, int]]:
    """Integer positions p in [0, T - 1] with low <= f(p) <= high, as closed intervals in order.

    Works for any curve: f is sampled on a grid and each crossing refined by bisection. A stretch shorter than
    T / 16384 in which f enters and leaves the cell between two grid points can be missed (a step that nobody logs).
    """
    last = schedule.total_steps - 1
    grid = np.unique(np.linspace(0, last, min(last + 1, GRID + 1)).round().astype(np.int64))

    def side(positions: NDArray[np.int64]) -> NDArray[np.int8]:
        """-1 below the cell, 0 in it, 1 above it."""
        rates = schedule.rate(positions)
        return (rates > high).astype(np.int8) - (rates < low).astype(np.int8)

    def first_where(a: NDArray[np.int64], b: NDArray[np.int64], wanted: NDArray[np.int8]) -> NDArray[np.int64]:
        """The first positions in (a, b] from which the side is `wanted` or beyond it, f being monotone between.

        All crossings are bisected at once: a schedule of many cycles has thousands of them.
        """
        start = side(a)
        while (open_ := b - a > 1).any():
            middle = (a + b) // 2
            now = side(middle)
            before = open_ & ((now == start) | ((now - wanted) * (start - wanted) > 0))
            a = np.where(before, middle, a)
            b = np.where(open_ & ~before, middle, b)
        return b

    state = side(grid)
    changes = np.flatnonzero(np.diff(state))
    a, b, was, now = grid[changes], grid[changes + 1], state[changes], state[changes + 1]
    enter = first_where(a, b, np.zeros_like(was))  # meant where the stretch begins outside the cell
    after = first_where(np.where(was == 0, a, np.maximum(enter - 1, 0)), b, now)  # meant where it ends outside
    inside = side(enter) == 0
    intervals: list[tuple[int, int]] = []
    begin: int | None = int(grid[0]) if state[0] == 0 else None
    for i in range(len(changes)):
        if now[i] == 0:
            begin = int(enter[i])
        elif was[i] == 0 and begin is not None:
            intervals.append((begin, int(after[i]) - 1))
            begin = None
        elif was[i] != 0 and after[i] > enter[i] and inside[i]:  # through the whole cell between two grid points
            intervals.append((int(enter[i]), int(after[i]) - 1))
    if begin is not None:
        intervals.append((begin, int(grid[-1])))
    return intervals
