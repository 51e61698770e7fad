"""The commands that a RunLog obeys: its folder, the requests for the script, the looks at the control file."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from eegwatch.run.records import Record, Run
from eegwatch.runlog.used_rates import Follower
from eegwatch.schedule import ScheduleError
from eegwatch.steering.attach import Attached, AttachedRank, Locked
from eegwatch.steering.follower_rank import FollowerControl
from eegwatch.steering.live import LiveControl
from eegwatch.steering.ranks import Job

if TYPE_CHECKING:
    from eegwatch.watching.watcher import Watcher

FOLDER_WITHIN_S = 30.0  # for rank 0's run, where another rank asks for its folder
T = TypeVar("T")


class CommandMethods:
    """The part of a RunLog that obeys the control file. Nothing here raises into the training."""

    step_done: int
    follower: Follower | None
    _run: Run
    _job: Job
    _root: Path
    _folder: Path | None  # None on a rank above 0 until rank 0 has told it
    _resumed: Path | None
    _scheduler: Any
    _control: Attached | AttachedRank | None
    watcher: Watcher | None
    _say: Callable[[str], None]
    _append: Callable[[Record], None]

    @property
    def folder(self) -> Path:
        """The run's folder. On a rank above 0 it is that of rank 0, which the call waits for."""
        end = time.monotonic() + FOLDER_WITHIN_S
        while self._folder is None:
            live = None if self._control is None else self._control.live
            self._folder = live.folder if isinstance(live, FollowerControl) else None
            if self._folder is None and self.watcher is not None:
                self._folder = self.watcher.folder_of_rank_0()
            waits = live is not None or (self.watcher is not None and not self.watcher.off)
            if self._folder is None and (not waits or time.monotonic() > end):
                self._say(f"rank {self._job.rank} finds no run of rank 0 in {self._root}: its RunLog has no folder")
                return self._root
            time.sleep(0.01)
        return self._folder

    def _controlled(self, resumed: bool) -> Attached | AttachedRank | None:
        """The control of this run; None, with a warning, where the log root or the run cannot be had."""
        try:
            if self._job.rank:
                resume = self._resumed if resumed else None
                return AttachedRank(self._root, self._job, self._run, self.follower, self._next_step, resume=resume)
            return Attached(
                self._root,
                self.folder,
                self._run,
                self.follower,
                self._scheduler,
                self._append,
                self._next_step,
                job=self._job,
                past=self._resumed is not None,
                resumed=resumed,
            )
        except Locked:
            self._say("another process writes this run: this one does not obey its commands")
        except (OSError, ScheduleError) as error:
            self._say(f"this run does not obey commands: {error}")
        return None

    def _next_step(self) -> int:
        """The step that the optimizer is about to take."""
        waits = self.follower is not None and self.follower.waits
        return self.step_done if waits else self.step_done + 1

    @property
    def stop_requested(self) -> bool:
        """True if a stop was requested: save what you need, and leave the loop."""
        return self._wants("stop")

    @property
    def checkpoint_requested(self) -> bool:
        """True if a checkpoint was requested: write one, and call `log.checkpoint(path)`."""
        return self._wants("checkpoint")

    @property
    def evaluation_requested(self) -> bool:
        """True if an evaluation was requested: run one, and call `log.eval(…)`."""
        return self._wants("evaluate")

    def _wants(self, command: str) -> bool:
        if self._control is None:
            return False
        return bool(self._guarded(lambda live: live.wants(command, self.step_done)))

    def _guarded(self, do: Callable[[LiveControl | FollowerControl], T]) -> T | None:
        """Something of the control; one that fails is switched off, and a warning says so."""
        if self._control is None:
            return None
        try:
            return do(self._control.live)
        except Exception as error:  # whatever it is, it must not end the training
            self._control = None
            self._say(f"this run does not obey commands any more: {type(error).__name__}: {error}")
            return None

    def _look(self, now: float) -> None:
        """Look at the control file. Between two looks a step costs one comparison of clocks."""
        control = self._control
        if control is not None:
            self._guarded(lambda live: live.look(self.step_done))
            control.due = now + control.live.every
