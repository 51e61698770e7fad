"""A RunLog put under control: the laws that its run record declares, and the rates of its optimizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eegwatch.optimizer_hooks import unwrapped
from eegwatch.run.control import Locked
from eegwatch.run.log import each_record, run_decoder
from eegwatch.run.records import Record, Run, ScheduleChange
from eegwatch.schedule import Schedule, ScheduleError, as_dict, declared_base, parse
from eegwatch.steering.follower_rank import FollowerControl
from eegwatch.steering.live import LiveControl
from eegwatch.steering.ranks import Job, processes
from eegwatch.steering.rates import SetRates

if TYPE_CHECKING:
    from eegwatch.runlog.used_rates import Follower


class Attached:
    """The control of one RunLog. `due` is the time of the next look at the control file (seconds since the epoch)."""

    def __init__(
        self,
        logs: Path,
        folder: Path,
        run: Run,
        follower: Follower | None,
        scheduler: Any,
        write: Callable[[Record], None],
        next_step: Callable[[], int],
        *,
        job: Job,
        past: bool,
        resumed: bool,
    ) -> None:
        """`past`: the folder was there before; `resumed`: what steered the attempt before holds on.

        Raises Locked where another process writes this run, OSError where the log root cannot be written.
        """
        self.due = 0.0
        self._run, self._follower, self._scheduler = run, follower, scheduler
        setter, hooks_last = _setter_of(follower, next_step)
        self.live = LiveControl(
            logs,
            folder,
            laws=self._laws,
            momenta=self._momenta,
            rates=self._rates,
            setter=setter,
            write=write,
            steps_per_epoch=run.steps_per_epoch,
            total=run.total_steps,
            hooks_last=hooks_last,
            processes=lambda: max(run.world_size, processes()),
            job=job,
        )
        if past:
            self.live.settle_the_past(_changes(folder))
            if resumed:
                self.live.go_on(_newest_change(folder), run.step, max(1, len(self._rates())))

    def _rates(self) -> list[float]:
        return list(self._follower.now().rates) if self._follower is not None else []

    def _laws(self) -> list[Schedule | None]:
        """The author's law of each parameter group that the optimizer has now."""
        declared = [group.get("schedule") for group in self._run.groups or [{"schedule": self._run.schedule}]]
        laws: list[Schedule | None] = []
        for law in declared:
            try:
                laws.append(None if law is None else declared_base(parse(law)))
            except ScheduleError:  # a later version's: that group follows the script
                laws.append(None)
        count = max(1, len(self._rates()))
        return (laws + [None] * count)[:count]

    def _momenta(self) -> list[Schedule | None]:
        """OneCycleLR and CyclicLR move momentum (or the first beta) against the rate, along a curve of its shape."""
        if type(self._scheduler).__name__ == "CyclicLR":
            return self._cycled_momenta()
        if type(self._scheduler).__name__ != "OneCycleLR" or not getattr(self._scheduler, "cycle_momentum", True):
            return []
        courses: list[Schedule | None] = []
        for law, group in zip(self._laws(), unwrapped(self._scheduler.optimizer).param_groups):
            shape = None if law is None else {n: getattr(law, n, None) for n in law.__struct_fields__}
            if shape is None or "pct_start" not in shape or "max_momentum" not in group:
                courses.append(None)
                continue
            low, high = float(group["base_momentum"]), float(group["max_momentum"])
            kept = ("total_steps", "pct_start", "anneal_strategy", "three_phase")
            momentum = {"max_lr": low, "div_factor": low / high, "final_div_factor": 1.0} if low and high else None
            course = {"name": "one_cycle"} | {name: shape[name] for name in kept} | (momentum or {})
            courses.append(parse(course) if momentum else None)
        return courses

    def _cycled_momenta(self) -> list[Schedule | None]:
        """CyclicLR: from max_momentum down to base_momentum and back, by the rate's own steps and scale."""
        if not getattr(self._scheduler, "cycle_momentum", False):
            return []
        courses: list[Schedule | None] = []
        for law, low, high in zip(self._laws(), self._scheduler.base_momentums, self._scheduler.max_momentums):
            tree = None if law is None else as_dict(law)
            cyclic = tree is not None and tree.get("name") == "cyclic"
            courses.append(parse(tree | {"base_lr": float(high), "max_lr": float(low)}) if tree and cyclic else None)
        return courses


class AttachedRank:
    """The control of a RunLog on a rank above 0, which writes no run. `due`: as of Attached."""

    def __init__(
        self,
        logs: Path,
        job: Job,
        run: Run,
        follower: Follower | None,
        next_step: Callable[[], int],
        *,
        resume: Path | None,
    ) -> None:
        """`resume`: the folder of the run that rank 0 goes on with. Raises OSError, ScheduleError."""
        self.due = 0.0
        setter, hooks_last = _setter_of(follower, next_step)
        groups = (lambda: len(follower.groups)) if follower is not None else (lambda: 0)
        self.live = FollowerControl(logs, job, setter, hooks_last, groups)
        if resume is not None:
            self.live.go_on(_newest_change(resume), run.step, run.steps_per_epoch, run.total_steps)


def _setter_of(follower: Follower | None, next_step: Callable[[], int]) -> tuple[SetRates | None, Callable[[], None]]:
    """The functions that set the rates of the followed optimizer and move its hooks behind all others."""
    hooks = follower.hooks if follower is not None else None
    if hooks is None:
        return None, lambda: None
    setter = SetRates(next_step)
    hooks.listeners.insert(0, setter)  # before the follower, which logs the rates that are used
    return setter, hooks.attach_last


def _changes(folder: Path) -> list[ScheduleChange]:
    """The changes of schedule so far, in order. Raises OSError."""
    records = each_record(folder / "run.jsonl", run_decoder())
    return [record for record in records if isinstance(record, ScheduleChange)]


def _newest_change(folder: Path) -> ScheduleChange | None:
    """The newest change of schedule; none from before an attempt that a person ordered at rates of its own.

    Raises OSError.
    """
    newest = None
    for record in each_record(folder / "run.jsonl", run_decoder()):
        if isinstance(record, ScheduleChange):
            newest = record
        elif isinstance(record, Run) and record.command is not None:
            newest = None
    return newest


__all__ = ["Attached", "AttachedRank", "Locked"]
