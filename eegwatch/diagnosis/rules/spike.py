"""`loss_spike`: several losses far above all of the last thousand that are gone again, or a single one far outside.

A level that stays is `loss_diverging`'s matter, and what comes back slowly (pruning, a warm restart) is not a spike.
"""

from __future__ import annotations

import math

import numpy as np

from eegwatch.diagnosis.alarm import Alarm
from eegwatch.diagnosis.findings import INFO, WARNING, Finding
from eegwatch.diagnosis.rules.objective import WANDERS
from eegwatch.diagnosis.rules.rule import Attempt, Rule
from eegwatch.diagnosis.rules.trend import middle
from eegwatch.run.history import StepBlock
from eegwatch.wording import significant

HISTORY, LEAST, LEAST_BURST = (
    1000,
    64,
    200,
)  # records that say what is ordinary, of one loss and of several; fewer do not
SINGLE_SIGMA, SINGLE_HISTORY = 12.0, 128  # batch losses are skewed: 6 sigma fires on noise, 12 did not (measured)
BURST_SIGMA = 4.0  # above the highest of all, in standard deviations of the newest losses
SPIKES, APART, LONGEST = 3, 10, 40  # three, each within ten records of the last, over at most forty
BACK = 10  # records after them whose median is ordinary again
AFRESH = 32  # records after which the limits are found anew
FORGOTTEN = 1000  # records without a spike that resolve the finding


class LossSpike(Rule):
    """Source of the single spike: OLMo-core's SkipStepOptimizer."""

    name = "loss_spike"

    def __init__(self, attempt: Attempt, alarm: Alarm, factor: float) -> None:
        super().__init__(attempt, alarm, factor)
        self._recent = np.empty(0)
        self._limit = self._beyond = math.inf  # of a single loss; of several
        self._high = math.inf  # what nine of ten ordinary losses lie below
        self._steps, self._losses = np.empty(0, np.int64), np.empty(0)  # not judged yet
        self._quiet_since, self._quiet_for = 0, 0
        self._fresh = 0  # ordinary losses since the limits were found

    def look(self, part: StepBlock) -> list[Finding]:
        if self._limit == math.inf:
            return []
        changes: list[Finding] = []
        for i in np.flatnonzero((part.loss > self._limit) & np.isfinite(part.loss)):
            step = int(part.step[i])
            self._quiet_since, self._quiet_for = step, 0
            changes += self.alarm.raise_(
                INFO, step, step, f"the loss of step {step:,} alone was {significant(part.loss[i])}"
            )
        return changes

    def learn(self, whole: StepBlock) -> list[Finding]:
        finite = np.isfinite(whole.loss)
        self._steps = np.concatenate([self._steps, whole.step[finite]])
        self._losses = np.concatenate([self._losses, whole.loss[finite].astype(np.float64)])
        self._quiet_for += len(whole)
        changes = self._bursts() if self.attempt.objective.kind != WANDERS else self._ordinary(len(self._losses))
        self._limits()
        if self.alarm.raised and self._quiet_for > FORGOTTEN:
            changes += self.alarm.clear(int(whole.step[-1]), f"no loss spike since step {self._quiet_since:,}")
        return changes

    def _bursts(self) -> list[Finding]:
        """Judge losses above all ordinary ones, as soon as ten records have followed them."""
        above = np.flatnonzero(self._losses > self._beyond)
        if not len(above):
            return self._ordinary(len(self._losses))
        first = int(above[0])
        gaps = np.flatnonzero(np.diff(above) > APART)
        last = int(above[gaps[0]]) if len(gaps) else int(above[-1])
        if last - first > LONGEST:  # a new level
            return self._ordinary(len(self._losses))
        if len(self._losses) - 1 - last < BACK:
            return self._ordinary(first)
        burst = above[above <= last]
        text = f"{len(burst)} losses from step {self._steps[first]:,} to {self._steps[last]:,} above "
        highest = significant(self._losses[first : last + 1].max())
        text += f"{significant(self._beyond)}, the highest {highest}; then it came back"
        step, since = int(self._steps[last]), int(self._steps[first])
        back = middle(self._losses[last + 1 : last + 1 + BACK]) <= self._high
        self._ordinary(first)
        dropped = last + 1 - first
        self._steps, self._losses = self._steps[dropped:], self._losses[dropped:]
        changes: list[Finding] = []
        if len(burst) >= SPIKES * self.factor and back:
            self._quiet_since, self._quiet_for = step, 0
            changes = self.alarm.raise_(WARNING, step, since, f"loss spikes: {text}")
        return changes + self._bursts()

    def _ordinary(self, count: int) -> list[Finding]:
        """The first `count` of the waiting losses are ordinary ones."""
        self._recent = np.concatenate([self._recent, self._losses[:count]])[-HISTORY:]
        self._fresh += count
        self._steps, self._losses = self._steps[count:], self._losses[count:]
        return []

    def _limits(self) -> None:
        if (
            self._fresh < AFRESH or len(self._recent) < LEAST or len(self._losses)
        ):  # not while a burst waits to be judged by them
            return
        self._fresh = 0
        newest = self._recent[-SINGLE_HISTORY:]
        newest = newest[newest <= self._limit]
        if len(newest) >= LEAST:
            self._limit = middle(newest) + SINGLE_SIGMA * self.factor * (float(newest.std()) + 1e-12)
        if len(self._recent) < LEAST_BURST:
            return
        ordinary = np.sort(self._recent)
        centre, top = float(ordinary[len(ordinary) // 2]), float(ordinary[-1])
        self._high = float(ordinary[int(0.9 * (len(ordinary) - 1))])
        self._beyond = (
            top + self.factor * max(top - centre, BURST_SIGMA * float(self._recent[-SINGLE_HISTORY:].std())) + 1e-12
        )
