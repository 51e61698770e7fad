"""A log without a declared schedule: what can be said honestly of its rates, as a hint and never as proof."""

from __future__ import annotations

import math

import numpy as np

from eegwatch.diagnosis.findings import INFO, WARNING, Finding
from eegwatch.diagnosis.latch import Latch
from eegwatch.run.history import StepBlock
from eegwatch.wording import rate, short_rate

LONG = 500  # steps at one rate before a word is said
SHARE = 0.2  # of all steps seen: a rate that moved before and stands for so long is worth a warning
DECLARE = "declare the schedule (a run record, or --config) to have it proved or cleared"


class UndeclaredWatch:
    """Follows rates without knowing what they should be. O(1) a record."""

    def __init__(self, present: dict[str, Finding]) -> None:
        self._stuck = Latch("lr_stuck", present)
        self._first: tuple[int, float] | None = None
        self._peak: tuple[int, float] = (0, -math.inf)
        self._value, self._since, self._last = math.nan, 0, 0
        self._moved = False

    def feed(self, block: StepBlock) -> list[Finding]:
        known = np.isfinite(block.lr)
        if not known.any():
            return []
        steps, rates = block.step[known], block.lr[known]
        if self._first is None:
            self._first = int(steps[0]), float(rates[0])
            self._value, self._since = float(rates[0]), int(steps[0])
        top = int(np.argmax(rates))
        if rates[top] > self._peak[1]:
            self._peak = int(steps[top]), float(rates[top])
        changes: list[Finding] = []
        moves = np.flatnonzero(np.diff(rates, prepend=self._value))
        self._last = int(steps[-1])
        if len(moves):
            self._moved |= int(steps[moves[0]]) > self._first[0]
            self._value, self._since = float(rates[-1]), int(steps[moves[-1]])
            changes += self._stuck.over(self._since, f"the rate moves again since step {self._since:,}")
        stood, seen = self._last - self._since, self._last - self._first[0] + 1
        if stood >= LONG:
            severity = WARNING if self._moved and stood > SHARE * seen else INFO
            before = "after it had moved; " if self._moved else ""
            said = f"the rate has stood at {rate(self._value)} for {stood:,} steps, {before}no schedule is declared"
            said += f": {self.shape()}"
            changes += self._stuck.say(severity, self._last, self._since, said, DECLARE)
        return changes

    def shape(self) -> str:
        """What the curve looks like so far, in words."""
        if self._first is None:
            return "no rate is logged"
        (begin, first), (top, peak), now = self._first, self._peak, self._value
        if peak <= 0 or first == peak == now:
            return "a constant rate, as far as the log goes"
        if now == peak and first < peak:
            return f"rising from {short_rate(first)}, a warm-up by its looks"
        if first < 0.9 * peak and now < peak:
            peaked = f"looks like a one-cycle with its peak {short_rate(peak)} at step {top:,}"
            return peaked + self._towards_end(top, peak, now)
        return f"falling from {short_rate(peak)}, an annealing by its looks{self._towards_end(begin, peak, now)}"

    def _towards_end(self, top: int, peak: float, now: float) -> str:
        """Where a half cosine from the peak to about zero would be, if that is what this is."""
        share = math.acos(2 * now / peak - 1) / math.pi
        if share <= 0.02:
            return ""
        at = self._since if self._last - self._since >= LONG else self._last
        return f", {share:.0%} down a cosine that would end near step {top + (at - top) / share:,.0f}"
