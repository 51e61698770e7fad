"""`stop`: checkpoint at the next step boundary, end the attempt; with `exit` the daemon ends too."""

from __future__ import annotations

from eegpt_daemon.supervisor.commands.action import DONE, Action, CommandContext, Outcome
from eegpt_daemon.supervisor.run_supervisor import RunSupervisor
from eegpt_daemon.supervisor.watched_run import WatchedRun
from eegwatch.run.control import Command


class Stop(Action):
    """Done when the attempt has its `end` record."""

    awaits_exit = True

    def __init__(self, command: Command, runs: RunSupervisor) -> None:
        super().__init__(command, runs)
        self.exits = command.exit

    @classmethod
    def refuse(cls, command: Command, standing: CommandContext) -> str | None:
        run = standing.run
        if command.exit and (run is None or command.run_id is None):
            return None
        problem = standing.misdirected(command)
        if problem is not None or command.exit or standing.phase is not None or standing.due:
            return problem
        assert run is not None
        ended = f"it ended ({run.end.reason}) at step {run.step:,}" if run.end else f"it stands at step {run.step:,}"
        return f"nothing is training: {ended}"

    def begin(self) -> Outcome | None:
        self.runs.planned_restart = None
        self.runs.stop("stopped")
        return None

    def advance(self) -> Outcome | None:
        if self.runs.trainer is not None:
            return None
        run, step = self.runs.current, self.runs.step
        self.runs.log.enter("idle", f"stopped at step {step:,}")
        saved = run.checkpoints[-1].path if run and run.checkpoints else None
        return Outcome(DONE, None, {"step": step, "checkpoint": saved})

    @classmethod
    def recover(cls, command_id: str, run: WatchedRun | None) -> Outcome:  # noqa: ARG003 (a stop leaves no record)
        return Outcome(DONE, "the trainer ended with the daemon before", {"step": run.step if run else 0})
