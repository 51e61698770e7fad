"""`release`: the rates back to a script's own scheduler; the daemon's own trainer has none and refuses it."""

from __future__ import annotations

from eegpt_daemon.supervisor.commands.base import FAILED, Action, Outcome, Standing
from eegpt_daemon.supervisor.watched_run import WatchedRun
from eegwatch.run.control import Command

WHY = "the rates of this trainer follow the declared schedule; resume without an LR goes back to it"


class Release(Action):
    @classmethod
    def refuse(cls, command: Command, standing: Standing) -> str | None:
        return standing.misdirected(command) or WHY

    def begin(self) -> Outcome | None:
        return Outcome(FAILED, WHY)

    def advance(self) -> Outcome | None:
        return None

    @classmethod
    def recover(cls, command_id: str, run: WatchedRun | None) -> Outcome:  # noqa: ARG003
        return Outcome(FAILED, WHY)
