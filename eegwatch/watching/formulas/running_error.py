"""Numbers with a bound of what rounding has done to them: each operation adds its own (running error analysis).

N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, section 3.3. An optimizer may add and
multiply in another order than these expressions do (lerp, fused multiplication), so an operation counts as ROUNDINGS.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from eegwatch.watching.formulas.elements import Elements, Floats

ROUNDINGS = 4.0  # units of roundoff that one operation here stands for
STEP_SLACK = 1e-4  # of the step: bias corrections in float32 lose as much (1 - 0.999 in float32 is off by 3e-5)
ULPS = 8.0  # half units in the last place of the parameter: 4 ulp


class Bounded:
    """Arrays of values and of the most that rounding may have moved each of them; `of`: the elements' columns.

    The error is infinite where a value is more than the element's type can hold.
    """

    __slots__ = ("error", "of", "value")

    def __init__(self, of: Elements, value: Any, error: Any = 0.0) -> None:
        """A value that was read as it is has no error; operations on it round as numbers of its type do."""
        self.of, self.value, self.error = of, value, error

    def _rounded(self, value: Any, error: Any) -> Bounded:
        e, size = self.of, np.abs(value)
        error = np.where(size < e["huge"], error + (ROUNDINGS * e["unit"]) * size + e["tiny"], np.inf)
        return Bounded(e, value, error)

    def _other(self, other: Any) -> tuple[Any, Any]:
        return (other.value, other.error) if isinstance(other, Bounded) else (other, 0.0)

    def __add__(self, other: Any) -> Bounded:
        value, error = self._other(other)
        return self._rounded(self.value + value, self.error + error)

    def __sub__(self, other: Any) -> Bounded:
        value, error = self._other(other)
        return self._rounded(self.value - value, self.error + error)

    def __mul__(self, other: Any) -> Bounded:
        value, error = self._other(other)
        spread = np.abs(self.value) * error + self.error * (np.abs(value) + error)
        return self._rounded(self.value * value, spread)

    def __truediv__(self, other: Any) -> Bounded:
        value, error = self._other(other)
        least = np.abs(value) - error
        result = self.value / value
        spread = np.where(least > 0, (self.error + np.abs(result) * error) / least, np.inf)
        return self._rounded(result, spread)

    def __abs__(self) -> Bounded:
        return Bounded(self.of, np.abs(self.value), self.error)

    def sqrt(self) -> Bounded:
        """NaN where the value is negative: an optimizer makes the same of it."""
        least = np.sqrt(np.maximum(self.value - self.error, 0.0))
        result = np.sqrt(self.value)
        return self._rounded(result, self.error / (result + least + 1e-300))

    def maximum(self, other: Bounded) -> Bounded:
        larger = np.maximum(self.value, other.value)
        return Bounded(self.of, larger, np.maximum(self.error, other.error))

    def clipped(self, low: Any, high: Any) -> Bounded:
        return Bounded(self.of, np.clip(self.value, low, high), self.error)

    def sign(self) -> Bounded:
        """The sign; where rounding may have turned it nothing is known of it."""
        sure = np.abs(self.value) > self.error
        zero = (self.value == 0) & (self.error <= self.of["tiny"])
        return Bounded(self.of, np.sign(self.value), np.where(sure | zero, 0.0, np.inf))

    def where(self, condition: Any, other: Bounded) -> Bounded:
        """This number where the condition holds, the other elsewhere."""
        value = np.where(condition, self.value, other.value)
        return Bounded(self.of, value, np.where(condition, self.error, other.error))


def less(e: Elements, weight: Floats, step: Bounded) -> tuple[Floats, Floats]:
    """(the weight after the step, how far rounding may take it from that)."""
    after = weight - step.value
    largest = np.maximum(np.abs(e["weight"]), np.abs(after))
    return after, step.error + STEP_SLACK * np.abs(step.value) + ULPS * e["unit"] * largest + e["tiny"]
