"""The daemon: one light process that lives on after a run ends, obeys the control file, and guards the trainer.

States: starting, preparing, training, evaluating, checkpointing (a trainer is alive), restarting (between two),
idle (none), exited. One command is acted on at a time; `stop` comes first and cuts short what waits for a first step.
A command is answered accepted and then done or failed, or rejected, or expired; `done` holds values read back.

Nothing that a line, a record or a file system does ends the daemon: what raises is answered and said, its traceback
goes to the daemon's output, and training goes on.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from eegpt_daemon import crash_points
from eegpt_daemon.supervisor import notify
from eegpt_daemon.supervisor.answers import DaemonLog
from eegpt_daemon.supervisor.commands import COMMANDS, Action, CommandContext, Outcome
from eegpt_daemon.supervisor.commands.action import ACCEPTED, EXPIRED, FAILED, REJECTED
from eegpt_daemon.supervisor.control import ControlReader
from eegpt_daemon.supervisor.incidents import Incidents
from eegpt_daemon.supervisor.process import HURRY, sweep
from eegpt_daemon.supervisor.run_supervisor import CANNOT_BEGIN, ENDED_BY_ITSELF, TICK_S, RunSupervisor
from eegwatch.run.config import Config
from eegwatch.run.control import CONTROL, LOCK, Command, exposed, same_file, take_lock
from eegwatch.run.heartbeat import ALIVE
from eegwatch.steering.inbox import relay

T = TypeVar("T")
RELAYED = "relayed"
LIVE = {"resume", "checkpoint", "evaluate", "release"}  # what RunLog in a script can do without a restart
STALE = "it was written before this daemon started; send it again if it is still wanted"
LONGEST_REASON = 1000  # characters
LATE = "it expired before the daemon read it"


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
        self.overtaken: list[Action] = []  # begun, and a stop did not wait for them
        self.queue: list[Command] = []
        self.exiting: str | None = None
        self.homeless = False
        self._signals: list[int] = []
        self._unaccepted: list[Command] = []  # a full disk has not let them be accepted yet
        self.log = DaemonLog(logs, say)
        self.incidents = Incidents(self.log.note, say)
        self.notifier = notify.Notifier(logs, say)
        self.runs = RunSupervisor(logs, self.log, self.notifier, say)
        self.log.figures = self.runs.figures
        self.control = ControlReader(control, self.log.answered)
        new = not (logs / ALIVE).exists()
        self.log.enter("starting", exposed(logs))
        if new:
            self.log.note(f"signs of life are in {ALIVE}: a monitor of 0.1 takes this daemon for hung; upgrade it")
        self._guarded("removing what dead daemons left in the temporary folder", sweep)
        self._guarded("taking over the newest run", self.runs.take_over)
        self._settle_the_past(past)

    def _guarded(self, what: str, do: Callable[[], T]) -> T | None:
        """Its result; None where it raised an error, which has been reported."""
        try:
            result = do()
        except Exception as error:
            self.incidents.tell(what, error)
            return None
        self.incidents.over(what)
        return result

    def _settle_the_past(self, past: int) -> None:
        """Lines from before this daemon never fire; what an earlier one had accepted is finished or reported failed."""
        for command_id, name in self.log.unfinished.items():
            self._record(command_id, name, self._recovered(command_id, name))
        expired = 0
        while True:
            for command in self._new_commands(past):
                if command.id not in self.log.answered:
                    expired += 1
                    self._answer(command, Outcome(EXPIRED, STALE))
            if not self.control.more:
                break
            self.log.heartbeat("answering what was there before")
        self.log.sync()
        if expired:
            self.say(f"{expired} command(s) from before this daemon expired")

    def _recovered(self, command_id: str, name: str | None) -> Outcome:
        """The final answer to a command that an earlier daemon accepted and did not finish, from the files."""
        kind = COMMANDS.get(name or "")
        if kind is None:
            return Outcome(FAILED, "the daemon died while carrying it out, and this one does not know the command")
        recovered = self._guarded(
            f"recovering {name} {command_id}", lambda: kind.recover(command_id, self.runs.current)
        )
        return recovered or Outcome(FAILED, "the daemon died while carrying it out, and the run's files cannot be read")

    # ---- life ----

    def start(self, config: Config) -> None:
        """Begin a new run with this configuration, or the first of a series."""
        config.experiment.series = None
        self.runs.begin(config, parent=None, command=None, notes=[])

    def go_on(self) -> bool:
        """Resume the newest run where a crash, a reboot or a signal cut it off; False where nothing was cut off."""
        run = self.runs.current
        if self.runs.trainer is not None:
            return True  # a script that went on without a daemon
        if run is None:
            return False
        if run.end is not None and run.end.reason in ENDED_BY_ITSELF and self.runs.next_of_series():
            return True
        if not run.interrupted(self.log.last_before):
            return False
        try:
            self.runs.go_on(run, None, None, ["continued by eegpt-daemon start --continue"])
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
            self._guarded("watching the trainer", self._watch_trainer)
            self._read_commands()
            self._act()
            if self.exiting is None and self.action is None:
                self._guarded("starting the trainer again", self.runs.start_planned)
            self._guarded("writing the daemon's log", self._beat)
            self._guarded("looking after the log root", self._look_for_the_log_root)
            if self.exiting is not None and self.runs.trainer is None and not (self.action or self.overtaken):
                self.runs.twin.give_way()
                self.log.enter("exited", self.exiting)
                self.notifier.close()
                return int(self.homeless)
            time.sleep(TICK_S)

    def _beat(self) -> None:
        if self.log.heartbeat(self.runs.remark()) and self.runs.current is not None:
            self.runs.current.settle()

    def _look_for_the_log_root(self) -> None:
        """End if the lock file is gone: without it no program finds this daemon, and a second one could be started."""
        if not self.homeless and not same_file(self._lock, self.logs / LOCK):
            self.homeless = True
            self.exiting = f"{self.logs / LOCK} was deleted or replaced: the log root is not this daemon's any more"
            self.log.note(self.exiting)
            self.say(self.exiting)
            self.runs.stop("stopped", HURRY)

    def _interrupted(self, number: int, frame: object) -> None:
        self._signals.append(number)  # acted on between two looks: a write that it interrupts is finished first

    def _obey_signals(self) -> None:
        while self._signals:
            self.exiting = f"{signal.Signals(self._signals.pop(0)).name} received"
            self.runs.stop("stopped", HURRY)

    def _watch_trainer(self) -> None:
        ending = self.runs.look()
        if ending is None or (self.action is not None and self.action.awaits_exit):
            return
        try:
            self.runs.conclude(ending, exiting=self.exiting is not None)
        except Exception as error:
            self.incidents.tell("deciding whether to start the trainer again", error)
            self.log.enter("idle", f"the trainer ended ({ending.cause}), and the decision about a restart failed")

    # ---- commands ----

    def _new_commands(self, before: int | None = None) -> list[Command]:
        """Commands that came in and were never answered; lines that are none are rejected here."""
        known = self.control.unsafe
        fresh = self._guarded("reading the control file", lambda: self.control.read(before)) or []
        if self.control.unsafe is not None and self.control.unsafe != known:
            self.log.note(f"the control file is not obeyed: {self.control.unsafe}")
            self.say(self.control.unsafe)
        commands: list[Command] = []
        for line in fresh:
            if isinstance(line, Command):
                commands.append(line)
            elif line.id not in self.log.answered:
                self._record(line.id, line.command, Outcome(REJECTED, line.reason))
        return commands

    def _read_commands(self) -> None:
        commands, self._unaccepted = [*self._unaccepted, *self._new_commands()], []
        for command in commands:
            try:
                self._judge(command)
            except Exception as error:
                self.incidents.tell(f"judging {command.command} {command.id}", error)
                status = FAILED if self.log.answered.get(str(command.id)) == ACCEPTED else REJECTED
                self._answer(command, Outcome(status, _internal(error)))
        self.log.sync()

    def _judge(self, command: Command) -> None:
        """Reject, expire or accept one command; what is accepted is queued."""
        if str(command.id) in self.log.answered:
            return  # each id is carried out at most once, and a second line with it gets no second answer
        crash_points.point("command.after_read")
        if command.deadline is not None and command.deadline < time.time():
            self._answer(command, Outcome(EXPIRED, LATE))
            return
        if self._relays(command):
            self.log.answered[str(command.id)] = RELAYED  # the script that runs there answers it
            return
        reason = COMMANDS[command.command].refuse(command, self._command_context())
        if reason is not None:
            self._answer(command, Outcome(REJECTED, reason))
            return
        if not self._answer(command, Outcome(ACCEPTED)):
            self._unaccepted.append(command)  # a full disk: what is not durably accepted is not begun
            return
        crash_points.point("command.after_accept")
        if command.command == "stop":
            self._make_way(f"cut short by stop {command.id}")
            self.queue.insert(0, command)
        else:
            self.queue.append(command)

    def _relays(self, command: Command) -> bool:
        """Hand on what a script obeys itself: commands to another live run, live ones to the script that runs here."""
        current = self.runs.current
        if command.run_id is None and current is not None:
            command = msgspec.structs.replace(command, run_id=current.run_id)
        if current is not None and command.run_id == current.run_id:
            live = command.command in LIVE and command.checkpoint is None and command.branch is None
            return current.script is not None and live and relay(self.logs, command)
        return relay(self.logs, command)

    def _command_context(self) -> CommandContext:
        trainer = self.runs.trainer
        return CommandContext(
            self.runs.current, trainer.phase.state if trainer else None, self.runs.planned_restart is not None
        )

    def _make_way(self, reason: str) -> None:
        """Prepare for a stop: fail the commands that would continue training, keep watching those already ordered."""
        if self.action is not None and self.action.yields_to_stop:
            self._finish(self.action, Outcome(FAILED, reason))
        elif self.action is not None and not self.action.awaits_exit:
            self.overtaken.append(self.action)
            self.action = None
        for command in self.queue:
            if command.command != "stop":
                self._answer(command, Outcome(FAILED, reason))
        self.queue = [command for command in self.queue if command.command == "stop"]

    def _act(self) -> None:
        """Carry on with what was begun, and begin what comes next."""
        if self.exiting is not None:
            self._make_way("the daemon is exiting")
        for action in [*self.overtaken, *([self.action] if self.action else [])]:
            self._step(action, action.advance)
        if self.action is None and self.queue:
            command = self.queue.pop(0)
            self.action = action = COMMANDS[command.command](command, self.runs)
            if action.exits:
                self.exiting = "stopped on request"
            self._step(action, action.begin)
            crash_points.point("command.after_act")
            if self.action is action:
                self._step(action, action.advance)

    def _step(self, action: Action, do: Callable[[], Outcome | None]) -> None:
        """One step of a command; if it raises, the command fails and the run stays unchanged."""
        try:
            outcome = do()
        except Exception as error:
            self.incidents.tell(f"carrying out {action.command.command} {action.command.id}", error)
            outcome = Outcome(FAILED, _internal(error))
            if self.runs.trainer is None:
                self.log.enter("idle", outcome.reason)
        if outcome is not None:
            self._finish(action, outcome)

    def _finish(self, action: Action, outcome: Outcome) -> None:
        if action is self.action:
            self.action = None
        else:
            self.overtaken.remove(action)
        crash_points.point("command.before_answer")
        self._answer(action.command, outcome)
        crash_points.point("command.after_answer")

    def _answer(self, command: Command, outcome: Outcome) -> bool:
        return self._record(str(command.id), command.command, outcome)

    def _record(self, command_id: str, name: str | None, outcome: Outcome) -> bool:
        """True once the answer is durable."""
        run, reason = self.runs.current, outcome.reason
        if reason is not None and len(reason) > LONGEST_REASON:  # what was typed may be 64 kB, and is in the file
            reason = f"{reason[: LONGEST_REASON // 2]} … {reason[-LONGEST_REASON // 2 :]}"
        written = self.log.answer(
            command_id,
            name,
            outcome.status,
            reason=reason,
            run_id=run.run_id if run else None,
            attempt=run.attempt if run else None,
            step=self.runs.step if run else None,
            effect=outcome.effect,
        )
        self.say(f"{name or 'line'} {command_id[:8]}: {outcome.status}" + (f": {reason}" if reason else ""))
        return written


def _internal(error: Exception) -> str:
    words = str(error)[:200]
    return (
        f"an internal error ({type(error).__name__}: {words}); the daemon's output has the traceback, please report it"
    )
