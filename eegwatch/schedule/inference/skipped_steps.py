"""Laws with skipped steps: the scheduler does not move when mixed precision skips the optimizer, and lags from then on.

The rate is then that of an earlier position: by a whole number of steps, which only grows. Exact records alone show it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from eegwatch.schedule import ScheduleError, parse
from eegwatch.schedule.inference.curves import COSINE, Floats
from eegwatch.schedule.inference.law import Law
from eegwatch.schedule.inference.phases import Cycle, Records
from eegwatch.schedule.inference.search import SHARES, Known
from eegwatch.schedule.inference.short_decimals import shortest

MOST_SKIPPED = 32  # or a fiftieth of the steps
WHOLE = 2e-3  # of a step: how near a lag must come to a whole number
SURPLUS = 3


def lagging(records: Records, cycle: Cycle, known: Known) -> Law | None:
    """A linear or cosine law of known length whose position falls behind the steps, a few in all."""
    if not records.exact or known.total is None or len(records[cycle.falling]) < 8:
        return None
    for name, m, W, L in _candidates(records, cycle, known.total):
        law = _with_skips(records, name, m, W, L)
        if law is not None and records.distinct >= 3 + len(law.skips) + SURPLUS:
            return law
    return None


def _candidates(records: Records, cycle: Cycle, total: int) -> Iterator[tuple[str, float, float, float]]:
    """(name, peak, warm-up, length of the fall) that the slopes of most records suggest."""
    falling, rising = records[cycle.falling], records[cycle.rising]
    warmups = [0.0, *np.round(np.array(SHARES) * total), *(np.array(SHARES) * total)]
    slope = -_slope(falling.rate, falling.step)
    if len(rising) >= 2 and slope > 0:
        up = _slope(rising.rate, rising.step)
        warmups.append(float(round(slope * total / (slope + up))))
    for W in dict.fromkeys(warmups):
        if total > W:
            m = slope * (total - W)
            for peak in shortest(m * (1 - 1e-7), m * (1 + 1e-7))[:1]:
                if peak >= float(records.rate.max()) * (1 - 1e-9):
                    yield "linear", peak, float(W), float(total - W)
    highest = float(records.rate.max())
    for peak in _peaks(highest):
        x = COSINE.inverse(falling.rate / peak)
        pace = _slope(x, falling.step)
        if pace > 0 and abs((L := 1 / pace) - round(2 * L) / 2) < 0.01 and total + 0.01 >= L:
            yield "cosine", peak, float(total - round(2 * L) / 2), round(2 * L) / 2


def _slope(values: Floats, steps: np.ndarray) -> float:
    """The commonest move a step: that between records among which nothing was skipped."""
    moves = np.diff(values) / np.diff(steps)
    return float(np.median(moves)) if len(moves) else 0.0


def _peaks(highest: float) -> list[float]:
    """Decimals of one or two digits from the highest rate to its double."""
    unit = 10.0 ** np.floor(np.log10(highest))
    values = [float(f"{d / 10 * unit:.1e}") for d in range(10, 200)]
    return [v for v in values if highest * (1 - 1e-9) <= v <= 2 * highest]


def _with_skips(records: Records, name: str, m: float, W: float, L: float) -> Law | None:
    """The law with the lag that each record shows, where those are whole and never fall."""
    share = np.clip(records.rate / m, 0, 1)
    down = W + L * (COSINE.inverse(share) if name == "cosine" else 1 - share)
    up = W * share
    n = records.step.astype(np.float64)
    lag = np.empty(len(n), np.int64)
    least = 0
    for i in range(len(n)):
        options = [p for p in (up[i], down[i]) if abs(p - round(p)) < WHOLE * max(1.0, abs(p) * 1e-3)]
        if name == "cosine" and share[i] > 1 - 1e-6:
            options = [float(round(p)) for p in (up[i], down[i])]  # at the top a position is not sharp
        behind = sorted(b for b in (int(n[i]) - round(float(p)) for p in options) if b >= least)
        if not behind:
            return None
        least = behind[0]
        lag[i] = least
    if lag[-1] > max(MOST_SKIPPED, 0.02 * n[-1]) or lag[-1] == lag[0]:
        return None
    begin = 1 if lag[0] >= 1 else 0
    grown = np.diff(lag, prepend=begin)
    skips: list[float] = []
    for row in np.flatnonzero(grown > 0):
        skips += [float(n[row])] * int(grown[row])
    declared = {"name": name, "total_steps": round(W + L), "max_lr": m, "warmup_steps": W}
    try:
        law = Law(parse(declared), begin, skips=tuple(int(s) for s in skips))
    except ScheduleError:
        return None
    return law if records.holds(law.rate(records.step)).all() else None
