"""`stalled`: no record for far longer than a step takes, outside phases that take their time."""

from __future__ import annotations

import numpy as np

from eegwatch.diagnosis.alarm import Alarm
from eegwatch.diagnosis.findings import WARNING, Finding
from eegwatch.diagnosis.rules.rule import Attempt, Rule
from eegwatch.run.history import StepBlock
from eegwatch.wording import duration

STALLED_LEAST_S, STALLED_TIMES = 60.0, 20.0
INTERVALS = 200  # newest times between two records


class Stalled(Rule):
    """No record for more than a minute and twenty times a step."""

    name = "stalled"

    def __init__(self, attempt: Attempt, alarm: Alarm, factor: float) -> None:
        super().__init__(attempt, alarm, factor)
        self._intervals = np.empty(0)
        self._last_time = 0.0
        self._last_step = attempt.run.step if attempt.run else 0

    def look(self, part: StepBlock) -> list[Finding]:
        first = int(part.step[0])
        gaps = np.diff(part.time[-INTERVALS:], prepend=self._last_time or part.time[0])
        self._intervals = np.concatenate([self._intervals, gaps[gaps > 0]])[-INTERVALS:]
        self._last_time, self._last_step = float(part.time[-1]), int(part.step[-1])
        return self.alarm.clear(self._last_step, f"steps come again since {first:,}")

    def ended(self, step: int) -> list[Finding]:
        return self.alarm.clear(step, "the run has ended")

    def clock(self, now: float, *, training: bool) -> list[Finding]:
        if not training or not len(self._intervals):
            return []
        usual = float(np.quantile(self._intervals, 0.999))
        if now - self._last_time <= max(STALLED_LEAST_S, STALLED_TIMES * usual) * self.factor:
            return []
        step_takes = duration(usual) if usual > 1 else f"{usual:.2g} s"
        text = f"stalled: no step for {duration(now - self._last_time)}, a step takes {step_takes}"
        return self.alarm.raise_(WARNING, self._last_step, self._last_step, text)
