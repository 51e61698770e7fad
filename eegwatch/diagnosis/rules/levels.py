"""The level of the training loss, block by block: what several rules of evidence are decided by.

A block's mean is winsorised at its 95 % quantile: one loss of 50 in a block of 200 is a spike, not a new level.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from eegwatch.run.history import StepBlock

TRAILING, LAG = 20, 5  # blocks: what a level is compared with ends this many blocks ago


def quantile(ordered: NDArray[np.float64], q: float) -> float:
    """np.quantile of sorted values."""
    place = q * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (ordered[high] - ordered[low]) * (place - low))


def mean_of(values: list[float]) -> float:
    return sum(values) / len(values)


class Levels:
    """Block means of the loss, the newest last; `fresh` says whether the newest block held a finite loss."""

    def __init__(self) -> None:
        self.means: deque[float] = deque(maxlen=TRAILING + LAG + 1)
        self.seen = 0
        self.fresh = False
        self.mean = self.peak = 0.0  # plain mean and highest loss of the newest block
        self.bulk: NDArray[np.float64] = np.empty(0)  # its finite losses, winsorised

    def learn(self, whole: StepBlock) -> None:
        finite = whole.loss[np.isfinite(whole.loss)].astype(np.float64)
        self.fresh = len(finite) > 0
        if not self.fresh:
            return
        # sums and sorted values: np.mean and np.quantile check for longer than a block of 200 takes to add up
        ordered = np.sort(finite)
        self.mean, self.peak = float(finite.sum()) / len(finite), float(ordered[-1])
        self.bulk = np.minimum(finite, quantile(ordered, 0.95))
        self.means.append(float(self.bulk.sum()) / len(finite))
        self.seen += 1
