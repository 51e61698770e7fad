"""Findings about the rates of a log without a declared schedule, limited to what the log shows.

A rate that stands may be a hold, a floor, a step or plateau schedule, the end of a run's schedule, or stuck: the log
alone cannot tell, so it is an information and never a warning. Only a rate of 0 from beginning to end is more than
that: no schedule trains anything at 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from eegwatch.diagnosis.findings import INFO, WARNING, Finding
from eegwatch.diagnosis.rate.found_law import Cell, LawWatch, as_they_are
from eegwatch.run.history import StepBlock
from eegwatch.run.records import Run
from eegwatch.wording import rate, short_rate

LONG = 500  # steps at one rate before it is reported
BEYOND_PRINT = 3  # times the longest earlier stand of a rounded rate: at a smooth peak the rounding alone makes two
ROUNDED = 1e-6  # of the rate: a wider cell is print, not float32
RECORDS_A_LEVEL = 10  # records at one rate, on average, from which a fall is one of steps and not of a curve
ZERO_RECORDS = 10  # of a rate of 0 before it is named: a warm-up from 0 logs one or two
LEVELS_TOLD = 4
DECLARE = "declare the schedule (in the run record, or with --schedule or --config): then it is decided"


@dataclass
class _Level:
    """A stretch of equal printed rates."""

    value: float
    since: int
    records: int = 1
    last: int = 0


class UndeclaredWatch:
    """Follows rates without knowing what they should be. O(1) a record."""

    def __init__(
        self, present: dict[str, Finding], run: Run | None = None, before: UndeclaredWatch | None = None
    ) -> None:
        """`run`: the attempt's record; `before`: the watch of the attempt before, whose law still holds."""
        self._present = present
        self.laws: LawWatch = LawWatch(present, run) if before is None else before.laws
        if before is not None and run is not None:
            self.laws.resumed(run)
        self._first: tuple[int, float] | None = None
        self._level: _Level | None = None
        self._levels: list[_Level] = []  # the newest that have ended, since the peak
        self._fallen_levels = self._fallen_records = 0  # how many those were, and their records
        self._peak = -math.inf
        self._peak_step = 0
        self._longest = 0  # steps of the longest stand that has ended
        self._records = self._moves = 0
        self._rising = True
        self._rounded = False
        self._width = 0.0  # of a printed rate's cell
        self._move = math.inf  # the newest move, in rate

    def feed(self, block: StepBlock, cell: Cell | None = None) -> list[Finding]:
        """Take the next records. `cell`: lowest and highest rate that a printed one stands for, where known."""
        known = np.isfinite(block.lr)
        if not known.any():
            return []
        steps, rates = block.step[known], block.lr[known]
        if cell is not None:
            low, high = cell(rates[-1:])
            self._width = float(high[0] - low[0])
            self._rounded = self._width > ROUNDED * abs(float(rates[-1]))
        starts = np.flatnonzero(np.diff(rates, prepend=np.nan) != 0)
        changes: list[Finding] = []
        for a, b in zip(starts, [*starts[1:], len(rates)], strict=True):
            changes += self._stretch(float(rates[a]), int(steps[a]), int(steps[b - 1]), int(b - a))
        changes += self._stand() + self._zero()
        return changes + self.laws.feed(block, cell or as_they_are) + self._explained()

    def settle(self) -> list[Finding]:
        """Look for the law in all that has come so far."""
        return self.laws.settle() + self._explained()

    def idle(self) -> list[Finding]:
        """As `settle`, where nothing has come since the last call."""
        return self.laws.idle() + self._explained()

    def _explained(self) -> list[Finding]:
        """Whether a found law explains the constant rate, or reports it as a break: it is reported once."""
        level = self._level
        if level is None or not self._told_by_the_law:
            return []
        return self._over("lr_stuck", level.last, "the law of the rates says what the stand is")

    @property
    def _told_by_the_law(self) -> bool:
        """Whether the law explains or reports a constant rate. A rate of 0 is reported anyway: it trains nothing."""
        return self.laws.law is not None and self._level is not None and self._level.value != 0

    def ended(self) -> list[Finding]:
        """The run is over, or its log has not grown for long: report a rate that only ever rose."""
        changes = self.settle()
        return changes + self._all_warm_up()

    def _all_warm_up(self) -> list[Finding]:
        level = self._level
        if level is None or self._first is None or not self._rising or self._moves < 2 or level.value != self._peak:
            return []
        if level.records > 2 or level.last - level.since > max(self._longest, 1) * BEYOND_PRINT:
            return []  # it stands at its peak: the warm-up has ended
        first, value = self._first
        says = (
            f"the rate rose to the last record, from {rate(value)} at step {first:,} to {rate(level.value)} at step "
            f"{level.last:,}: the run is all warm-up"
        )
        remedy = "make the warm-up shorter than the run, or the run longer; if the run continues, disregard this"
        return self._say(Finding("warmup_never_ends", INFO, level.last, first, says, headline=says, remedy=remedy))

    def _stretch(self, value: float, since: int, last: int, records: int) -> list[Finding]:
        """One stretch of equal rates within a block."""
        level = self._level
        if self._first is None:
            self._first = since, value
        self._records += records
        if level is not None and level.value == value:
            level.records, level.last = level.records + records, last
            return []
        changes: list[Finding] = []
        if level is not None:
            self._moves += 1
            self._move = abs(value - level.value)
            self._rising &= value > level.value
            self._longest = max(self._longest, level.last - level.since)
            if level.value < self._peak or value < level.value:
                self._levels = [*self._levels[1 - LEVELS_TOLD :], level]
                self._fallen_levels += 1
                self._fallen_records += level.records
            changes += self._over("lr_stuck", since, f"the rate moves again since step {since:,}")
            changes += self._over("warmup_never_ends", since, f"the run goes on: it is at step {since:,}")
        if value > self._peak:
            self._peak, self._peak_step = value, since
            self._levels, self._fallen_levels, self._fallen_records = [], 0, 0
        self._level = _Level(value, since, records, last)
        if value != 0:
            changes += self._over("lr_zero", since, f"the rate is above 0 since step {since:,}")
        return changes

    def _stand(self) -> list[Finding]:
        level = self._level
        assert level is not None
        stood = level.last - level.since
        if self._told_by_the_law:
            return []
        if stood < LONG or level.records < 2 or level.value == 0 == self._peak:
            return []
        if self._rounded and self._moves and self._slow and stood < BEYOND_PRINT * self._longest:
            return []  # neighbouring values stood nearly as long: that is what the rounding makes of a slow curve
        verb = "printed as" if self._rounded else "stood at"
        says = f"the rate has {verb} {rate(level.value)} for {stood:,} steps{self._before()}: {self._options()}"
        says += "; no schedule is declared"
        return self._say(Finding("lr_stuck", INFO, level.last, level.since, says, headline=says, remedy=DECLARE))

    def _before(self) -> str:
        """The course of the rate before it became constant."""
        level = self._level
        assert level is not None and self._first is not None
        first = self._first[1]
        if not self._moves:
            return ", from the first record on"
        if level.value == self._peak:
            return f", after it had risen from {short_rate(first)}" if self._rising else ", back at its highest"
        if self._in_steps:
            values = ", ".join(short_rate(one.value) for one in self._levels)
            more = "…, " if self._fallen_levels > len(self._levels) else ""
            return f", after {more}{values}"
        return f", after it had fallen from {short_rate(self._peak)} (step {self._peak_step:,})"

    @property
    def _slow(self) -> bool:
        """May it move on below the printed digits? Not after a move by many of their units."""
        return not self._moves or self._move < BEYOND_PRINT * self._width

    @property
    def _in_steps(self) -> bool:
        """Whether the rate fell in a few steps and was constant before each, as with step and plateau schedules."""
        return 0 < self._fallen_levels <= self._fallen_records / RECORDS_A_LEVEL

    def _options(self) -> str:
        level = self._level
        assert level is not None
        slow = ["a move too slow for the digits printed"] if self._rounded and self._slow else []
        if not self._moves:
            ways = ["a constant rate", *slow, "a scheduler that is never stepped"]
        elif level.value == 0:
            ways = ["the end of the schedule", *slow, "stuck"]
        elif level.value == self._peak:
            ways = ["a hold after the warm-up" if self._rising else "a hold", *slow, "stuck"]
        elif self._in_steps:
            ways = ["a step or plateau schedule", *slow, "stuck"]
        else:
            ways = ["a floor or a hold", *slow, "stuck"]
        return ", ".join(ways[:-1]) + f", or {ways[-1]}"

    def _zero(self) -> list[Finding]:
        """A rate of 0 in every record: nothing that has it is trained."""
        level = self._level
        assert level is not None and self._first is not None
        if level.value != 0 or self._moves or level.records < ZERO_RECORDS:
            return []
        since = f"{level.records:,} of them since step {level.since:,}"
        says = f"the rate is 0 in every record, {since}: what has this rate is not trained"
        if self._rounded:  # 0.0000 may be a small rate that four decimals cannot show
            says = f"the rate prints as 0 in every record, {since}: it is 0, or too small for the digits printed"
        remedy = "set the learning rate, or step the scheduler; a group that is frozen on purpose needs no rate"
        severity = INFO if self._rounded else WARNING
        return self._say(Finding("lr_zero", severity, level.last, level.since, says, headline=says, remedy=remedy))

    def _say(self, finding: Finding) -> list[Finding]:
        """Keep it with the figures of this moment; it is news only where it was not up."""
        new = finding.rule not in self._present
        self._present[finding.rule] = finding
        return [finding] if new else []

    def _over(self, rule: str, step: int, message: str) -> list[Finding]:
        old = self._present.pop(rule, None)
        return [old.resolved(step, message)] if old is not None else []
