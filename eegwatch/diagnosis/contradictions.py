"""Contradictions within the `run` record: schedule and run have different lengths; reported before the first step.

Only lengths that a known mistake explains exactly are told: a run that stops early, a schedule that ends early on
purpose (a floor held to the end), or cycles are not a contradiction. All are warnings, since each can be meant.
"""

from __future__ import annotations

from dataclasses import dataclass

from eegwatch.diagnosis.findings import WARNING, Cause, Finding
from eegwatch.run.records import Run
from eegwatch.schedule import Manual, Schedule
from eegwatch.schedule.composed import Paced
from eegwatch.schedule.lengths import has_length
from eegwatch.wording import count_of

RULE = "schedule_length"


@dataclass(frozen=True)
class _Lengths:
    """Optimizer steps of the run, of an epoch; epochs; positions of the schedule."""

    run: int
    epoch: int
    epochs: int
    schedule: int
    accumulate: int
    world_size: int
    ends_early: bool = False


def contradictory_lengths(run: Run, schedule: Schedule) -> list[Finding]:
    """`schedule_length` where the schedule cannot have been built for this run."""
    total = run.total_steps
    if not total or total < 2 or isinstance(schedule, Manual):
        return []
    endless = _endless_warm_up(run, schedule, total)
    if endless:
        return [endless]
    processes = _steps_a_step(schedule, run)
    if processes > 1 and schedule.total_steps * processes == total:
        return [_stepped_too_often(run, processes, total)]
    ends = _ends_early(schedule)
    if not ends and not has_length(schedule):
        return []  # its curve has no end
    epoch = run.steps_per_epoch or 0
    epochs = run.epochs or (-(-total // epoch) if epoch else 0)
    for length in ends or [schedule.total_steps]:
        lengths = _Lengths(total, epoch, epochs, length, max(run.accumulate, 1), max(run.world_size, 1), bool(ends))
        contradiction = _of_epochs(lengths) if schedule.unit == "epoch" else _of_steps(lengths)
        if contradiction:
            return [_finding(run, *contradiction)]
    return []


def _steps_a_step(schedule: Schedule, run: Run) -> int:
    """How often the schedule is stepped at each step, where that is once for each of several processes; else 1."""
    steps = schedule.steps if isinstance(schedule, Paced) and schedule.every == 1 else 1
    return int(steps) if steps == run.world_size else 1


def _stepped_too_often(run: Run, processes: int, total: int) -> Finding:
    says = (
        f"the schedule was built for {total:,} steps and accelerate steps it {processes} times in each of the run's "
        f"{total:,}: the rate is at its end after 1/{processes} of the run"
    )
    return _finding(run, says, f"total_steps={total * processes} (steps * processes), or do not prepare the scheduler")


def _ends_early(schedule: Schedule) -> list[int]:
    """Positions at which a curve ends that has a length of its own (torch's T_max): with its warm-up, and without."""
    decay: float | None = getattr(schedule, "decay_steps", None)
    bands = schedule.phases()
    if decay is None or not bands or hasattr(schedule, "stable_steps"):
        return []
    ends = [start for name, start, _ in bands[1:] if name in ("floor", "held", "rising again")]
    return [round(one) for one in dict.fromkeys([*ends, decay])] if ends else []


def _of_steps(n: _Lengths) -> tuple[str, str] | None:
    """(what contradicts what, the line to change), for a schedule that counts steps."""
    if n.schedule == n.run:
        return None
    built = f"the schedule was built for {n.schedule:,} steps, the run takes {n.run:,}"
    if n.accumulate > 1 and abs(n.schedule - n.run * n.accumulate) < n.accumulate * max(n.epochs, 1):
        says = f"it counts the micro-batches, {n.accumulate} of which make one optimizer step"
        return f"{built}: {says}; the rate ends after 1/{n.accumulate} of its curve", f"total_steps={n.run}"
    if n.epochs > 1 and n.schedule == n.epoch and not n.ends_early:  # a fall over one epoch may be meant
        return f"{built}: it was built for one epoch of {n.epochs}", f"total_steps={n.run} (epochs * steps per epoch)"
    if n.epochs > 1 and n.schedule == n.epochs and n.epoch > 1:
        says = f"its length is the number of epochs, {n.epochs}: stepped at every batch it ends in the first of them"
        return f"{built}: {says}", f'total_steps={n.run}, or step it once an epoch (and tell RunLog: unit="epoch")'
    if n.world_size > 1 and n.schedule == n.run * n.world_size:
        says = f"it counts the steps of all {n.world_size} processes"
        return f"{built}: {says}", f"total_steps={n.run}, unless it is stepped {n.world_size} times a step"
    if n.world_size > 1 and n.schedule * n.world_size == n.run:
        says = f"its length was divided by the {n.world_size} processes once too often"
        return f"{built}: {says}", f"total_steps={n.run}"
    if n.accumulate > 1 and abs(n.schedule * n.accumulate - n.run) < n.accumulate and n.schedule > 1:
        says = f"its length was divided by the {n.accumulate} accumulated micro-batches once too often"
        return f"{built}: {says}", f"total_steps={n.run}"
    return None


def _of_epochs(n: _Lengths) -> tuple[str, str] | None:
    """The same for a schedule that counts epochs."""
    if n.schedule == n.run and n.epochs and n.epochs < n.schedule:
        says = f"the schedule counts epochs, but its length is the run's {count_of(n.run, 'step')}"
        return f"{says}: it ends after 1/{n.schedule // n.epochs} of its curve", f"total_steps={n.epochs} (epochs)"
    return None


def _endless_warm_up(run: Run, schedule: Schedule, total: int) -> Finding | None:
    phases = schedule.phases()
    if not phases or phases[0][0] != "warm-up":
        return None
    scale = (run.steps_per_epoch or 1) if schedule.unit == "epoch" else 1
    warm_up = phases[0][2] * scale
    if warm_up <= total - 1:  # the last step, of position total - 1, has the full rate
        return None
    says = f"the warm-up of {warm_up:,.0f} steps never ends: the run takes {total:,}"
    return _finding(run, says, f"a warm-up shorter than the run, e.g. {max(1, total // 20):,} steps")


def _finding(run: Run, says: str, change: str) -> Finding:
    cause = Cause("wrong_total_steps", says, says=says)
    return Finding(RULE, WARNING, run.step, run.step, says, cause, headline=says, remedy=f"build it with {change}")
