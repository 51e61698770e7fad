"""`throughput_drop`: a pace that halves for good, or steps that wait now and then for most of the time.

Where the pace changes at the border of an epoch and is as regular as before, the batches may be larger from then on
(progressive resizing): a hint, no alarm. So too at a round step where the length of an epoch is not known. Pauses for
evaluations do not count, and what a run's pace was is not a finding once it has ended.
"""

from __future__ import annotations

import numpy as np

from eegwatch.diagnosis.alarm import Alarm
from eegwatch.diagnosis.findings import INFO, WARNING, Finding
from eegwatch.diagnosis.rules.rule import Attempt, Rule
from eegwatch.diagnosis.rules.trend import Column, middle
from eegwatch.run.history import StepBlock
from eegwatch.wording import significant

SLOWER, SLOWER_FOR, BASELINE, KEPT = 2.0, 3, 8, 32  # times; units of at least UNIT records
RECOVERED = 1.5  # times the usual interval
ROUND = 500  # steps: where people change something, if not at an epoch
UNIT = 16
STALL_S, STALL_TIMES, STALL_SHARE, STALLS, STALL_APART = 2.0, 10.0, 0.5, 6, 50
STALL_HISTORY = 320  # newest intervals looked at
MACHINE = "look at the machine: another job, a slow disk"


class ThroughputDrop(Rule):
    """A speed (samples per second) that has halved, or single steps that wait."""

    name = "throughput_drop"

    def __init__(self, attempt: Attempt, alarm: Alarm, factor: float) -> None:
        super().__init__(attempt, alarm, factor)
        self._last_time = 0.0
        self._paused = True  # the next interval holds more than a step
        self._waiting: list[tuple[Column, Column]] = []  # (steps, intervals) that fill no unit yet
        self._before: list[Column] = []  # intervals of usual units
        self._slow: list[tuple[Column, Column]] = []
        self._newest = np.empty((0, 2))
        self._units = self._settled = 0
        self._last_units: list[tuple[Column, Column]] = []  # before a slow one: it may have begun within them

    def pause(self) -> None:
        self._paused = True

    def look(self, part: StepBlock) -> list[Finding]:
        gaps = np.diff(part.time, prepend=self._last_time or part.time[0])
        steps = part.step.astype(np.float64)
        self._last_time = float(part.time[-1])
        if self._paused:
            gaps, steps, self._paused = gaps[1:], steps[1:], False
        if len(gaps):
            self._waiting.append((steps, gaps))
        return []

    def learn(self, whole: StepBlock) -> list[Finding]:
        if sum(len(gaps) for _, gaps in self._waiting) < UNIT:
            return []
        steps, gaps = (np.concatenate(column) for column in zip(*self._waiting, strict=True))
        self._waiting = []
        self._newest = np.concatenate([self._newest, np.column_stack([steps, gaps])])[-STALL_HISTORY:]
        self._units += 1
        usual = middle(np.concatenate(self._before)) if self._before else 0.0
        pace = middle(gaps)
        stalls = self._stalls()
        if stalls:
            return self.alarm.raise_(WARNING, int(steps[-1]), *stalls)
        if pace <= 0:
            return []
        step = int(steps[-1])
        if usual and len(self._before) >= BASELINE and pace > SLOWER * self.factor * usual:
            self._slow.append((steps, gaps))
            return self._slowed(usual, pace) if len(self._slow) >= SLOWER_FOR else []
        if self.alarm.raised and pace > RECOVERED * usual:
            return []
        self._slow = []
        self._last_units = [*self._last_units[-1:], (steps, gaps)]
        if self._units > 1:  # the first unit of an attempt warms caches up
            self._before = [*self._before, gaps][-KEPT:]
        if not self.alarm.raised or self._units < self._settled:
            return []
        return self.alarm.clear(step, f"the pace is usual at step {step:,}: {significant(1 / pace)} records a second")

    def ended(self, step: int) -> list[Finding]:
        return self.alarm.clear(step, "the run has ended")

    def _slowed(self, usual: float, pace: float) -> list[Finding]:
        steps, gaps = (np.concatenate(column) for column in zip(*self._last_units, *self._slow, strict=True))
        slow = gaps > 0.5 * (usual + pace)
        since = int(steps[next((i for i in range(len(slow)) if slow[i] and slow[i : i + 5].sum() > 3), len(slow) - 1)])
        text = f"throughput fell: {significant(1 / pace)} records a second since step {since:,}, "
        text += f"{significant(1 / usual)} before"
        if self._planned(since, gaps[steps >= since], steps):
            self._before, self._slow = [gaps for _, gaps in self._slow] * BASELINE, []  # from now on the usual pace
            self._settled = self._units + KEPT
            return self.alarm.raise_(INFO, int(steps[-1]), since, f"{text}: larger inputs, or a busy machine")
        return self.alarm.raise_(WARNING, int(steps[-1]), since, text, MACHINE)

    def _planned(self, since: int, gaps: Column, steps: Column) -> bool:
        """As regular as before, and nothing shows that it did not begin with an epoch."""

        def irregular(intervals: Column) -> float:
            low, middle, high = np.quantile(intervals, [0.1, 0.5, 0.9])
            return float((high - low) / middle)

        if irregular(gaps) > 2 * irregular(np.concatenate(self._before)) + 0.1:
            return False
        epoch = (self.attempt.run.steps_per_epoch if self.attempt.run else None) or ROUND
        spacing = float(np.median(np.diff(steps))) if len(steps) > 1 else 1.0
        off = (since - 1) % epoch
        return min(off, epoch - off) <= 3 * spacing

    def _stalls(self) -> tuple[int, str, str] | None:
        """(since, message, remedy) where few steps take most of the time, again and again."""
        steps, gaps = self._newest[:, 0], self._newest[:, 1]
        usual = middle(gaps)
        long = np.flatnonzero(gaps > max(STALL_S, STALL_TIMES * usual) * self.factor)
        if usual <= 0 or len(long) < STALLS or float(np.median(np.diff(long))) > STALL_APART:
            return None
        share = float((gaps[long] - usual).sum() / gaps[long[0] :].sum())
        if share < STALL_SHARE:
            return None
        apart = int(np.median(np.diff(steps[long])))
        text = f"throughput: a step in {apart} takes {np.median(gaps[long]):.2g} s, the others {usual:.2g} s: "
        text += f"{100 * share:.0f} % of the time since step {int(steps[long[0]]):,}"
        return int(steps[long[0]]), text, "the loader does not keep up: more workers, prefetching, a faster disk"
