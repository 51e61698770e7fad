"""`resume`: continue the current run in a new attempt, along the declared schedule or at another rate.

With `as` the attempt is a separate run that branches off from a checkpoint; the earlier run stays unchanged.
"""

from __future__ import annotations

from eegpt_daemon.script.template import takes_rate
from eegpt_daemon.supervisor.commands.action import CommandContext
from eegpt_daemon.supervisor.commands.new_attempt import NewAttempt
from eegpt_daemon.supervisor.watched_run import BadCheckpoint, WatchedRun
from eegwatch.run.config import Script
from eegwatch.run.control import Command
from eegwatch.schedule import ScheduleError, resumed


class Resume(NewAttempt):
    """Done at the first step of the new attempt, with the rate that was read back."""

    end_reason = "stopped"

    @classmethod
    def refuse(cls, command: Command, standing: CommandContext) -> str | None:
        if command.then is not None and command.lr is None:
            return "`then` is the course after a manual rate, and there is no `lr`: give both, or neither to rejoin"
        if command.branch is not None and not command.branch.strip():
            return "`as` is the name of a new run, and it is empty"
        problem = standing.misdirected(command)
        run = standing.run
        if problem is not None or run is None:
            return problem
        if run.script is not None and (reason := _script_refusal(command, run, run.script)) is not None:
            return reason
        at = run.step
        if command.checkpoint is not None:
            try:
                at = run.verify(command.checkpoint)
            except BadCheckpoint as error:
                return str(error)
        elif command.branch is not None and run.newest_good()[0] is None:
            return "there is no checkpoint yet from which a run could branch off"
        elif run.complete:
            return f"the run is complete: {run.step:,} of {run.total:,} steps; restart it, or name a checkpoint"
        return None if command.lr is None else _rate_refusal(command, command.lr, run, at)

    def begin_attempt(self, run: WatchedRun) -> int:
        if self.command.branch is not None:
            self.notes += self.runs.branch(run, self.command, self.command.branch)
            return 1
        self.notes += self.runs.go_on(run, self.command, self.command.checkpoint, [])
        return run.attempt + 1


def _script_refusal(command: Command, run: WatchedRun, script: Script) -> str | None:
    """Why a script cannot be resumed so, or None."""
    if script.resume is None:
        return "the configuration has no script.resume: this script cannot be resumed; restart it"
    if command.lr is not None and not takes_rate(script):
        return "script.resume has no {lr}: this script cannot be given a rate; resume it without one"
    if command.lr is not None and command.then not in (None, "hold"):
        return f"by its command line a script can only hold a rate, not {command.then}; RunLog in the script can"
    if command.branch is not None and (script.checkpoints or "").startswith(("/", "{cwd}")):
        return "its checkpoints lie outside its run folder: a run that branches off would write over them"
    if command.checkpoint is None and run.newest_good()[0] is None:
        return f"there is no complete checkpoint yet ({script.checkpoints} below the run folder); restart it"
    return None


def _rate_refusal(command: Command, lr: float, run: WatchedRun, at: int) -> str | None:
    """Why this rate cannot be gone on with from step `at`, or None."""
    try:
        declared = run.declared()
    except ScheduleError as error:
        return f"this version cannot read the run's schedule ({error}); resume it without an LR"
    if declared is None and run.script is not None:
        return None  # nothing is declared that a rate could lie above
    if declared is None or run.record is None:
        return "the run has declared no schedule yet; resume it without an LR"
    then = command.then or ("hold" if run.script is not None else "anneal")
    per_epoch = run.record.steps_per_epoch
    try:
        resumed(declared, at, lr, then, steps_per_epoch=per_epoch, force=command.force)
    except ScheduleError as error:
        return str(error)
    return None
