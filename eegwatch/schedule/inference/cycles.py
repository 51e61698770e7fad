"""Laws of several rounds: one-cycle (half a cosine up, half a cosine down), warm restarts, triangles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from eegwatch.schedule.inference.curves import COSINE, LINEAR, Fall, Floats
from eegwatch.schedule.inference.phases import Cycle, Records
from eegwatch.schedule.inference.search import THINNED, Draft, Known, single
from eegwatch.schedule.inference.short_decimals import shortest

SHARES = (0.3, 0.1, 0.2, 0.25, 0.05, 0.4, 0.5, 0.15, 0.35, 0.45, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.6, 0.7)
MOST_LENGTHS = 4096  # run lengths of a one-cycle that are tried a share
FACTORS = (1, 2, 3, 4)  # T_mult
MOST_PERIODS = 256


def one_cycle(records: Records, cycle: Cycle, known: Known) -> Iterator[Draft]:
    """torch's OneCycleLR: its peak lies at pct_start * T - 1, which ties the length to where the rate turns."""
    rising, falling = records[cycle.rising], records[cycle.falling]
    if not records.exact or len(rising) < 3 or len(falling) < 4:
        return
    # the last record may lie one position past the end, where torch's cosine turns up again
    few = rising.thinned(THINNED), falling[: len(falling) - 1].thinned(THINNED)
    low, high = int(rising.step[-1]), int(falling.step[0])
    for begin in known.begins:
        for share in SHARES:
            first, last = np.ceil((low - begin + 1) / share), np.floor((high - begin + 1) / share)
            lengths = np.arange(first, min(last, first + MOST_LENGTHS) + 1)
            if known.total is not None and first <= known.total <= last:
                lengths = np.array([float(known.total)])
            for fall in (COSINE, LINEAR):
                for T in _fitting(few, lengths, share, begin, fall):
                    yield from _one_cycle(few, int(T), share, begin, fall)


def _parts(r: Records, at: Floats, length: Floats, fall: Fall) -> Floats:
    """1 - (share fallen) of each candidate (k, 1) at each record (1, n)."""
    with np.errstate(all="ignore"):
        return fall.at((r.at[None, :] - at) / length)


def _fitting(few: tuple[Records, Records], lengths: Floats, share: float, begin: int, fall: Fall) -> Floats:
    """The lengths for which rise and fall both are combinations of a constant and the shape."""
    if not len(lengths):
        return lengths
    S = begin + share * lengths[:, None] - 1
    rising = _parts(few[0], np.full_like(S, begin), S - begin, fall)
    falling = _parts(few[1], S, begin + lengths[:, None] - 1 - S, fall)
    fits = np.ones(len(lengths), bool)
    for r, g in ((few[0], rising), (few[1], falling)):
        ok = np.asarray(np.isfinite(g).all(axis=1), bool)
        g = np.where(ok[:, None], g, 0.5)
        mean, y = g.mean(1, keepdims=True), r.rate[None, :] - r.rate.mean()
        spread = ((g - mean) ** 2).sum(1)
        slope = ((g - mean) * y).sum(1) / np.where(spread > 0, spread, 1.0)
        off = np.abs(y - slope[:, None] * (g - mean)).max(1)
        fits &= ok & (off <= 1e-8 * float(r.rate.max()) + float((r.high - r.low).max()))
    return lengths[fits]


def _one_cycle(few: tuple[Records, Records], T: int, share: float, begin: int, fall: Fall) -> Iterator[Draft]:
    S, E = begin + share * T - 1, float(begin + T - 1)
    up, down = fall.at((few[0].at - begin) / (S - begin)), fall.at((few[1].at - S) / (E - S))
    (peak_up, rest_up), *_ = np.linalg.lstsq(np.stack([1 - up, up], 1), few[0].rate, rcond=None)
    (peak_down, floor), *_ = np.linalg.lstsq(np.stack([down, 1 - down], 1), few[1].rate, rcond=None)
    room = 1e-8 * float(peak_up) + max(float((r.high - r.low).max()) for r in few)
    if abs(float(peak_up - peak_down)) > room or not rest_up > 0:
        return
    for m in shortest(float(peak_up) - room, float(peak_up) + room)[:1]:
        initial, end = float(rest_up), max(float(floor), 0.0)
        div = shortest(m / (initial + room / 10), m / max(initial - room / 10, room))
        lows, highs = initial / (end + room / 10), initial / max(end - room / 10, 1e-30)
        finals = [1e4] if lows <= 1e4 <= highs else shortest(lows, min(highs, 1e30))
        for d in div[:1]:
            for final in finals[:1]:
                yield Draft(
                    {"name": "one_cycle", "total_steps": T, "max_lr": m, "pct_start": share, "div_factor": d,
                     "final_div_factor": final, "anneal_strategy": "cos" if fall is COSINE else "linear"},
                    begin, 5,
                )  # fmt: skip


def restarts(records: Records, rounds: list[Cycle], known: Known) -> Iterator[Draft]:
    """Cosines that begin again: the first one, and how much longer the second is."""
    first, second = rounds[0], rounds[1]
    if len(records[second.rising]) > 1:
        return  # it climbs: no restart
    low, high = int(records.step[first.end - 1]), int(records.step[first.end])
    alone = records[: first.end]
    bare = replace(first, bottom=slice(first.falling.stop, first.falling.stop))
    tried: set[tuple[float, float, float]] = set()
    for draft in single(alone, bare, replace(known, total=None)):
        if draft.declared["name"] != "cosine":
            continue
        before = float(draft.declared.get("warmup_steps", 0.0))
        S = draft.begin + before
        least, most = draft.ends or (draft.declared["total_steps"],) * 2
        ends = np.arange(max(least + draft.begin, low + 1), min(most + draft.begin, high) + 1)
        if known.total is not None and len(ends):
            parts = round((known.total - before) / (ends.mean() - S)) or 1
            ends = np.union1d(ends, [S + (known.total - before) / parts])
        for end in ends[:MOST_PERIODS]:
            T0, m = float(end - S), float(draft.declared["max_lr"])
            if T0 <= 0 or (T0, m, S) in tried:
                continue
            tried.add((T0, m, S))
            shape = {
                k: v for k, v in draft.declared.items() if k in ("max_lr", "final_lr", "warmup_steps", "initial_lr")
            }
            for factor in FACTORS:
                declared = {"name": "cosine_restarts", "T_0": T0, "T_mult": factor, **shape}
                total = known.total or int(records.step[-1])
                yield Draft(declared | {"total_steps": total}, draft.begin, draft.parameters + 1)


def triangles(records: Records, rounds: list[Cycle], known: Known) -> Iterator[Draft]:
    """torch's CyclicLR, triangular: where two lines meet, again and again."""
    rising, falling = records[rounds[0].rising], records[rounds[0].falling]
    if len(rising) < 2 or len(falling) < 2 or len(records[rounds[1].rising]) < 2:
        return
    up = float(rising.rate[-1] - rising.rate[0]) / float(rising.step[-1] - rising.step[0])
    down = float(falling.rate[0] - falling.rate[-1]) / float(falling.step[-1] - falling.step[0])
    for begin in known.begins:
        base = float(rising.rate[0]) - up * (float(rising.step[0]) - begin)
        crossing = (float(falling.rate[0]) + down * float(falling.step[0]) - base + up * begin) / (up + down)
        width = float((rising.high - rising.low).max() / 2)
        for around in _around(crossing, width / (up + down)):
            top = base + up * (around - begin)
            for m in shortest(top - width - 1e-9 * top, top + width + 1e-9 * top)[:3]:
                for b in shortest(max(base - width, 0.0) - 1e-9 * top, base + width + 1e-9 * top)[:3]:
                    fall = (m - b) / down
                    for length in _around(fall, width / down):
                        yield Draft(
                            {"name": "cyclic", "base_lr": max(b, 0.0), "max_lr": m, "step_size_up": around - begin,
                             "step_size_down": length, "total_steps": known.total or int(records.step[-1])},
                            begin, 4,
                        )  # fmt: skip


def _around(value: float, room: float) -> list[float]:
    whole = round(value)
    reach = min(int(np.ceil(room)), 16) if np.isfinite(room) else 0
    return [float(whole + k) for k in sorted(range(-reach, reach + 1), key=abs)]
