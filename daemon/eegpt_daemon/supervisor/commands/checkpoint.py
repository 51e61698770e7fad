"""`checkpoint`: write one now and keep it; the training goes on."""

from __future__ import annotations

from eegpt_daemon.supervisor.commands.action import DONE, FAILED, Action, CommandContext, Outcome
from eegpt_daemon.supervisor.hang import WORKING
from eegpt_daemon.supervisor.watched_run import BadCheckpoint, WatchedRun
from eegwatch.run.control import Command
from eegwatch.run.folder import RUN_LOG
from eegwatch.run.log import each_record, run_decoder
from eegwatch.run.records import Checkpoint as Saved

NOT_WRITTEN = "the trainer ended before it could write one"


class Checkpoint(Action):
    """Done when the checkpoint's record is in the run log."""

    @classmethod
    def refuse(cls, command: Command, standing: CommandContext) -> str | None:
        problem = standing.misdirected(command)
        run = standing.run
        if problem is not None or run is None:
            return problem
        if run.script is not None and standing.phase is not None:
            return "a script writes its own checkpoints; a script with RunLog can read log.checkpoint_requested"
        if standing.phase is None:
            return f"nothing is training; the run is at step {run.step:,}"
        if standing.phase not in WORKING:
            return "the run is still being prepared: there is nothing to save before its first step"
        return None

    def begin(self) -> Outcome | None:
        if self.runs.order_checkpoint(self.command.id):
            return None
        return Outcome(FAILED, NOT_WRITTEN)

    def advance(self) -> Outcome | None:
        run = self.runs.current
        assert run is not None
        saved = [c for c in run.checkpoints if c.command == self.command.id]
        if saved:
            return _verified(run, saved[-1])
        return Outcome(FAILED, NOT_WRITTEN) if self.runs.trainer is None else None

    @classmethod
    def recover(cls, command_id: str, run: WatchedRun | None) -> Outcome:
        records = each_record(run.folder / RUN_LOG, run_decoder()) if run else ()
        saved = [r for r in records if isinstance(r, Saved) and r.command == command_id]
        if saved and run is not None:
            outcome = _verified(run, saved[-1])
            return outcome._replace(reason=outcome.reason or "written before the daemon died")
        step = run.step if run else 0
        return Outcome(FAILED, f"the daemon died while carrying it out; the run is at step {step:,}")


def _verified(run: WatchedRun, saved: Saved) -> Outcome:
    """Done only of a file that has the hash in the log."""
    try:
        run.verify(saved.path)
    except BadCheckpoint as error:
        return Outcome(FAILED, str(error))
    return Outcome(DONE, None, {"checkpoint": saved.path, "step": saved.step})
