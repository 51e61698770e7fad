"""Phases of a series of rates: rises, holds and falls, as far as the printed digits show them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eegwatch.schedule.inference.curves import Floats

Steps = NDArray[np.int64]


@dataclass(frozen=True)
class Records:
    """Rates as cells: the step, the printed rate, the lowest and the highest that it can have been; (n,) each."""

    step: Steps
    rate: Floats
    low: Floats
    high: Floats

    def __len__(self) -> int:
        return len(self.step)

    def __getitem__(self, rows: slice | NDArray[np.intp] | NDArray[np.bool_]) -> Records:
        return Records(self.step[rows], self.rate[rows], self.low[rows], self.high[rows])

    @property
    def at(self) -> Floats:
        """The steps as float64."""
        return self.step.astype(np.float64)

    def holds(self, predicted: Floats) -> NDArray[np.bool_]:
        """Which of the records can have had the predicted rate."""
        inside: NDArray[np.bool_] = (predicted >= self.low) & (predicted <= self.high)
        return inside

    def thinned(self, most: int) -> Records:
        """About `most` of them, evenly, the first and the last among them."""
        if len(self) <= most:
            return self
        return self[np.unique(np.linspace(0, len(self) - 1, most).round().astype(np.intp))]

    @property
    def exact(self) -> bool:
        """Are the rates known to a part in a million or better?"""
        size = np.abs(self.rate)
        return bool(((self.high - self.low) <= 1e-6 * size + 1e-11 * size.max(initial=0.0)).all())

    @property
    def distinct(self) -> int:
        return len(np.unique(self.rate))


@dataclass(frozen=True)
class Cycle:
    """One rise, hold and fall: rows into the records.

    `rising`: records that are followed by a higher one; `falling`: preceded by a higher one. What is neither stands at
    the top (`top`) or at the bottom, after the fall (`bottom`).
    """

    first: int
    end: int
    rising: slice
    top: slice
    falling: slice
    bottom: slice


def cycles(records: Records) -> list[Cycle]:
    """The rises and falls in order; [] where the rates do not move."""
    y = records.rate
    sign = np.sign(np.diff(y))
    if not sign.any():
        return []
    moving = np.flatnonzero(sign)
    cycles: list[Cycle] = []
    begin = 0
    ups = moving[sign[moving] > 0]
    downs = moving[sign[moving] < 0]
    while begin < len(y) - 1:
        down = downs[downs >= begin]
        first_down = int(down[0]) if len(down) else len(y) - 1
        up_again = ups[ups >= first_down]
        end = int(up_again[0]) + 1 if len(up_again) else len(y)
        before = ups[(ups >= begin) & (ups < first_down)]
        rise_end = int(before[-1]) + 1 if len(before) else begin
        fall = downs[(downs >= first_down) & (downs < end - 1)]
        fall_end = int(fall[-1]) + 2 if len(fall) else end
        cycles.append(
            Cycle(begin, end, slice(begin, rise_end), slice(rise_end, min(first_down + 1, end)),
                  slice(min(first_down + 1, end), fall_end), slice(fall_end, end))
        )  # fmt: skip
        begin = end
    return cycles
