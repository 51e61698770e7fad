"""`metric_stuck` and `overfitting`: what the evaluations on the validation set show."""

from __future__ import annotations

import math

import numpy as np

from eegwatch.diagnosis.findings import WARNING, Finding
from eegwatch.diagnosis.latch import Latch
from eegwatch.diagnosis.rules.levels import mean_of
from eegwatch.diagnosis.rules.rule import Attempt, Rule
from eegwatch.run.records import Eval, number

METRIC_EVALS, METRIC_MARGIN = 6, 0.002
OVERFIT_EVALS, OVERFIT_RISE = 4, 1.05


class MetricStuck(Rule):
    """The target metric has stopped rising below its target."""

    name = "metric_stuck"

    def __init__(self, attempt: Attempt, latch: Latch, factor: float) -> None:
        super().__init__(attempt, latch, factor)
        self._evals: list[Eval] = []

    def evaluation(self, record: Eval) -> list[Finding]:
        run = self.attempt.run
        target = ((run.target if run else None) or {}).get("auroc")
        self._evals.append(record)
        if target is None:
            return []
        scores = [number(e.auroc) for e in self._evals]
        window = round(METRIC_EVALS * self.factor)
        if scores[-1] >= target:
            return self.latch.over(record.step, f"AUROC {scores[-1]:.3f} has reached the target {target:g}")
        if len(scores) <= window:
            return []
        before, since = max(scores[:-window]), self._evals[-window]
        if max(scores[-window:]) < before + METRIC_MARGIN:
            said = f"AUROC has not risen above {before:.3f} in {window} evaluations, the target is {target:g}"
            return self.latch.say(WARNING, record.step, since.step, said)
        return self.latch.over(record.step, f"AUROC rises again: {scores[-1]:.3f}") if self.latch.up else []


class Overfitting(Rule):
    """The validation loss rises while the training loss falls."""

    name = "overfitting"

    def __init__(self, attempt: Attempt, latch: Latch, factor: float) -> None:
        super().__init__(attempt, latch, factor)
        self._evals: list[Eval] = []
        self._loss_then: list[float] = []

    def evaluation(self, record: Eval) -> list[Finding]:
        means = list(self.attempt.levels.means)[-3:]
        self._evals.append(record)
        self._loss_then.append(mean_of(means) if means else math.nan)
        losses = [number(e.loss) for e in self._evals]
        if len(losses) <= OVERFIT_EVALS:
            return []
        best = int(np.nanargmin(losses))
        rise = losses[-1] / losses[best] if losses[best] else math.inf
        falling = self._loss_then[-1] < self._loss_then[best]
        if len(losses) - 1 - best >= OVERFIT_EVALS and rise > OVERFIT_RISE * self.factor and falling:
            then = self._evals[best].step
            said = f"overfitting: validation loss {losses[-1]:.3f}, {rise - 1:.0%} above its best at step {then:,}"
            said += ", while the training loss falls"
            return self.latch.say(
                WARNING, record.step, then, said, f"the checkpoint of step {then:,} is the better model"
            )
        over = self.latch.up and rise < 1.01
        return self.latch.over(record.step, "validation loss is near its best again") if over else []
