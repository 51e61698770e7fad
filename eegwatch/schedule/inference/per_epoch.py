"""Rates that move once an epoch: the epoch's length from where they move, and one record an epoch to fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from eegwatch.schedule.inference.phases import Records

FEWEST = 4  # levels
EPOCHS_TRIED, FEW_TRIED = 16, 2  # where the rates are exact, and where they have few digits


@dataclass(frozen=True)
class Stairs:
    """Epochs of `length` steps, the first from step `begin` on; `levels` has epochs in the place of steps."""

    begin: int
    length: int
    levels: Records


def stairs(r: Records, begins: tuple[int, ...], length: int | None = None) -> Iterator[Stairs]:
    """The epoch lengths for which every move lies at an epoch's beginning, the one that is known first."""
    moves = np.flatnonzero(np.diff(r.rate)) + 1
    if len(moves) < FEWEST or len(moves) > 0.7 * len(r):
        return
    before, after = r.step[moves - 1].astype(np.float64), r.step[moves].astype(np.float64)
    for begin in begins:
        for B in [length] if length is not None else _lengths(before - begin, after - begin, exact=r.exact):
            # the epoch k of a move: begin + k * B lies in (before, after]
            k = np.floor((after - begin) / B)
            if (k * B <= before - begin).any() or (np.diff(k) < 1).any() or k[0] < 1:
                continue
            yield Stairs(begin, B, _levels(r, moves, k.astype(np.int64), begin, B))


def _lengths(before: np.ndarray, after: np.ndarray, *, exact: bool) -> list[int]:
    """Whole lengths B for which consecutive moves are consecutive epochs, or some levels last several."""
    gaps_least, gaps_most = before[1:] - after[:-1], after[1:] - before[:-1]
    shortest = float(gaps_most.min())
    number = np.arange(1, len(after) + 1)
    low, high = float((before / number).max()), float((after / number).min())
    lengths = list(range(int(np.floor(low)) + 1, int(np.floor(high)) + 1))[: EPOCHS_TRIED if exact else FEW_TRIED]
    if not lengths and exact:
        most, least = int(shortest), max(int(gaps_least.min()), 2)
        lengths = list(range(most, least - 1, -1))[:EPOCHS_TRIED]
    return [B for B in lengths if B > 1]


def _levels(r: Records, moves: np.ndarray, k: np.ndarray, begin: int, B: int) -> Records:
    """One record an epoch in which the rate is known to have been so: its first and its last epoch a level."""
    first = np.concatenate([[0], moves])
    last = np.concatenate([moves - 1, [len(r) - 1]])
    rows = np.concatenate([first, last])
    epoch = (r.step[rows] - begin) // B
    order = np.lexsort((np.arange(len(rows)), epoch))
    epochs, at = np.unique(epoch[order], return_index=True)
    picked = rows[order][at]
    return Records(epochs.astype(np.int64), r.rate[picked], r.low[picked], r.high[picked])
