"""A command as the supervisor carries it out: refused, or begun, advanced to its last word, recovered after a crash."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from eegpt_daemon.supervisor.run_supervisor import RunSupervisor
from eegpt_daemon.supervisor.watched_run import WatchedRun
from eegwatch.run.control import Command

DONE, FAILED, REJECTED, EXPIRED, ACCEPTED = "done", "failed", "rejected", "expired", "accepted"


class Outcome(NamedTuple):
    """The final answer to a command: `done` or `failed`, the reason, and the values that were read back."""

    status: str
    reason: str | None = None
    effect: dict[str, Any] | None = None


@dataclass(frozen=True)
class CommandContext:
    """The state of run and trainer that decides about a command.

    `phase`: of the live trainer, None without one; `due`: an automatic restart of the trainer is due.
    """

    run: WatchedRun | None
    phase: str | None = None
    due: bool = False

    def misdirected(self, command: Command) -> str | None:
        """Why a command means another run or attempt than the present one, or None."""
        run = self.run
        if run is None:
            return "there is no run here yet"
        if command.run_id is not None and command.run_id != run.run_id:
            return f"it is for run {command.run_id}, and the current run is {run.run_id}"
        if command.attempt is not None and command.attempt != run.attempt:
            return f"it is for attempt {command.attempt}, and attempt {run.attempt} runs by now"
        return None


class Action(ABC):
    """One accepted command on its way to its last word. A new command is one module here and one row of the table."""

    awaits_exit: bool = False  # the end of the trainer is part of this command: nothing else follows from it
    exits: bool = False  # the daemon ends after it
    yields_to_stop: ClassVar[bool] = False  # goes on training: a stop that comes later cuts it short

    def __init__(self, command: Command, runs: RunSupervisor) -> None:
        self.command, self.runs = command, runs

    @classmethod
    @abstractmethod
    def refuse(cls, command: Command, standing: CommandContext) -> str | None:
        """The reason why this command cannot be carried out now, with the action to take; None if it can."""

    @abstractmethod
    def begin(self) -> Outcome | None:
        """Start the command; returns the final answer if it is already known."""

    @abstractmethod
    def advance(self) -> Outcome | None:
        """Look whether it is finished; called every tenth of a second, without blocking."""

    @classmethod
    @abstractmethod
    def recover(cls, command_id: str, run: WatchedRun | None) -> Outcome:
        """The final answer to a command that an earlier daemon accepted and did not finish, from the files."""


class ScriptsOnly(Action):
    """A command for a script that uses RunLog: the daemon's own trainer refuses it, and `why` says what it does."""

    why: ClassVar[str]

    @classmethod
    def refuse(cls, command: Command, standing: CommandContext) -> str | None:
        return standing.misdirected(command) or cls.why

    def begin(self) -> Outcome | None:
        return Outcome(FAILED, self.why)

    def advance(self) -> Outcome | None:
        return None

    @classmethod
    def recover(cls, command_id: str, run: WatchedRun | None) -> Outcome:  # noqa: ARG003
        return Outcome(FAILED, cls.why)
