"""Reading the control file, and judging a command: what cannot be carried out is refused in words, before it begins."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from eegpt_daemon.trainer.attempt import BOTH_DIED, SUPERVISOR_GONE
from eegpt_daemon.watched_run import BadCheckpoint, WatchedRun, numbers
from eegwatch.run import config as configuration
from eegwatch.run.config import Config, ConfigError
from eegwatch.run.control import Command, Unreadable, parse_line, unsafe_control
from eegwatch.run.folder import CONFIG, RUN_LOG
from eegwatch.run.log import Tail, read_all, run_decoder
from eegwatch.run.records import Checkpoint, DaemonState, Run, Step
from eegwatch.schedule import ScheduleError, resumed

TAINTED = "it stood in the file while others could write there; send it again if it is yours"


@dataclass
class Action:
    """An accepted command on its way to done or failed. `waits_for`: exit of the trainer, first_step, checkpoint."""

    command: Command
    waits_for: str
    attempt: int = 0
    notes: list[str] = field(default_factory=list)


class ControlReader:
    """New lines of the control file. A file that others can write is not read: `unsafe` says why.

    `answered`: ids that had an answer before; by them a line without an id of its own gets one that never was, also
    where the file was deleted and begun anew meanwhile.
    """

    def __init__(self, path: Path, answered: Iterable[str] = ()) -> None:
        self.path = path
        self.unsafe: str | None = None
        self.more = False  # is there more to read at once?
        self._tail = Tail(path)
        self._tainted = False  # it was unsafe: what is in it now may be anybody's
        size = path.stat().st_size if path.exists() else 0
        newest = max((found for found in map(_place, answered) if found is not None), default=(1, -1))
        self._file = newest[0] + (size <= newest[1])  # which control file this is, counted from 1

    def read(self, before: int | None = None) -> list[Command | Unreadable]:
        """At most about a megabyte of lines, `stop` first; of those only that begin `before` this byte, if given."""
        most = 1 << 20 if before is None else min(1 << 20, before - self._tail.offset)
        self.unsafe, self.more = unsafe_control(self.path), False
        if self.unsafe is not None:
            self._tainted = True
        if self.unsafe is not None or most <= 0:
            return []
        chunk = self._tail.read(most)
        self._file += chunk.reset is not None
        self.more = bool(chunk.data)
        found = [self._named(parsed, at) for at, line in chunk.lines() if (parsed := parse_line(line, at)) is not None]
        if self._tainted:
            found = [Unreadable(str(c.id), c.command, TAINTED) for c in found]
            self._tainted = self.more
        return sorted(found, key=lambda c: c.command != "stop")

    def _named(self, line: Command | Unreadable, offset: int) -> Command | Unreadable:
        if self._file == 1 or line.id != f"line-{offset}":
            return line
        return msgspec.structs.replace(line, id=f"line-{offset}.{self._file}")


def _place(command_id: str) -> tuple[int, int] | None:
    """(which file, byte offset) of an id that a line got from its place: `line-<offset>`, `line-<offset>.<file>`."""
    found = re.fullmatch(r"line-(\d{1,18})(?:\.(\d{1,9}))?", command_id)
    return (int(found[2] or 1), int(found[1])) if found else None


def refusal(command: Command, run: WatchedRun | None, *, training: bool, due: bool = False) -> str | None:
    """Why a command cannot be carried out, in words a person can act on; None if it can.

    `training`: a trainer lives; `due`: one is about to be started again by itself.
    """
    if command.command == "stop" and command.exit and (run is None or command.run_id is None):
        return None
    if run is None:
        return "there is no run here yet"
    if command.run_id is not None and command.run_id != run.run_id:
        return f"it is for run {command.run_id}, and the current run is {run.run_id}"
    if command.attempt is not None and command.attempt != run.attempt:
        return f"it is for attempt {command.attempt}, and attempt {run.attempt} runs by now"
    if command.command == "stop" and not command.exit and not (training or due):
        ended = f"it ended ({run.end.reason}) at step {run.step:,}" if run.end else f"it stands at step {run.step:,}"
        return f"nothing is training: {ended}"
    if command.command == "checkpoint" and not training:
        return f"nothing is training; the run stands at step {run.step:,}"
    if command.command == "restart":
        try:
            config_for(command, run)
        except ConfigError as error:
            return str(error)
    if command.command == "resume":
        return _resume_refusal(command, run)
    return None


def _resume_refusal(command: Command, run: WatchedRun) -> str | None:
    at = run.step
    if command.checkpoint is not None:
        try:
            at = run.verify(command.checkpoint)
        except BadCheckpoint as error:
            return str(error)
    elif run.complete:
        return f"the run is complete: {run.step:,} of {run.total:,} steps; restart it, or name a checkpoint"
    if command.lr is None:
        return None
    declared = run.declared()
    if declared is None or run.run is None:
        return "the run has declared no schedule yet; resume it without an LR"
    per_epoch = run.run.steps_per_epoch
    try:
        resumed(declared, at, command.lr, command.then, steps_per_epoch=per_epoch, force=command.force)
    except ScheduleError as error:
        return str(error)
    return None


def interrupted(run: WatchedRun, last: DaemonState | None) -> bool:
    """Was this run cut off by a crash, a reboot or a signal, and not ended by itself or by a person?"""
    if run.complete or run.end is None:
        return not run.complete
    if run.end.error in (BOTH_DIED, SUPERVISOR_GONE):
        return True
    told = last is not None and last.state == "exited" and (last.reason or "").startswith(("SIGTERM", "SIGHUP"))
    return told and run.end.reason == "stopped"


def what_became_of(name: str | None, command_id: str, run: WatchedRun | None) -> tuple[str, str, dict[str, Any] | None]:
    """(status, reason, effect) of what an earlier daemon accepted and did not finish, by what it left in the files."""
    step = run.step if run else 0
    if name == "stop":
        return "done", "the trainer ended with the daemon before", {"step": step}
    records = read_all(run.folder / RUN_LOG, run_decoder()) if run else []
    if name == "checkpoint":
        saved = [r for r in records if isinstance(r, Checkpoint) and r.command == command_id]
        if saved and run is not None:
            try:
                run.verify(saved[-1].path)
            except BadCheckpoint as error:
                return "failed", str(error), None
            effect: dict[str, Any] = {"checkpoint": saved[-1].path, "step": saved[-1].step}
            return "done", "written before the daemon died", effect
    begun = [i for i, r in enumerate(records) if isinstance(r, Run) and r.command == command_id]
    steps = [r for r in records[begun[-1] :] if isinstance(r, Step)] if begun else []
    if run is not None and steps:
        return "done", "finished before the daemon died", numbers(steps[0]) | {"run_id": run.run_id}
    return "failed", f"the daemon died while carrying it out; the run stands at step {step:,}", None


def config_for(command: Command, run: WatchedRun) -> Config:
    """The configuration of a restart: the file named, or the run's own without any injected fault.

    Raises ConfigError.
    """
    if command.config is not None:
        return configuration.load(Path(command.config))
    config = configuration.load(run.folder / CONFIG, expand=False)
    config.inject = None
    return config
