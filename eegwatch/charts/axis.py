"""The range of a chart's axis, linear or logarithmic, and the values that are labelled on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Axis:
    """A linear or logarithmic range. `unit(v)` maps values to 0 … 1."""

    low: float
    high: float
    log: bool = False

    def unit(self, values: Floats) -> Floats:
        if not self.log:
            return np.asarray((values - self.low) / (self.high - self.low))
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray((np.log(values) - np.log(self.low)) / (np.log(self.high) - np.log(self.low)))


def ticks(axis: Axis, most: int) -> list[float]:
    """Values that a person would choose: 1, 2, 5 times a power of ten, or decades on a log axis."""
    if most < 1 or not axis.high > axis.low:
        return []
    if axis.log:
        decades = np.arange(np.floor(np.log10(axis.low)), np.ceil(np.log10(axis.high)) + 1)
        steps = np.array([1.0, 3.0]) if len(decades) * 2 <= most + 2 else np.array([1.0])
        values = (10.0 ** decades[:, None] * steps).ravel()
        values = values[(values >= axis.low * 0.999) & (values <= axis.high * 1.001)]
        if len(values) >= 2:
            stride = -(-len(values) // most)
            return [float(v) for v in values[::stride]]
        # zoomed in between two decades: round values, as on a linear axis
    raw = (axis.high - axis.low) / most
    power = 10.0 ** np.floor(np.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first = np.ceil(axis.low / step - 1e-9)
    last = np.floor(axis.high / step + 1e-9)
    return [float(n * step) + 0.0 for n in np.arange(first, last + 1)]  # never -0
