"""When the watcher looks: at the first steps, after each evaluation and resume, then as often as its share allows."""

from __future__ import annotations

import time

FIRST = 20  # steps of an attempt that are all looked at
SHARE = 0.007  # of the time of training that looks may take; what is always on takes the rest of 1 %
LEAST, MOST = 10, 10_000  # steps between two looks
SMOOTH = 0.3  # weight of the newest measurement


class Cadence:
    """Decides for one optimizer which of its steps is looked at. `spent_s`: what its looks have cost so far."""

    def __init__(self) -> None:
        self.taken = 0  # steps so far
        self.looks = 0
        self.spent_s = 0.0
        self.interval = LEAST
        self._next = 1
        self._look_s = 0.0
        self._step_s = 0.0
        self._seen: tuple[int, float] | None = None  # (steps, clock) when the last look ended

    def due(self) -> bool:
        """Is the step that comes next to be looked at?"""
        return self.taken < FIRST or self.taken + 1 >= self._next

    def soon(self) -> None:
        """The next step is looked at, whatever the interval: an evaluation or a resume lies before it."""
        self._next = self.taken + 1

    def looked(self, seconds: float) -> None:
        """A look has taken so long: how often the next ones may come follows from it."""
        now = time.perf_counter()
        self.looks += 1
        self.spent_s += seconds
        self._look_s += SMOOTH * (seconds - self._look_s) if self.looks > 1 else seconds
        if self._seen is not None and self.taken > self._seen[0]:
            step = max(1e-9, (now - self._seen[1] - seconds) / (self.taken - self._seen[0]))
            self._step_s = step if not self._step_s else min(step, self._step_s + SMOOTH * (step - self._step_s))
            wanted = self._look_s / (SHARE * self._step_s)
            self.interval = int(min(max(wanted, LEAST), MOST))
        self._seen = (self.taken, now)
        self._next = self.taken + self.interval
