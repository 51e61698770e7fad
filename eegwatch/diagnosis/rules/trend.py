"""The trend of one logged number over a whole attempt, in at most 256 blocks for any length of the log.

The first blocks hold 4 records; when there are 256, neighbours are joined, so a block holds twice as many from then on.
Thus a log of sixty records and one of a million are judged alike, and neither the length of the run nor the spacing of
its records need be known.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]
FIRST, MOST = 4, 256  # records in a block at first; blocks
LEVEL, VARIANCE, STEP, RATE = range(4)


def middle(values: Column) -> float:
    """The upper median; np.median checks for longer than 24 values take to sort."""
    return float(np.sort(values)[len(values) // 2])


class Trend:
    """Blocks of a series: `level` (winsorised mean), `scatter` (standard deviation within), `step` (its last one)."""

    def __init__(self) -> None:
        self.size = FIRST  # records in a block
        self.first = self.lowest_start = float("nan")  # the first record; the lower of it and the first block's level
        self._rest = np.empty((0, 3))  # step, value, rate of records that fill no FIRST yet
        self._open = np.empty((0, 4))  # blocks of FIRST that fill no whole one yet
        self._rows = np.empty((MOST, 4))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def level(self) -> Column:
        """(blocks,): mean of each block, its outermost records of each four counted as their neighbours."""
        return self._rows[: self._count, LEVEL]

    @property
    def scatter(self) -> Column:
        """(blocks,): standard deviation of single records around the level of their own four."""
        out: Column = np.sqrt(self._rows[: self._count, VARIANCE])
        return out

    @property
    def step(self) -> Column:
        """(blocks,): the last step of each."""
        return self._rows[: self._count, STEP]

    @property
    def rate(self) -> Column:
        """(blocks,): the highest learning rate in each; NaN where none was logged."""
        return self._rows[: self._count, RATE]

    def feed(self, step: NDArray[np.int64], value: Column, rate: Column) -> bool:
        """Take the records with a finite value; True if a block is complete."""
        known = np.isfinite(value)
        rows = np.column_stack([step[known], value[known], rate[known]])
        if np.isnan(self.first) and len(rows):
            self.first = float(rows[0, 1])
        self._rest = np.concatenate([self._rest, rows])
        fours = len(self._rest) // FIRST
        if not fours:
            return False
        self._open = np.concatenate([self._open, _blocks_of(self._rest[: fours * FIRST].reshape(fours, FIRST, 3))])
        self._rest = self._rest[fours * FIRST :]
        if np.isnan(self.lowest_start):
            self.lowest_start = min(self.first, float(self._open[0, LEVEL]))
        grew = False
        while len(self._open) * FIRST >= self.size:
            take = self.size // FIRST
            self._add(_joined(self._open[None, :take])[0])
            self._open, grew = self._open[take:], True
        return grew

    def _add(self, row: Column) -> None:
        self._rows[self._count] = row
        self._count += 1
        if self._count == MOST:
            self._rows[: MOST // 2] = _joined(self._rows.reshape(MOST // 2, 2, 4))
            self._count, self.size = MOST // 2, self.size * 2


def _blocks_of(records: Column) -> Column:
    """(n, FIRST, 3) of step, value, rate -> (n, 4) of level, variance, last step, highest rate."""
    values = np.sort(records[:, :, 1], axis=1)
    variance = values.var(axis=1, ddof=1)
    # one loss of 50 among four is a spike, not a new level
    values[:, 0], values[:, -1] = values[:, 1], values[:, -2]
    return np.column_stack([values.mean(axis=1), variance, records[:, -1, 0], _highest(records[:, :, 2])])


def _joined(blocks: Column) -> Column:
    """(n, several, 4) -> (n, 4): several neighbours of equal size become one."""
    means = blocks.mean(axis=1)
    return np.column_stack([means[:, LEVEL], means[:, VARIANCE], blocks[:, -1, STEP], _highest(blocks[:, :, RATE])])


def _highest(rates: Column) -> Column:
    """Along the last axis, NaN only where all are."""
    highest = np.where(np.isfinite(rates), rates, -np.inf).max(axis=-1)
    out: Column = np.where(np.isneginf(highest), np.nan, highest)
    return out
