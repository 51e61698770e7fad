"""Every cause of a wrong rate that is looked for, as a prediction, with its remedy (docs/detection.md lists them)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from eegwatch.diagnosis.rate.causes import (
    FLOOR,
    Evidence,
    Hypothesis,
    Line,
    Overrun,
    Restored,
    Scaled,
    Situation,
    Skipping,
    Steps,
)
from eegwatch.diagnosis.rate.totals import other_totals
from eegwatch.schedule import Manual, Schedule, declared_base, final_rate, initial_rate, peak_rate
from eegwatch.schedule.inverse import position_intervals
from eegwatch.schedule.lengths import with_total
from eegwatch.wording import count_of, ordinal, short_rate

MOST_STEPS_A_BATCH = 64  # a scheduler stepped k times an optimizer step: k up to this is looked for unasked

REMEDIES = {
    "scheduler_stepped_per_epoch": "call scheduler.step() after every optimizer.step(), in the batch loop",
    "scheduler_never_stepped": "call scheduler.step() after every optimizer.step()",
    "scheduler_stepped_per_microbatch": "step the scheduler when the optimizer steps, not at every micro-batch",
    "scheduler_stepped_per_process": "step the scheduler once an optimizer step, not once in every process",
    "scheduler_stepped_per_batch_and_epoch": "remove the second scheduler.step(): at the epoch's end, or in validation",
    "scheduler_stepped_before_optimizer": "call optimizer.step() first, then scheduler.step()",
    "scheduler_of_another_optimizer": "build the scheduler on the optimizer that steps, and rebuild it with a new one",
    "epoch_schedule_stepped_per_batch": "move scheduler.step() out of the batch loop: this schedule counts epochs",
    "schedule_restarted_every_epoch": "build the scheduler once, before the loop over epochs",
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


def hypotheses(s: Situation, anchor: Evidence, latest: Evidence, *, logged: bool = True) -> list[Hypothesis]:
    """Every cause that this attempt could have, before elimination.

    Parameters that no record declares (a scale, a lag, another total) are read off the `anchor`, the first faulty
    record, and off the `latest` one, which is sharper. `logged`: is the attempt's beginning one that the log tells, or
    a step inside an attempt at which a resume that nobody logged may have happened?
    """
    every = [
        *(_after_resume(s, latest, logged) if s.start else _from_scratch(s)),
        *(_of_epoch_schedule(s) if s.schedule.unit == "epoch" else _of_step_schedule(s, anchor, latest)),
        Scaled("rate_scaled", "the rate is a multiple of the declared one", 7, s.expected),
        *_overridden(s),
        _overrun(s),
    ]
    for hypothesis in every:
        hypothesis.floor = FLOOR * s.peak
    return every


def _of_step_schedule(s: Situation, anchor: Evidence, latest: Evidence) -> Iterator[Hypothesis]:
    yield from _wrong_pace(s, anchor, latest)
    yield from _other_schedule(s, latest)
    says = "the schedule runs ahead by the optimizer steps that were skipped"
    yield Skipping("optimizer_steps_skipped", says, 8, s.expected, schedule=s.schedule)


def _of_epoch_schedule(s: Situation) -> Iterator[Hypothesis]:
    says = "the schedule counts epochs but is stepped every batch"
    yield _line(s, "epoch_schedule_stepped_per_batch", says, 0, lambda n: n - 1.0)


def _overrun(s: Situation) -> Hypothesis:
    says = f"the run continues past the {s.total:,} steps of its schedule"
    return Overrun("schedule_overrun", says, -1, s.expected, total=s.total)


def _line(
    s: Situation, name: str, says: str, rank: int, position: Line, schedule: Schedule | None = None
) -> Hypothesis:
    curve = schedule or s.schedule
    last = curve.total_steps - 1.0
    return Hypothesis(name, says, rank, lambda n: curve.rate(position(n)), position, last)


def _constant(p: float) -> Line:
    return lambda n: np.full(np.shape(n), p)


def _level(name: str, says: str, rank: int, rate: float) -> Hypothesis:
    """A constant rate, independent of the scheduler's position."""
    return Hypothesis(name, says, rank, lambda n: np.full(np.shape(n), rate))


def _epochs_done(s: Situation) -> Line:
    return lambda n: np.floor_divide(np.asarray(n, np.float64) - 1, s.steps_per_epoch or np.inf)


def _place(s: Situation) -> Line:
    """The position of a healthy run: n - 1, or its epoch where the schedule counts epochs."""
    return _epochs_done(s) if s.schedule.unit == "epoch" else lambda n: np.asarray(n, np.float64) - 1


def _from_scratch(s: Situation) -> Iterator[Hypothesis]:
    place, per_step = _place(s), s.schedule.unit == "step"
    if s.steps_per_epoch and per_step:
        says = "the scheduler is stepped once per epoch"
        yield _line(s, "scheduler_stepped_per_epoch", says, 1, _epochs_done(s))
        by_epochs = with_total(s.schedule, s.epochs) if s.epochs and s.epochs > 1 else None
        if by_epochs:
            says = f"the scheduler is stepped once per epoch and was built for {s.epochs} steps"
            yield _line(s, "scheduler_stepped_per_epoch", says, 2, _epochs_done(s), by_epochs)
        yield from _anew_each_epoch(s)
    yield _line(s, "scheduler_never_stepped", "the scheduler is never stepped", 3, _constant(0.0))
    says = "scheduler.step() comes before optimizer.step(): the rate is one position ahead since the start"
    yield _line(s, "scheduler_stepped_before_optimizer", says, 2, lambda n: place(n) + 1.0)
    peak = peak_rate(s.schedule)
    says = f"the rate stays at the declared peak {short_rate(peak)}: the scheduler moves another optimizer, or none"
    yield _level("scheduler_of_another_optimizer", says, 4, peak)


def _anew_each_epoch(s: Situation) -> Iterator[Hypothesis]:
    """A new scheduler each epoch: on a curve of its own, or by recursion from the rate that the last one left."""
    B = s.steps_per_epoch or 1
    name, says = "schedule_restarted_every_epoch", "a new scheduler is built in each epoch: the schedule begins again"
    curve = s.schedule

    def within(n: Steps) -> Any:
        return np.mod(np.asarray(n, np.float64) - 1, B)

    yield Hypothesis(name, says, 2, lambda n: curve.rate(within(n)))  # the logged position is the first scheduler's
    for floor in _floors(curve):
        first = float(curve.rate(0)) - floor
        if first <= 0:
            continue

        def anew(n: Steps, floor: float = floor, first: float = first) -> Any:
            left = ((float(curve.rate(B)) - floor) / first) ** np.floor_divide(np.asarray(n, np.float64) - 1, B)
            return floor + (curve.rate(within(n)) - floor) * left

        yield Hypothesis(name, says, 3, anew)


def _after_resume(s: Situation, latest: Evidence, logged: bool) -> Iterator[Hypothesis]:
    """`logged` False: the attempt's `start` is the step before a fault began, and nothing is logged there."""
    r, place = s.start, _place(s)
    healthy = float(place(np.array([r + 1]))[0])
    restored = healthy if s.restored_position is None else s.restored_position
    since = "since the resume" if logged else f"since step {r + 1:,}"
    at = f"at the resume at step {r:,}" if logged else f"at step {r + 1:,} (no resume is logged there)"
    if s.before is not None:
        since, at = "since the change of schedule", f"at the change of schedule at step {r + 1:,}"
    brought_back = float(s.schedule.rate(restored))

    def line(name: str, says: str, rank: int, position: Line) -> Hypothesis:
        plain = _line(s, name, says, rank, position)
        return Restored(name, says, rank, plain.rate, position, plain.last, first=r + 1, restored_rate=brought_back)

    if s.schedule.unit == "step":
        yield from _per_epoch_after_resume(s, restored, since)
    says = "the rate stays where the checkpoint had it: the restored scheduler does not move this optimizer"
    if not logged:
        says = f"nothing moves the rate {since}: the scheduler is not stepped any more, or another optimizer's"
    yield _line(s, "schedule_frozen_on_resume", says, 2, _constant(restored))
    first_position = place(np.array([r + 1]))[0]
    says = f"the schedule began again from position 0 {at}"
    yield line("schedule_restarted_on_resume", says, 1, lambda n: place(n) - first_position)
    for rate in _restarted_from(s, brought_back, first_position):
        yield Hypothesis("schedule_restarted_on_resume", f"{says}, from the rate that was restored", 2, rate,
                         lambda n: place(n) - first_position, s.schedule.total_steps - 1.0)  # fmt: skip
    first = initial_rate(declared_base(s.schedule))
    says = f"the rate went back to the initial {short_rate(first)} {at} and has not moved since"
    yield _level("rate_reset_on_resume", says, 3, first)
    peak = peak_rate(s.schedule)
    says = f"the rate stays at the declared peak {short_rate(peak)} {since}: the scheduler moves another optimizer"
    yield _level("scheduler_of_another_optimizer", says, 5, peak)
    if not logged and s.schedule.unit == "step":
        says = f"the scheduler's optimizer no longer steps {since}: another one does, and its rate is not logged"
        yield _line(s, "scheduler_of_another_optimizer", says, 3, lambda n: np.asarray(n, np.float64))
    for k in sorted(_lags(s, latest), key=abs):
        says = f"the schedule is {count_of(abs(k), 'step')} {'behind' if k > 0 else 'ahead'} {since}"
        yield line("schedule_lags_after_resume", says, 4, lambda n, k=k: place(n) - k)  # type: ignore[misc]


def _restarted_from(s: Situation, rate: float, position: float) -> Iterator[Line]:
    """The optimizer's rate restored, the scheduler's state lost: torch's recursions go on from that rate."""
    curve, place = s.schedule, _place(s)
    for floor in _floors(curve):
        first = float(curve.rate(0)) - floor
        if first > 0 and rate > floor:
            share = (rate - floor) / first
            yield lambda n, floor=floor, share=share: (  # type: ignore[misc]
                floor + (curve.rate(np.maximum(place(n) - position, 0)) - floor) * share
            )


def _per_epoch_after_resume(s: Situation, restored: float, since: str) -> Iterator[Hypothesis]:
    if not s.steps_per_epoch:
        return
    B, done, r = s.steps_per_epoch, _epochs_done(s), s.start
    says = f"the scheduler is stepped once per epoch {since}"
    yield _line(s, "scheduler_stepped_per_epoch", says, 1, lambda n: restored + done(n) - r // B)
    says = "the scheduler is stepped once per epoch and counts epochs"
    yield _line(s, "scheduler_stepped_per_epoch", says, 5, done)
    by_epochs = with_total(s.schedule, s.epochs) if s.epochs and s.epochs > 1 else None
    if by_epochs:
        says = f"the scheduler is stepped once per epoch and was built for {s.epochs} steps"
        yield _line(s, "scheduler_stepped_per_epoch", says, 5, done, by_epochs)
        yield _line(s, "scheduler_stepped_per_epoch", says, 6, lambda n: np.maximum(done(n) - 1, 0), by_epochs)


def _lags(s: Situation, latest: Evidence) -> set[int]:
    """Lags worth a look: one, an epoch, what is left of one, and those that the latest record itself asks for."""
    r = s.start
    lags = {1, -1}
    if s.schedule.unit == "epoch":
        return lags
    lags |= {s.steps_per_epoch or 1, r % (s.steps_per_epoch or r)}
    n = int(latest.step[0])
    for low, high in _intervals(s, latest):
        if high - low <= 2:
            lags |= {n - 1 - p for p in range(low, high + 1)}
    return lags - {0, r}


def _wrong_pace(s: Situation, anchor: Evidence, latest: Evidence) -> Iterator[Hypothesis]:
    """The scheduler stepped k times an optimizer step, from scratch or from where the attempt began."""
    r = s.start
    restored = (float(r) if s.restored_position is None else s.restored_position) if r else 0.0

    def paced(k: float, phase: float = 0.0) -> Line:
        return lambda n: restored + (np.asarray(n, np.float64) - 1.0 - r) * k + phase

    known: dict[int, tuple[str, str, int]] = {}
    if s.accumulate > 1:
        says = f"the scheduler is stepped at every micro-batch, {s.accumulate} times an optimizer step"
        known[s.accumulate] = ("scheduler_stepped_per_microbatch", says, 1)
    if s.world_size > 1:
        says = f"the scheduler is stepped in every process, {s.world_size} times an optimizer step"
        known[s.world_size] = ("scheduler_stepped_per_process", says, 0)
    for k, (name, says, rank) in known.items():
        # the optimizer steps at the k-th micro-batch, whose own scheduler.step() may come before or after it
        for phase in (0, k - 1, k):
            yield _line(s, name, says, rank, paced(k, phase))
            if r:
                yield _line(s, name, says, rank + 1, lambda n, k=k, c=phase: (n - 1.0) * k + c)  # type: ignore[misc]
    yield from _ragged_micro_batches(s)
    travelled = int(latest.step[0]) - 1 - r
    if travelled > 0:
        for low, high in _intervals(s, latest):
            for k in range(max(2, int(np.ceil((low - restored) / (travelled + 1)))), MOST_STEPS_A_BATCH + 1):
                if restored + k * travelled > high:
                    break
                says = f"the scheduler is stepped {k} times an optimizer step (by every process, or micro-batch)"
                for phase in (0, k - 1, k):
                    if k not in known and low <= restored + k * travelled + phase <= high:
                        yield _line(s, "scheduler_stepped_per_process", says, 5, paced(k, phase))
    has_moved = bool(latest.low[0] != anchor.low[0])  # a rate that never moved is frozen: nothing says how often
    for k in sorted(k for k in {2, 3, 4, 8, 16, s.accumulate, s.world_size} if k > 1) if has_moved else ():
        says = f"the scheduler is stepped only at every {ordinal(k)} optimizer step"
        for phase in (0, k - 1):
            yield _line(s, "unknown", says, 8, lambda n, k=k, c=phase: restored + np.floor_divide(n - 1.0 - r + c, k))  # type: ignore[misc]
    if s.steps_per_epoch:
        yield from _batch_and_epoch(s, restored)
        yield from _evaluation_too(s, anchor, latest)
    yield from _begun_late(s, anchor, latest)


def _ragged_micro_batches(s: Situation) -> Iterator[Hypothesis]:
    """Stepped at every micro-batch of epochs that the accumulation does not divide: a step short, or some left over."""
    k, B = s.accumulate, s.steps_per_epoch
    if k < 2 or k > MOST_STEPS_A_BATCH or not B or s.start:
        return
    name = "scheduler_stepped_per_microbatch"
    for batches in [*range(k * (B - 1) + 1, k * B), *range(k * B + 1, k * (B + 1))]:
        says = f"the scheduler is stepped at every micro-batch, {batches:,} times an epoch of {B:,} optimizer steps"

        def position(n: Steps, batches: int = batches, phase: int = 0) -> Any:
            epoch, within = np.divmod(np.asarray(n, np.float64) - 1, B)
            return epoch * batches + np.minimum((within + 1) * k, batches) - 1 + phase

        yield _line(s, name, says, 2, position)
        yield _line(s, name, says, 2, lambda n, position=position: position(n, phase=1))  # type: ignore[misc]


def _batch_and_epoch(s: Situation, restored: float) -> Iterator[Hypothesis]:
    done, r, B = _epochs_done(s), s.start, s.steps_per_epoch or 1
    says = "the scheduler is stepped every batch and once more at each epoch's end"
    name = "scheduler_stepped_per_batch_and_epoch"
    yield _line(s, name, says, 2, lambda n: n - 1.0 + done(n))
    for before in {r // B, max(r - 1, 0) // B} if r else ():
        yield _line(s, name, says, 2, lambda n, e=before: restored + n - 1.0 - r + done(n) - e)  # type: ignore[misc]


def _intervals(s: Situation, record: Evidence) -> list[tuple[int, int]]:
    """Positions that a record may show: the logged one, else those whose rate lies in the record's cell."""
    logged = float(record.position[0])
    if np.isfinite(logged) and logged == int(logged):
        return [(int(logged), int(logged))]  # torch's recursions miss a cell of one float64 by their rounding
    return position_intervals(s.schedule, float(record.low[0]), float(record.high[0]))


def _positions(s: Situation, record: Evidence) -> Iterator[int]:
    """Positions whose rate a record may show, where its rate tells them within two."""
    for low, high in _intervals(s, record):
        if high - low <= 2:
            yield from range(low, high + 1)


def _evaluation_too(s: Situation, anchor: Evidence, latest: Evidence) -> Iterator[Hypothesis]:
    """Stepped in the loop over the validation batches as well: k more positions an epoch."""
    done, B = _epochs_done(s), s.steps_per_epoch or 1
    more: set[int] = set()
    for record in () if s.start else (anchor, latest):
        n = int(record.step[0])
        epochs = (n - 1) // B
        for p in _positions(s, record) if epochs else ():
            k, rest = divmod(p - (n - 1), epochs)
            if k > 1 and not rest:
                more.add(k)
    for k in sorted(more):
        says = f"the scheduler is stepped every batch and {k} more times an epoch, as if in the validation loop too"
        yield _line(s, "scheduler_stepped_per_batch_and_epoch", says, 4, lambda n, k=k: n - 1.0 + k * done(n))  # type: ignore[misc]


def _begun_late(s: Situation, anchor: Evidence, latest: Evidence) -> Iterator[Hypothesis]:
    """The scheduler rested for the first steps (a condition on the epoch, say), and is stepped since."""
    late: set[int] = set()
    for record in () if s.start else (anchor, latest):
        n = int(record.step[0])
        late |= {n - 1 - p for p in _positions(s, record) if 1 < n - 1 - p < n - 1}
    for lag in sorted(late):
        says = f"the scheduler is stepped from step {lag + 1:,} on only: it is {lag:,} steps behind since then"
        yield _line(s, "unknown", says, 8, lambda n, lag=lag: np.maximum(np.asarray(n, np.float64) - 1.0 - lag, 0.0))  # type: ignore[misc]


def _other_schedule(s: Situation, latest: Evidence) -> Iterator[Hypothesis]:
    for total, (why, rank) in other_totals(s, latest).items():
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


def _floors(curve: Schedule) -> list[float]:
    """Rates that torch's recursions may decay towards: the declared floor, and 0."""
    floor = getattr(curve, "final_lr", None) or 0.0
    return list(dict.fromkeys((float(floor), 0.0)))


def _overridden(s: Situation) -> Iterator[Hypothesis]:
    """A change that was asked for and not made, or that lasted for one step."""
    name, first = "override_not_honoured", s.start + 1
    changed = float(s.expected(np.array([first]))[0])

    def kept_one_step(
        says: str, rank: int, rate: Line, position: Line | None = None, last: float = np.inf
    ) -> Hypothesis:
        return Restored(name, says, rank, rate, position, last, first=first, restored_rate=changed)

    if s.before is not None and s.before.unit == s.schedule.unit:
        says = f"the change of schedule at step {first:,} was not applied: the rate follows the one before it"
        plain = _line(s, name, says, 0, _place(s), s.before)
        yield kept_one_step(says, 0, plain.rate, plain.position, plain.last)
    if isinstance(s.schedule, Manual):
        base = s.schedule.base_schedule
        says = f"the manual rate {short_rate(s.schedule.lr)} was not kept: the rate follows the schedule below it"
        for rank, place in ((0, lambda n: np.asarray(n, np.float64) - 1), (1, _constant(float(s.schedule.from_step)))):
            plain = _line(s, name, says, rank, place, base)
            yield kept_one_step(says, rank, plain.rate, place, plain.last)
        floor = final_rate(base)
        yield kept_one_step(says, 2, lambda n: np.full(np.shape(n), floor))
