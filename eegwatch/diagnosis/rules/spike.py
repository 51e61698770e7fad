"""`loss_spike`: several losses above everything of the last blocks, or a single one far outside."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from eegwatch.diagnosis.findings import INFO, WARNING, Finding
from eegwatch.diagnosis.latch import Latch
from eegwatch.diagnosis.rules.levels import quantile
from eegwatch.diagnosis.rules.rule import Attempt, Rule
from eegwatch.run.history import StepBlock

SPIKE_BEYOND, SPIKE_HISTORY, SPIKES_OF_TEN = 10, 1000, 3  # three of ten losses above all of the 10 blocks before
SINGLE_SPIKE_SIGMA, SPIKE_WINDOW = 12.0, 128  # batch losses are skewed: 6 sigma fires on noise, 12 did not (measured)


class LossSpike(Rule):
    """Source of the single spike: OLMo-core's SkipStepOptimizer."""

    name = "loss_spike"

    def __init__(self, attempt: Attempt, latch: Latch, factor: float) -> None:
        super().__init__(attempt, latch, factor)
        self._peaks: deque[float] = deque(maxlen=max(SPIKE_BEYOND, -(-SPIKE_HISTORY // attempt.size)))
        self._spike_steps: list[int] = []
        self._recent = np.empty(0, np.float32)
        self._ceiling = self._limit = math.inf
        self._quiet_since = 0

    def look(self, part: StepBlock) -> list[Finding]:
        losses, ceiling, limit = part.loss, self._ceiling, self._limit
        if ceiling == limit == math.inf:
            return []
        changes: list[Finding] = []
        for i in np.flatnonzero(losses > min(ceiling, limit)):
            step, loss = int(part.step[i]), float(losses[i])
            self._quiet_since = step
            if loss > ceiling:
                self._spike_steps = [*(s for s in self._spike_steps if step - s < 10), step]
                if len(self._spike_steps) >= SPIKES_OF_TEN * self.factor:
                    said = f"{len(self._spike_steps)} of the last 10 losses above {ceiling:.3g}, the highest for long"
                    changes += self.latch.say(WARNING, step, self._spike_steps[0], f"loss spikes: {said}")
                    continue
            if loss > limit:
                changes += self.latch.say(INFO, step, step, f"the loss of step {step:,} alone was {loss:.3g}")
        return changes

    def learn(self, whole: StepBlock) -> list[Finding]:
        """What a spike would have to rise above from now on."""
        if self.attempt.levels.fresh:
            self._peaks.append(self.attempt.levels.peak)
        ordinary = whole.loss[-SPIKE_WINDOW:]
        ordinary = ordinary[np.isfinite(ordinary) & (ordinary <= self._limit)]
        self._recent = np.concatenate([self._recent, ordinary])[-SPIKE_WINDOW:]
        if len(self._peaks) == self._peaks.maxlen:
            self._ceiling = max(self._peaks)
        if len(self._recent) == SPIKE_WINDOW:
            ordered = np.sort(self._recent.astype(np.float64))
            mean = float(ordered.sum()) / SPIKE_WINDOW
            spread = math.sqrt(max(0.0, float((ordered * ordered).sum()) / SPIKE_WINDOW - mean * mean))
            self._limit = quantile(ordered, 0.5) + SINGLE_SPIKE_SIGMA * self.factor * (spread + 1e-12)
        last = int(whole.step[-1])
        if self.latch.up and last - self._quiet_since > 10 * self.attempt.size:
            return self.latch.over(last, f"no loss spike since step {self._quiet_since:,}")
        return []
