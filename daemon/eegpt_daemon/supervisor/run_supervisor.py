"""The newest run of a log root: begins its trainers, watches them, says how each ended, starts one again that died."""

from __future__ import annotations

import errno
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from eegpt_daemon import crash_points
from eegpt_daemon.link import BOTH_DIED, ORPHAN_PATIENCE_S, RUN_LOCK, SUPERVISOR_GONE, Attempt, Order
from eegpt_daemon.script.template import resolved
from eegpt_daemon.supervisor import notify
from eegpt_daemon.supervisor.answers import DaemonLog
from eegpt_daemon.supervisor.hang import PREPARING, HangWatch
from eegpt_daemon.supervisor.process import CALM, HUNG, Escalation, TrainerProcess
from eegpt_daemon.supervisor.restarts import PlannedRestart, Restarts, cause_of, end_in_words, oom_kills
from eegpt_daemon.supervisor.script_process import ScriptProcess
from eegpt_daemon.supervisor.twin import TwinProcess
from eegpt_daemon.supervisor.watched_run import BadCheckpoint, WatchedRun
from eegwatch.run import config as configuration
from eegwatch.run.config import Config, ConfigError, Guard, Notify, Supervision
from eegwatch.run.control import Command, lock_holder
from eegwatch.run.folder import CONFIG, RUN_LOG, file_hash, make_run_folder, newest_run, write_whole
from eegwatch.run.log import AppendLog
from eegwatch.run.records import Checkpoint, End
from eegwatch.run.seed_series import as_series, folder_name, next_seed, place_of
from eegwatch.steering.inbox import relay

TICK_S = 0.1
ENDED_BY_ITSELF = ("completed", "early_stopped")
CANNOT_BEGIN = (BadCheckpoint, ConfigError, OSError)  # why an attempt may not be begun: words for a person


class Ending(NamedTuple):
    """How a trainer ended: exit code (negative: a signal; a hung one counts as killed), that in words, its phase."""

    code: int
    cause: str
    phase: str


class RunSupervisor:
    """One per daemon. `current`: the newest run of the log root; `trainer`: its process, while one lives."""

    def __init__(self, logs: Path, log: DaemonLog, notifier: notify.Notifier, say: Callable[[str], None]) -> None:
        self.logs, self.log, self.notifier, self.say = logs, log, notifier, say
        self.current: WatchedRun | None = None
        self.trainer: TrainerProcess | None = None
        self.planned_restart: PlannedRestart | None = None  # a start that is due by itself
        self.restarts: Restarts | None = None  # of the current run
        self.hang, self.guard = HangWatch(Supervision()), Guard()  # of the current trainer
        self.twin = TwinProcess(log.note)
        self._oom_kills = 0
        self._hung: str | None = None

    @property
    def step(self) -> int:
        return self.current.step if self.current else 0

    def figures(self) -> dict[str, Any]:
        """The fields that each record of the daemon's state carries."""
        return {
            "run_id": self.current.run_id if self.current else None,
            "step": self.step if self.current else None,
            "progress": self.trainer.phase.progress if self.trainer else 0,
            "moved": self.hang.moved if self.trainer else None,
        }

    def remark(self) -> str | None:
        """The remark about the trainer in a heartbeat."""
        if self._hung is not None:
            return self._hung
        if self.trainer is not None:
            return self.trainer.insisted or self.trainer.phase.reason
        return self.planned_restart.note if self.planned_restart else None

    # ---- what an earlier daemon left ----

    def take_over(self) -> None:
        """Wait for the trainer of a daemon that was killed, and close the attempt of one that died with it."""
        newest = newest_run(self.logs)
        if newest is None:
            return
        if self._adopt(newest):
            return
        self._await_orphan(newest)
        run = self._watch(newest)
        if run.record is not None and run.end is None:
            run.append(End(time=time.time(), step=run.step, reason="failed", error=BOTH_DIED))
            run.poll()

    def _adopt(self, folder: Path) -> bool:
        """Take over a script that went on while no daemon was there; True if one does."""
        pid = lock_holder(folder / RUN_LOCK)
        run = self._watch(folder)
        if pid is None or run.script is None:
            return False
        config = configuration.load(folder / CONFIG, expand=False)
        self.notifier.settings, self.guard = config.notify, config.guard
        self.restarts, self.hang = Restarts(config.supervision), HangWatch(config.supervision)
        self._oom_kills = oom_kills()
        self.trainer = ScriptProcess(folder, Attempt(attempt=run.attempt), adopted=pid)
        self.log.enter("training", f"took over the script of {run.run_id} (runner pid {pid})")
        return True

    def _await_orphan(self, folder: Path) -> None:
        """Wait for a trainer whose daemon was killed: it writes a checkpoint and an `end` record before it ends."""
        pid, end = lock_holder(folder / RUN_LOCK), time.monotonic() + ORPHAN_PATIENCE_S
        if pid is not None:
            reason = f"waiting for the trainer of the daemon before (pid {pid}) to checkpoint and leave"
            self.log.enter("starting", reason)
        while lock_holder(folder / RUN_LOCK) is not None and time.monotonic() < end:
            self.log.heartbeat("waiting for the trainer of the daemon before")
            time.sleep(TICK_S)

    # ---- beginning ----

    def _watch(self, folder: Path) -> WatchedRun:
        if self.current is not None:
            self.current.close()
        self.current = WatchedRun(folder, say=self.say)
        self.current.catch_up()
        return self.current

    def begin(self, config: Config, parent: str | None, command: str | None, notes: list[str]) -> None:
        """A new run and its first trainer. Raises ConfigError, OSError."""
        if config.script is not None:
            config.script = resolved(config.script)
        experiment = config.experiment
        as_series(config)
        name = experiment.name if experiment.seeds is None else folder_name(experiment.name, experiment.seed)
        folder = make_run_folder(self.logs, name)
        crash_points.point("run.after_folder")
        if experiment.seeds is not None and experiment.series is None:
            experiment.series = folder.name
        write_whole(folder / CONFIG, configuration.dump(config).encode())
        crash_points.point("run.after_config")
        self.restarts = None
        AppendLog(folder / RUN_LOG).close()  # empty as yet: with it the folder is a run, and can be watched
        self._watch(folder)
        place = place_of(folder)
        if place is not None:
            number = place.seeds.index(place.seed) + 1 if place.seed in place.seeds else 0
            notes = [*notes, f"seed {place.seed}: {number} of {len(place.seeds)} of the series {place.series}"]
        self._spawn(Attempt(attempt=1, parent=parent, command=command, notes=notes))

    def go_on(self, run: WatchedRun, command: Command | None, name: str | None, notes: list[str]) -> list[str]:
        """Begin the next attempt from a checkpoint (default: the newest good one); returns what was wrong with others.

        `command`: the resume that asks for it; None for a trainer that died, which goes on along the same rates. Raises
        what CANNOT_BEGIN names.
        """
        name, problems = (name, []) if name else run.newest_good()
        step = run.verify(name) if name else 0
        overrides = _overrides(run, command, step)
        config = configuration.load(run.folder / CONFIG, expand=False)
        notes = [*notes, f"resumed from {name}" if name else "no checkpoint yet: begins at step 0", *problems]
        if config.inject and command is not None:
            notes.append(f"the injected fault ({config.inject}) is off from this attempt on")
            config.inject = None
            write_whole(run.folder / CONFIG, configuration.dump(config).encode())
        self._spawn(
            Attempt(
                attempt=run.attempt + 1,
                parent=run.record.parent if run.record else None,
                parent_step=run.record.parent_step if run.record else None,
                checkpoint=name,
                overrides=overrides,
                command=command.id if command else None,
                notes=notes,
                keep=run.asked_for(),
                ended=run.end.reason if run.end else None,
            )
        )
        return problems

    def branch(self, run: WatchedRun, command: Command, name: str) -> list[str]:
        """A new run from a checkpoint of this one, which stays as it is; returns what was wrong with newer checkpoints.

        Raises what CANNOT_BEGIN names.
        """
        start, problems = (command.checkpoint, []) if command.checkpoint else run.newest_good()
        if start is None:
            raise BadCheckpoint(f"{run.run_id} has no checkpoint yet from which a run could branch off")
        step = run.verify(start)
        config = configuration.load(run.folder / CONFIG, expand=False)
        config.experiment.name, config.inject = name, None
        config.experiment.seeds = config.experiment.series = None  # a branch is no further seed of its parent's series
        folder = make_run_folder(self.logs, name)
        crash_points.point("run.after_folder")
        write_whole(folder / CONFIG, configuration.dump(config).encode())
        path = start
        if run.script is None:  # its own copy: the parent's may be pruned
            write_whole(folder / start, (run.folder / start).read_bytes())
        else:  # a script's may be folders of gigabytes: it is read from where it lies
            path = str((run.folder / start).resolve())
        digest = file_hash(folder / path) if run.script is None else None
        log = AppendLog(folder / RUN_LOG)
        log.append(Checkpoint(time=time.time(), step=step, path=path, sha256=digest))
        log.sync()
        log.close()
        crash_points.point("run.after_config")
        self.restarts = None
        self._watch(folder)
        overrides = _overrides(run, command, step)
        notes = [f"branched off {run.run_id} at step {step:,} ({start})", *problems]
        self._spawn(
            Attempt(
                parent=run.run_id,
                parent_step=step,
                checkpoint=path,
                overrides=overrides,
                command=command.id,
                notes=notes,
                keep=[path],
            )
        )
        return problems

    def _spawn(self, attempt: Attempt) -> None:
        assert self.current is not None
        folder = self.current.folder
        config = configuration.load(folder / CONFIG, expand=False)
        if not self.current.settle():  # the `end` of the attempt before comes before the `run` of the next
            raise OSError(errno.ENOSPC, "cannot be written (a full disk?); nothing was begun", str(folder / RUN_LOG))
        self.twin.give_way()
        attempt.argv = sys.orig_argv
        self.planned_restart, self._hung = None, None
        self.notifier.settings = self._notify(config)
        patient = config.distributed.nnodes > 1 or config.script is not None  # one says nothing while it prepares
        self.restarts = self.restarts or Restarts(config.supervision)
        self.restarts.began(self.current.checkpoint_step(attempt.checkpoint))
        self.hang, self._oom_kills = HangWatch(config.supervision, patient=patient), oom_kills()
        self.guard = config.guard
        if config.script is not None:
            self.trainer = ScriptProcess(folder, attempt)
        else:
            self.trainer = TrainerProcess(folder, attempt, config.distributed)
        crash_points.point("attempt.after_spawn")
        self.log.enter("preparing", f"attempt {attempt.attempt} of {self.current.run_id}, pid {self.trainer.pid}")

    def _notify(self, config: Config) -> Notify:
        """The notifier of a run. A missing environment variable does not keep the run from starting."""
        try:
            return configuration.expanded_notify(config.notify)
        except ConfigError as error:
            self.log.note(f"no messages are sent: {error}")
            return Notify()

    def stop(self, reason: str, escalation: Escalation = CALM) -> None:
        """Have the trainer checkpoint, write an `end` with this reason, and leave."""
        if self.trainer is not None:
            self.trainer.stop(reason, escalation)

    def order_checkpoint(self, command: str | None = None) -> bool:
        """False without a trainer."""
        return self.trainer is not None and self.trainer.order(Order(order="checkpoint", command=command))

    # ---- watching ----

    def look(self) -> Ending | None:
        """Read what the trainer says and writes, and see to it; its ending, once."""
        trainer, run = self.trainer, self.current
        if trainer is None or run is None:
            return None
        code = trainer.ended()  # asked first: what it wrote before it ended is then read to the end below
        for phase in trainer.phases():
            if phase.state not in ("starting", "ended", self.log.state):
                self.log.enter(phase.state)
        for finding in run.poll():
            self.say(finding.message)
            self._guard(finding.rule)
        run.clock(time.time(), training=trainer.phase.state == "training")
        for news in run.news:
            self.notifier.tell(notify.message_of_finding(run.run_id, news))
        run.news.clear()
        if run.trouble is not None:
            self.log.note(run.trouble)
            run.trouble = None
        if trainer.escalate():
            self.log.note(trainer.insisted)
        if code is None:
            self._look_for_a_hang(trainer)
            return None
        words = trainer.last_words()
        cause = (
            f"hung: {self._hung}"
            if self._hung
            else cause_of(trainer.known_code(), words, oom_kills() - self._oom_kills)
        )
        if run.end is None:
            last = trainer.last_words(lines=1)[:200]  # more is in trainer.log
            error = f"the trainer ended with {cause}" + (f": {last}" if last else "")
            run.append(End(time=time.time(), step=run.step, reason="failed", error=error))
            run.poll()
        trainer.close()
        self.trainer = None
        return Ending(-signal.SIGKILL if self._hung else code, cause, trainer.phase.state)

    def _look_for_a_hang(self, trainer: TrainerProcess) -> None:
        """A trainer that lives and does nothing: its stack into trainer.log, then what `supervision.hung` says."""
        hung = self.hang.look(trainer.phase.state, trainer.phase.progress)
        if hung is None or self._hung is not None or trainer.stopping is not None:
            return
        trainer.dump_stack()
        action = self.hang.settings.hung.action
        self.log.note(f"hung: {hung}; its stack is in trainer.log ({action})")
        self.say(f"hung: {hung} ({action})")
        if action != "warn":
            self._hung = hung
            trainer.stop("stopped", HUNG)

    def _guard(self, rule: str) -> None:
        """`guard.on_error`: what an unwatched run does about a fault (severity error)."""
        policy = self.guard.on_error
        if policy == "warn" or self.trainer is None:
            return
        self.log.note(f"guard: {rule}: {policy}")
        if policy == "stop":
            self.trainer.stop("stopped")
        elif self.current is not None and self.current.script is not None:
            self._ask_the_script(rule)
        else:
            self.order_checkpoint()

    def _ask_the_script(self, rule: str) -> None:
        """A checkpoint of a script, which RunLog in it is asked for."""
        assert self.current is not None
        now = time.time()
        name, run_id = f"guard-{rule}-{now:.3f}", self.current.run_id
        if not relay(self.logs, Command(command="checkpoint", id=name, time=now, run_id=run_id, by="guard")):
            self.log.note(f"guard: {rule}: this script saves at its own times, and does not use RunLog")

    # ---- after the end ----

    def conclude(self, ending: Ending, *, exiting: bool) -> None:
        """Idle, or restarting by itself where the trainer died and `supervision.restarts` allows it."""
        run = self.current
        assert run is not None
        end, reason = run.end, end_in_words(run.end, ending.cause)
        # torch's launcher alone was killed: its trainer took that for the end of this daemon, which lives
        orphaned = end is not None and end.error == SUPERVISOR_GONE
        died = self._hung is not None or end is None or end.reason == "failed" or orphaned
        left = self._hung is not None and self.hang.settings.hung.action == "stop"
        if not died or left or exiting or self.restarts is None:
            seed = next_seed(run.folder) if not exiting and end is not None and end.reason in ENDED_BY_ITSELF else None
            if seed is None:
                self.log.enter("idle", reason)
            else:  # begun by `start_planned`, after a command that waited for this end has had its answer
                self.planned_restart = PlannedRestart(time.monotonic(), f"seed {seed} of the series follows", seed)
                self.log.enter("restarting", f"{reason}; {self.planned_restart.note}")
        else:
            newest, _ = run.newest_good()
            outcome = self.restarts.after(
                ending.code, ending.cause, run.checkpoint_step(newest), preparing=ending.phase in PREPARING
            )
            if isinstance(outcome, str):
                reason = f"{reason}; not restarted: {outcome}"
                self.log.enter("idle", reason)
            else:
                self.planned_restart = outcome
                self.log.enter("restarting", f"in {outcome.due - time.monotonic():.0f} s: {outcome.note}")
                reason = f"{reason}; {outcome.note}"
        self.notifier.tell(notify.message_of_end(run.run_id, end, reason))
        if self.guard.twin and self.planned_restart is None and not exiting and end is not None:
            self._begin_the_twin(run, end)

    def _begin_the_twin(self, run: WatchedRun, end: End) -> None:
        """Begin computing the cost of a fault, for a completed run of the own trainer (a script's data are unknown)."""
        if run.script is not None:
            self.log.note("guard: twin: a script's run has none")
        elif end.reason in ENDED_BY_ITSELF:
            try:
                self.twin.begin(run.folder)
            except OSError as error:
                self.log.note(f"guard: twin: not begun: {error}")

    def next_of_series(self) -> bool:
        """Begin the run of the next seed, where the current run is of a series that has one; False if not."""
        run = self.current
        seed = next_seed(run.folder) if run is not None else None
        if run is None or seed is None:
            return False
        try:
            config = configuration.load(run.folder / CONFIG, expand=False)
            config.experiment.seed = seed
            self.begin(config, parent=None, command=None, notes=[])
        except CANNOT_BEGIN as error:
            self.log.enter("idle", f"the series stops before seed {seed}: {error}")
        return True

    def start_planned(self) -> None:
        """Start a trainer again that died, once its pause is over."""
        self.twin.look()
        if self.planned_restart is None or self.current is None or time.monotonic() < self.planned_restart.due:
            return
        revival, self.planned_restart = self.planned_restart, None
        if revival.seed is not None:
            self.next_of_series()
            return
        try:
            self.go_on(self.current, None, None, [revival.note])
        except CANNOT_BEGIN as error:
            self.log.enter("idle", f"not restarted: {error}")


def _overrides(run: WatchedRun, command: Command | None, step: int) -> list[dict[str, Any]]:
    """The manual changes of the rate for an attempt from this step on, including the commanded one."""
    overrides = run.overrides_until(step)
    if command is None or (command.lr is None and not overrides):
        return overrides
    change: dict[str, Any] = {"command": command.id, "from_step": step, "time": time.time()}
    if command.lr is not None:
        then = command.then or ("hold" if run.script is not None else "anneal")
        change |= {"lr": command.lr, "then": then, "force": command.force}
    return [*overrides, change]
