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


STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200)  # seconds between ticks
DAY_S = 86_400.0
LOG_STEPS = ((1.0, 2.0, 5.0), (1.0, 3.0), (1.0,))  # values a decade, as many as there is room for


def ticks(axis: Axis, most: int, *, whole: bool = False) -> list[float]:
    """Round values: 1, 2, 5 times a power of ten, or decades on a log axis.

    `whole`: on a linear axis integers alone, as for steps.
    """
    if most < 1 or not axis.high > axis.low:
        return []
    if axis.log:
        values = _log_ticks(axis, most)
        if len(values) >= 2:
            return values
        # zoomed in between two decades: round values, as on a linear axis
    raw = (axis.high - axis.low) / most
    power = 10.0 ** np.floor(np.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    return multiples(axis, max(step, 1.0) if whole else step)


def multiples(axis: Axis, step: float) -> list[float]:
    """The multiples of a step within the axis."""
    first = np.ceil(axis.low / step - 1e-9)
    last = np.floor(axis.high / step + 1e-9)
    return [float(n * step) + 0.0 for n in np.arange(first, last + 1)]  # never -0


def _log_ticks(axis: Axis, most: int) -> list[float]:
    decades = np.arange(np.floor(np.log10(axis.low)), np.ceil(np.log10(axis.high)) + 1)
    values: list[float] = []
    for steps in LOG_STEPS:
        grid = (10.0 ** decades[:, None] * np.array(steps)).ravel()
        values = [float(v) for v in grid if axis.low * 0.999 <= v <= axis.high * 1.001]
        if len(values) <= most:
            return values
    return values[:: -(-len(values) // most)]


def time_ticks(axis: Axis, most: int) -> tuple[list[float], float]:
    """(ticks of an axis in seconds, the distance between them): round numbers of seconds, minutes, hours or days."""
    if most < 1 or not axis.high > axis.low:
        return [], 1.0
    raw = (axis.high - axis.low) / most
    if raw < STEPS_S[0]:
        values = ticks(axis, most)
        return values, raw
    step = next((float(s) for s in STEPS_S if s >= raw), 0.0)
    if not step:
        days = ticks(Axis(axis.low / DAY_S, axis.high / DAY_S), most, whole=True)
        return [day * DAY_S for day in days], DAY_S
    return multiples(axis, step), step


def time_text(seconds: float, step: float) -> str:
    """A tick of a time axis in the unit that its distance to the next one asks for: 30 s, 15 min, 6 h, 3 d."""
    for unit, size in (("d", DAY_S), ("h", 3600.0), ("min", 60.0)):
        if step >= size and seconds % size < 1e-6 * size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s" if step < 60 else f"{seconds / 60:g} min"
