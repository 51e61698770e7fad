"""Optimizer steps that a loss scaler skipped (mixed precision): the schedule falls behind the step count, harmlessly.

torch's GradScaler, and accelerate with it, do not step the scheduler where the optimizer did not step, while the step
counter goes on: in real fp16 logs the rate is 1 to 8 positions behind after some thousand steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eegwatch.diagnosis.findings import INFO, Cause, Finding
from eegwatch.diagnosis.rate.causes import FLOOR, RELATIVE, Situation
from eegwatch.diagnosis.rate.records import Rates

if TYPE_CHECKING:
    from eegwatch.diagnosis.rate.conventions import Conventions

BURST = 16  # a scaler that starts at 65536 needs at most that many skips to reach a scale of 1
BEGINNING = 100  # steps in which it looks for its scale
SHARE = (
    4  # one step in so many at most, between two records: more is not a scaler, it is a scheduler stepped too seldom
)
PER_STEPS = 500  # after its start a scaler skips once in 2,000 steps; room for four times that
MOST_SHARE = 0.02  # of all steps
MOVING = 3  # records that move on behind the schedule by the same count: no freeze


class Skips:
    """The number of steps that the schedule is behind. `finding` reports it."""

    def __init__(self, situation: Situation, carried: int | None) -> None:
        """`carried`: how far behind the attempt before was."""
        self.situation = situation
        self.behind = 0
        self.finding: Finding | None = None
        self._carried = carried or 0
        self._last, self._rate = situation.start, np.nan
        self._level_since = situation.start  # the first of the equal rates that end with the newest record
        self._started = False

    def carried(self, rates: Rates, conventions: Conventions, drift: NDArray[np.floating[Any]]) -> int:
        """The lag with which this attempt begins: that of the one before, where its first record says so."""
        first = rates[:1]
        fits = [bool(conventions.hits(first, behind, drift[:1]).any()) for behind in (0, self._carried)]
        if fits == [False, True]:
            self.add(self._carried, int(rates.step[0]))
        return self.behind

    def explains(self, rates: Rates, row: int, conventions: Conventions, drift: NDArray[np.floating[Any]]) -> int:
        """Number of further skipped steps that would explain this record; 0 if none, or too many, would."""
        step, lr = int(rates.step[row]), float(rates.lr[row])
        before, rate = (int(rates.step[row - 1]), float(rates.lr[row - 1])) if row else (self._last, self._rate)
        overflow = bool(rates.overflow[row])
        if lr == rate and not overflow and not self.behind:
            return 0  # a freeze looks the same: `withdraws` decides when the rate moves on
        before = self._last_that_tells(rates, row, before)
        most = self._admissible(step, step - before, overflow=overflow, first=not row and not self._started)
        most = min(most, int(BURST + MOST_SHARE * step) - self.behind)
        if most <= 0 or conventions.averaged:
            return 0
        more = np.arange(1, most + 1)
        low, high = conventions.cell(rates.lr[row : row + 1])
        for lag in conventions.lags:
            could = self.situation.expected(np.maximum(step + lag - self.behind - more, 1))
            slack = (RELATIVE + drift[row]) * np.abs(could) + FLOOR * self.situation.peak
            fits = (low[0] - slack <= could) & (could <= high[0] + slack)
            moved = could != self.situation.expected(np.array([max(step + lag - self.behind, 1)]))
            if (fits & moved).any():
                return int(more[int(np.argmax(fits & moved))])
        return 0

    def _last_that_tells(self, rates: Rates, row: int, before: int) -> int:
        """The step after which a skip may have gone unseen: while the schedule holds its rate, none is seen."""
        start = self._level_start(rates.step[:row], rates.lr[:row])
        planned = self.situation.expected(np.maximum(np.array([start, before]) - self.behind, 1))
        return start if planned[0] == planned[1] else before

    def _level_start(self, steps: NDArray[np.int64], lrs: NDArray[np.float64]) -> int:
        """The first step of the equal rates with which the records up to these end."""
        if not len(lrs):
            return self._level_since
        other = np.flatnonzero(lrs != lrs[-1])
        if len(other):
            return int(steps[other[-1] + 1])
        return self._level_since if lrs[-1] == self._rate else int(steps[0])

    def _admissible(self, step: int, distance: int, *, overflow: bool, first: bool) -> int:
        """The most steps that a scaler may have skipped between two records that lie `distance` steps apart."""
        if overflow:
            return min(distance, BURST)
        if first and self.situation.start:
            return 0  # a resume that lost its place looks the same
        if distance < SHARE:
            return 0  # two equal rates in a row: a freeze looks the same
        if step <= BEGINNING and not self.situation.start:
            return min(distance // 2, BURST)
        return min(distance // SHARE, 2 + distance // PER_STEPS)

    def add(self, more: int, step: int) -> list[Finding]:
        """The schedule has fallen behind by `more` at this step; the finding is news the first time only."""
        news = self.finding is None
        self.behind += more
        since = step if self.finding is None else self.finding.since_step
        steps = "1 step" if self.behind == 1 else f"{self.behind} steps"
        says = "the loss scaler skipped optimizer steps, and the scheduler with them"
        message = f"the schedule is {steps} behind the step count: {says}; harmless"
        cause = Cause("optimizer_steps_skipped", f"{says}: {steps} by step {step:,}", says=says)
        remedy = "nothing to do; log skipped=… to have each counted"
        self.finding = Finding("amp_skipped", INFO, step, since, message, cause, headline=message, remedy=remedy)
        return [self.finding] if news else []

    def seen(self, rates: Rates) -> None:
        self._level_since = self._level_start(rates.step, rates.lr)
        self._last, self._rate = int(rates.step[-1]), float(rates.lr[-1])
        self._started = True

    def withdraws(self, rates: Rates, conventions: Conventions, drift: NDArray[np.floating[Any]], since: int) -> int:
        """By how many skipped steps the schedule goes on after what looked like a freeze since step `since`; 0 if not.

        Three records that move, all behind by the same count.
        """
        newest = slice(max(0, len(rates) - MOVING), None)
        last, slack = rates[newest], drift[newest]
        if len(last) < MOVING or len(np.unique(last.lr)) < MOVING:
            return 0
        for more in range(1, min(BURST, int(last.step[0]) - since + 1) + 1):
            if conventions.hits(last, self.behind + more, slack).all(1).any():
                return more
        return 0
