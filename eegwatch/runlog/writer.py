"""Two lines for a training script of your own: write the run log that eegwatch watches.

    from eegwatch import RunLog

    log = RunLog("logs", name="my run", schedule=scheduler, steps_per_epoch=len(loader), total_steps=total)
    for batch in loader:
        ...
        optimizer.step(); scheduler.step()
        log.step(loss=loss)              # a few microseconds; safe when the process is killed
    log.end()

Then `eegwatch logs`. A scheduler given as `schedule` is read (docs/schedules.md) and followed: the rates of every
parameter group and the position come from the optimizer at the moment of its step, in whatever order the script calls
`log.step()`, `optimizer.step()` and `scheduler.step()`. The run obeys the control file of its log root: its rates can
be changed while it runs, and it can be asked to stop, save or evaluate (docs/control.md). Nothing here imports torch.
Once made, a RunLog never raises into the training: what it cannot do it says once, as a warning.
"""

from __future__ import annotations

import os
import platform
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, SupportsFloat, TypeVar

import msgspec

from eegwatch.run.folder import RUN_LOG, make_run_folder
from eegwatch.run.history import History
from eegwatch.run.log import read_all, run_decoder
from eegwatch.run.records import EVAL_FIELDS, Checkpoint, End, Eval, Record, Run, ScheduleChange, Step, encode
from eegwatch.runlog.commands import CommandMethods
from eegwatch.runlog.lines import Writing
from eegwatch.runlog.schedules import Law, described, laws_of, may_count_epochs, position_reader
from eegwatch.runlog.used_rates import Follower, UsedRates, name_of_type, precision_of
from eegwatch.schedule import Schedule, ScheduleError
from eegwatch.schedule.readers.common import optimizer_of
from eegwatch.steering.daemon_attempt import attempt_of_daemon, goes_on
from eegwatch.steering.ranks import job_of_this_process
from eegwatch.watching.api import WatchMethods

UNSET = msgspec.UNSET
FOLDER_WITHIN_S = 30.0  # for rank 0's run, where another rank asks for its folder
T = TypeVar("T")


class RunLog(Writing, CommandMethods, WatchMethods):
    """The log of one run.

    `folder` is where it lies; `step_done` the last step that was given to it; `follower` reads the rates off the
    optimizer (None where there is none) and holds the layer of its hooks.
    """

    def __init__(
        self,
        logs: str | Path = "logs",
        name: str = "run",
        *,
        schedule: Any = None,
        optimizer: Any = None,
        unit: str | None = None,
        every: int = 1,
        total_steps: int | None = None,
        steps_per_epoch: int | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        accumulate: int = 1,
        world_size: int = 1,
        target: dict[str, float] | None = None,
        goals: dict[str, str] | None = None,
        config: dict[str, Any] | None = None,
        seed: int | None = None,
        resume: str | Path | None = None,
        parent: str | Path | None = None,
        step: int = 0,
        control: bool = True,
    ) -> None:
        """Begin a run below `logs`, or with `resume=FOLDER, step=K` a new attempt of that run from step K on.

        With `parent=FOLDER, step=K` it is a new run that branched off from that one at step K.

        `schedule`: a scheduler of torch, transformers, accelerate, timm or ignite (read before its first step), a dict
        as docs/schedules.md has it, or None. `optimizer`: where the rates are read from, if not the scheduler's own.
        `unit`: "epoch" if the scheduler is meant to be stepped once an epoch; left out, "step" or what the scheduler
        itself says. `every`: it is meant to be stepped once in so many of them, steps being counted anew in each
        epoch where steps_per_epoch is known (Lightning's frequency). `goals`: for your own metrics, whether "min" or
        "max" is better. `control`: obey the log root's control file. Under `eegpt-daemon` (EEGWATCH_RUN) the run is
        the daemon's. In a job of several processes make one on every rank: rank 0's writes the run, the others follow
        its commands (docs/live_control.md). Raises ScheduleError for a dict that is not a schedule, ValueError for
        other wrong arguments, OSError where the folder cannot be written.
        """
        _check_arguments(unit, goals)
        if total_steps is None and epochs and steps_per_epoch:
            total_steps = epochs * steps_per_epoch
        self.step_done, self._per_epoch = step, steps_per_epoch
        self._warned: set[str] = set()
        self._scheduler = None if schedule is None or isinstance(schedule, Mapping | Schedule) else schedule
        self._unit, self._every, self._total = unit, max(1, every), total_steps
        laws = self._laws(schedule, fresh=step == 0 and resume is None)
        declared = laws[0] if laws else None
        optimizer = self._optimizer(optimizer)
        self._job = job_of_this_process(name)
        given = attempt_of_daemon() if resume is None else None
        if given is not None:
            resume, attempt = given.run, given.attempt
        else:
            attempt = 1 if resume is None else 1 + _attempts_of(Path(resume))
        self._resumed = None if resume is None else Path(resume)
        self._root = Path(logs) if self._resumed is None else self._resumed.parent
        self._folder = self._resumed
        if self._folder is None and not self._job.rank:
            self._root.mkdir(mode=0o755, parents=True, exist_ok=True)  # no control file where everybody can write
            self._folder = make_run_folder(self._root, name)
        self._open_log(None if self._job.rank or self._folder is None else self._folder / RUN_LOG)
        groups = [] if optimizer is None else list(optimizer.param_groups)
        self._precision = precision_of([group.get("lr") for group in groups]) if groups else "float64"
        in_steps = declared is not None and declared.get("unit", "step") == "step"
        self._run = Run(
            time=time.time(),
            run_id="" if self._folder is None else self._folder.name,
            attempt=attempt,
            name=name,
            step=step,
            total_steps=total_steps or (declared["total_steps"] if declared and in_steps else None),
            steps_per_epoch=steps_per_epoch,
            epochs=epochs,
            batch_size=batch_size,
            accumulate=accumulate,
            world_size=world_size,
            schedule=declared,
            groups=described(groups, laws) if len(groups) > 1 else None,
            lr_precision=self._precision,
            parent=None if parent is None else Path(parent).name,
            parent_step=None if parent is None else step,
            target=target,
            metric_goals=dict(goals or {}),
            unit_assumed=self._assumes_steps(declared, epochs) or UNSET,
            config=config,
            seed=seed,
            pid=os.getpid(),
            host=socket.gethostname(),
            versions={"python": platform.python_version()},
        )
        if given is not None:
            self._run = given.completed(self._run)
        self._put_first(self._run)
        self.follower: Follower | None = None
        if optimizer is not None:
            self._position_of = position_reader(self._scheduler, declared)
            self.follower = Follower(optimizer, self._position_of, self._write_followed)
        self._control = self._controlled(goes_on(attempt, given)) if control else None

    # ---- what is declared ----

    def _laws(self, schedule: Any, *, fresh: bool) -> list[Law | None]:
        """The law of each parameter group that is known. Raises ScheduleError for a dict that is not a schedule."""
        return laws_of(
            schedule,
            unit=self._unit,
            every=self._every,
            steps_per_epoch=self._per_epoch,
            total_steps=self._total,
            fresh=fresh,
            warn=self._say,
        )

    def _assumes_steps(self, law: Law | None, epochs: int | None) -> bool:
        """Is the scheduler one that may as well be meant to be stepped once an epoch, and nobody has said which?"""
        if law is None or self._scheduler is None or self._unit is not None or self._every > 1:
            return False
        if epochs is None and self._total and self._per_epoch:
            epochs = -(-self._total // self._per_epoch)
        return may_count_epochs(self._scheduler, law, epochs, self._total)

    def _optimizer(self, given: Any) -> Any:
        """What the rates are read from, or None: the optimizer that was given, else the scheduler's."""
        try:
            optimizer = optimizer_of(self._scheduler) if given is None and self._scheduler is not None else given
            if optimizer is not None:
                next(float(group["lr"]) for group in optimizer.param_groups)
        except Exception as error:  # an object of any kind
            self._say(f"eegwatch reads no rates off this {type(given or self._scheduler).__name__}: {error}")
            return None
        return optimizer

    # ---- records ----

    def step(
        self,
        loss: SupportsFloat | None = None,
        *,
        lr: SupportsFloat | None = None,
        lrs: Sequence[SupportsFloat] | None = None,
        grad_norm: SupportsFloat | None = None,
        samples_per_s: SupportsFloat | None = None,
        skipped: int | None = None,
        metrics: Mapping[str, SupportsFloat | None] | None = None,
        step: int | None = None,
    ) -> None:
        """One optimizer step. A tensor's value is fetched by float(): on a GPU that waits for it.

        Without `lr` (and `lrs`, the rates of all groups) the rates are those that the optimizer's step uses. `metrics`:
        further numbers of this step, by name. A step that goes back is not written: going back is a new attempt.
        """
        n = self.step_done + 1 if step is None else int(step)
        if n <= self.step_done:
            self._say(
                f"step {n} after step {self.step_done} is not logged: going back is a new attempt (resume=…, step=…)"
            )
            return
        epoch = batch = None
        if self._per_epoch:
            epoch, batch = divmod(n - 1, self._per_epoch)
            batch += 1
        given = loss
        if self._job.rank:  # its record is not written: nothing is fetched from a GPU for it
            loss = grad_norm = samples_per_s = skipped = metrics = None
        value = self._number(loss, "loss")
        record = Step(
            time=time.time(),
            step=n,
            epoch=epoch,
            batch=batch,
            loss=UNSET if value is None else value,
            grad_norm=self._number(grad_norm, "grad_norm"),
            samples_per_s=self._number(samples_per_s, "samples_per_s"),
            skipped=UNSET if skipped is None else int(skipped),
            metrics=self._named(metrics) if metrics else UNSET,
        )
        if self._splits is not None and self._splits.waiting:
            self._tell_splits()
        self.step_done = n
        if self._control is not None and record.time >= self._control.due:
            self._look(record.time)
        if self.watcher is not None and not self.watcher.off:
            self.watcher.logged(n, metrics, given, value)
            skipped = self.watcher.skipped() if record.skipped is UNSET else 0
            if skipped:
                record = msgspec.structs.replace(record, skipped=skipped)
        if lr is not None or lrs is not None:
            self._write_given(record, lr, lrs)
        elif self.follower is not None:
            self.follower.record(record)
        else:
            self._put(encode(record))

    def eval(
        self,
        metrics: Mapping[str, SupportsFloat | None] | None = None,
        *,
        loss: SupportsFloat | None = None,
        auroc: SupportsFloat | None = None,
        balanced_accuracy: SupportsFloat | None = None,
        split: str = "val",
        n: int = 0,
        ci95: Mapping[str, Sequence[SupportsFloat]] | None = None,
    ) -> None:
        """An evaluation at the last step given: any metrics by name, and the 95 % intervals of some, (low, high)."""
        if self._splits is not None and self._splits.waiting:
            self._tell_splits()
        named = dict(metrics or {}) | {"loss": loss, "auroc": auroc, "balanced_accuracy": balanced_accuracy}
        if metrics:
            named |= {key: metrics[key] for key in EVAL_FIELDS if named.get(key) is None and key in metrics}
        values = self._named(named)
        intervals = {
            name: [self._number(end, f"ci95 of {name}") for end in pair] for name, pair in (ci95 or {}).items()
        }
        epoch = (self.step_done - 1) // self._per_epoch if self._per_epoch and self.step_done else None
        fields = {key: values.pop(key) for key in EVAL_FIELDS if key in values}
        self._append(
            Eval(
                time=time.time(),
                step=self.step_done,
                epoch=epoch,
                split=split,
                n=n,
                metrics=values or UNSET,
                ci95=intervals or UNSET,
                **fields,
            )
        )
        if self.watcher is not None:
            self.watcher.evaluated()
        self._guarded(lambda live: live.served("evaluate", self.step_done, fields | values))

    def checkpoint(self, path: str | Path, *, best: bool = False) -> None:
        """A checkpoint that you have written; call it when the file is complete."""
        self._append(Checkpoint(time=time.time(), step=self.step_done, path=str(path), best=best))
        if self.watcher is not None:
            self.watcher.checkpointed()
        self._sync()
        self._guarded(lambda live: live.served("checkpoint", self.step_done, {"checkpoint": str(path)}))

    def end(self, reason: str = "completed", error: str | None = None) -> None:
        """The last record; the optimizer's hooks are taken off. A second call does nothing."""
        if self._ended:
            return
        self._guarded(lambda live: live.close(self.step_done, reason))
        self._close_watcher(completed=reason == "completed")
        if self.follower is not None:
            self.follower.close()
        self._append(End(time=time.time(), step=self.step_done, reason=reason, error=error))
        self._ended = True
        self._sync()
        self._close_log()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            self.end()
        else:
            stopped = isinstance(error, KeyboardInterrupt)
            self.end("stopped" if stopped else "failed", None if stopped else f"{type(error).__name__}: {error}")

    @property
    def name(self) -> str:
        """The run's name."""
        return self._run.name

    @property
    def attempt(self) -> int:
        """The number of this attempt of the run."""
        return self._run.attempt

    @property
    def steps_per_epoch(self) -> int | None:
        """Optimizer steps of one epoch, where they were given."""
        return self._per_epoch

    @property
    def history(self) -> History:
        """The content of the log, read back."""
        from eegwatch.run.follow import history_of  # watchdog, which a training script need not load

        return history_of(self.folder)

    def schedule_changed(self, schedule: Any) -> None:
        """Declare a new schedule from the next step on: a scheduler, a dict, or None if it is unknown."""
        try:
            laws = self._laws(schedule, fresh=False)
        except ScheduleError as error:
            self._say(f"a change of schedule is logged without one: {error}")
            laws = []
        groups = [] if self.follower is None else self.follower.groups
        entries = described(groups, laws) if len(groups) > 1 else None
        first = laws[0] if laws else None
        self._append(ScheduleChange(time=time.time(), step=self.step_done, schedule=first, groups=entries))

    # ---- how they are written ----

    def _write_followed(self, record: Step, used: UsedRates) -> None:
        rates, position = used.rates, used.position
        lr = rates[0]
        control = self._control
        if control is not None and (control.live.active or control.live.course is not None):
            self._guarded(lambda live: live.stepped(record.step, rates))
        if control is not None and control.live.steers(record.step):
            position = record.step - 1.0
        each: list[Any] | msgspec.UnsetType = UNSET if rates.count(lr) == len(rates) else list(rates)
        self._put(encode(msgspec.structs.replace(record, lr=lr, position=position, lrs=each)))

    def _write_given(self, record: Step, lr: Any, lrs: Sequence[Any] | None) -> None:
        """A rate that the script read itself counts by its type, where no optimizer has told it before."""
        given = list(lrs) if lrs is not None else [lr]
        if self.follower is None and self._precision == "float64" and name_of_type(given[0]) != "float64":
            self._precision = precision_of(given)
            self._run = msgspec.structs.replace(self._run, lr_precision=self._precision)
            self._put(encode(self._run))  # the same attempt, told again before its first rate
        rates = [self._number(rate, "lr") for rate in given]
        first = rates[0] if lr is None else self._number(lr, "lr")
        each: list[Any] | msgspec.UnsetType = UNSET if lrs is None or rates.count(first) == len(rates) else list(rates)
        if self.follower is not None:
            self.follower.flush()
        self._put(encode(msgspec.structs.replace(record, lr=first, lrs=each)))

    def _append(self, record: Record) -> None:
        if self.follower is not None:
            self.follower.flush()
        self._put(encode(record))


def _check_arguments(unit: str | None, goals: Mapping[str, str] | None) -> None:
    if unit not in (None, "step", "epoch"):
        raise ValueError(f'unit: "step" or "epoch", not {unit!r}')
    for metric, goal in (goals or {}).items():
        if goal not in ("min", "max"):
            raise ValueError(f'goals: {metric}: "min" or "max", not {goal!r}')


def _attempts_of(folder: Path) -> int:
    """The number of the run's newest attempt; 0 if its log holds none. Raises OSError."""
    if not (folder / RUN_LOG).exists():
        raise FileNotFoundError(f"resume: {folder} holds no {RUN_LOG}; give the folder of the run (that of rank 0)")
    records = read_all(folder / RUN_LOG, run_decoder())
    return max((record.attempt for record in records if isinstance(record, Run)), default=0)


__all__ = ["RunLog", "ScheduleError"]
