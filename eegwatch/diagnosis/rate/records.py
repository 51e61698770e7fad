"""The rates of one parameter group as they were logged, step by step, without the records that logged none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eegwatch.run.history import StepBlock, logged_nan

NEAR = 2  # records: a scaler's skip is logged with the norm of its own step or of a neighbouring one


@dataclass(frozen=True)
class Rates:
    """Columns of equal length. `overflow`: a gradient norm near this record was not finite (a scaler skips there)."""

    step: NDArray[np.int64]
    lr: NDArray[np.float64]
    position: NDArray[np.float64]
    skipped: NDArray[np.int32]
    overflow: NDArray[np.bool_]

    @classmethod
    def of(cls, block: StepBlock, group: int = 0) -> Rates:
        """One group's finite rates; a group beyond the columns of `lrs` has none."""
        lr = block.lr
        if block.lrs is not None and group:
            width = block.lrs.shape[1]
            lr = block.lrs[:, group] if group < width else np.full(len(block), np.nan)
        norms = block.grad_norm
        broken = np.isinf(norms) | logged_nan(norms)
        overflow = broken.copy()
        if broken.any():
            for shift in range(1, NEAR + 1):
                overflow[shift:] |= broken[:-shift]
                overflow[:-shift] |= broken[shift:]
        known = np.isfinite(lr)
        columns = (block.step, lr, block.position, block.skipped, overflow)
        return cls(*(columns if known.all() else (column[known] for column in columns)))

    def joined(self, later: Rates) -> Rates:
        """Both, one after the other."""
        names = ("step", "lr", "position", "skipped", "overflow")
        return Rates(*(np.concatenate([getattr(self, name), getattr(later, name)]) for name in names))

    def __len__(self) -> int:
        return len(self.step)

    def __getitem__(self, rows: slice) -> Rates:
        return Rates(self.step[rows], self.lr[rows], self.position[rows], self.skipped[rows], self.overflow[rows])
