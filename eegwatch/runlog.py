"""Two lines for a training script of your own: write the run log that eegwatch watches.

    from eegwatch import RunLog

    log = RunLog("logs", name="my run", schedule=scheduler, steps_per_epoch=len(loader), total_steps=total)
    for batch in loader:
        ...
        optimizer.step(); scheduler.step()
        log.step(loss=loss)              # a few microseconds; safe when the process is killed
    log.end()

Then `eegwatch logs`. A torch scheduler given as `schedule` is read (its class and parameters) and followed: `lr` and
its position come from it, whether `step` is called before or after `scheduler.step()`. Nothing here imports torch.
"""

from __future__ import annotations

import os
import platform
import socket
import time
import warnings
from pathlib import Path
from types import TracebackType
from typing import Any, SupportsFloat

import msgspec

from eegwatch.run.folder import RUN_LOG, make_run_folder
from eegwatch.run.history import History
from eegwatch.run.log import AppendLog, read_all, run_decoder
from eegwatch.run.records import Checkpoint, End, Eval, Run, Step, encode
from eegwatch.schedule import ScheduleError, from_torch, parse


class RunLog:
    """The log of one run. `folder` is where it lies; `step_done` the last step written."""

    def __init__(
        self,
        logs: str | Path = "logs",
        name: str = "run",
        *,
        schedule: Any = None,
        unit: str = "step",
        total_steps: int | None = None,
        steps_per_epoch: int | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        accumulate: int = 1,
        target: dict[str, float] | None = None,
        config: dict[str, Any] | None = None,
        seed: int | None = None,
        resume: str | Path | None = None,
        step: int = 0,
    ) -> None:
        """Begin a run below `logs`, or with `resume=FOLDER, step=K` a new attempt of that run from step K on.

        `schedule`: a torch scheduler (read before its first step), a dict as contract.md has it, or None. `unit`:
        "epoch" if the scheduler is meant to be stepped once an epoch. Raises ScheduleError, OSError, ValueError.
        """
        if unit not in ("step", "epoch"):
            raise ValueError(f'unit: "step" or "epoch", not {unit!r}')
        if total_steps is None and epochs and steps_per_epoch:
            total_steps = epochs * steps_per_epoch
        self._scheduler = schedule if hasattr(schedule, "last_epoch") else None
        declared = self._declared(schedule, unit, total_steps, steps_per_epoch)
        attempt = 1
        if resume is None:
            Path(logs).mkdir(parents=True, exist_ok=True)
            self.folder = make_run_folder(Path(logs), name)
        else:
            self.folder = Path(resume)
            earlier = [r for r in read_all(self.folder / RUN_LOG, run_decoder()) if isinstance(r, Run)]
            attempt = 1 + max((r.attempt for r in earlier), default=0)
        self.step_done, self._per_epoch = step, steps_per_epoch
        self._log = AppendLog(self.folder / RUN_LOG)
        self._ended = False
        self._write = self._log.write
        if self._scheduler is not None:
            self._used: tuple[float, float] | None = None
            optimizer = self._scheduler.optimizer
            while hasattr(optimizer, "optimizer"):
                optimizer = optimizer.optimizer  # accelerate wraps it, without torch's hooks
            if hasattr(optimizer, "register_step_pre_hook"):
                optimizer.register_step_pre_hook(self._before_the_step)
        self._log.append(
            Run(
                time=time.time(),
                run_id=self.folder.name,
                attempt=attempt,
                name=name,
                step=step,
                total_steps=total_steps or (declared["total_steps"] if declared and unit == "step" else None),
                steps_per_epoch=steps_per_epoch,
                epochs=epochs,
                batch_size=batch_size,
                accumulate=accumulate,
                schedule=declared,
                target=target,
                config=config,
                seed=seed,
                pid=os.getpid(),
                host=socket.gethostname(),
                versions={"python": platform.python_version()},
            )
        )

    def _declared(
        self, schedule: Any, unit: str, total_steps: int | None, steps_per_epoch: int | None
    ) -> dict[str, Any] | None:
        if schedule is None:
            return None
        if self._scheduler is None:
            declared = dict(schedule)
        else:
            length = total_steps
            if unit == "epoch" and total_steps and steps_per_epoch:
                length = total_steps // steps_per_epoch
            found = from_torch.read(schedule, length)
            if found is None:
                said = f"eegwatch reads no schedule off this {type(schedule).__name__}: rates are logged without one"
                warnings.warn(said + " (give schedule={...}, or total_steps)", stacklevel=3)
                return None
            declared = found
        declared.setdefault("unit", unit)
        if unit == "epoch" and not steps_per_epoch:
            raise ScheduleError("a schedule that counts epochs needs steps_per_epoch")
        parse(declared)
        return declared

    # ---- records ----

    def step(
        self,
        loss: SupportsFloat | None = None,
        *,
        lr: float | None = None,
        grad_norm: SupportsFloat | None = None,
        samples_per_s: float | None = None,
        skipped: int | None = None,
        step: int | None = None,
    ) -> None:
        """One optimizer step, after it was taken. A tensor's value is fetched by float(): on a GPU that waits for it.

        Without `lr` it is the scheduler's optimizer's. Raises ValueError for a step that goes back.
        """
        n = self.step_done + 1 if step is None else step
        if n <= self.step_done:
            raise ValueError(f"step {n} after step {self.step_done}: going back is a new attempt (resume=…, step=…)")
        position: float | None = None
        if self._scheduler is not None and lr is None:
            lr, position = self._follow()
        epoch = batch = None
        if self._per_epoch:
            epoch, batch = divmod(n - 1, self._per_epoch)
            batch += 1
        record = Step(
            time=time.time(),
            step=n,
            epoch=epoch,
            batch=batch,
            lr=lr,
            position=position,
            loss=msgspec.UNSET if loss is None else float(loss),
            grad_norm=None if grad_norm is None else float(grad_norm),
            samples_per_s=samples_per_s,
            skipped=msgspec.UNSET if skipped is None else skipped,
        )
        self._write(encode(record))
        self.step_done = n

    def _before_the_step(self, *_: Any) -> None:
        """The optimizer is about to step: whatever the script's order of calls, this is the rate that it uses."""
        self._used = self._now()

    def _now(self) -> tuple[float, float]:
        """(rate, scheduler position) as they stand."""
        scheduler = self._scheduler
        assert scheduler is not None
        return float(scheduler.optimizer.param_groups[0]["lr"]), float(scheduler.last_epoch)

    def _follow(self) -> tuple[float, float]:
        """(rate that this step used, its position); as they stand, where the optimizer skipped it (mixed precision)."""
        used, self._used = self._used or self._now(), None
        return used

    def eval(
        self,
        *,
        loss: float | None = None,
        auroc: float | None = None,
        balanced_accuracy: float | None = None,
        split: str = "val",
        n: int = 0,
    ) -> None:
        """An evaluation at the last step written."""
        epoch = (self.step_done - 1) // self._per_epoch if self._per_epoch and self.step_done else None
        values = {"loss": loss, "auroc": auroc, "balanced_accuracy": balanced_accuracy}
        known: dict[str, Any] = {key: float(value) for key, value in values.items() if value is not None}
        self._log.append(Eval(time=time.time(), step=self.step_done, epoch=epoch, split=split, n=n, **known))

    def checkpoint(self, path: str | Path, *, best: bool = False) -> None:
        """A checkpoint that you have written; call it when the file is complete."""
        self._log.append(Checkpoint(time=time.time(), step=self.step_done, path=str(path), best=best))
        self._log.sync()

    def end(self, reason: str = "completed", error: str | None = None) -> None:
        """The last record; a second call does nothing."""
        if self._ended:
            return
        self._ended = True
        self._log.append(End(time=time.time(), step=self.step_done, reason=reason, error=error))
        self._log.sync()
        self._log.close()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            self.end()
        else:
            stopped = isinstance(error, KeyboardInterrupt)
            self.end("stopped" if stopped else "failed", None if stopped else f"{type(error).__name__}: {error}")

    @property
    def history(self) -> History:
        """What the log holds, read back."""
        from eegwatch.run.follow import history_of  # watchdog, which a training script need not load

        return history_of(self.folder)
