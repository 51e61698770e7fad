"""Why a rate is wrong: every cause of faults.md as a prediction, and elimination by the records.

A cause is a position line p(step) through the declared schedule, or the schedule with another parameter. One that
fails a record (its rate lies outside the record's rounding cell) is out for good; the truth never is.
Source: detection_control.md 2.3. Step n of a healthy run uses position n - 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from eegwatch.schedule import (
    Manual,
    Schedule,
    declared_base,
    final_rate,
    initial_rate,
    length_in_steps,
    peak_rate,
    rate_at,
)
from eegwatch.schedule.inverse import position_intervals
from eegwatch.wording import short_rate

Floats = NDArray[np.floating[Any]]
Steps = NDArray[np.int64]
Booleans = NDArray[np.bool_]
Line = Callable[[Steps], Floats]
RELATIVE = 1e-9  # torch's recursive schedulers drift 8e-15 over 58,285 steps; ample, and still sharp
MOST_STEPS_A_BATCH = 64  # a scheduler stepped k times an optimizer step: k up to this is looked for unasked
SKIP_SHARE = 0.02  # AMP skips a few steps in a hundred at the very most

REMEDIES = {
    "scheduler_stepped_per_epoch": "call scheduler.step() after every optimizer.step(), inside the batch loop",
    "scheduler_never_stepped": "call scheduler.step() after every optimizer.step()",
    "scheduler_stepped_per_microbatch": "step the scheduler when the optimizer steps, not at every micro-batch",
    "scheduler_stepped_per_process": "step the scheduler once an optimizer step, not once in every process",
    "scheduler_stepped_per_batch_and_epoch": "remove the second scheduler.step() at the epoch's end",
    "epoch_schedule_stepped_per_batch": "move scheduler.step() out of the batch loop: this schedule counts epochs",
    "schedule_restarted_on_resume": "on resume, load the scheduler's state or set its position to the global step",
    "schedule_lags_after_resume": "on resume, set the scheduler's position to the global step",
    "schedule_frozen_on_resume": "on resume, bind the restored scheduler to the new optimizer and step it every batch",
    "rate_reset_on_resume": "on resume, restore the optimizer's rate before the first batch",
    "wrong_total_steps": "build the scheduler with total_steps = epochs * ceil(batches / accumulation)",
    "optimizer_steps_skipped": "step the scheduler only when the scaler did not skip the optimizer's step",
    "final_div_factor_from_initial": "set final_div_factor so that initial / final_div_factor is the floor you mean",
    "rate_scaled": "set the rate itself: something multiplies it (world size, accumulation, a parameter group)",
    "schedule_overrun": "stop at total_steps, or declare the longer run",
    "override_not_honoured": "assign the rate before every optimizer.step(): written under a scheduler it lasts a step",
    "unknown": "compare the training loop with the declared schedule",
}


@dataclass(frozen=True)
class Situation:
    """What is known about an attempt beside its records: the counts of its `run` record, and where it began."""

    schedule: Schedule
    steps_per_epoch: int | None = None
    accumulate: int = 1
    world_size: int = 1
    epochs: int | None = None
    start: int = 0  # optimizer steps done before this attempt
    restored_position: float | None = None
    restored_total: int | None = None

    @property
    def total(self) -> int:
        """The run's length in optimizer steps."""
        return length_in_steps(self.schedule, self.steps_per_epoch)

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
    confirmed: bool = False
    killed_at: int | None = None

    @property
    def alive(self) -> bool:
        return self.killed_at is None

    def fits(self, evidence: Evidence) -> Booleans:
        """Which records this cause explains."""
        predicted = self.rate(evidence.step)
        slack = RELATIVE * np.abs(predicted)
        fits: Booleans = (predicted >= evidence.low - slack) & (predicted <= evidence.high + slack)
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
        least = float((evidence.low[moving] / predicted[moving]).max()) * (1 - RELATIVE)
        most = float((evidence.high[moving] / predicted[moving]).min()) * (1 + RELATIVE)
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


def hypotheses(s: Situation, anchor: Evidence, latest: Evidence) -> list[Hypothesis]:
    """Every cause that this attempt could have, before elimination.

    Parameters that no record declares (a scale, a lag, another total) are read off the `anchor`, the first faulty
    record, and off the `latest` one, which is sharper.
    """
    if s.schedule.unit == "epoch":
        return [
            _line(s, "epoch_schedule_stepped_per_batch", "the schedule counts epochs but is stepped every batch", 0,
                  lambda n: n - 1.0),
            _line(s, "scheduler_never_stepped", "the scheduler is never stepped", 3, _constant(0.0)),
            Scaled("rate_scaled", "the rate is a multiple of the declared one", 7, s.expected),
        ]  # fmt: skip
    return [
        *(_after_resume(s, latest) if s.start else _from_scratch(s)),
        *_wrong_pace(s, anchor, latest),
        *_other_schedule(s, latest),
        Scaled("rate_scaled", "the rate is a multiple of the declared one", 7, s.expected),
        *_overridden(s),
        Overrun(
            "schedule_overrun",
            f"the run goes on past the {s.total:,} steps of its schedule",
            -1,
            s.expected,
            total=s.total,
        ),
        Skipping(
            "optimizer_steps_skipped",
            "the schedule runs ahead by the optimizer steps that were skipped",
            8,
            s.expected,
            schedule=s.schedule,
        ),
    ]


def _line(
    s: Situation, name: str, says: str, rank: int, position: Line, schedule: Schedule | None = None
) -> Hypothesis:
    curve = schedule or s.schedule
    last = curve.total_steps - 1.0
    return Hypothesis(name, says, rank, lambda n: curve.rate(position(n)), position, last)


def _constant(p: float) -> Line:
    return lambda n: np.full(np.shape(n), p)


def _epochs_done(s: Situation) -> Line:
    return lambda n: np.floor_divide(np.asarray(n, np.float64) - 1, s.steps_per_epoch or np.inf)


def _from_scratch(s: Situation) -> Iterator[Hypothesis]:
    if s.steps_per_epoch:
        says = "the scheduler is stepped once per epoch"
        yield _line(s, "scheduler_stepped_per_epoch", says, 1, _epochs_done(s))
        by_epochs = with_total(s.schedule, s.epochs) if s.epochs and s.epochs > 1 else None
        if by_epochs:
            says = f"the scheduler is stepped once per epoch and was built for {s.epochs} steps"
            yield _line(s, "scheduler_stepped_per_epoch", says, 2, _epochs_done(s), by_epochs)
    yield _line(s, "scheduler_never_stepped", "the scheduler is never stepped", 3, _constant(0.0))
    peak = peak_rate(s.schedule)
    says = f"the rate stands at the declared peak {short_rate(peak)}: no schedule is applied to this optimizer"
    yield Hypothesis("unknown", says, 4, lambda n: np.full(np.shape(n), peak))


def _after_resume(s: Situation, latest: Evidence) -> Iterator[Hypothesis]:
    r = s.start
    restored = float(r) if s.restored_position is None else s.restored_position
    at = f"at the resume at step {r:,}"
    if s.steps_per_epoch:
        B, done = s.steps_per_epoch, _epochs_done(s)
        says = "the scheduler is stepped once per epoch since the resume"
        yield _line(s, "scheduler_stepped_per_epoch", says, 1, lambda n: restored + done(n) - r // B)
        says = "the scheduler is stepped once per epoch and counts epochs"
        yield _line(s, "scheduler_stepped_per_epoch", says, 5, done)
        by_epochs = with_total(s.schedule, s.epochs) if s.epochs and s.epochs > 1 else None
        if by_epochs:
            says = f"the scheduler is stepped once per epoch and was built for {s.epochs} steps"
            yield _line(s, "scheduler_stepped_per_epoch", says, 5, done, by_epochs)
            yield _line(s, "scheduler_stepped_per_epoch", says, 6, lambda n: np.maximum(done(n) - 1, 0), by_epochs)
    says = "the rate stays where the checkpoint had it: the restored scheduler does not move this optimizer"
    yield _line(s, "schedule_frozen_on_resume", says, 2, _constant(restored))
    says = f"the schedule began again from position 0 {at}"
    yield _line(s, "schedule_restarted_on_resume", says, 1, lambda n: n - 1.0 - r)
    first = initial_rate(declared_base(s.schedule))
    yield Hypothesis(
        "rate_reset_on_resume",
        f"the rate went back to the initial {short_rate(first)} {at} and has not moved since",
        3,
        lambda n: np.full(np.shape(n), first),
    )
    n = int(latest.step[0])
    lags = {1, -1, s.steps_per_epoch or 1, r % (s.steps_per_epoch or r)}
    for low, high in position_intervals(s.schedule, float(latest.low[0]), float(latest.high[0])):
        if high - low <= 2:
            lags |= {n - 1 - p for p in range(low, high + 1)}
    for k in sorted(lags - {0, r}, key=abs):
        says = f"the schedule is {abs(k):,} steps {'behind' if k > 0 else 'ahead'} since the resume"
        yield _line(s, "schedule_lags_after_resume", says, 4, lambda n, k=k: n - 1.0 - k)  # type: ignore[misc]


def _wrong_pace(s: Situation, anchor: Evidence, latest: Evidence) -> Iterator[Hypothesis]:
    """The scheduler stepped k times an optimizer step, from scratch or from where the attempt began."""
    r = s.start
    restored = (float(r) if s.restored_position is None else s.restored_position) if r else 0.0

    def paced(k: float) -> Line:
        return (lambda n: restored + (n - 1.0 - r) * k) if r else (lambda n: (n - 1.0) * k)

    known: dict[int, tuple[str, str, int]] = {}
    if s.accumulate > 1:
        says = f"the scheduler is stepped at every micro-batch, {s.accumulate} times an optimizer step"
        known[s.accumulate] = ("scheduler_stepped_per_microbatch", says, 1)
    if s.world_size > 1:
        says = f"the scheduler is stepped in every process, {s.world_size} times an optimizer step"
        known[s.world_size] = ("scheduler_stepped_per_process", says, 0)
    for k, (name, says, rank) in known.items():
        yield _line(s, name, says, rank, paced(k))
        if r:
            yield _line(s, name, says, rank + 1, lambda n, k=k: (n - 1.0) * k)  # type: ignore[misc]
    travelled = int(latest.step[0]) - 1 - r
    if travelled > 0:
        for low, high in position_intervals(s.schedule, float(latest.low[0]), float(latest.high[0])):
            for k in range(max(2, int(np.ceil((low - restored) / travelled))), MOST_STEPS_A_BATCH + 1):
                if restored + k * travelled > high:
                    break
                if k not in known:
                    says = f"the scheduler is stepped {k} times an optimizer step (by every process, or micro-batch)"
                    yield _line(s, "scheduler_stepped_per_process", says, 5, paced(k))
    has_moved = bool(latest.low[0] != anchor.low[0])  # a rate that never moved is frozen: nothing says how often
    for k in sorted({2, 3, 4, 8, 16, s.accumulate, s.world_size} - {1}) if has_moved else ():
        says = f"the scheduler is stepped only at every {k}th optimizer step"
        yield _line(s, "unknown", says, 8, lambda n, k=k: restored + np.floor_divide(n - 1.0 - r, k))  # type: ignore[misc]
    if s.steps_per_epoch:
        done = _epochs_done(s)
        says = "the scheduler is stepped every batch and once more at each epoch's end"
        name = "scheduler_stepped_per_batch_and_epoch"
        yield _line(s, name, says, 2, lambda n: n - 1.0 + done(n))
        if r:
            B = s.steps_per_epoch
            yield _line(s, name, says, 2, lambda n: restored + n - 1.0 - r + done(n) - r // B)


def with_total(schedule: Schedule, total: float) -> Schedule | None:
    """The schedule over another length, or None where length is no parameter of its curve."""
    if total < 1 or isinstance(schedule, Manual):
        return None
    if getattr(schedule, "pct_start", 0) and schedule.pct_start * total <= 1:  # type: ignore[attr-defined]
        return None  # torch itself divides by a warm-up of no length: no such run exists
    other = msgspec.structs.replace(schedule, total_steps=total)
    probe = np.linspace(0, schedule.total_steps - 1, 9)
    return other if not np.array_equal(other.rate(probe), schedule.rate(probe)) else None


def _other_schedule(s: Situation, latest: Evidence) -> Iterator[Hypothesis]:
    for total, (why, rank) in _other_totals(s, latest).items():
        variant = with_total(s.schedule, total)
        if variant is not None and total != s.schedule.total_steps:
            says = f"the scheduler was built for {total:,} steps ({why}), not {s.schedule.total_steps:,}"
            yield _line(s, "wrong_total_steps", says, rank, lambda n: n - 1.0, variant)
    final_div = getattr(s.schedule, "final_div_factor", None)
    if final_div is not None:
        div = s.schedule.div_factor  # type: ignore[attr-defined]
        variants: list[tuple[str, str, dict[str, Any]]] = [
            ("final_div_factor_from_initial", "the floor is max_lr / final_div_factor, not initial / final_div_factor",
             {"final_div_factor": final_div / div}),
        ]  # fmt: skip
        flipped = "linear" if s.schedule.anneal_strategy == "cos" else "cos"  # type: ignore[attr-defined]
        variants.append(("unknown", f"anneal_strategy is {flipped}", {"anneal_strategy": flipped}))
        for pct in (0.05, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5):
            if pct != s.schedule.pct_start:  # type: ignore[attr-defined]
                variants.append(("unknown", f"pct_start is {pct:g}", {"pct_start": pct}))
        for name, says, change in variants:
            yield _line(s, name, says, 9, lambda n: n - 1.0, msgspec.structs.replace(s.schedule, **change))


def _other_totals(s: Situation, latest: Evidence) -> dict[int, tuple[str, int]]:
    """Lengths that a scheduler is built for by mistake, with why; then those that the latest record itself asks for."""
    T, totals = s.schedule.total_steps, dict[int, tuple[str, int]]()

    def propose(total: float, why: str, rank: int) -> None:
        if total >= 1 and total == int(total):
            totals.setdefault(int(total), (why, rank))

    if s.restored_total:
        propose(s.restored_total, "as the checkpoint restored it", 0)
    for factor, why in ((s.accumulate, "gradient accumulation"), (s.world_size, "the number of processes")):
        if factor > 1:
            propose(T * factor, f"{why} left out", 2)
            propose(T // factor, f"{why} counted twice", 3)
    if s.steps_per_epoch:
        propose(s.steps_per_epoch, "one epoch", 4)
        propose(T + s.steps_per_epoch, "one epoch too many", 4)
        propose(T - s.steps_per_epoch, "one epoch too few", 4)
    if s.start:
        propose(T - s.start, "the steps left at the resume", 4)
        propose(T + s.start, "the steps done added", 4)
    for total in _totals_through(s, latest):
        propose(total, "as the rate itself says", 6)
    return totals


def _totals_through(s: Situation, latest: Evidence) -> list[int]:
    """Totals T' with f_T'(step - 1) inside the latest record's cell, if few enough to be an answer."""
    p = float(latest.step[0]) - 1
    if with_total(s.schedule, s.schedule.total_steps + 1) is None or p < 1:
        return []
    target = (float(latest.low[0]) + float(latest.high[0])) / 2

    def miss(total: float) -> float:
        variant = with_total(s.schedule, total)
        return float(variant.rate(p)) - target if variant is not None else np.nan

    grid = np.geomspace(max(p + 1, s.schedule.total_steps / 64), s.schedule.total_steps * 64, 600)
    misses = np.array([miss(total) for total in grid])
    found: list[int] = []
    for i in np.flatnonzero(np.sign(misses[:-1]) * np.sign(misses[1:]) < 0):
        a, b = float(grid[i]), float(grid[i + 1])
        for _ in range(60):
            middle = (a + b) / 2
            a, b = (middle, b) if np.sign(miss(middle)) == np.sign(misses[i]) else (a, middle)
        found += [round(a) + shift for shift in (-1, 0, 1)]
    return found if len(found) <= 12 else []


def _overridden(s: Situation) -> Iterator[Hypothesis]:
    if isinstance(s.schedule, Manual):
        base = s.schedule.base_schedule
        says = f"the manual rate {short_rate(s.schedule.lr)} was not kept: the rate follows the schedule below it"
        name = "override_not_honoured"
        yield _line(s, name, says, 0, lambda n: n - 1.0, base)
        r = float(s.schedule.from_step)
        yield _line(s, name, says, 1, _constant(r), base)
        floor = final_rate(base)
        yield Hypothesis(name, says, 2, lambda n: np.full(np.shape(n), floor))
