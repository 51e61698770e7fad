"""Lengths and heights of a fall: which ends, peaks and floors the cells of the records allow, in closed form.

Arrays over candidates are (k, 1), over records (1, n): S where the fall begins, m its height, in steps of the log.
"""

from __future__ import annotations

import numpy as np

from eegwatch.schedule.inference.curves import Fall, Floats
from eegwatch.schedule.inference.phases import Records

LONGEST = 1e5  # times what was seen of it: a fall is not followed further ahead
BISECTIONS, FEW_BISECTIONS = 80, 32  # the second where the rates have few digits


def lengths(fall: Fall, r: Records, S: Floats, m: Floats, f: Floats) -> tuple[Floats, Floats]:
    """Least and most length L of a fall from m at S to f, over all records, (k,) each; least > most where none fits."""
    n, span = r.step[None, :].astype(np.float64), m - f
    with np.errstate(all="ignore"):
        low, high = (r.low[None, :] - f) / span, (r.high[None, :] - f) / span
        early = np.where(high >= 1, 0.0, fall.inverse(high))  # least x: the highest the rate can have been
        late = np.where(low <= 0, np.inf, fall.inverse(low))
        into = n - S
        least = np.where(into > 0, into / late, 0.0).max(1)
        most = np.where((early > 0) & (into > 0), into / early, np.inf).min(1)
        impossible = ((low > 1) & (into > 0)).any(1) | ((early > 0) & (into <= 0)).any(1) | (span[:, 0] <= 0)
    return np.where(impossible, np.inf, least), np.where(impossible, 0.0, most)


def length_by_ratio(fall: Fall, r: Records, S: Floats, ratio: float, floor: float | Floats = 0.0) -> Floats:
    """L (k,) for which rate(last) / rate(first) of a fall from 1 at S to `floor` is `ratio`; the longest where none.

    `floor`: one, or one a candidate (k,).
    """
    first, last = float(r.step[0]), float(r.step[-1])
    low = np.log(np.full(len(S), max(last - float(S.min()), 1.0)) * 1e-3)
    high = np.log(np.maximum(last - S[:, 0], 1.0) * LONGEST)
    for _ in range(BISECTIONS if r.exact else FEW_BISECTIONS):
        L = np.exp((low + high) / 2)
        with np.errstate(all="ignore"):
            a = floor + (1 - floor) * fall.at((first - S[:, 0]) / L)
            b = floor + (1 - floor) * fall.at((last - S[:, 0]) / L)
            short = ~(b / a > ratio)  # it falls too steeply (or is over): longer
        low, high = np.where(short, (low + high) / 2, low), np.where(short, high, (low + high) / 2)
    return np.exp((low + high) / 2)


def length_by_drops(fall: Fall, r: Records, S: Floats, m: Floats) -> Floats:
    """L (k,) for which (m - rate(middle)) / (m - rate(last)) is that of the records, whatever the floor is."""
    middle = len(r) // 2
    at, last = float(r.step[middle]), float(r.step[-1])
    with np.errstate(all="ignore"):
        wanted = (m[:, 0] - r.rate[middle]) / (m[:, 0] - r.rate[-1])
    low = np.log(np.maximum(last - S[:, 0], 1.0))
    high = np.log(np.maximum(last - S[:, 0], 1.0) * LONGEST)

    def share(L: Floats) -> Floats:
        with np.errstate(all="ignore"):
            return (1 - fall.at((at - S[:, 0]) / L)) / (1 - fall.at((last - S[:, 0]) / L))

    rising = share(np.exp(high)) < share(np.exp(low))  # a longer fall has the smaller share: concave falls
    for _ in range(BISECTIONS):
        L = np.exp((low + high) / 2)
        more = (share(L) > wanted) == rising
        low, high = np.where(more, (low + high) / 2, low), np.where(more, high, (low + high) / 2)
    return np.exp((low + high) / 2)


def length_by_three(fall: Fall, r: Records, S: Floats) -> Floats:
    """L (k,) for which (y0 - y1) / (y1 - y2) of three records is that of the fall, whatever peak and floor are."""
    i, j = 0, len(r) // 2
    a, b, c = (float(r.step[k]) for k in (i, j, -1))
    drop = r.rate[j] - r.rate[-1]
    wanted = (r.rate[i] - r.rate[j]) / drop if drop else np.inf
    low = np.log(np.maximum(c - S[:, 0], 1.0))
    high = np.log(np.maximum(c - S[:, 0], 1.0) * LONGEST)

    def share(L: Floats) -> Floats:
        with np.errstate(all="ignore"):
            x, y, z = (fall.at((k - S[:, 0]) / L) for k in (a, b, c))
            return (x - y) / (y - z)

    rising = share(np.exp(high)) < share(np.exp(low))
    for _ in range(BISECTIONS):
        L = np.exp((low + high) / 2)
        more = (share(L) > wanted) == rising
        low, high = np.where(more, (low + high) / 2, low), np.where(more, high, (low + high) / 2)
    return np.exp((low + high) / 2)


def heights(g: Floats, r: Records, f: float = 0.0) -> tuple[float, float]:
    """Least and most peak m of rates f + (m - f) g, over all records; least > most where none fits."""
    some = g > 1e-9
    if not some.any():
        return np.inf, -np.inf
    low, high = f + (r.low[some] - f) / g[some], f + (r.high[some] - f) / g[some]
    return float(low.max()), float(high.min())


def floors(g: Floats, r: Records, m: float) -> tuple[float, float]:
    """Least and most floor f of rates f + (m - f) g."""
    some = g < 1 - 1e-9
    if not some.any():
        return np.inf, -np.inf
    low, high = (r.low[some] - m * g[some]) / (1 - g[some]), (r.high[some] - m * g[some]) / (1 - g[some])
    return float(low.max()), float(high.min())
