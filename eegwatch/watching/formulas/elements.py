"""Sampled elements of the tensors that an optimizer holds, as columns of one length."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Elements:
    """Elements before a step and what the formula needs of each, by name: arrays of one length, float64.

    Always there: `weight`, `gradient`, `count` (steps that the optimizer counted of the tensor before this one), and of
    the element's type `unit` (the unit roundoff), `tiny` (the smallest normal number) and `huge` (half the largest
    number). The others are the settings of the parameter group (flags as 0 and 1) and the averages of the optimizer,
    as its formula names them.
    """

    columns: Mapping[str, Floats]

    def __getitem__(self, name: str) -> Floats:
        return self.columns[name]

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def of(self, rows: Any) -> Elements:
        """Only these elements: a mask, or their places."""
        return Elements({name: column[rows] for name, column in self.columns.items()})

    def but(self, **changed: Any) -> Elements:
        """The same with other columns; a number stands for all elements."""
        like = self.columns["weight"]
        whole = {name: np.broadcast_to(np.asarray(one, np.float64), like.shape) for name, one in changed.items()}
        return Elements({**self.columns, **whole})

    def begun(self, name: str, otherwise: Any) -> Floats:
        """An average, and what it begins with where the optimizer has none of the tensor yet (NaN)."""
        column = self.columns[name]
        return np.where(np.isnan(column), otherwise, column)
