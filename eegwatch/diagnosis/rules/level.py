"""`loss_diverging` and `loss_plateau`: a level of the loss that rises for good, or has not left chance."""

from __future__ import annotations

import math
from itertools import pairwise

from eegwatch.diagnosis.findings import WARNING, Finding
from eegwatch.diagnosis.latch import Latch
from eegwatch.diagnosis.rules.levels import LAG, TRAILING, mean_of
from eegwatch.diagnosis.rules.rule import Attempt, Rule
from eegwatch.run.history import StepBlock

CHANCE = math.log(2)  # cross-entropy (nats) of a model that knows nothing of two balanced classes
CUSUM_SLACK, CUSUM_LIMIT = 0.5, 12.0
CREEP = 1.25  # the newest blocks against the best: a rise too slow for the CUSUM


class LossDiverging(Rule):
    """Divergence by CUSUM over block means, and a creeping rise."""

    name = "loss_diverging"

    def __init__(self, attempt: Attempt, latch: Latch, factor: float) -> None:
        super().__init__(attempt, latch, factor)
        self._best = math.inf
        self._cusum = 0.0

    def learn(self, whole: StepBlock) -> list[Finding]:
        if not self.attempt.levels.fresh:
            return []
        means = list(self.attempt.levels.means)
        changes = self._judge(means[:-1][-TRAILING - LAG :], means[-1], whole)
        if len(means) >= TRAILING:
            self._best = min(self._best, mean_of(means[-TRAILING:]))
        return changes

    def _judge(self, before: list[float], mean: float, whole: StepBlock) -> list[Finding]:
        if len(before) < TRAILING + LAG:
            return []
        step, first = int(whole.step[-1]), int(whole.step[0])
        trailing = before[:TRAILING]
        level = mean_of(trailing[-TRAILING // 2 :])
        # noise from successive differences: a loss that falls steadily must not count as spread
        spread = math.sqrt(mean_of([(b - a) ** 2 for a, b in pairwise(trailing)]) / 2) + 1e-3 * abs(level) + 1e-12
        self._cusum = max(0.0, self._cusum + (mean - level) / spread - CUSUM_SLACK)
        newest = mean_of([*before[-3:], mean])
        # twenty blocks against the best twenty: the best single block of real EEG, whose batches share recordings and
        # scatter widely, lies a quarter below the mean of a healthy run
        creeping = mean_of(before[-TRAILING:]) > CREEP * self.factor * self._best
        if (self._cusum > CUSUM_LIMIT * self.factor and newest > 1.02 * level) or creeping:
            rise = newest / self._best - 1 if self._best else math.inf
            said = f"the mean loss is {newest:.3g}, {rise:.0%} above its best"
            remedy = "resume from before it with a lower LR"
            return self.latch.say(WARNING, step, first, f"loss diverging: {said}", remedy)
        if self.latch.up and newest < 1.05 * self._best:
            self._cusum = 0.0
            return self.latch.over(step, f"the loss is back at its best level at step {step:,}")
        return []


class LossPlateau(Rule):
    """A mean loss that cannot be told from chance after the warm-up."""

    name = "loss_plateau"

    def learn(self, whole: StepBlock) -> list[Finding]:
        levels, run, step = self.attempt.levels, self.attempt.run, int(whole.step[-1])
        if not levels.fresh:
            return []
        done = step - (run.step if run else 0)
        total = run.total_steps if run else None
        if done < min(2000, (total or 20_000) // 4) or levels.seen < 10:
            return []
        recent, bulk = mean_of(list(levels.means)[-10:]), levels.bulk
        off = abs(recent - CHANCE)
        allowed = 2.6 / math.sqrt(len(bulk) * 10) * self.factor
        # half the range is the most that a standard deviation can be: mostly that is enough to know
        stuck = off < max(allowed * float(bulk.max() - bulk.min()) / 2, 0.002)
        stuck = stuck and off < max(allowed * float(bulk.std()), 0.002)
        if stuck:
            said = f"the mean loss is {recent:.3f}, chance for two classes is {CHANCE:.3f}"
            return self.latch.say(WARNING, step, max(1, step - 10 * self.attempt.size), f"not learning: {said}")
        return self.latch.over(step, f"the loss has left chance: {levels.mean:.3f}") if self.latch.up else []
