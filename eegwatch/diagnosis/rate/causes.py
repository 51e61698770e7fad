"""Causes of a wrong rate: predictions that records can refute, and the facts about an attempt.

A cause is a position line p(step) through the declared schedule, or the schedule with another parameter. One that
fails a record (its rate lies outside the record's cell) is out for good; the truth never is. The list of causes is in
`catalogue`. Step n of a healthy run uses position n - 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eegwatch.schedule import Manual, Schedule, length_in_steps, peak_rate, rate_at
from eegwatch.schedule.families import CosineRestarts, OneCycle, WarmupHoldAnneal
from eegwatch.schedule.lengths import has_length

Floats = NDArray[np.floating[Any]]
Steps = NDArray[np.int64]
Booleans = NDArray[np.bool_]
Line = Callable[[Steps], Floats]
RELATIVE = 1e-9  # torch's recursive schedulers drift 8e-15 over 58,285 steps; ample, and still sharp
FLOOR = 1e-12  # of the peak: a recursion over 3,000,000 steps is off by 2.6e-9 of a rate that has fallen to 2e-8 of it
SKIP_SHARE = 0.02  # AMP skips a few steps in a hundred at the very most
CLOSED_FORMS = (OneCycle, WarmupHoldAnneal, CosineRestarts, Manual)  # torch computes the others by recursion


@dataclass(frozen=True)
class Situation:
    """Facts about an attempt beside its steps: the counts of its `run` record, and its first step."""

    schedule: Schedule
    steps_per_epoch: int | None = None
    accumulate: int = 1
    world_size: int = 1
    epochs: int | None = None
    start: int = 0  # optimizer steps done before this attempt
    restored_position: float | None = None
    restored_total: int | None = None
    run_total: int | None = None  # the run's own length in optimizer steps, where it is logged
    before: Schedule | None = None  # the schedule that held until `start`, where another one replaced it
    unit_assumed: bool = False  # may the schedule, which counts steps here, be meant to count epochs?

    @cached_property
    def total(self) -> int:
        """The schedule's length in optimizer steps."""
        return length_in_steps(self.schedule, self.steps_per_epoch)

    @cached_property
    def end(self) -> float:
        """The last step that the schedule declares a rate for; inf where its curve has no end."""
        if not isinstance(self.schedule, Manual) and not has_length(self.schedule):
            return math.inf
        ragged = (self.run_total or 0) - self.total
        if self.schedule.unit == "epoch" and 0 < ragged < (self.steps_per_epoch or 1):
            return self.total + ragged  # the last epoch is a broken one
        return self.total

    @cached_property
    def peak(self) -> float:
        return peak_rate(self.schedule)

    @property
    def recursive(self) -> bool:
        """Whether torch computes this schedule by recursion, so that rounding errors add up."""
        return not isinstance(self.schedule, CLOSED_FORMS)

    def expected(self, step: Steps | int) -> Floats:
        """The rate that each step should use."""
        return rate_at(self.schedule, step, self.steps_per_epoch)


@dataclass
class Evidence:
    """Records as cells: the steps, the lowest and highest rate each may have had, the logged position or nan."""

    step: Steps
    low: Floats
    high: Floats
    position: Floats

    def __len__(self) -> int:
        return len(self.step)

    def __getitem__(self, rows: slice) -> Evidence:
        return Evidence(self.step[rows], self.low[rows], self.high[rows], self.position[rows])

    def __add__(self, other: Evidence) -> Evidence:
        return Evidence(
            *(np.concatenate([getattr(self, n), getattr(other, n)]) for n in ("step", "low", "high", "position"))
        )


class Sample:
    """A bounded memory of an attempt's records, thinned evenly: a million records never need re-reading."""

    LIMIT = 1024

    def __init__(self) -> None:
        self._every = 1
        self._seen = 0
        self.evidence: Evidence | None = None

    def add(self, evidence: Evidence) -> None:
        first = -self._seen % self._every
        self._seen += len(evidence)
        taken = evidence[slice(first, None, self._every)]
        self.evidence = taken if self.evidence is None else self.evidence + taken
        while len(self.evidence) > self.LIMIT:
            self.evidence = self.evidence[slice(None, None, 2)]
            self._every *= 2


@dataclass
class Hypothesis:
    """One cause as a prediction. `rank` orders the likeliest first; `killed_at` is the step that refuted it."""

    name: str
    says: str
    rank: int
    rate: Line
    position: Line | None = None
    last: float = np.inf  # position of the schedule's end: what a loop does beyond it, no schedule says
    floor: float = 0.0  # absolute slack, in rate
    confirmed: bool = False
    killed_at: int | None = None
    late: bool = False  # does it begin inside an attempt?

    @property
    def alive(self) -> bool:
        return self.killed_at is None

    def agree(self, predicted: Floats, evidence: Evidence) -> Booleans:
        """Mask of the predicted rates that lie in their record's cell."""
        slack = RELATIVE * np.abs(predicted) + self.floor
        agree: Booleans = (predicted >= evidence.low - slack) & (predicted <= evidence.high + slack)
        return agree

    def fits(self, evidence: Evidence) -> Booleans:
        """Mask of the records that this cause explains."""
        predicted = self.rate(evidence.step)
        fits = self.agree(predicted, evidence)
        if self.position is not None:
            position, logged = self.position(evidence.step), evidence.position
            if self.confirmed:
                fits |= position > self.last
            fits &= np.isnan(logged) | (np.abs(logged - position) < 1e-6)
        return fits

    def test(self, evidence: Evidence) -> None:
        """Strike the cause out at the first record that it cannot explain."""
        if self.alive and len(evidence):
            if self.position is not None:  # within its schedule it must have explained something first
                self.confirmed |= bool(self.position(evidence.step[:1])[0] <= self.last)
            fits = self.fits(evidence)
            if not fits.all():
                self.killed_at = int(evidence.step[int(np.argmin(fits))])


@dataclass
class Scaled(Hypothesis):
    """observed = c * expected with one unknown c: alive while a single c explains every record."""

    least: float = 0.0
    most: float = np.inf

    def test(self, evidence: Evidence) -> None:
        predicted = self.rate(evidence.step)
        moving = predicted > 0
        if not self.alive or not moving.any():
            return
        least = float(((evidence.low[moving] - self.floor) / predicted[moving]).max()) * (1 - RELATIVE)
        most = float(((evidence.high[moving] + self.floor) / predicted[moving]).min()) * (1 + RELATIVE)
        self.least, self.most = max(self.least, least), min(self.most, most)
        if self.least > self.most:
            self.killed_at = int(evidence.step[-1])

    def fits(self, evidence: Evidence) -> Booleans:
        c = (self.least + self.most) / 2
        predicted = c * self.rate(evidence.step)
        fits: Booleans = (predicted >= evidence.low) & (predicted <= evidence.high)
        return fits


@dataclass
class Skipping(Hypothesis):
    """The position runs ahead of the step by a slowly growing count: optimizer steps that the scaler skipped."""

    schedule: Schedule | None = None

    def fits(self, evidence: Evidence) -> Booleans:
        assert self.schedule is not None
        healthy = evidence.step - 1.0
        reach = np.maximum(4.0, SKIP_SHARE * healthy)
        ahead = np.stack([self.schedule.rate(healthy + share * reach) for share in np.linspace(0, 1, 9)])
        fits: Booleans = (ahead.min(0) <= evidence.high) & (ahead.max(0) >= evidence.low)
        return fits


@dataclass
class Overrun(Hypothesis):
    """Steps past the end of the schedule: whatever the rate does there, no schedule declares it."""

    total: int = 0

    def fits(self, evidence: Evidence) -> Booleans:
        past: Booleans = evidence.step > self.total
        return past | super().fits(evidence)


@dataclass
class Restored(Hypothesis):
    """The first step after a resume still uses the rate that the optimizer's state brought back."""

    first: int = 0
    restored_rate: float = 0.0

    def fits(self, evidence: Evidence) -> Booleans:
        at_first = evidence.step == self.first
        brought_back = self.agree(np.full(len(evidence), self.restored_rate), evidence)
        fits: Booleans = super().fits(evidence) | (at_first & brought_back)
        return fits
