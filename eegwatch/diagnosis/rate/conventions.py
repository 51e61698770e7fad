"""Possible meanings of a log's rates: the rate used or the next one, rounded or truncated, of one step or averaged.

A convention is admissible until a record refutes it; a rate is off schedule only where none is left that explains it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from eegwatch.diagnosis.rate.causes import FLOOR, RELATIVE, Situation
from eegwatch.diagnosis.rate.precision import ROUNDED, Precision
from eegwatch.diagnosis.rate.records import Rates

Floats = NDArray[np.floating[Any]]
Steps = NDArray[np.int64] | int
SKIP_GRID = 256  # positions tried between no skipped step and all of those that the log counts
AVERAGED_STEPS = 4_000_000  # of a mean's window: a longer one is not computed


class Conventions:
    """The (lag, mode) pairs that no record has refuted."""

    def __init__(self, situation: Situation, precision: Precision, lags: tuple[int, ...]) -> None:
        self.situation, self.precision = situation, precision
        self.pairs = [(lag, mode) for lag in lags for mode in precision.modes]
        self.averaged = False  # a mean over the steps since the record before
        self._free = len(lags) > 1
        self._history: list[tuple[Rates, Floats]] | None = []  # until it is too long for a mean to be tried
        self._before = situation.start  # the step of the record before

    @property
    def lags(self) -> list[int]:
        return list(dict.fromkeys(lag for lag, _ in self.pairs))

    @property
    def shift(self) -> int:
        """The lag that the records are read with: 0 while that is admissible."""
        lags = self.lags
        return 0 if 0 in lags else lags[0]

    def settle(self, rates: Rates, *, first: bool) -> None:
        """Take what the log itself tells: its precision by now, and positions, which leave no room for a lag."""
        modes = self.precision.modes
        kept = [pair for pair in self.pairs if pair[1] in modes]
        self.pairs = kept or [(lag, ROUNDED) for lag in self.lags]
        if first and not np.isnan(rates.position).all() and 0 in self.lags:
            self.pairs = [pair for pair in self.pairs if pair[0] == 0]

    def cell(self, values: NDArray[np.float64]) -> tuple[Floats, Floats]:
        """The widest cell of each value among the modes that are left."""
        cells = [self.precision.cell(values, mode) for mode in dict.fromkeys(mode for _, mode in self.pairs)]
        return np.minimum.reduce([low for low, _ in cells]), np.maximum.reduce([high for _, high in cells])

    def expected(self, step: NDArray[np.int64], behind: Steps) -> Floats:
        """The declared rate of each step under each admissible lag, (lags, steps); `behind`: positions lost by then."""
        if self.averaged:
            return np.stack([self._means(step, lag) for lag in self.lags])
        return np.stack([self.situation.expected(np.maximum(step + lag - behind, 1)) for lag in self.lags])

    def hits(self, rates: Rates, behind: Steps, drift: Floats) -> NDArray[np.bool_]:
        """Mask of the records that each admissible pair explains, (pairs, records)."""
        expected = dict(zip(self.lags, self.expected(rates.step, behind), strict=True))
        rows = []
        for lag, mode in self.pairs:
            low, high = self.precision.cell(rates.lr, mode)
            slack = (RELATIVE + drift) * np.abs(expected[lag]) + FLOOR * self.situation.peak
            rows.append((low - slack <= expected[lag]) & (expected[lag] <= high + slack))
        hits = np.stack(rows)
        counted = (rates.skipped > 0) & ~hits.any(0)
        if counted.any():
            hits[:, counted] |= self._behind_the_count(rates, counted)
        return hits

    def _behind_the_count(self, rates: Rates, rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The scaler's skips are logged: the schedule is 0 … m positions behind."""
        low, high = self.cell(rates.lr[rows])
        could = np.zeros(int(rows.sum()), bool)
        for i, (step, skipped) in enumerate(zip(rates.step[rows], rates.skipped[rows], strict=True)):
            behind = np.linspace(0, int(skipped), min(int(skipped), SKIP_GRID) + 1)
            possible = self.situation.expected(np.maximum(np.floor(step - behind), 1).astype(np.int64))
            could[i] = possible.min() <= high[i] and possible.max() >= low[i]
        return could

    def off(
        self, rates: Rates, behind: Steps, drift: Floats, *, whole: bool = True
    ) -> tuple[NDArray[np.bool_], int | None]:
        """(records that no admissible pair explains together with all before them, the first of them).

        `whole`: these are all records since the last call, so that means over the steps between them can be tried.
        """
        hits = self.hits(rates, behind, drift)
        left = np.logical_and.accumulate(hits, axis=1)
        if left[:, -1].any():
            return np.zeros(len(rates), bool), None
        first = int(np.argmin(left.any(0)))
        if first:
            hits = hits[left[:, first - 1]]
        off: NDArray[np.bool_] = np.logical_not(hits.any(0))
        off[:first] = False
        off[first] = True
        if whole and self._may_be_averaged(rates[: first + 1], drift[: first + 1]):
            self.averaged = True
            return self.off(rates, 0, drift)
        return off, first

    def narrow(self, rates: Rates, behind: NDArray[np.int64], drift: Floats, first: int | None) -> None:
        """Drop the pairs that the records before `first` refute."""
        until = len(rates) if first is None else first
        if until and len(self.pairs) > 1:
            left = np.flatnonzero(self.hits(rates[:until], behind[:until], drift[:until]).all(1))
            if len(left):
                self.pairs = [self.pairs[i] for i in left]
        if self._history is not None:
            self._history.append((rates, drift))
            if sum(len(some) for some, _ in self._history) > SKIP_GRID or not self._free:
                self._history = None
        self._before = int(rates.step[-1])

    # ---- rates that are means ----

    def _may_be_averaged(self, rates: Rates, drift: Floats) -> bool:
        """Whether a mean over the steps since the previous record explains every record so far."""
        if not self._free or self.averaged or self._history is None or not np.isnan(rates.position).all():
            return False
        parts = [*self._history, (rates, drift)]
        step = np.concatenate([part.step for part, _ in parts])
        if np.diff(step, prepend=self.situation.start).max() < 2:
            return False
        if step[-1] - self.situation.start > AVERAGED_STEPS or self.situation.schedule.unit == "epoch":
            return False
        before, self._before = self._before, self.situation.start
        lr, all_drift = np.concatenate([part.lr for part, _ in parts]), np.concatenate([d for _, d in parts])
        fits = False
        for lag in self.lags:
            means = self._means(step, lag)
            low, high = self.cell(lr)
            slack = (RELATIVE + all_drift) * np.abs(means) + FLOOR * self.situation.peak
            fits |= bool(((low - slack <= means) & (means <= high + slack)).all())
        self._before = before
        return fits

    def _means(self, step: NDArray[np.int64], shift: int) -> Floats:
        """The mean declared rate over the steps (record before, step], for each record."""
        begin = min(self._before, int(step[0]) - 1)
        every = self.situation.expected(np.maximum(np.arange(begin + 1, int(step[-1]) + 1) + shift, 1))
        sums = np.concatenate([[0.0], np.cumsum(every)])
        edges = np.concatenate([[begin], step]) - begin
        means: Floats = np.diff(sums[edges]) / np.diff(edges)
        return means
