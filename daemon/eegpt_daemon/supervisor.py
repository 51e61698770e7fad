"""The daemon: one light process that lives on after a run ends, obeys the control file, and guards the trainer.

States: starting, preparing, training, evaluating, checkpointing (a trainer is alive), restarting (between two),
idle (none), exited. One command is acted on at a time; `stop` comes first and cuts short what waits for a first step.
A command is answered accepted and then done or failed, or rejected, or expired; `done` holds values read back.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eegpt_daemon.commands import ControlReader, config_for, refusal
from eegpt_daemon.process import TrainerProcess, how_it_ended
from eegpt_daemon.trainer.attempt import ORPHAN_PATIENCE_S, RUN_LOCK, Attempt, Order
from eegpt_daemon.watched_run import BadCheckpoint, WatchedRun, numbers
from eegwatch.run import config as configuration
from eegwatch.run.config import Config, ConfigError
from eegwatch.run.control import (
    CONTROL,
    DAEMON_LOG,
    HEARTBEAT_S,
    LOCK,
    Command,
    lock_holder,
    take_lock,
)
from eegwatch.run.folder import CONFIG, RUN_LOG, make_run_folder, newest_run
from eegwatch.run.log import AppendLog, daemon_decoder, read_all, run_decoder
from eegwatch.run.records import TERMINAL, Answer, DaemonState, End, Run, Step

TICK_S = 0.1
DONE, FAILED, REJECTED, EXPIRED, ACCEPTED = "done", "failed", "rejected", "expired", "accepted"
INTERRUPTS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass
class Action:
    """An accepted command on its way to done or failed. `waits_for`: exit of the trainer, first_step, checkpoint."""

    command: Command
    waits_for: str
    attempt: int = 0
    notes: list[str] = field(default_factory=list)


class Supervisor:
    """One per log root. `run()` returns the daemon's exit code."""

    def __init__(self, logs: Path, say: Callable[[str], None]) -> None:
        """Take the lock and recover what an earlier daemon left. Raises control.Locked, OSError."""
        self.logs, self.say = logs, say
        logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = take_lock(logs / LOCK)
        self.began = time.time()
        self.trainer: TrainerProcess | None = None
        self.run_now: WatchedRun | None = None
        self.action: Action | None = None
        self.queue: list[Command] = []
        self.state = ""
        self.exiting: str | None = None
        self._alive = 0
        self._beat_at = 0.0
        self.answered = self._history()
        self.log = AppendLog(logs / DAEMON_LOG)
        self.control = ControlReader(logs / CONTROL)
        self._enter("starting")
        newest = newest_run(logs)
        if newest is not None:
            self._await_orphan(newest)
            self._watch(newest)
            self._close_open_attempt()
        self._settle_the_past()

    # ---- recovery ----

    def _history(self) -> dict[str, str]:
        """The last status of every command ever answered here."""
        path = self.logs / DAEMON_LOG
        if not path.exists():
            return {}
        return {r.id: r.status for r in read_all(path, daemon_decoder()) if isinstance(r, Answer)}

    def _await_orphan(self, folder: Path) -> None:
        """A trainer whose daemon was killed hears so, checkpoints and leaves: its last words are worth the wait."""
        pid, end = lock_holder(folder / RUN_LOCK), time.monotonic() + ORPHAN_PATIENCE_S
        if pid is not None:
            self._enter("starting", f"waiting for the trainer of the daemon before (pid {pid}) to checkpoint and leave")
        while lock_holder(folder / RUN_LOCK) is not None and time.monotonic() < end:
            time.sleep(TICK_S)

    def _close_open_attempt(self) -> None:
        """A run whose trainer died with its daemon gets the `end` it could not write."""
        run = self.run_now
        if run is not None and run.run is not None and run.end is None:
            error = "the daemon and its trainer died"
            run.append(End(time=time.time(), step=run.step, reason="failed", error=error))
            run.poll()

    def _settle_the_past(self) -> None:
        """Lines from before this daemon never fire; what an earlier one had accepted is finished or reported failed."""
        expired = 0
        for command in self._new_commands():
            command_id = str(command.id)
            status = self.answered.get(command_id)
            if status in TERMINAL:
                continue
            if status == ACCEPTED:
                self._finish_accepted(command)
            else:
                expired += 1
                reason = "it was there before this daemon started; send it again if it is still meant"
                self._answer(command, EXPIRED, reason)
        if expired:
            self.say(f"{expired} command(s) from before this daemon expired")

    def _finish_accepted(self, command: Command) -> None:
        """Decide a command that an earlier daemon accepted and did not finish, by what it left."""
        command_id = str(command.id)
        if command.command == "stop":
            self._answer(command, DONE, "the trainer ended with the daemon before", {"step": self._step()})
            return
        run = self.run_now
        records = read_all(run.folder / RUN_LOG, run_decoder()) if run else []
        begun = [i for i, r in enumerate(records) if isinstance(r, Run) and r.command == command_id]
        steps = [r for r in records[begun[-1] :] if isinstance(r, Step)] if begun else []
        if run is not None and steps:
            effect = numbers(steps[0]) | {"run_id": run.run_id}
            self._answer(command, DONE, "finished before the daemon died", effect)
            return
        self._answer(command, FAILED, f"the daemon died while carrying it out; the run stands at step {self._step():,}")

    # ---- life ----

    def start(self, config: Config) -> None:
        """Begin a new run with this configuration."""
        self._new_run(config, parent=None, command=None, notes=[])

    def run(self) -> int:
        """Live until told to exit; returns 0."""
        for number in INTERRUPTS:
            signal.signal(number, self._interrupted)
        if self.trainer is None:
            self._enter("idle")
        while True:
            self._watch_trainer()
            self._read_commands()
            self._act()
            self._heartbeat()
            if self.exiting is not None and self.trainer is None and self.action is None:
                self._enter("exited", self.exiting)
                return 0
            time.sleep(TICK_S)

    def _interrupted(self, number: int, frame: object) -> None:
        name = signal.Signals(number).name
        if number == signal.SIGHUP and self.trainer is not None and not sys.stdout.isatty():
            return  # a closed terminal does not end a detached daemon
        self.exiting = f"{name} received"
        if self.trainer is not None:
            self.trainer.stop("stopped")

    def _enter(self, state: str, reason: str | None = None) -> None:
        if state == self.state and reason is None:
            return
        self.state = state
        self._write_state(state, reason)
        self.say(state + (f": {reason}" if reason else ""))

    def _write_state(self, state: str, reason: str | None) -> None:
        run = self.run_now
        self.log.append(
            DaemonState(
                time=time.time(),
                state=state,
                pid=os.getpid(),
                run_id=run.run_id if run else None,
                step=self._step() if run else None,
                reason=reason,
                alive=self._alive,
                progress=self.trainer.phase.progress if self.trainer else 0,
            )
        )
        self._beat_at = time.monotonic()

    def _heartbeat(self) -> None:
        self._alive += 1
        if time.monotonic() - self._beat_at > HEARTBEAT_S:
            self._write_state(self.state, self.trainer.phase.reason if self.trainer else None)

    def _step(self) -> int:
        return self.run_now.step if self.run_now else 0

    # ---- the trainer ----

    def _watch(self, folder: Path) -> None:
        if self.run_now is not None:
            self.run_now.close()
        self.run_now = WatchedRun(folder)
        self.run_now.catch_up()

    def _new_run(self, config: Config, parent: str | None, command: str | None, notes: list[str]) -> None:
        folder = make_run_folder(self.logs, config.experiment.name)
        (folder / CONFIG).write_text(configuration.dump(config), encoding="utf-8")
        (folder / CONFIG).chmod(0o600)
        AppendLog(folder / RUN_LOG).close()  # empty as yet: with it the folder is a run, and can be watched
        self._watch(folder)
        self._spawn(Attempt(attempt=1, parent=parent, command=command, notes=notes))

    def _spawn(self, attempt: Attempt) -> None:
        assert self.run_now is not None
        folder = self.run_now.folder
        distributed = configuration.load(folder / CONFIG, expand=False).distributed
        attempt.argv = sys.orig_argv
        self.trainer = TrainerProcess(folder, attempt, distributed)
        self._enter("preparing", f"attempt {attempt.attempt} of {self.run_now.run_id}, pid {self.trainer.pid}")

    def _watch_trainer(self) -> None:
        trainer, run = self.trainer, self.run_now
        if trainer is None or run is None:
            return
        code = trainer.ended()  # asked first: what it wrote before it ended is then read to the end below
        for phase in trainer.phases():
            if phase.state not in ("starting", "ended", self.state):
                self._enter(phase.state)
        for finding in run.poll():
            self.say(finding.message)
            self._guard(finding.rule, run)
        run.clock(time.time(), training=trainer.phase.state == "training")
        if (sent := trainer.escalate()) is not None:
            self._write_state(self.state, f"the trainer does not stop: {sent.name} sent to pid {trainer.pid}")
        if code is None:
            return
        reason = how_it_ended(code)
        if run.end is None:
            words = trainer.last_words()
            error = f"the trainer ended with {reason}" + (f": {words}" if words else "")
            run.append(End(time=time.time(), step=run.step, reason="failed", error=error))
            run.poll()
        trainer.close()
        self.trainer = None
        assert run.end is not None
        said = run.end.reason + (f": {run.end.error}" if run.end.error else f" at step {run.end.step:,}")
        if self.action is None or self.action.waits_for != "exit":
            self._enter("idle", said)

    def _guard(self, rule: str, run: WatchedRun) -> None:
        """`guard.on_error`: what an unwatched run does about a fault (severity error)."""
        policy = configuration.load(run.folder / CONFIG, expand=False).guard.on_error
        if policy == "warn" or self.trainer is None:
            return
        self._write_state(self.state, f"guard: {rule}: {policy}")
        if policy == "stop":
            self.trainer.stop("stopped")
        else:
            self.trainer.order(Order(order="checkpoint"))

    # ---- commands ----

    def _new_commands(self) -> list[Command]:
        """Commands that came in and were never answered; lines that are none are rejected here."""
        known = self.control.unsafe
        found = self.control.read()
        if self.control.unsafe is not None and self.control.unsafe != known:
            self._write_state(self.state, f"the control file is not obeyed: {self.control.unsafe}")
            self.say(self.control.unsafe)
        commands: list[Command] = []
        for line in found:
            if isinstance(line, Command):
                commands.append(line)
            elif line.id not in self.answered:
                self._record(line.id, line.command, REJECTED, line.reason)
        return commands

    def _read_commands(self) -> None:
        for command in self._new_commands():
            if str(command.id) in self.answered:
                continue  # each id is carried out at most once, and a second line with it gets no second answer
            if command.deadline is not None and command.deadline < time.time():
                self._answer(command, EXPIRED, "it came too late: its time had run out before the daemon read it")
                continue
            reason = refusal(command, self.run_now, training=self.trainer is not None)
            if reason is not None:
                self._answer(command, REJECTED, reason)
                continue
            self._answer(command, ACCEPTED)
            if command.command == "stop":
                self._cut_short(command)
                self.queue.insert(0, command)
            else:
                self.queue.append(command)

    def _cut_short(self, stop: Command) -> None:
        """A stop does not wait for the first step of a resume or restart that is on its way."""
        self._give_up(f"cut short by stop {stop.id}")

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
            if self.trainer is None or not self.trainer.order(Order(order="checkpoint", command=command.id)):
                self._finish(FAILED, "the trainer ended before it could write one")
            return
        self.action = Action(command, "exit")
        if name == "stop" and command.exit:
            self.exiting = "stopped on request"
        if self.trainer is not None:
            self.trainer.stop("restarted" if name == "restart" else "stopped")
        if name in ("restart", "resume"):
            self._enter("restarting", f"{name} {command.id}")

    def _advance(self, action: Action) -> None:
        run = self.run_now
        if action.waits_for == "exit":
            if self.trainer is None:
                self._continue(action)
            return
        assert run is not None
        if action.waits_for == "first_step":
            if run.attempt == action.attempt and run.first_step is not None:
                effect = numbers(run.first_step) | {"run_id": run.run_id}
                if run.run is not None and run.run.checkpoint:
                    effect["checkpoint"] = run.run.checkpoint
                self._finish(DONE, "; ".join(action.notes) or None, effect)
            elif self.trainer is None:
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
        elif self.trainer is None:
            self._finish(FAILED, "the trainer ended before it could write one")

    def _continue(self, action: Action) -> None:
        """The trainer is gone: answer a stop, or go on with the restart or resume."""
        command, run = action.command, self.run_now
        if command.command == "stop":
            saved = run.checkpoints[-1].path if run and run.checkpoints else None
            effect: dict[str, Any] = {"step": self._step(), "checkpoint": saved}
            self._enter("idle", f"stopped at step {self._step():,}")
            self._finish(DONE, None, effect)
            return
        assert run is not None
        action.waits_for = "first_step"
        if command.command == "restart":
            try:
                config = config_for(command, run)
                notes = [f"a fresh restart of {run.run_id}"]
                self._new_run(config, parent=run.run_id, command=command.id, notes=notes)
            except (ConfigError, OSError) as error:
                self._enter("idle", str(error))
                self._finish(FAILED, str(error))
                return
            action.attempt = 1
            return
        self._resume(action, run)

    def _resume(self, action: Action, run: WatchedRun) -> None:
        command = action.command
        try:
            name, problems = (command.checkpoint, []) if command.checkpoint else run.newest_good()
            step = run.verify(name) if name else 0
        except BadCheckpoint as error:
            self._enter("idle", str(error))
            self._finish(FAILED, str(error))
            return
        action.notes += problems
        overrides = run.overrides_until(step)
        change: dict[str, Any] = {"command": command.id, "from_step": step, "time": time.time()}
        if command.lr is not None:
            change |= {"lr": command.lr, "then": command.then, "force": command.force}
            overrides = [*overrides, change]
        elif overrides:
            overrides = [*overrides, change]
        config = configuration.load(run.folder / CONFIG, expand=False)
        notes = [f"resumed from {name}" if name else "no checkpoint yet: begins at step 0", *problems]
        if config.inject:
            notes.append(f"the injected fault ({config.inject}) is off from this attempt on")
            config.inject = None
            (run.folder / CONFIG).write_text(configuration.dump(config), encoding="utf-8")
        action.attempt = run.attempt + 1
        self._spawn(
            Attempt(
                attempt=action.attempt,
                parent=run.run.parent if run.run else None,
                checkpoint=name,
                overrides=overrides,
                command=command.id,
                notes=notes,
            )
        )

    def _finish(self, status: str, reason: str | None, effect: dict[str, Any] | None = None) -> None:
        assert self.action is not None
        command, self.action = self.action.command, None
        self._answer(command, status, reason, effect)

    def _answer(
        self, command: Command, status: str, reason: str | None = None, effect: dict[str, Any] | None = None
    ) -> None:
        self._record(str(command.id), command.command, status, reason, effect)

    def _record(
        self, command_id: str, name: str | None, status: str, reason: str | None, effect: dict[str, Any] | None = None
    ) -> None:
        self.answered[command_id] = status
        run = self.run_now
        self.log.append(
            Answer(
                time=time.time(),
                id=command_id,
                command=name,
                status=status,
                reason=reason,
                run_id=run.run_id if run else None,
                attempt=run.attempt if run else None,
                step=self._step() if run else None,
                effect=effect,
            )
        )
        self.log.sync()
        self.say(f"{name or 'line'} {command_id[:8]}: {status}" + (f": {reason}" if reason else ""))
