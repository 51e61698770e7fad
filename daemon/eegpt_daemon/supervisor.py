"""The daemon: one light process that lives on after a run ends, obeys the control file, and guards the trainer.

States: starting, preparing, training, evaluating, checkpointing (a trainer is alive), restarting (between two),
idle (none), exited. One command is acted on at a time; `stop` comes first and cuts short what waits for a first step.
A command is answered accepted and then done or failed, or rejected, or expired; `done` holds values read back.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eegpt_daemon import crash, notify
from eegpt_daemon.commands import Action, ControlReader, config_for, interrupted, refusal, what_became_of
from eegpt_daemon.daemon_log import DaemonLog
from eegpt_daemon.keeper import CANNOT_BEGIN, TICK_S, Keeper
from eegpt_daemon.process import HURRY
from eegpt_daemon.watched_run import BadCheckpoint, numbers
from eegwatch.run.config import Config
from eegwatch.run.control import CONTROL, LOCK, Command, exposed, same_file, take_lock

DONE, FAILED, REJECTED, EXPIRED, ACCEPTED = "done", "failed", "rejected", "expired", "accepted"


class Supervisor:
    """One per log root. `run()` returns the daemon's exit code: 0, or 1 where its log root was taken away."""

    def __init__(self, logs: Path, say: Callable[[str], None]) -> None:
        """Take the lock and recover what an earlier daemon left. Raises control.Locked, OSError."""
        self.logs, self.say = logs, say
        logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        control = logs / CONTROL
        past = control.stat().st_size if control.exists() else 0  # who sees the lock writes after this, and to us
        self._lock = take_lock(logs / LOCK)
        self.action: Action | None = None
        self.queue: list[Command] = []
        self.exiting: str | None = None
        self.homeless = False
        self._signals: list[int] = []
        self._unaccepted: list[Command] = []  # a full disk has not let them be accepted yet
        self.log = DaemonLog(logs, say)
        self.notifier = notify.Notifier(logs, say)
        self.keeper = Keeper(logs, self.log, self.notifier, say)
        self.log.figures = self.keeper.figures
        self.control = ControlReader(control, self.log.answered)
        self.log.enter("starting", exposed(logs))
        self.keeper.take_over()
        self._settle_the_past(past)

    def _settle_the_past(self, past: int) -> None:
        """Lines from before this daemon never fire; what an earlier one had accepted is finished or reported failed."""
        for command_id, name in self.log.unfinished.items():
            self._record(command_id, name, *what_became_of(name, command_id, self.keeper.run))
        expired = 0
        while True:
            for command in self._new_commands(past):
                if command.id not in self.log.answered:
                    expired += 1
                    reason = "it was there before this daemon started; send it again if it is still meant"
                    self._answer(command, EXPIRED, reason)
            if not self.control.more:
                break
            self.log.heartbeat("answering what was there before")
        self.log.sync()
        if expired:
            self.say(f"{expired} command(s) from before this daemon expired")

    # ---- life ----

    def start(self, config: Config) -> None:
        """Begin a new run with this configuration."""
        self.keeper.begin(config, parent=None, command=None, notes=[])

    def go_on(self) -> bool:
        """Resume the newest run where a crash, a reboot or a signal cut it off; False where nothing was cut off."""
        run = self.keeper.run
        if run is None or not interrupted(run, self.log.last_before):
            return False
        try:
            self.keeper.go_on(run, None, None, ["continued by eegpt-daemon start --continue"])
        except CANNOT_BEGIN as error:
            self.log.enter("idle", f"not continued: {error}")
        return True

    def run(self) -> int:
        """Live until told to exit."""
        detached = not (sys.stdin.isatty() or sys.stdout.isatty()) or signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        signal.signal(signal.SIGHUP, signal.SIG_IGN if detached else self._interrupted)  # a terminal that closes
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._interrupted)
        if self.log.state == "starting":
            self.log.enter("idle")
        while True:
            self._obey_signals()
            self._watch_trainer()
            self._read_commands()
            self._act()
            if self.exiting is None and self.action is None:
                self.keeper.revive()
            if self.log.heartbeat(self.keeper.remark()) and self.keeper.run is not None:
                self.keeper.run.settle()
            self._look_for_the_log_root()
            if self.exiting is not None and self.keeper.trainer is None and self.action is None:
                self.log.enter("exited", self.exiting)
                self.notifier.close()
                return int(self.homeless)
            time.sleep(TICK_S)

    def _look_for_the_log_root(self) -> None:
        """Without its lock file a daemon is one that nobody can find, beside which another would be started."""
        if not self.homeless and not same_file(self._lock, self.logs / LOCK):
            self.homeless = True
            self.exiting = f"{self.logs / LOCK} was deleted or replaced: the log root is not this daemon's any more"
            self.log.note(self.exiting)
            self.say(self.exiting)
            self.keeper.stop("stopped", HURRY)

    def _interrupted(self, number: int, frame: object) -> None:
        self._signals.append(number)  # acted on between two looks: a write that it interrupts is finished first

    def _obey_signals(self) -> None:
        while self._signals:
            self.exiting = f"{signal.Signals(self._signals.pop(0)).name} received"
            self.keeper.stop("stopped", HURRY)

    def _watch_trainer(self) -> None:
        ending = self.keeper.look()
        if ending is not None and (self.action is None or self.action.waits_for != "exit"):
            self.keeper.conclude(ending, exiting=self.exiting is not None)

    # ---- commands ----

    def _new_commands(self, before: int | None = None) -> list[Command]:
        """Commands that came in and were never answered; lines that are none are rejected here."""
        known = self.control.unsafe
        found = self.control.read(before)
        if self.control.unsafe is not None and self.control.unsafe != known:
            self.log.note(f"the control file is not obeyed: {self.control.unsafe}")
            self.say(self.control.unsafe)
        commands: list[Command] = []
        for line in found:
            if isinstance(line, Command):
                commands.append(line)
            elif line.id not in self.log.answered:
                self._record(line.id, line.command, REJECTED, line.reason)
        return commands

    def _read_commands(self) -> None:
        found, self._unaccepted = [*self._unaccepted, *self._new_commands()], []
        for command in found:
            if str(command.id) in self.log.answered:
                continue  # each id is carried out at most once, and a second line with it gets no second answer
            crash.point("command.after_read")
            if command.deadline is not None and command.deadline < time.time():
                self._answer(command, EXPIRED, "it came too late: its time had run out before the daemon read it")
                continue
            trainer, due = self.keeper.trainer is not None, self.keeper.revival is not None
            reason = refusal(command, self.keeper.run, training=trainer, due=due)
            if reason is not None:
                self._answer(command, REJECTED, reason)
                continue
            if not self._answer(command, ACCEPTED):
                self._unaccepted.append(command)  # a full disk: what is not durably accepted is not begun
                continue
            crash.point("command.after_accept")
            if command.command == "stop":
                self._give_up(f"cut short by stop {command.id}")  # it does not wait for their first step
                self.queue.insert(0, command)
            else:
                self.queue.append(command)
        self.log.sync()

    def _give_up(self, reason: str) -> None:
        """Fail everything that would go on training; stops are carried out."""
        if self.action is not None and self.action.command.command in ("resume", "restart"):
            self._finish(FAILED, reason)
        for command in self.queue:
            if command.command != "stop":
                self._answer(command, FAILED, reason)
        self.queue = [command for command in self.queue if command.command == "stop"]

    def _act(self) -> None:
        if self.exiting is not None:
            self._give_up("the daemon is exiting")
        if self.action is None:
            if not self.queue:
                return
            self._begin(self.queue.pop(0))
        if self.action is not None:
            self._advance(self.action)

    def _begin(self, command: Command) -> None:
        name = command.command
        if name == "checkpoint":
            self.action = Action(command, "checkpoint")
            if not self.keeper.order_checkpoint(command.id):
                self._finish(FAILED, "the trainer ended before it could write one")
            crash.point("command.after_act")
            return
        self.action, self.keeper.revival = Action(command, "exit"), None
        if name == "stop" and command.exit:
            self.exiting = "stopped on request"
        self.keeper.stop("restarted" if name == "restart" else "stopped")
        crash.point("command.after_act")
        if name in ("restart", "resume"):
            self.log.enter("restarting", f"{name} {command.id}")

    def _advance(self, action: Action) -> None:
        run = self.keeper.run
        if action.waits_for == "exit":
            if self.keeper.trainer is None:
                self._continue(action)
            return
        assert run is not None
        if action.waits_for == "first_step":
            if run.attempt == action.attempt and run.first_step is not None:
                effect = numbers(run.first_step) | {"run_id": run.run_id}
                if run.run is not None and run.run.checkpoint:
                    effect["checkpoint"] = run.run.checkpoint
                self._finish(DONE, "; ".join(action.notes) or None, effect)
            elif self.keeper.trainer is None:
                error = run.end.error or run.end.reason if run.end else "the trainer ended"
                self._finish(FAILED, f"no step was taken: {error}")
            return
        mine = [c for c in run.checkpoints if c.command == action.command.id]
        if mine:
            try:
                run.verify(mine[-1].path)
                self._finish(DONE, None, {"checkpoint": mine[-1].path, "step": mine[-1].step})
            except BadCheckpoint as error:
                self._finish(FAILED, str(error))
        elif self.keeper.trainer is None:
            self._finish(FAILED, "the trainer ended before it could write one")

    def _continue(self, action: Action) -> None:
        """The trainer is gone: answer a stop, or go on with the restart or resume."""
        command, run = action.command, self.keeper.run
        if command.command == "stop":
            saved = run.checkpoints[-1].path if run and run.checkpoints else None
            effect: dict[str, Any] = {"step": self.keeper.step, "checkpoint": saved}
            self.log.enter("idle", f"stopped at step {self.keeper.step:,}")
            self._finish(DONE, None, effect)
            return
        assert run is not None
        action.waits_for = "first_step"
        try:
            if command.command == "restart":
                notes = [f"a fresh restart of {run.run_id}"]
                self.keeper.begin(config_for(command, run), parent=run.run_id, command=command.id, notes=notes)
                action.attempt = 1
            else:
                action.notes += self.keeper.go_on(run, command, command.checkpoint, [])
                action.attempt = run.attempt + 1
        except CANNOT_BEGIN as error:
            self.log.enter("idle", str(error))
            self._finish(FAILED, str(error))

    def _finish(self, status: str, reason: str | None, effect: dict[str, Any] | None = None) -> None:
        assert self.action is not None
        command, self.action = self.action.command, None
        crash.point("command.before_answer")
        self._answer(command, status, reason, effect)
        crash.point("command.after_answer")

    def _answer(
        self, command: Command, status: str, reason: str | None = None, effect: dict[str, Any] | None = None
    ) -> bool:
        return self._record(str(command.id), command.command, status, reason, effect)

    def _record(
        self, command_id: str, name: str | None, status: str, reason: str | None, effect: dict[str, Any] | None = None
    ) -> bool:
        """True once the answer is durable."""
        run = self.keeper.run
        written = self.log.answer(
            command_id,
            name,
            status,
            reason=reason,
            run_id=run.run_id if run else None,
            attempt=run.attempt if run else None,
            step=self.keeper.step if run else None,
            effect=effect,
        )
        self.say(f"{name or 'line'} {command_id[:8]}: {status}" + (f": {reason}" if reason else ""))
        return written
