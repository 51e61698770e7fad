"""The law of undeclared rates: searched as records arrive, and monitored once it is found.

A fit is tried whenever the number of records has doubled, on a bounded sample; a found law is held against every later
record. What breaks it is told by what the rate does instead. A law that has ended, or stands still, is not broken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from eegwatch.diagnosis.contradictions import contradictory_lengths
from eegwatch.diagnosis.findings import INFO, WARNING, Finding
from eegwatch.diagnosis.rate.found_law_text import description, length_words
from eegwatch.run.history import StepBlock
from eegwatch.run.records import Run
from eegwatch.schedule.inference import Known, Law, Records, cells, find
from eegwatch.schedule.inference.short_decimals import digits
from eegwatch.wording import exact_rate

Floats = NDArray[np.float64]
Cell = Callable[[Floats], tuple[Floats, Floats]]
KEPT = 8192  # records that a law is fitted to; beyond, every second one is dropped
FIRST_FIT = 6  # records
MANY = 64  # records without a law, from which on a fit is tried more rarely
DECIDED = 4  # records off the law before they are reported
MOST_SKIPS = 16  # optimizer steps skipped between two records
SKIPS_IN_ALL = 32  # and in all, or a fiftieth of the steps
FEW_UNITS = 4  # printed ones: a law from rounded rates that is off by so few was not the law
ROUND = 2  # digits of a rate, or of its share of the peak, that a person chose: a floor, where the rate stands
JUMP = 0.02  # relative, from one record to the next beyond what the law does: not a floor and not a turn
SEAMLESS = ("linear", "exponential", "polynomial", "inverse_sqrt")  # laws that a clamp or a turn may end anywhere
LENGTH_DIFFERS = 0.01


def as_they_are(values: Floats) -> tuple[Floats, Floats]:
    """The cells of rates that were logged in full."""
    return values, values


class LawWatch:
    """Finds the law of an undeclared log's rates and says when they leave it."""

    def __init__(self, present: dict[str, Finding], run: Run | None) -> None:
        self._present = present
        self._run = run
        self.law: Law | None = None
        self.broken_at: int | None = None
        self._over = False  # has it come to its end, and the rates gone on otherwise?
        self._steps: Floats = np.empty(0, np.float64)
        self._rates: Floats = np.empty(0, np.float64)
        self._every, self._seen, self._tried_at = 1, 0, 0
        self._off: list[tuple[int, float]] = []  # records off the law that are not yet explained
        self._resumed_at: int | None = None
        self._cell: Cell = as_they_are
        self._idle_at = -1

    def learn(self, run: Run) -> None:
        """Take new facts about the attempt: its length, the length of an epoch."""
        self._run = run

    def resumed(self, run: Run) -> None:
        """A new attempt of the run: what it does again is forgotten, the law is not."""
        keep = self._steps <= run.step
        self._steps, self._rates = self._steps[keep], self._rates[keep]
        self._seen = self._tried_at = len(self._steps)
        self._run, self._resumed_at, self._off = run, run.step, []

    def feed(self, block: StepBlock, cell: Cell) -> list[Finding]:
        """Take the next records; returns findings raised or resolved."""
        known = np.isfinite(block.lr)
        if not known.any():
            return []
        self._cell = cell
        steps, rates = block.step[known].astype(np.float64), block.lr[known]
        self._keep(steps, rates)
        if self.law is not None and self.broken_at is None and not self._over:
            return self._hold_against(self.law, steps, rates)
        if self._seen >= max(FIRST_FIT, (2 if self._tried_at < MANY else 4) * self._tried_at):
            return self.settle()
        return []

    def settle(self) -> list[Finding]:
        """Look for the law in all that has come, now; and decide on records off it."""
        if self._off:
            return self._decide()
        holds = self.law is not None and self.broken_at is None
        if self._seen == self._tried_at or (holds and not self._open and not self._over):
            return []
        if self.broken_at is not None and not self._records().exact:
            return []  # what few digits show of the rest of a run decides nothing
        self._tried_at = self._seen
        law = find(self._records(), self._known())
        if law is None:
            return []
        self.law, self._over = law, False
        return self._skips_told() + self._length_told()

    def idle(self) -> list[Finding]:
        """Called now and then: where nothing has come since the last call, look at what there is."""
        idle, self._idle_at = self._idle_at == self._seen, self._seen
        return self.settle() if idle else []

    @property
    def _open(self) -> bool:
        """Do more records narrow the law?"""
        law = self.law
        return law is not None and law.ends is not None and self._seen >= 2 * self._tried_at

    # ---- records ----

    def _keep(self, steps: Floats, rates: Floats) -> None:
        first = -self._seen % self._every
        self._seen += len(steps)
        self._steps = np.concatenate([self._steps, steps[first :: self._every]])
        self._rates = np.concatenate([self._rates, rates[first :: self._every]])
        while len(self._steps) > KEPT:
            self._steps, self._rates = self._steps[::2], self._rates[::2]
            self._every *= 2

    def _records(self) -> Records:
        low, high = cells(self._rates, *self._cell(self._rates))
        return Records(self._steps.astype(np.int64), self._rates, low, high)

    def _known(self) -> Known:
        run = self._run
        start = run.step if run is not None and self._resumed_at is None else 0
        total = run.total_steps if run is not None else None
        begins = (start + 1, start) if start == 0 else (1, 0, start + 1, start)
        return Known(total, begins, run.steps_per_epoch if run is not None else None)

    # ---- a law that was found ----

    def _hold_against(self, law: Law, steps: Floats, rates: Floats) -> list[Finding]:
        inside = self._inside(law, steps, rates)
        if inside.all() and not self._off:
            return self.settle() if self._open else []
        first = 0 if self._off else int(np.argmin(inside))
        self._off += list(zip(steps[first:].astype(int).tolist(), rates[first:].tolist(), strict=True))
        return self._decide() if len(self._off) >= DECIDED else []

    def _inside(self, law: Law, steps: Floats, rates: Floats) -> NDArray[np.bool_]:
        top = float(np.abs(self._rates).max(initial=0.0))
        room = 1e-12 * top
        low, high = cells(rates, *self._cell(rates))
        predicted = law.rate(steps)
        inside: NDArray[np.bool_] = (predicted >= low - room) & (predicted <= high + room)
        return inside

    def _decide(self) -> list[Finding]:
        """Classify the records off the law: another law for all records, skipped steps, a floor, or a break."""
        assert self.law is not None
        law, off = self.law, self._off
        self._off = []
        refitted = find(self._records(), self._known())
        if refitted is not None:
            self.law, self._tried_at = refitted, self._seen
            return self._skips_told()
        if off[0][0] >= law.last_step:  # what comes after a law's end is not a break of it
            self._over = True
            if not self._records().exact:
                self.law, self._over = None, False  # few digits: it may have been the first part of another one
            return []
        if self._near_by(law, off):
            self.law = None  # the digits decided less than it seemed: the search goes on
            return []
        skipping = self._skipping(law, off)
        if skipping is not None:
            self.law = skipping
            return self._skips_told()
        return self._broken(law, off)

    def _near_by(self, law: Law, off: list[tuple[int, float]]) -> bool:
        """Whether the records are off by only a few printed units."""
        steps, rates = (np.array(column, np.float64) for column in zip(*off, strict=True))
        low, high = self._cell(rates)
        return bool((np.abs(law.rate(steps) - rates) <= FEW_UNITS * (high - low)).all())

    def _skipping(self, law: Law, off: list[tuple[int, float]]) -> Law | None:
        """The law with skipped steps that explain every record, where there are such."""
        if not self._records().exact or law.steps_per_epoch > 1:
            return None
        skip_count = len(law.skips)
        for step, value in off:
            at, one = np.array([float(step)]), np.array([value])
            for _ in range(MOST_SKIPS + 1):
                if self._inside(law, at, one)[0]:
                    break
                law = law.skipping(step)
            else:
                return None
        return law if skip_count < len(law.skips) <= max(SKIPS_IN_ALL, off[-1][0] / 50) else None

    def _skips_told(self) -> list[Finding]:
        law = self.law
        if law is None or not law.skips:
            return []
        count, last = len(law.skips), law.skips[-1]
        steps = f"{count:,} step{'s' if count > 1 else ''}"
        says = (
            f"the scheduler was not stepped at {steps} so far, the last at or just before "
            f"step {last:,}: it lags by so many, as where mixed precision skips the optimizer; harmless"
        )
        return self._say(Finding("amp_skipped", INFO, int(self._steps[-1]), law.skips[0], says, headline=says))

    def _length_told(self) -> list[Finding]:
        law, run = self.law, self._run
        if law is None or run is None or not run.total_steps or law.total_steps is None:
            self._present.pop("law_length", None)
            return []
        end = law.total_steps + max(law.begin - 1, 0)
        may_end_earlier = bool(law.others) and end > run.total_steps  # at a floor
        if may_end_earlier or abs(end - run.total_steps) <= LENGTH_DIFFERS * run.total_steps:
            self._present.pop("law_length", None)
            return []
        if run.world_size > 1 and self._records().exact and not law.others:
            told = contradictory_lengths(run, law.schedule)  # the length of all processes, or of one of them
            if told:
                self._present.pop("law_length", None)
                return self._say(replace(told[0], step=int(self._steps[-1]), since_step=int(self._steps[0])))
        says = length_words(law, run.total_steps)
        remedy = "build the scheduler for the run's optimizer steps, unless this is intended"
        return self._say(
            Finding("law_length", INFO, int(self._steps[-1]), int(self._steps[0]), says, headline=says, remedy=remedy)
        )

    # ---- a law that is left ----

    def _broken(self, law: Law, off: list[tuple[int, float]]) -> list[Finding]:
        step, value = off[0]
        stands = all(v == value for _, v in off)
        expected = float(law.rate(float(step)))
        jumped = expected > 0 and abs(value / expected - 1) > JUMP
        resume = ""
        if self._resumed_at is not None and step <= self._resumed_at + self._interval() + 1:
            resume = f" at the resume at step {self._resumed_at:,}"
        if law.name in SEAMLESS and not (stands or jumped or resume):
            self.law = None  # a line, a power, a decay may turn anywhere without a seam: another law, not yet known
            return []
        self.broken_at = step
        self._restart(off)
        followed = f"the rate followed {description(law)} exactly up to step {step - 1:,}"
        clause = f"where that law has {exact_rate(expected, value)}"
        if stands:
            says = f"{followed}, then stays at {exact_rate(value, expected)} since step {step:,}, {clause}"
            if self._may_be_a_floor(law, value):
                says += ": a floor, or stuck"
                return self._left(INFO, step, says, "declare the schedule (--schedule, --config): then it is decided")
            return self._left(WARNING, step, says, "look whether scheduler.step() is still called")
        says = f"{followed}, then leaves it{resume}: {exact_rate(value, expected)} at step {step:,}, {clause}"
        return self._left(
            WARNING, step, says, "look at what was changed there: a resume, a new scheduler, another length"
        )

    def _may_be_a_floor(self, law: Law, value: float) -> bool:
        """Whether the constant rate is a number that a person would write."""
        peak = law.schedule.peak()
        if law.name in SEAMLESS and not self._records().exact:
            return True
        return value == 0 or digits(value) <= ROUND or (peak > 0 and digits(value / peak) <= ROUND)

    def _interval(self) -> int:
        return int(np.median(np.diff(self._steps))) if len(self._steps) > 1 else 1

    def _restart(self, off: list[tuple[int, float]]) -> None:
        """From here on another law is looked for."""
        self._steps = np.array([float(s) for s, _ in off])
        self._rates = np.array([v for _, v in off])
        self._every, self._seen, self._tried_at = 1, len(off), len(off)

    def _left(self, severity: str, step: int, says: str, remedy: str) -> list[Finding]:
        finding = Finding("lr_left_its_law", severity, step, step, says, headline=says, remedy=remedy)
        return self._say(finding)

    def _say(self, finding: Finding) -> list[Finding]:
        old = self._present.get(finding.rule)
        self._present[finding.rule] = finding
        return (
            [] if old is not None and old.severity == finding.severity and old.rule != "lr_left_its_law" else [finding]
        )
