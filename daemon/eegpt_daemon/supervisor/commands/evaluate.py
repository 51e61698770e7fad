"""`evaluate`: an evaluation now, in a script that uses RunLog; the daemon's own trainer refuses it."""

from __future__ import annotations

from eegpt_daemon.supervisor.commands.base import FAILED, Action, Outcome, Standing
from eegpt_daemon.supervisor.watched_run import WatchedRun
from eegwatch.run.control import Command

WHY = "the trainer evaluates at its own times (training.val_check_interval)"


class Evaluate(Action):
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
