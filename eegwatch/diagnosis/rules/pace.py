"""`throughput_drop`: three blocks in a row at half the usual pace; the first block of an attempt warms caches up."""

from __future__ import annotations

import numpy as np

from eegwatch.diagnosis.findings import WARNING, Finding
from eegwatch.diagnosis.latch import Latch
from eegwatch.diagnosis.rules.levels import quantile
from eegwatch.diagnosis.rules.rule import Attempt, Rule
from eegwatch.run.history import StepBlock

SLOWER, SLOWER_FOR, BASELINE = 2.0, 3, 8


class ThroughputDrop(Rule):
    name = "throughput_drop"

    def __init__(self, attempt: Attempt, latch: Latch, factor: float) -> None:
        super().__init__(attempt, latch, factor)
        self._speeds: list[float] = []
        self._slow = 0

    def learn(self, whole: StepBlock) -> list[Finding]:
        step = int(whole.step[-1])
        if len(whole) < 2:
            return []
        interval = quantile(np.sort(whole.time[1:] - whole.time[:-1]), 0.5)
        if interval <= 0:
            return []
        self._speeds.append(interval)
        if len(self._speeds) <= BASELINE:
            return []
        usual = quantile(np.sort(np.array(self._speeds[1 : BASELINE + 1])), 0.5)
        slow = interval > SLOWER * self.factor * usual
        self._slow = self._slow + 1 if slow else 0
        del self._speeds[BASELINE + 1 :]
        if self._slow >= SLOWER_FOR:
            since = step - SLOWER_FOR * self.attempt.size + 1
            said = f"{1 / interval:,.3g} steps a second since step {since:,}, {1 / usual:,.3g} before"
            remedy = "look at the machine: another job, a slow disk"
            return self.latch.say(WARNING, step, since, f"throughput fell: {said}", remedy)
        over = self.latch.up and not slow
        return self.latch.over(step, f"the pace is usual again at step {step:,}") if over else []
