"""The way up: what line the rising records lie on, from zero or from an initial rate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eegwatch.schedule.inference.phases import Records
from eegwatch.schedule.inference.short_decimals import shortest


@dataclass(frozen=True)
class Rise:
    """A line that has `initial` at step `begin` and a slope in [least, most] a step."""

    begin: int
    initial: float
    least: float
    most: float


def rises(r: Records, begins: tuple[int, ...]) -> list[Rise]:
    """The lines through every record of `r`; `begins` are the steps that position 0 may have."""
    rises: list[Rise] = []
    zero = _zero_crossing(r) if r.exact else None
    if zero is not None and zero > int(r.step[0]):
        zero = None
    for begin in dict.fromkeys((*(() if zero is None else (zero,)), *begins)):
        rise = _through(r, begin, 0.0)
        if rise is not None:
            rises.append(rise)
    if rises or len(r) < 2:
        return rises
    for begin in begins:
        span = float(r.step[-1] - r.step[0])
        steepest = (r.high[-1] - r.low[0]) / span
        flattest = (r.low[-1] - r.high[0]) / span
        before = float(r.step[0]) - begin
        for initial in shortest(r.low[0] - steepest * before, r.high[0] - flattest * before):
            rise = _through(r, begin, initial)
            if rise is not None and initial >= 0:
                rises.append(rise)
    return rises


def _zero_crossing(r: Records) -> int | None:
    if len(r) < 2:
        return None
    slope = (r.rate[-1] - r.rate[0]) / float(r.step[-1] - r.step[0])
    return round(float(r.step[0] - r.rate[0] / slope)) if slope > 0 else None


def _through(r: Records, begin: int, initial: float) -> Rise | None:
    into = (r.step - begin).astype(np.float64)
    later = into > 0
    if (into < 0).any() or not ((r.low <= initial) & (r.high >= initial))[into == 0].all():
        return None
    if not later.any():  # only the first rate of the way up was logged
        return Rise(begin, initial, 0.0, np.inf)
    least = float(((r.low[later] - initial) / into[later]).max())
    most = float(((r.high[later] - initial) / into[later]).min())
    return Rise(begin, initial, least, most) if least <= most and most > 0 else None
