"""What a logged rate can really have been: the rounding cell [low, high] around each printed value.

At full float64 precision the cell is the value itself. With k printed significant digits it is half a unit in the
last digit *of the printed value*: at 1.00e-03 it is lopsided, [9.995e-4, 1.005e-3], since a digit is lost below.
"""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
FULL_DIGITS = 12  # a value with that many significant digits was not rounded for print


class Precision:
    """Finds, from the values themselves, how many digits a log prints; or is told.

    Both readings of the digits, significant ones (`%.2e`) and decimals (`%.6f`), are kept and the wider cell is
    used, so a value is never given a narrower cell than it may have. Values seen later can only narrow it.
    """

    def __init__(self, digits: int | None = None, *, full: bool = False) -> None:
        """`digits`: significant digits, where the format is known; `full`: float64 written out; neither: find out."""
        self.full = full
        self.known = digits is not None
        self.significant = digits or 0
        self.decimals = 0

    def learn(self, values: Floats) -> None:
        """Look at new values until one is seen that cannot have been rounded."""
        if self.full or self.known:
            return
        for value in np.unique(values[np.isfinite(values) & (values != 0)]):
            digits, decimals = _printed(float(value))
            self.significant = max(self.significant, digits)
            self.decimals = max(self.decimals, decimals)
            if self.significant >= FULL_DIGITS:
                self.full = True
                return

    def cell(self, values: Floats) -> tuple[Floats, Floats]:
        """Lowest and highest rate that each printed value stands for."""
        if self.full:
            return values, values
        size = np.abs(values)
        exponent = np.floor(np.log10(np.where(size > 0, size, 1.0)))
        # the power of ten itself: floor(log10) may err by one ulp there
        exponent = np.where(10.0 ** (exponent + 1) <= size, exponent + 1, exponent)
        digits = max(self.significant, 1)
        above = 0.5 * 10.0 ** (exponent - digits + 1)
        below = np.where(size <= 10.0**exponent * (1 + 1e-12), above / 10, above)
        if not self.known:
            fixed = 0.5 * 10.0**-self.decimals
            above, below = np.maximum(above, fixed), np.maximum(below, fixed)
        # a printed zero has lost its size: only the decimals seen elsewhere bound it, and without any nothing does
        zero = 0.5 * 10.0**-self.decimals if self.decimals else np.inf
        above, below = np.where(size == 0, zero, above), np.where(size == 0, zero, below)
        slack = 1e-12 * size  # decimal halves are not binary numbers: a printed tie may lie an ulp outside
        return values - below - slack, values + above + slack


def _printed(value: float) -> tuple[int, int]:
    """Significant digits and decimals of the shortest decimal that reads back as `value`."""
    _, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    return len(digits), max(0, -int(exponent)) if math.isfinite(value) else 0
