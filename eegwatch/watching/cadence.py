"""When the watcher looks: at the first steps, after each evaluation and resume, then as often as its share allows.

A look costs more than its own functions take: hooks run within the backward pass, caches are emptied, a GPU is waited
for. So the clock is also read some steps before each look and one step after it, and what the steps around a look take
longer than those before it is counted as its cost. On CPUs the clock is that of the thread, which a busy machine does
not move; where a GPU takes part it is the wall's.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from statistics import median

FIRST = 20  # steps of an attempt that are all looked at
GOALS = ((0.001, 0.02), (0.010, 0.01))  # (seconds of a step, share of its time that watching may take)
MARGIN = 0.75  # of the goal is used: the share is an estimate, 0.4 % below what blocks in turns showed at 1 ms
LEAST_OF_GOAL = 0.2  # that looks have, whatever is spent at every step
LEAST, MOST = 10, 10_000  # steps between two looks
PLAIN = 4  # steps before a look that it is compared with
KEPT = 31  # looks whose cost is kept
COMPARED = 5  # looks that were compared, before the comparison counts
UNCOMPARED = 1.5  # until then a look counts as so many times its own time
WORST = 4.0  # at most so many times: more than that is the noise of the steps
AT_EVERY_STEP = 0.4  # of the goal that may go to what is done at every step; it is done at fewer where it takes more
CALLS_S = 4e-6  # a step: torch's calls of two hooks and log.step()'s, which no clock of ours lies around


def goal(step_s: float) -> float:
    """The share of a step's time that watching may take: 2 % of 1 ms and less, 1 % of 10 ms and more."""
    (short, most), (long, least) = GOALS
    within = min(max(math.log(max(step_s, 1e-9) / short) / math.log(long / short), 0.0), 1.0)
    return most + within * (least - most)


class Cadence:
    """Decides for one optimizer which of its steps is looked at.

    `mark`: the step after which `stepped` is to be called; `timed`: the step whose every-step work is to be timed.
    `parts`: watched optimizers that share the time.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock, self.parts = clock, 1
        self.taken = 0  # steps so far
        self.looks = 0
        self.spent_s = 0.0  # by the looks so far
        self.interval = LEAST
        self.mark = self.timed = 0
        self._next = 1  # the next step that is looked at
        self._last = 0  # the last one
        self._own: deque[float] = deque(maxlen=KEPT)  # what looks took by themselves
        self._whole: deque[float] = deque(maxlen=KEPT)  # how much longer the steps at a look took
        self._steps: deque[float] = deque(maxlen=KEPT)
        self._always: deque[float] = deque(maxlen=KEPT)  # what is done at every step
        self._from: float | None = None  # the clock PLAIN steps before the look
        self._at: float | None = None  # the clock right before the look, and what a step takes there
        self._plain = 0.0
        self.look_s = 0.0  # that a look costs, with what it makes other code slower
        self._warm = False  # has a step been measured that no look lies beside?
        self._start = (0, 0, 0.0)  # (steps, looks, seconds spent) at the last of the first steps that was looked at
        self._ended: float | None = None  # the clock when the last step of the first ones ended

    # ---- what it decides ----

    def due(self) -> bool:
        """Is the step that comes next to be looked at?"""
        return self.taken < FIRST or self.taken + 1 >= self._next

    def soon(self) -> None:
        """The next step is looked at, whatever the interval: an evaluation or a resume lies before it."""
        self._next = self.taken + 1
        self._from = self._at = None
        self.mark = 0

    def stepped(self) -> bool:
        """Step `mark` is over. Is the next one to be looked at?"""
        if self.taken >= FIRST:
            self._read_clock()
        due = self.due()
        self.mark = self.taken + 1 if due else min(n for n in self._events() if n > self.taken)
        return due

    def _events(self) -> tuple[int, int, int]:
        return self._last + 1, self._next - 1 - PLAIN, self._next - 1

    def _read_clock(self) -> None:
        now, taken = self.clock(), self.taken
        if taken == self._last + 1 and self._at is not None:
            self._whole.append(now - self._at - 2 * self._plain)
            self._at = None
            self._pace()
        if taken == self._next - 1 - PLAIN and taken > self._last:
            self._from, self.timed = now, taken + 1
        elif taken == self._next - 1 and self._from is not None:
            self._plain = (now - self._from) / PLAIN
            if not self._warm:
                self._warm = True
                self._steps.clear()  # the first steps are slower
            self._steps.append(self._plain)
            self._from, self._at = None, now

    # ---- what it measures ----

    def every_step(self, seconds: float) -> None:
        """What is done at every step has taken so long."""
        self._always.append(seconds)

    def looked(self, seconds: float) -> None:
        """A look has taken so long by itself."""
        now, first = self.clock(), self.taken <= FIRST
        if not first and self._ended is not None:  # from now on a part of the tensors is read
            self._own.clear()
            self._ended = None
        self.looks += 1
        self._own.append(seconds)
        if first:
            if self._ended is not None:
                self._steps.append(max(1e-9, now - self._ended - seconds))
            self._ended = now
        self._last = self.taken
        self._pace()
        self.spent_s += self.look_s
        if first:
            self._start = (self.taken, self.looks, self.spent_s)

    def _look_costs(self) -> float:
        middle = median(self._own)
        own = sum(min(one, 8 * middle) for one in self._own) / len(self._own)
        if len(self._whole) < COMPARED:
            return UNCOMPARED * own
        return own + min(max(median(self._whole) - middle, 0.0), (WORST - 1) * own)

    @property
    def step_s(self) -> float:
        """Seconds of a step without a look; 0 before it is known."""
        return median(self._steps) if self._steps else 0.0

    @property
    def stride(self) -> int:
        """Steps from one to the next at which what is cheap and exact is read: 1, unless that takes too much."""
        if not self._always or not self._steps:
            return 1
        return math.ceil(median(self._always) / (AT_EVERY_STEP * goal(self.step_s) / self.parts * self.step_s)) or 1

    @property
    def always_s(self) -> float:
        """Seconds that watching takes at a step that is not looked at, on average."""
        return CALLS_S + (median(self._always) / self.stride if self._always else 0.0)

    def since_first(self) -> tuple[int, int, float]:
        """(steps, looks, seconds that watching took) since the first steps were over."""
        taken, looks, spent = self._start
        if not taken:
            return 0, 0, 0.0
        steps = self.taken - taken
        return steps, self.looks - looks, self.spent_s - spent + steps * self.always_s

    def _pace(self) -> None:
        """How often the next looks may come follows from what they cost."""
        self.look_s, step = self._look_costs(), self.step_s
        if step:
            most = goal(step) / self.parts
            share = max(MARGIN * most - self.always_s / step, LEAST_OF_GOAL * most)
            self.interval = int(min(max(math.ceil(self.look_s / (share * step)), LEAST), MOST))
        self._next = self._last + self.interval
