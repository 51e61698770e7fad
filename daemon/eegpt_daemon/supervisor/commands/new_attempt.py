"""Shared by `resume` and `restart`: stop the trainer, begin another one, and wait for its first step."""

from __future__ import annotations

import math
from abc import abstractmethod

from eegpt_daemon.supervisor.commands.action import DONE, FAILED, Action, Outcome
from eegpt_daemon.supervisor.run_supervisor import CANNOT_BEGIN, RunSupervisor
from eegpt_daemon.supervisor.watched_run import WatchedRun, numbers
from eegwatch.run.control import Command
from eegwatch.run.folder import RUN_LOG
from eegwatch.run.log import each_record, run_decoder
from eegwatch.run.records import Run, Step, number

PRINTED = 0.01  # relative: a script prints its rate with two digits or more
BY_ITSELF = ("completed", "early_stopped")


class NewAttempt(Action):
    """`attempt`: the number of the attempt that this command begins; 0 until it has begun."""

    yields_to_stop = True
    end_reason: str  # what the `end` record of the attempt before says

    def __init__(self, command: Command, runs: RunSupervisor) -> None:
        super().__init__(command, runs)
        self.awaits_exit = True
        self.attempt = 0
        self.notes: list[str] = []

    @abstractmethod
    def begin_attempt(self, run: WatchedRun) -> int:
        """Start the trainer; returns the number of its attempt. Raises what CANNOT_BEGIN names."""

    def begin(self) -> Outcome | None:
        self.runs.planned_restart = None
        self.runs.stop(self.end_reason)
        self.runs.log.enter("restarting", f"{self.command.command} {self.command.id}")
        return None

    def advance(self) -> Outcome | None:
        run = self.runs.current
        assert run is not None
        if not self.awaits_exit:
            return self._first_step(run)
        if self.runs.trainer is not None:
            return None
        self.awaits_exit = False
        try:
            self.attempt = self.begin_attempt(run)
        except CANNOT_BEGIN as error:
            self.runs.log.enter("idle", str(error))
            return Outcome(FAILED, str(error))
        return None

    def _first_step(self, run: WatchedRun) -> Outcome | None:
        if run.attempt == self.attempt and run.first_step is not None:
            if (refusal := self._another_rate(run, run.first_step)) is not None:
                return Outcome(FAILED, refusal, numbers(run.first_step) | {"run_id": run.run_id})
            effect = numbers(run.first_step) | {"run_id": run.run_id}
            if run.record is not None and run.record.checkpoint:
                effect["checkpoint"] = run.record.checkpoint
            return Outcome(DONE, "; ".join(self.notes) or None, effect)
        if self.runs.trainer is None:
            ended = run.attempt == self.attempt and run.end is not None and run.end.reason in BY_ITSELF
            if ended and run.tested is not None:  # only the official evaluation was left to do
                effect = {"step": run.step, "run_id": run.run_id, "auroc": number(run.tested.auroc)}
                return Outcome(DONE, "evaluated; no step was left to take", effect)
            error = run.end.error or run.end.reason if run.end else "the trainer ended"
            return Outcome(FAILED, f"no step was taken: {error}")
        return None

    def _another_rate(self, run: WatchedRun, first: Step) -> str | None:
        """A script may not take the rate that its command line holds: its own checkpoint brings another one."""
        asked = self.command.lr
        if run.script is None or asked is None or first.lr is None:
            return None
        if math.isclose(float(first.lr), asked, rel_tol=PRINTED):
            return None
        return f"the script continues at {float(first.lr):g}, not at {asked:g}: its resume ignores this rate"

    @classmethod
    def recover(cls, command_id: str, run: WatchedRun | None) -> Outcome:
        """Done if the attempt that names this command took a step."""
        started, first = False, None
        for record in each_record(run.folder / RUN_LOG, run_decoder()) if run else ():
            if isinstance(record, Run):
                started = record.command == command_id
                first = None if started else first
            elif isinstance(record, Step) and started:
                first = first or record
        if run is not None and first is not None:
            return Outcome(DONE, "finished before the daemon died", numbers(first) | {"run_id": run.run_id})
        step = run.step if run else 0
        return Outcome(FAILED, f"the daemon died while carrying it out; the run is at step {step:,}")
