"""The precision of logged rates: the cell [low, high] of possible rates for each logged value.

A float64 written out is its own cell. A float32 or bfloat16 stands for half a unit in its last binary place. With k
printed significant digits the cell is half a unit in the last digit *of the printed value*: at 1.00e-03 it is lopsided,
[9.995e-4, 1.005e-3], since a digit is lost below. A log that truncates its digits has [value, value + a unit].
"""

from __future__ import annotations

import re
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
FLOAT64, FLOAT32, BFLOAT16, DECIMAL = "float64", "float32", "bfloat16", "decimal"
PRINTED = "printed"  # by a script, in a form that only the values tell
ROUNDED, TRUNCATED = "rounded", "truncated"
HALF_UNIT = {FLOAT32: 2.0**-24, BFLOAT16: 2.0**-8}  # relative to the value, at most
FULL_DIGITS = 12  # a value with that many significant digits was not rounded for print
FLOAT32_DIGITS = (7, 9)  # numpy prints a float32 with as few digits as tell it from its neighbours
FEWEST_DECIMALS = 6  # of a log that has printed nothing but zeros so far: its zero may be anything below half of 1e-6
DECIMALS_OF_A_TEXT = 3  # a text may print no more of a rate that is nearly 0, as the bars of Lightning
_FORM = re.compile(r"%\.(\d+)([efg])")


class Precision:
    """The precision of a log's rates: declared, or inferred from the values.

    Both readings of the digits, significant ones (`%.2e`) and decimals (`%.6f`), are kept and the wider cell is
    used, so a value is never given a narrower cell than it may have. Values seen later can only narrow it.
    """

    def __init__(
        self, digits: int | None = None, *, full: bool = False, fewest_decimals: int = FEWEST_DECIMALS
    ) -> None:
        """`digits`: significant digits, where the format is known; `full`: float64 written out; neither: learn it.

        `fewest_decimals`: how many a log of this kind prints at least, for zeros seen before any other value.
        """
        self._claimed = FLOAT64 if full else DECIMAL if digits is not None else None
        self.significant = digits or 0
        self.decimals: int | None = None
        self._fewest_decimals = fewest_decimals
        self._full_digits = False  # was a value seen that was not rounded for print?
        self._all_float32 = self._all_bfloat16 = True
        self._needs_float32 = False  # was a value seen that uses more bits than chance would leave to a float32?

    @classmethod
    def named(cls, name: str | None) -> Precision | None:
        """The precision named by `lr_precision` in a `run` record: a type or a print format; None if it is neither."""
        if name == FLOAT64:
            return cls(full=True)
        if name in (FLOAT32, BFLOAT16):
            known = cls()
            known._claimed = name
            return known
        if name == PRINTED:
            return cls(fewest_decimals=DECIMALS_OF_A_TEXT)
        form = _FORM.fullmatch(name or "")
        if form is None:
            return None
        digits, kind = int(form[1]), form[2]
        if kind == "f":
            known = cls(0)
            known.decimals = digits
            return known
        return cls(digits + 1 if kind == "e" else max(digits, 1))

    @property
    def kind(self) -> str:
        """FLOAT64, FLOAT32, BFLOAT16 or DECIMAL, as far as the values have shown."""
        if self._claimed == FLOAT64:
            # a float64 is a float32 by chance once in 2^29: a tensor's value was written out
            return FLOAT32 if self._needs_float32 and self._all_float32 else FLOAT64
        if self._claimed is not None:
            return self._claimed
        if not self._full_digits:
            return DECIMAL
        return BFLOAT16 if self._all_bfloat16 else FLOAT32 if self._all_float32 else FLOAT64

    @property
    def full(self) -> bool:
        """Whether each logged value is the exact rate."""
        return self.kind == FLOAT64

    @property
    def modes(self) -> tuple[str, ...]:
        """Possible ways in which a value was shortened: rounded, and if the format is unknown also truncated."""
        return (ROUNDED, TRUNCATED) if self._claimed is None and self.kind == DECIMAL else (ROUNDED,)

    @property
    def words(self) -> str:
        """For a person: what the logged rates are."""
        if self.kind != DECIMAL:
            return f"{self.kind} rates"
        if self._claimed == DECIMAL and self.decimals is not None:
            return f"rates with {self.decimals} decimals"
        return f"rates with {max(self.significant, 1)} significant digit{'s' if self.significant > 1 else ''}"

    def learn(self, values: Floats) -> None:
        """Look at new values; NaN and infinities say nothing."""
        if self._claimed in (DECIMAL, FLOAT32, BFLOAT16) or (not self._all_float32 and self._knows_digits):
            return
        values = np.unique(values[np.isfinite(values) & (values != 0)])
        if not len(values):
            return
        with np.errstate(over="ignore"):
            short = values.astype(np.float32)
        same = short.astype(np.float64) == values
        bits = short.view(np.uint32)
        self._all_float32 &= bool(same.all())
        self._all_bfloat16 &= bool((same & (bits & 0xFFFF == 0)).all())
        self._needs_float32 |= bool((same & (bits & 0xFF != 0)).any())
        for value in values:
            if self._knows_digits:
                return
            digits, decimals = _printed(float(value))
            self.significant = max(self.significant, digits)
            self.decimals = max(self.decimals or 0, decimals)
            self._full_digits |= self.significant >= FULL_DIGITS

    @property
    def _knows_digits(self) -> bool:
        return self._full_digits or self._claimed == FLOAT64

    def cell(self, values: Floats, mode: str = ROUNDED) -> tuple[Floats, Floats]:
        """Lowest and highest rate for each logged value, if it was shortened in this mode."""
        kind = self.kind
        if kind == FLOAT64:
            return values, values
        size = np.abs(values)
        if kind in HALF_UNIT:
            half = HALF_UNIT[kind] * size
            return values - half, values + half
        below, above = self._half_units(size)
        slack = 1e-12 * size  # decimal halves are not binary numbers: a printed tie may lie an ulp outside
        if mode == TRUNCATED:
            return values - slack, values + 2 * above + slack
        return values - below - slack, values + above + slack

    def _half_units(self, size: Floats) -> tuple[Floats, Floats]:
        """Half a unit in the last printed digit, below and above each value."""
        learnt = self._claimed is None
        exponent = np.floor(np.log10(np.where(size > 0, size, 1.0)))
        # the power of ten itself: floor(log10) may err by one ulp there
        exponent = np.where(10.0 ** (exponent + 1) <= size, exponent + 1, exponent)
        if self.significant or learnt:
            above = 0.5 * 10.0 ** (exponent - max(self.significant, 1) + 1)
            below = np.where(size <= 10.0**exponent * (1 + 1e-12), above / 10, above)
        else:
            above = below = np.zeros_like(size)
        if self.decimals is not None:
            fixed = 0.5 * 10.0**-self.decimals
            above, below = np.maximum(above, fixed), np.maximum(below, fixed)
        if learnt and FLOAT32_DIGITS[0] <= self.significant <= FLOAT32_DIGITS[1]:
            above, below = above + HALF_UNIT[FLOAT32] * size, below + HALF_UNIT[FLOAT32] * size
        if learnt and self.significant and self._all_float32:  # 0.93359375 is a bfloat16, and no print of eight digits
            binary = HALF_UNIT[BFLOAT16 if self._all_bfloat16 else FLOAT32] * size
            above, below = np.maximum(above, binary), np.maximum(below, binary)
        # a printed zero has lost its size: only the decimals bound it; significant digits print a zero only for zero
        decimals = self._fewest_decimals if self.decimals is None and learnt else self.decimals
        zero = 0.0 if decimals is None else 0.5 * 10.0**-decimals
        return np.where(size == 0, zero, below), np.where(size == 0, zero, above)


def _printed(value: float) -> tuple[int, int]:
    """Significant digits and decimals of the shortest decimal that reads back as `value`.

    A rate printed in per cent is not a short decimal once divided by 100: 0.0123 % becomes 0.00012299999999999998.
    """
    shortest = Decimal(repr(value)).normalize()
    digits, exponent = _digits(shortest)
    if digits >= FULL_DIGITS:
        percent = Decimal(f"{value * 100:.15g}").normalize()
        if _digits(percent)[0] < FULL_DIGITS and float(percent) / 100 == value:
            digits, exponent = _digits(percent.scaleb(-2))
    return digits, max(0, -exponent)


def _digits(number: Decimal) -> tuple[int, int]:
    _, digits, exponent = number.as_tuple()
    return len(digits), int(exponent)
