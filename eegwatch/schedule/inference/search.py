"""The search: which laws reproduce every record, the simplest first.

Shapes are taken one after the other; for each, the parameters that the records decide are computed in closed form
(falls.py), snapped to integers and short decimals, and the law that results is verified on every record.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from eegwatch.schedule import ScheduleError, parse
from eegwatch.schedule.inference import falls
from eegwatch.schedule.inference.curves import COSINE, FALLS, LINEAR, POLYNOMIALS, ROOT, Fall, Floats
from eegwatch.schedule.inference.law import Law
from eegwatch.schedule.inference.phases import Cycle, Records
from eegwatch.schedule.inference.rises import Rise, rises
from eegwatch.schedule.inference.short_decimals import digits, roundest, shortest

THINNED = 24  # records a shape is fitted to; what results is verified on all
FEW_STARTS = 256  # the same, where the rates have few digits
MOST_STARTS = 1024  # steps at which the fall may begin that are tried
HIDDEN_WARMUP = 512  # steps before the first record of a fall in which a warm-up may have passed unseen
FLOORS = (0.1, 0.01, 0.001, 0.05, 0.2, 0.5, 0.02, 1e-4, 0.25, 0.3)  # of the peak, tried where digits are few
BEYOND_PRINT = 3  # times the longest stand in the fall: a floor, and not the rounding
FALLS_OF_FEW = [LINEAR, COSINE, *POLYNOMIALS[:4], ROOT]  # where the rates have few digits
DIGITS_OF_FEW = 3  # that a peak or a floor may have where the rates themselves have few
MISFIT = 1e-6  # of the highest rate: a shape further off is not tried with whole numbers
SHARES = tuple(i / 100 for i in range(1, 21))  # of the run, as warm-ups are declared
MOST_MEETINGS = 256  # ends of such a warm-up that are tried
WAYS_TO_MEET = ("overlay", "join", "multiply", "blend")


@dataclass
class Known:
    """Facts beside the rates: the run's length, the steps that position 0 may have."""

    total: int | None = None
    begins: tuple[int, ...] = (1, 0)
    steps_per_epoch: int | None = None


@dataclass
class Draft:
    """A law before it is verified; `parameters` were read off the records."""

    declared: dict[str, Any]
    begin: int
    parameters: int
    ends: tuple[int, int] | None = None

    def law(self) -> Law | None:
        try:
            return Law(parse(self.declared), self.begin, ends=self.ends)
        except ScheduleError:
            return None


@dataclass
class Start:
    """Where the fall may begin: steps S (k,), the peak m (k,) where the way up decides it, and that way up."""

    steps: Floats
    peak: Floats | None
    rise: Rise | None
    hold: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


def single(records: Records, cycle: Cycle, known: Known) -> Iterator[Draft]:
    """Drafts of one rise, hold and fall."""
    falling = records[cycle.falling]
    if len(falling) < 3 or falling.distinct < 3:
        return
    bottom = records[cycle.bottom]
    if len(bottom) and not records.exact and len(bottom) < BEYOND_PRINT * _longest_stand(falling):
        falling, bottom = records[cycle.falling.start : cycle.end], bottom[:0]  # rounding alone makes it stand
    floor = float(bottom.rate[0]) if len(bottom) else None
    if floor is not None and falling.rate[-1] == floor:
        falling = falling[: len(falling) - 1]  # at the floor already
    if len(falling) < 3:
        return
    few = falling.thinned(THINNED)
    for start in _starts(records, cycle, known):
        yield from _endless(few, start, known)
        for fall in FALLS if records.exact else FALLS_OF_FEW:
            yield from _fall(few, fall, start, floor, known)
    yield from _overlaid(records, cycle, few, floor, known)


def _longest_stand(r: Records) -> int:
    """Records of the longest stretch of equal rates."""
    cuts = np.flatnonzero(np.diff(r.rate)) + 1
    return int(np.diff([0, *cuts, len(r)]).max(initial=1))


def _starts(records: Records, cycle: Cycle, known: Known) -> Iterator[Start]:
    """Every way to get to the top that the records allow."""
    rising, top, falling = records[cycle.rising], records[cycle.top], records[cycle.falling]
    first_down = int(falling.step[0])
    last_top = int(top.step[-1]) if len(top) else first_down - 1
    held = len(top) > 1
    ways: list[Rise | None] = list(rises(rising, known.begins)) if len(rising) else [None]
    for rise in ways:
        if held and (m := shortest(float(top.low.max()), float(top.high.min()))):
            steps = _integers(last_top, first_down)
            yield Start(steps, np.full(len(steps), m[0]), rise, hold=True)
        if held and records.exact:
            continue  # equal to the last digit: that is a hold
        if rise is None:
            begins = [float(b) for b in (*known.begins, int(records.step[0])) if b <= first_down]
            yield Start(np.array(begins), None, None)
            if not records.exact:
                continue
            hidden = _integers(max(min(known.begins), first_down - HIDDEN_WARMUP), first_down)
            yield Start(np.setdiff1d(hidden, begins), None, None)
            continue
        steps = _integers(int(rising.step[-1]) + 1, first_down, MOST_STARTS if records.exact else FEW_STARTS)
        if known.total is not None:  # a warm-up of 3 % of 750 steps is 22.5 of them
            shares = rise.begin + np.array(SHARES) * known.total
            steps = np.union1d(steps, shares[(shares > rising.step[-1]) & (shares < first_down)])
        middle = (rise.least + rise.most) / 2
        if np.isinf(middle):
            yield Start(steps, None, rise)
            continue
        yield Start(steps, rise.initial + middle * (steps - rise.begin), rise)


def _integers(first: int, last: int, most: int = MOST_STARTS) -> Floats:
    count = max(last - first + 1, 0)
    if count <= most:
        return np.arange(first, last + 1, dtype=np.float64)
    return np.unique(np.linspace(first, last, most).round())


def _peaks(start: Start, i: int, records_exact: bool) -> list[float]:
    """Peaks as a person would write them, where the way up leaves an interval."""
    assert start.peak is not None
    rise = start.rise
    if rise is None or start.hold:
        return [float(start.peak[i])]
    into = float(start.steps[i]) - rise.begin
    peaks = shortest(rise.initial + rise.least * into, rise.initial + rise.most * into)
    return peaks if records_exact else [m for m in peaks if digits(m) <= DIGITS_OF_FEW]


def _fall(few: Records, fall: Fall, start: Start, floor: float | None, known: Known) -> Iterator[Draft]:
    """Drafts of one shape from one kind of start."""
    S = start.steps[:, None]
    if not len(S):
        return
    if start.peak is None:
        yield from _peak_unknown(few, fall, start, floor, known)
        return
    m = start.peak[:, None]
    slack = 0.0
    if start.rise is not None and not start.hold:  # the slope of the way up is an interval: so is the peak
        both = start.rise.most + start.rise.least
        slack = min((start.rise.most - start.rise.least) / both, 1.0) if both > 0 else 1.0
    wide = Records(few.step, few.rate, few.low * (1 - slack), few.high * (1 + slack))
    for f in [floor] if floor is not None else [0.0]:
        least, most = falls.lengths(fall, wide, S, m, np.full_like(m, f))
        for i in _some(np.flatnonzero(np.floor(S[:, 0] + most) >= np.ceil(S[:, 0] + least))):
            yield from _snapped(few, fall, start, i, f, known)
    if floor is not None or fall is LINEAR:
        return
    if few.exact:
        L = falls.length_by_drops(fall, few, S, m)
        for i in _near_enough(few, fall, S, L, m):
            yield from _with_floor(few, fall, start, i, float(L[i]), known)
    else:
        for share in FLOORS:
            least, most = falls.lengths(fall, wide, S, m, share * m)
            for i in _some(np.flatnonzero(np.floor(S[:, 0] + most) >= np.ceil(S[:, 0] + least))):
                yield from _snapped(few, fall, start, i, None, known, share)


def _some(rows: np.ndarray, most: int = 8) -> list[int]:
    """A few of the candidates, where many fit: their first, last and between."""
    return [int(r) for r in (rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).astype(int)])]


def _snapped(
    few: Records, fall: Fall, start: Start, i: int, f: float | None, known: Known, share: float = 0.0
) -> Iterator[Draft]:
    """With a peak as written: the ends that are left."""
    for m in _peaks(start, i, few.exact):
        low = share * m if f is None else f
        least, most = falls.lengths(fall, few, start.steps[i : i + 1, None], np.array([[m]]), np.array([[low]]))
        if np.floor(start.steps[i] + most[0]) >= np.ceil(start.steps[i] + least[0]):
            yield _draft(fall, start, float(start.steps[i]), m, low, (float(least[0]), float(most[0])), known)
            return


def _with_floor(few: Records, fall: Fall, start: Start, i: int, L: float, known: Known) -> Iterator[Draft]:
    """An exact fall of length about L, to a floor that is read off it."""
    S = float(start.steps[i])
    for length in _near(L, S):
        g = fall.at((few.at - S) / length)
        for m in _peaks(start, i, True):
            low, high = falls.floors(g, few, m)
            room = 1e-9 * m
            if low - room <= high + room and high > -room:
                for f in shortest(low, high) or shortest(low - room, high + room):
                    if 0 <= f < m:
                        yield _draft(fall, start, S, m, f, (length, length), known)
                        break


def _near_enough(few: Records, fall: Fall, S: Floats, L: Floats, given: Floats | float | str | None) -> list[int]:
    """Which candidates come near the records: their peaks `given`, or their floor, or 0 for it (None), or both free."""
    with np.errstate(all="ignore"):
        g = fall.at((few.at[None, :] - S) / L[:, None])
        y = few.rate[None, :]
        if isinstance(given, np.ndarray):
            f = (y[:, -1:] - given * g[:, -1:]) / (1 - g[:, -1:])
            off = np.abs(f + (given - f) * g - y)
        elif given == "free":
            span = (y[:, :1] - y[:, -1:]) / (g[:, :1] - g[:, -1:])
            off = np.abs(y[:, :1] + span * (g - g[:, :1]) - y)
        else:
            bottom = float(given or 0.0)
            off = np.abs(bottom + (y[:, :1] - bottom) / g[:, :1] * g - y)
    rows = np.flatnonzero(off.max(1) <= MISFIT * few.rate.max())  # NaN compares as too far off
    order = np.argsort(off.max(1)[rows])
    return [int(r) for r in rows[order][:32]]


def _near(L: float, S: float) -> list[float]:
    """Lengths that end at a whole step."""
    if not np.isfinite(L) or L > 1e9:
        return []
    end = round(S + L)
    return [float(n - S) for n in (end, end - 1, end + 1, end - 2, end + 2) if n > S]


def _peak_unknown(few: Records, fall: Fall, start: Start, floor: float | None, known: Known) -> Iterator[Draft]:
    """No way up and no hold was seen: the peak comes from the fall itself."""
    S = start.steps[:, None]
    if few.exact:
        if floor is None:
            L = falls.length_by_ratio(fall, few, S, few.rate[-1] / few.rate[0])
        else:
            L = falls.length_by_ratio(fall, few, S, (few.rate[-1] - floor) / (few.rate[0] - floor))
        for i in _near_enough(few, fall, S, L, None if floor is None else floor):
            for length in _near(float(L[i]), float(S[i, 0])):
                low, high = falls.heights(fall.at((few.at - S[i]) / length), few, floor or 0.0)
                for m in shortest(low, high)[:1]:
                    yield _draft(fall, start, float(S[i, 0]), m, floor or 0.0, (length, length), known)
        if floor is not None or fall is LINEAR:
            return
        L = falls.length_by_three(fall, few, S)
        for i in _near_enough(few, fall, S, L, "free"):
            for length in _near(float(L[i]), float(S[i, 0])):
                yield from _peak_and_floor(few, fall, start, float(S[i, 0]), length, known)
        return
    shares = (0.0, *FLOORS) if floor is None and fall is not LINEAR else (None,)
    starts = [float(v) for v in start.steps if v <= few.step[0]]
    if not starts:
        return
    every = [(v, share) for share in shares for v in starts]
    starts_at, bottoms = np.array([[v] for v, _ in every]), np.array([share or 0.0 for _, share in every])
    ratios = few.low[-1] / few.high[0], few.high[-1] / few.low[0]
    bounds = [falls.length_by_ratio(fall, few, starts_at, ratio, bottoms) for ratio in ratios]
    for i, (v, share) in enumerate(every):
        yield from _printed(few, fall, start, v, share, floor or 0.0, (float(bounds[0][i]), float(bounds[1][i])), known)


def _peak_and_floor(few: Records, fall: Fall, start: Start, S: float, length: float, known: Known) -> Iterator[Draft]:
    g = fall.at((few.at - S) / length)
    try:
        (f, span), *_ = np.linalg.lstsq(np.stack([np.ones_like(g), g], 1), few.rate, rcond=None)
    except np.linalg.LinAlgError:
        return
    m = float(f + span)
    room = 1e-8 * m
    for peak in shortest(m - room, m + room)[:2]:
        low, high = falls.floors(g, few, peak)
        if low - 1e-9 * m <= high + 1e-9 * m:
            for floor in (shortest(low, high) or shortest(low - 1e-9 * m, high + 1e-9 * m))[:1]:
                if 0 <= floor < peak:
                    yield _draft(fall, start, S, peak, floor, (length, length), known)


def _printed(
    few: Records,
    fall: Fall,
    start: Start,
    S: float,
    share: float | None,
    floor: float,
    bounds: tuple[float, float],
    known: Known,
) -> Iterator[Draft]:
    """Few digits: the peaks and the lengths that the cells allow, a peak as it is written first."""
    low = share or 0.0
    values: list[float] = []
    for L in bounds:
        pair = falls.heights(low + (1 - low) * fall.at((few.at - S) / L), few, floor)
        values += [v for v in pair if np.isfinite(v)]
    if not values:
        return
    for m in shortest(max(min(values), float(few.low[0])), max(values)):
        if digits(m) > DIGITS_OF_FEW:
            continue
        f = floor if share is None else share * m
        least, most = falls.lengths(fall, few, np.array([[S]]), np.array([[m]]), np.array([[f]]))
        if np.floor(S + most[0]) >= np.ceil(S + least[0]):
            yield _draft(fall, start, S, m, f, (float(least[0]), float(most[0])), known)
            return


def _endless(few: Records, start: Start, known: Known) -> Iterator[Draft]:
    """Exponential and inverse square root: straight lines of log(rate) and of rate ** -2."""
    if (few.low <= 0).any():
        return
    span = float(few.step[-1] - few.step[0])
    slow, fast = (float(np.log(a / b)) / span for a, b in ((few.high[-1], few.low[0]), (few.low[-1], few.high[0])))
    rise = start.rise
    for gamma in shortest(float(np.exp(fast)), float(np.exp(slow)))[:4]:
        if not 0 < gamma < 1:
            continue
        for i in _some(np.arange(len(start.steps)), 64):
            S = float(start.steps[i])
            low, high = falls.heights(gamma ** (few.at - S), few)
            if start.peak is not None:
                fits = any(low <= m <= high for m in _peaks(start, i, few.exact))
                low, high = (low, high) if fits else (1.0, 0.0)
            for m in shortest(low, high)[:1]:
                yield _warmed({"name": "exponential", "gamma": gamma}, start, S, m, known.total or int(few.step[-1]), 3)
            if rise is None:
                break  # every beginning is the same curve with another peak
    if rise is None and not start.hold:
        return
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # not finite then, which is asked below
        z = few.rate**-2.0
        slope = (z[-1] - z[0]) / span
        zero = float(few.step[0]) - z[0] / slope
    middle = (rise.least + rise.most) / 2 if rise is not None else 0.0
    if not (np.isfinite(zero) and np.isfinite(middle)):  # a rate below 1e-154 has no inverse square
        return
    for n0 in (round(zero), round(zero) - 1, round(zero) + 1):
        for i in range(len(start.steps)):
            S = float(start.steps[i])
            if n0 >= S or rise is None:
                continue
            m = rise.initial + middle * (S - rise.begin)
            if abs(m * np.sqrt((S - n0) / (few.step[0] - n0)) / few.rate[0] - 1) < 0.02:
                for peak in _peaks(start, i, few.exact)[:1]:
                    shape = {"name": "inverse_sqrt", "timescale": S - n0}
                    yield _warmed(shape, start, S, peak, known.total or int(few.step[-1]), 4)


def _warmed(shape: dict[str, Any], start: Start, S: float, m: float, total: int, parameters: int) -> Draft:
    """A fall without an end after its way up."""
    rise = start.rise
    begin = int(S) if rise is None else rise.begin
    declared = shape | {"max_lr": m, "total_steps": max(total, 1)}
    if rise is not None:
        declared |= {"warmup_steps": S - begin, "initial_lr": rise.initial}
        parameters += 1 + (rise.initial != 0)
    return Draft(declared, begin, parameters)


def _draft(fall: Fall, start: Start, S: float, m: float, f: float, length: tuple[float, float], known: Known) -> Draft:
    """The schedule of a rise, a hold and a fall, under the names that a declared one has."""
    rise = start.rise
    begin = rise.begin if rise is not None else min(known.begins, key=lambda b: abs(b - 1)) if start.hold else int(S)
    before = S - begin
    least, most = int(np.ceil(before + length[0] - 1e-6)), int(np.floor(before + min(length[1], 1e12) + 1e-6))
    agrees = known.total is not None and least <= known.total <= most
    total = known.total if known.total is not None and agrees else roundest(least, most) or least
    L = total - before
    ends = (least, most) if least < most else None
    count = 2 + (f != 0) + (fall.power is not None)
    warm: dict[str, Any] = {}
    peak_step = S
    if rise is not None:
        if start.hold:
            slope = (rise.least + rise.most) / 2 if np.isfinite(rise.most) else m
            low, high = (m - rise.initial) / rise.most, (m - rise.initial) / rise.least if rise.least > 0 else np.inf
            whole = roundest(low, min(high, before))
            peak_step = begin + (float(whole) if whole is not None else (m - rise.initial) / slope)
        warm = {"warmup_steps": peak_step - begin, "initial_lr": rise.initial}
        count += 1 + (rise.initial != 0)
    shape: dict[str, Any] = {"max_lr": m, "final_lr": f, "total_steps": total}
    if start.hold:
        kinds = {LINEAR.name: "linear", COSINE.name: "cosine", ROOT.name: "1-sqrt"}
        kind = kinds.get(fall.name)
        stable = S - (peak_step if rise is not None else begin)
        if kind is None:
            rest = {"name": fall.name, "total_steps": int(L), "max_lr": m, "final_lr": f, "power": fall.power}
            first = {"name": "constant", "lr": m, "total_steps": int(before)} | warm
            declared = {"name": "sequence", "total_steps": total, "schedules": [first, rest], "milestones": [before]}
            return Draft(declared, begin, count + 1, ends)
        shape |= {"name": "warmup_stable_decay", "stable_steps": stable, "decay_steps": L, "decay_type": kind}
        return Draft(shape | warm, begin, count + 1, ends)
    if fall is ROOT:
        shape |= {"name": "warmup_stable_decay", "stable_steps": 0, "decay_steps": L, "decay_type": "1-sqrt"}
    else:
        shape["name"] = fall.name
    if fall.power is not None:
        shape["power"] = fall.power
    return Draft(shape | warm, begin, count, ends)


def _overlaid(records: Records, cycle: Cycle, few: Records, floor: float | None, known: Known) -> Iterator[Draft]:
    """A curve that runs from the first step on, below a warm-up that lies over its beginning (detectron2, YOLO)."""
    rising = records[cycle.rising]
    if len(rising) < 2 or not records.exact:
        return
    falling = records[cycle.falling]
    bare = Start(np.array([float(b) for b in known.begins]), None, None)
    last, first = int(rising.step[-1]), int(falling.step[0])
    for fall in FALLS[:4]:
        for draft in _fall(few, fall, bare, floor, known):
            law = draft.law()
            if law is None or not falling.holds(law.rate(falling.step)).all():
                continue
            for end in _integers(last - draft.begin + 1, first - draft.begin, MOST_MEETINGS):
                for mode in WAYS_TO_MEET:
                    yield from _meeting(draft, rising, float(end), mode, law)


def _meeting(draft: Draft, rising: Records, W: float, mode: str, law: Law) -> Iterator[Draft]:
    """The warm-up of W steps and mode whose initial rate the first record tells."""
    m = float(draft.declared["max_lr"])
    x = (rising.step[0] - draft.begin) / W
    curve = float(law.rate(rising.step[0]))
    top = float(law.schedule.rate(W)) if mode == "join" else curve if mode == "blend" else m
    bounds = []
    for value in (rising.low[0], rising.high[0]):
        up = value / curve * m if mode == "multiply" else value
        bounds.append((up - top * x) / (1 - x))
    for initial in shortest(min(bounds), max(bounds))[:1]:
        if 0 <= initial < m:
            warm = {"warmup_steps": W, "initial_lr": initial, "warmup_mode": mode}
            yield Draft(draft.declared | warm, draft.begin, draft.parameters + 2, draft.ends)
