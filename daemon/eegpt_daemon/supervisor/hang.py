"""Detects a hung trainer: its progress counter has not changed for too long."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

from eegwatch.run.config import Supervision
from eegwatch.run.liveness import PREPARING_HUNG_S
from eegwatch.wording import duration

HUNG_LEAST_S, HUNG_TIMES = 300.0, 100.0  # without progress, and times the longest step so far
FIRST_TIMES = 10.0  # times a script's way to its first step: it may print once an epoch
PREPARING_LEAST_S = PREPARING_HUNG_S  # a large checkpoint read over a network counts once
WORKING = ("training", "evaluating", "checkpointing")  # the phases in which a loop counts its progress
PREPARING = ("starting", "preparing")


@dataclass
class HangWatch:
    """Sees that a trainer has stopped counting, in any phase.

    `longest`: seconds between two counts so far, of steps and of a preparation's; `moved`: when it last counted,
    seconds since the epoch. `patient`: a preparation may wait for people (nodes that have still to join).
    """

    settings: Supervision
    patient: bool = False
    longest: float = 0.0
    longest_preparing: float = 0.0
    moved: float | None = None
    _seen: tuple[str, int] = ("", -1)
    _moved_at: float = math.inf
    _began: float = field(default_factory=time.monotonic)

    def look(self, state: str, progress: int) -> str | None:
        """Why the trainer counts as hung, or None. Call it often: it measures by its own clock."""
        now = time.monotonic()
        watched = state in WORKING or (state in PREPARING and not self.patient)
        if (state, progress) != self._seen or not watched:
            if self._seen[0] == state and state in WORKING:
                self.longest = max(self.longest, now - self._moved_at)
            elif self.patient and self._seen[0] in PREPARING and state in WORKING:
                self.longest = (now - self._began) * FIRST_TIMES / HUNG_TIMES
            elif self._seen[0] == state and state in PREPARING:
                self.longest_preparing = max(self.longest_preparing, now - self._moved_at)
            self._seen, self._moved_at, self.moved = (state, progress), now, time.time()
            return None
        stood = now - self._moved_at
        longest = self.longest if state in WORKING else self.longest_preparing
        if stood < self.limit(state):
            return None
        return f"no progress while {state} for {duration(stood)}; the longest before was {longest:.1f} s"

    def limit(self, state: str) -> float:
        """Seconds without progress that are too many in this phase."""
        minutes = self.settings.hung.after_minutes
        if minutes is not None:
            return minutes * 60
        if state in WORKING:
            return max(HUNG_LEAST_S, HUNG_TIMES * self.longest)
        return max(PREPARING_LEAST_S, HUNG_TIMES * self.longest_preparing)
