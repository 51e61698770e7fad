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
from eegpt_daemon.process import HUNG, HURRY, TrainerProcess
from eegpt_daemon.restarts import HangWatch, Restarts, Revival, cause_of, in_words, oom_kills
from eegpt_daemon.systemd import notify_state
from eegpt_daemon.trainer.attempt import BOTH_DIED, ORPHAN_PATIENCE_S, RUN_LOCK, Attempt, Order
from eegpt_daemon.watched_run import BadCheckpoint, WatchedRun, numbers
from eegwatch.run import config as configuration
from eegwatch.run.config import Config, ConfigError
from eegwatch.run.control import (
    CONTROL,
    HEARTBEAT_S,
    LOCK,
    Command,
    lock_holder,
    take_lock,
)
from eegwatch.run.folder import CONFIG, RUN_LOG, make_run_folder, newest_run, write_whole
from eegwatch.run.log import AppendLog
from eegwatch.run.records import TERMINAL, End

TICK_S = 0.1
DONE, FAILED, REJECTED, EXPIRED, ACCEPTED = "done", "failed", "rejected", "expired", "accepted"
INTERRUPTS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


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
        self.restarts: Restarts | None = None  # of the current run
        self.revival: Revival | None = None  # a start that is due by itself
        self._hung: str | None = None
        self._unaccepted: list[Command] = []  # a full disk has not let them be accepted yet
        self.log = DaemonLog(logs, say)
        self.notifier = notify.Notifier(logs, say)
        self.control = ControlReader(logs / CONTROL)
        self._enter("starting")
        newest = newest_run(logs)
        if newest is not None:
            self._await_orphan(newest)
            self._watch(newest)
            self._close_open_attempt()
        self._settle_the_past()

    # ---- recovery ----

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
            run.append(End(time=time.time(), step=run.step, reason="failed", error=BOTH_DIED))
            run.poll()

    def _settle_the_past(self) -> None:
        """Lines from before this daemon never fire; what an earlier one had accepted is finished or reported failed."""
        expired = 0
        for command in self._new_commands():
            command_id = str(command.id)
            status = self.log.answered.get(command_id)
            if status in TERMINAL:
                continue
            if status == ACCEPTED:
                self._answer(command, *what_became_of(command, self.run_now))
            else:
                expired += 1
                reason = "it was there before this daemon started; send it again if it is still meant"
                self._answer(command, EXPIRED, reason)
        if expired:
            self.say(f"{expired} command(s) from before this daemon expired")

    # ---- life ----

    def start(self, config: Config) -> None:
        """Begin a new run with this configuration."""
        self._new_run(config, parent=None, command=None, notes=[])

    def go_on(self) -> bool:
        """Resume the newest run where a crash, a reboot or a signal cut it off; False where nothing was cut off."""
        run = self.run_now
        if run is None or not interrupted(run, self.log.last_before):
            return False
        try:
            self._go_on(run, None, None, ["continued by eegpt-daemon start --continue"])
        except (BadCheckpoint, ConfigError, OSError) as error:
            self._enter("idle", f"not continued: {error}")
        return True

    def run(self) -> int:
        """Live until told to exit; returns 0."""
        for number in INTERRUPTS:
            signal.signal(number, self._interrupted)
        if self.trainer is None and self.state == "starting":
            self._enter("idle")
        while True:
            self._watch_trainer()
            self._read_commands()
            self._act()
            self._revive()
            self._heartbeat()
            if self.exiting is not None and self.trainer is None and self.action is None:
                self._enter("exited", self.exiting)
                self.notifier.close()
                return 0
            time.sleep(TICK_S)

    def _interrupted(self, number: int, frame: object) -> None:
        name = signal.Signals(number).name
        if number == signal.SIGHUP and self.trainer is not None and not sys.stdout.isatty():
            return  # a closed terminal does not end a detached daemon
        self.exiting = f"{name} received"
        if self.trainer is not None:
            self.trainer.stop("stopped", HURRY)

    def _enter(self, state: str, reason: str | None = None) -> None:
        if state == self.state and reason is None:
            return
        self.state = state
        self._write_state(state, reason)
        self.say(state + (f": {reason}" if reason else ""))

    def _write_state(self, state: str, reason: str | None) -> None:
        run = self.run_now
        notify_state(state, reason)
        self.log.state(
            state,
            keep=reason is not None,
            run_id=run.run_id if run else None,
            step=self._step() if run else None,
            reason=reason,
            alive=self._alive,
            progress=self.trainer.phase.progress if self.trainer else 0,
        )

    def _heartbeat(self) -> None:
        self._alive += 1
        if time.monotonic() - self.log.wrote_at > HEARTBEAT_S:
            at_work = (self.trainer.insisted or self.trainer.phase.reason) if self.trainer else None
            self._write_state(self.state, self._hung or at_work or (self.revival.note if self.revival else None))

    def _step(self) -> int:
        return self.run_now.step if self.run_now else 0

    # ---- the trainer ----

    def _watch(self, folder: Path) -> None:
        if self.run_now is not None:
            self.run_now.close()
        self.run_now = WatchedRun(folder, say=self.say)
        self.run_now.catch_up()

    def _new_run(self, config: Config, parent: str | None, command: str | None, notes: list[str]) -> None:
        folder = make_run_folder(self.logs, config.experiment.name)
        crash.point("run.after_folder")
        write_whole(folder / CONFIG, configuration.dump(config).encode())
        crash.point("run.after_config")
        self.restarts = None
        AppendLog(folder / RUN_LOG).close()  # empty as yet: with it the folder is a run, and can be watched
        self._watch(folder)
        self._spawn(Attempt(attempt=1, parent=parent, command=command, notes=notes))

    def _spawn(self, attempt: Attempt) -> None:
        assert self.run_now is not None
        folder = self.run_now.folder
        config = configuration.load(folder / CONFIG, expand=False)
        attempt.argv = sys.orig_argv
        self.revival, self._hung = None, None
        self.notifier.settings = config.notify
        self.restarts = self.restarts or Restarts(config.supervision)
        self.restarts.began(self.run_now.checkpoint_step(attempt.checkpoint))
        self.hang, self._oom_kills = HangWatch(config.supervision), oom_kills()
        self.trainer = TrainerProcess(folder, attempt, config.distributed)
        crash.point("attempt.after_spawn")
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
        for news in run.news:
            self.notifier.tell(notify.of_finding(run.run_id, news))
        run.news.clear()
        if trainer.escalate():
            self._write_state(self.state, trainer.insisted)
        if code is None:
            self._look_for_a_hang(trainer)
            return
        words = trainer.last_words()
        cause = f"hung: {self._hung}" if self._hung else cause_of(code, words, oom_kills() - self._oom_kills)
        if run.end is None:
            error = f"the trainer ended with {cause}" + (f": {words}" if words else "")
            run.append(End(time=time.time(), step=run.step, reason="failed", error=error))
            run.poll()
        trainer.close()
        self.trainer = None
        if self.action is None or self.action.waits_for != "exit":
            self._after_the_end(run, signal.SIGKILL if self._hung else code, cause)

    def _look_for_a_hang(self, trainer: TrainerProcess) -> None:
        """A trainer that lives and does nothing: its stack into trainer.log, then what `supervision.hung` says."""
        hung = self.hang.look(trainer.phase.state, trainer.phase.progress)
        if hung is None or self._hung is not None or trainer.stopping is not None:
            return
        trainer.dump_stack()
        action = self.hang.settings.hung.action
        self._write_state(self.state, f"hung: {hung}; its stack is in trainer.log ({action})")
        self.say(f"hung: {hung} ({action})")
        if action != "warn":
            self._hung = hung
            trainer.stop("stopped", HUNG)

    def _after_the_end(self, run: WatchedRun, code: int, cause: str) -> None:
        """Idle, or restarting by itself where the trainer died and `supervision.restarts` allows it."""
        end = run.end
        said = in_words(end, cause)
        died = self._hung is not None or end is None or end.reason == "failed"
        left = self._hung is not None and self.hang.settings.hung.action == "stop"
        if not died or left or self.exiting is not None or self.restarts is None:
            self._enter("idle", said)
            self.notifier.tell(notify.of_end(run.run_id, end, said))
            return
        newest, _ = run.newest_good()
        outcome = self.restarts.after(code, cause, run.checkpoint_step(newest))
        if isinstance(outcome, str):
            said = f"{said}; not restarted: {outcome}"
            self._enter("idle", said)
        else:
            self.revival = outcome
            self._enter("restarting", f"in {outcome.due - time.monotonic():.0f} s: {outcome.note}")
            said = f"{said}; {outcome.note}"
        self.notifier.tell(notify.of_end(run.run_id, end, said))

    def _revive(self) -> None:
        """Start a trainer again that died, once its pause is over; a command or the daemon's exit comes first."""
        revival, run = self.revival, self.run_now
        if revival is None or run is None or time.monotonic() < revival.due:
            return
        self.revival = None
        if self.exiting is not None or self.action is not None or self.trainer is not None:
            return
        try:
            self._go_on(run, None, None, [revival.note])
        except (BadCheckpoint, ConfigError, OSError) as error:
            self._enter("idle", f"not restarted: {error}")

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
            busy = self.trainer is not None or self.revival is not None
            reason = refusal(command, self.run_now, training=busy)
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
        self.action, self.revival = Action(command, "exit"), None
        if name == "stop" and command.exit:
            self.exiting = "stopped on request"
        if self.trainer is not None:
            self.trainer.stop("restarted" if name == "restart" else "stopped")
        crash.point("command.after_act")
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
        try:
            action.notes += self._go_on(run, action.command, action.command.checkpoint, [])
        except (BadCheckpoint, ConfigError, OSError) as error:
            self._enter("idle", str(error))
            self._finish(FAILED, str(error))
            return
        action.attempt = run.attempt + 1

    def _go_on(self, run: WatchedRun, command: Command | None, name: str | None, notes: list[str]) -> list[str]:
        """Begin the next attempt from a checkpoint (default: the newest good one); returns what was wrong with others.

        `command`: the resume that asks for it; None for a trainer that died, which goes on along the same rates. Raises
        BadCheckpoint, ConfigError, OSError.
        """
        name, problems = (name, []) if name else run.newest_good()
        step = run.verify(name) if name else 0
        overrides = run.overrides_until(step)
        if command is not None:
            change: dict[str, Any] = {"command": command.id, "from_step": step, "time": time.time()}
            if command.lr is not None:
                change |= {"lr": command.lr, "then": command.then, "force": command.force}
                overrides = [*overrides, change]
            elif overrides:
                overrides = [*overrides, change]
        config = configuration.load(run.folder / CONFIG, expand=False)
        notes = [*notes, f"resumed from {name}" if name else "no checkpoint yet: begins at step 0", *problems]
        if config.inject and command is not None:
            notes.append(f"the injected fault ({config.inject}) is off from this attempt on")
            config.inject = None
            write_whole(run.folder / CONFIG, configuration.dump(config).encode())
        self._spawn(
            Attempt(
                attempt=run.attempt + 1,
                parent=run.run.parent if run.run else None,
                checkpoint=name,
                overrides=overrides,
                command=command.id if command else None,
                notes=notes,
            )
        )
        return problems

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
        run = self.run_now
        written = self.log.answer(
            command_id,
            name,
            status,
            reason=reason,
            run_id=run.run_id if run else None,
            attempt=run.attempt if run else None,
            step=self._step() if run else None,
            effect=effect,
        )
        self.say(f"{name or 'line'} {command_id[:8]}: {status}" + (f": {reason}" if reason else ""))
        return written
