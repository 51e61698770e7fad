"""`loss_unstable`: batch losses scatter more than batch size and AUROC explain. A hint, never an alarm."""

from __future__ import annotations

import math

import numpy as np

from eegwatch.diagnosis.alarm import Alarm
from eegwatch.diagnosis.findings import INFO, Finding
from eegwatch.diagnosis.rules.batch_noise import batch_loss_band
from eegwatch.diagnosis.rules.rule import Attempt, Rule
from eegwatch.run.history import StepBlock
from eegwatch.run.records import Eval, number

SCATTER_OF, SCATTER_BEYOND = 1000, 1.5  # newest losses; times the range that batch size and AUROC explain


class LossUnstable(Rule):
    """Batch losses that scatter beyond the band of their batch size and AUROC."""

    name = "loss_unstable"

    def __init__(self, attempt: Attempt, alarm: Alarm, factor: float) -> None:
        super().__init__(attempt, alarm, factor)
        self._newest = np.empty(0, np.float32)

    def look(self, part: StepBlock) -> list[Finding]:
        losses = part.loss[-SCATTER_OF:]
        self._newest = np.concatenate([self._newest, losses[np.isfinite(losses)]])[-SCATTER_OF:]
        return []

    def evaluation(self, record: Eval) -> list[Finding]:
        auroc, run = number(record.auroc), self.attempt.run
        if run is None or not run.batch_size or not math.isfinite(auroc) or len(self._newest) < SCATTER_OF:
            return []
        low, high = batch_loss_band(round(auroc, 2), run.batch_size * run.accumulate * run.world_size)
        seen = np.quantile(self._newest, [0.01, 0.99])
        times = float(seen[1] - seen[0]) / max(high - low, 1e-9)
        if times > SCATTER_BEYOND * self.factor:
            text = f"98 % of the newest losses lie in {seen[0]:.2f}–{seen[1]:.2f}, {low:.2f}–{high:.2f} is explained"
            return self.alarm.raise_(INFO, record.step, record.step, f"the loss scatters widely: {text}")
        over = "the loss scatters as batch size and AUROC explain"
        return self.alarm.clear(record.step, over) if self.alarm.raised else []
