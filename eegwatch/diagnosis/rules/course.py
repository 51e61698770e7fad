"""The course of one logged number over a whole attempt, in at most 256 blocks whatever the length of the log.

The first blocks hold 8 records; when there are 256, neighbours are joined, so a block holds more from then on. Thus a
log of a hundred records and one of a million are judged alike, and neither the length of the run nor the spacing of
its records need be known. Only whole blocks count, so that the result does not depend on how the log was cut up.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]
FIRST, MOST = 8, 256  # records in a block at first; blocks


class Course:
    """Blocks of a series: `level` (winsorised mean), `scatter` (standard deviation within), `step` (its last one)."""

    def __init__(self) -> None:
        self._rest: list[tuple[int, float, float]] = []  # step, value, rate: of a block that is not whole yet
        self._open: list[tuple[float, float, int, float]] = []  # blocks of FIRST records that fill a larger one
        self._size = FIRST
        self._rows = np.empty((MOST, 4))
        self._count = 0
        self.first = float("nan")  # level of the first FIRST records
        self.first_scatter = 0.0

    def __len__(self) -> int:
        return self._count

    @property
    def size(self) -> int:
        """Records in a block."""
        return self._size

    @property
    def level(self) -> Column:
        return self._rows[: self._count, 0]

    @property
    def scatter(self) -> Column:
        """Standard deviation of single records within each block."""
        out: Column = np.sqrt(self._rows[: self._count, 1])
        return out

    @property
    def step(self) -> NDArray[np.int64]:
        return self._rows[: self._count, 2].astype(np.int64)

    @property
    def lr(self) -> Column:
        """Highest learning rate in each block; NaN where none was logged."""
        return self._rows[: self._count, 3]

    def feed(self, step: NDArray[np.int64], value: Column, lr: Column) -> bool:
        """Take the finite ones of these records; True if a block became whole."""
        known = np.isfinite(value)
        before = self._count
        rows = list(zip(step[known].tolist(), value[known].tolist(), lr[known].tolist(), strict=True))
        self._rest += rows
        whole = len(self._rest) // FIRST
        for i in range(whole):
            self._take(self._rest[i * FIRST : (i + 1) * FIRST])
        if whole:
            del self._rest[: whole * FIRST]
        return self._count != before

    def _take(self, records: list[tuple[int, float, float]]) -> None:
        values = sorted(value for _, value, _ in records)
        # one spike of 50 among eight is a spike, not a new level: the outermost count as their neighbours do
        values[0], values[-1] = values[1], values[-2]
        mean = sum(values) / FIRST
        variance = sum((v - mean) ** 2 for v in values) / (FIRST - 1)
        rates = [lr for _, _, lr in records if lr == lr]
        if np.isnan(self.first):
            self.first, self.first_scatter = mean, variance**0.5
        self._open.append((mean, variance, records[-1][0], max(rates) if rates else float("nan")))
        if len(self._open) * FIRST < self._size:
            return
        self._rows[self._count] = _joined(np.array(self._open))
        self._count += 1
        self._open = []
        if self._count == MOST:
            pairs = self._rows.reshape(MOST // 2, 2, 4)
            self._rows[: MOST // 2] = [_joined(pair) for pair in pairs]
            self._count, self._size = MOST // 2, self._size * 2


def _joined(blocks: Column) -> Column:
    """One row of several of equal size: (level, variance within, last step, highest rate)."""
    rates = blocks[:, 3]
    known = rates[np.isfinite(rates)]
    return np.array([blocks[:, 0].mean(), blocks[:, 1].mean(), blocks[-1, 2], known.max() if len(known) else np.nan])
