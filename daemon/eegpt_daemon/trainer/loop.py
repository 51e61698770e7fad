"""The training loop: one attempt, every optimizer step logged, nothing lost.

The learning rate is a pure function of the global step, assigned before each optimizer step and logged as read back
from the optimizer. With several processes all of this runs in each, in step; rank 0 alone writes.
"""

from __future__ import annotations

import gc
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from eegpt_daemon import crash
from eegpt_daemon.data import prepare
from eegpt_daemon.data.corpus import CorpusError
from eegpt_daemon.data.features import Windows, WindowStore
from eegpt_daemon.link import SUPERVISOR_GONE, Attempt, Link, NullLink, Order
from eegpt_daemon.model.encoder import EncoderError
from eegpt_daemon.trainer import checkpoint as checkpoints
from eegpt_daemon.trainer import provenance
from eegpt_daemon.trainer.checkpoint import CheckpointError
from eegpt_daemon.trainer.evaluation import score
from eegpt_daemon.trainer.learner import Learner
from eegpt_daemon.trainer.scheduler import effective, torch_scheduler
from eegpt_daemon.trainer.vitals import Vitals
from eegpt_daemon.trainer.world import World
from eegwatch.run import config as configuration
from eegwatch.run.config import ConfigError
from eegwatch.run.folder import CONFIG, RUN_LOG
from eegwatch.run.log import AppendLog
from eegwatch.run.records import Checkpoint, End, Eval, Progress, Record, Run, Step
from eegwatch.schedule import Schedule, ScheduleError, as_dict, position_at, rate_at

USER_ERRORS = (ConfigError, CorpusError, EncoderError, CheckpointError, ScheduleError)
SYNC_EVERY_S = 1.0  # of log lost to a power cut at most; a killed process loses none
PROGRESS_EVERY_S = 0.5
RATES_AHEAD = 256
NOTHING, SAVE, STOP = 0.0, 1.0, 2.0  # what rank 0 wishes, summed with every step's loss so that all do it together


class Trainer:
    """One attempt at the run in `folder`. `run()` returns the exit code: 0 ended, 75 try again, 78 configuration."""

    def __init__(self, folder: Path, attempt: Attempt, link: Link | NullLink, world: World) -> None:
        self.folder, self.attempt, self.link, self.world = folder, attempt, link, world
        self._log = AppendLog(folder / RUN_LOG) if world.leads else None
        self.vitals = Vitals()
        self.step = 0
        self._progress_at = 0.0
        self._order: Order | None = None
        self._ahead: list[tuple[float, float]] = []

    def run(self) -> int:
        """Train to the end, a stop or an error; the `end` record says which."""
        error: str | None = None
        try:
            self._prepare()
            reason, code = self._train()
        except USER_ERRORS as problem:
            reason, error, code = "failed", str(problem), 78
            if self.world.leads:
                print(f"eegpt-daemon: {problem}", file=sys.stderr)
        except _Stopped as stopped:
            reason, code = stopped.reason, 0
        except Exception as problem:
            error = f"{type(problem).__name__}: {problem}"
            if self.world.lost_another(problem):
                error = f"another process of this run is gone, trainer.log may say why ({error[:80]} …)"
            self._end("failed", error)
            raise
        if reason == SUPERVISOR_GONE:
            reason, error, code = "stopped", SUPERVISOR_GONE, 75
        self._end(reason, error)
        self.link.phase("ended", self.step, code=code)
        self.world.leave()
        return code if self.world.size == 1 else 0  # torch's launcher answers any other code with a traceback

    def _end(self, reason: str, error: str | None) -> None:
        self._write(End(time=time.time(), step=self.step, reason=reason, error=error))
        self._sync()
        crash.point("end.after_record")

    def _write(self, record: Record) -> None:
        if self._log is not None:
            self._log.append(record)

    def _sync(self) -> None:
        if self._log is not None:
            self._log.sync()

    def _say(self, text: str) -> None:
        if self.world.leads:
            print(text, flush=True)

    # ---- preparation ----

    def _prepare(self) -> None:
        self.config = config = configuration.load(self.folder / CONFIG, expand=False)
        self.link.phase("preparing", reason="building the encoder")
        self.device = self.world.join()
        encoder, self.notes = prepare.build_encoder(config)
        store = prepare.store_for(config, encoder, self.device)
        data: prepare.Data | None = None
        try:
            self._load_checkpoint()
            if self.world.leads:
                data = self._data(store)
        finally:
            shared = self.world.share(data)
        if shared is None:
            raise _Stopped("rank 0 could not prepare")  # it has said why
        self.data = shared
        self._count(len(shared.train))
        self.learner = Learner(config, shared, encoder, store, self.world, self.device)
        self._restore()

    def _data(self, store: WindowStore) -> prepare.Data:
        planned = prepare.plan(self.config, store, self._silent_progress)
        self.notes = [*self.attempt.notes, *self.notes, *planned.notes]
        for note in self.notes:
            self._say(note)
        self._count(planned.windows["train"])
        self._begin()
        data = prepare.windows(self.config, store, planned, self._progress, self._say)
        if len(data.train) != planned.windows["train"]:  # a file kept less than its header promised
            said = f"{len(data.train):,} train windows were read, the headers promised {planned.windows['train']:,}"
            self._say(said)
            if self._count(len(data.train)):
                self.notes.append(said)
                self._begin()
        return data

    def _count(self, windows: int) -> bool:
        """Steps an epoch and in all, and the schedule over them; True if they changed."""
        training = self.config.training
        batches = -(-windows // (self.config.data.batch_size * self.world.size))
        per_epoch = max(1, -(-batches // training.gradient_accumulation_steps))
        changed = per_epoch != getattr(self, "steps_per_epoch", None)
        self.steps_per_epoch, self.total = per_epoch, per_epoch * training.max_epochs
        self.declared = configuration.schedule_of(self.config, per_epoch)
        self.schedule: Schedule = effective(self.declared, self.attempt.overrides, per_epoch)
        return changed

    def _load_checkpoint(self) -> None:
        """What can be held against the configuration before anything long begins."""
        self.state: dict[str, Any] | None = None
        name = self.attempt.checkpoint
        if name is None:
            return
        self.state = state = checkpoints.load(self.folder / name)
        self.step = int(state["step"])
        was, now = state["config_hash"], configuration.training_hash(self.config)
        if was != now:
            raise CheckpointError(
                f"{self.folder / CONFIG} has changed since {name} (hash {was}, now {now}); "
                "restore it, or start a fresh run with the new one"
            )
        if state["world_size"] != self.world.size:
            raise CheckpointError(
                f"{name} was trained by {state['world_size']} process(es), now there are {self.world.size}: batches "
                "and random states would differ; set distributed as it was, or start a fresh run"
            )

    def _begin(self) -> None:
        """The `run` record: first line of the attempt."""
        config, state = self.config, self.state
        restored = None
        if state is not None:
            restored = {"step": state["step"], "position": state["position"], "total_steps": state["total_steps"]}
        target = {"auroc": config.target_metrics.auroc} if config.target_metrics.auroc is not None else None
        self._write(
            Run(
                time=time.time(),
                run_id=self.folder.name,
                attempt=self.attempt.attempt,
                name=config.experiment.name,
                step=self.step,
                total_steps=self.total,
                steps_per_epoch=self.steps_per_epoch,
                epochs=config.training.max_epochs,
                batch_size=config.data.batch_size,
                accumulate=config.training.gradient_accumulation_steps,
                world_size=self.world.size,
                schedule=as_dict(self.schedule),
                target=target,
                expected=configuration.expected_rates(config) or None,
                parent=self.attempt.parent,
                checkpoint=self.attempt.checkpoint,
                restored=restored,
                overrides=self.attempt.overrides,
                command=self.attempt.command,
                inject=config.inject,
                detectors=dict(config.detectors),
                notes=self.notes,
                seed=config.experiment.seed,
                config=msgspec.to_builtins(config),
                argv=self.attempt.argv,
                **provenance.of_this_process(),
            )
        )
        self._sync()
        crash.point("attempt.after_run_record")

    def _silent_progress(self, what: str, done: int, total: int) -> None:
        """Progress before the `run` record, which must be the attempt's first line: told to the supervisor alone."""
        self._obey_while_preparing()
        self.link.tick(self.step, f"{what}: {done} of {total}")

    def _progress(self, what: str, done: int, total: int) -> None:
        self._obey_while_preparing()
        self.link.tick(self.step, f"{what}: {done} of {total}")
        if done == total or time.monotonic() - self._progress_at > PROGRESS_EVERY_S:
            self._progress_at = time.monotonic()
            self._write(Progress(time=time.time(), what=what, done=done, total=total))

    def _obey_while_preparing(self) -> None:
        order = self.link.order()
        if order is None:
            return
        if order.order == "stop":
            raise _Stopped(order.reason)
        self.link.put_back(order)  # a checkpoint is possible once there is a model

    def _restore(self) -> None:
        """The learner as the checkpoint left it; or as it begins."""
        config, state, learner = self.config, self.state, self.learner
        self.best, self.waited = -np.inf, 0
        self.ranking: list[tuple[float, str]] = []
        if learner.span is not None:
            if state is None:
                learner.standardise_by_sample()
            self._say_cost()
        if state is not None:
            name = str(self.attempt.checkpoint)
            if state["data_hash"] != self.data.hash():
                raise CheckpointError(
                    f"{config.data.root_dir} is not the corpus that {name} was trained on: files, labels, windows or "
                    "features differ; restore it, or start a fresh run"
                )
            if state["steps_per_epoch"] != self.steps_per_epoch or state["sampler"]["seed"] != config.experiment.seed:
                raise CheckpointError(f"{name}: the epoch is another one: its order of windows cannot be restored")
            learner.restore(state, name)
            self.best, self.waited = state["best"], state["waited"]
            self.ranking = [(float(value), str(path)) for value, path in state["ranking"]]
        self.injected = torch_scheduler(self.declared, learner.optimizer) if config.inject else None
        if self.injected is not None and self.state is not None:  # a trainer that died goes on with its fault
            for _ in range(int(self.state["position"])):
                self.injected.step()

    def _say_cost(self) -> None:
        """What training through the backbone costs here: measured on one batch, before the first step."""
        seconds = self.learner.seconds_a_step(self._windows_a_step)
        hours = seconds * self.steps_per_epoch / 3600
        windows = self._windows_a_step / seconds
        said = (
            f"every step runs the backbone: {seconds:.2f} s ({windows:.1f} windows/s), about {hours:.1f} h an epoch; "
            "with a frozen backbone and no channel adapter, features are computed once and a step takes milliseconds"
        )
        self._say(said)
        if self.world.leads:
            self.notes.append(said)
            self._begin()

    # ---- the loop ----

    @property
    def _windows_a_step(self) -> int:
        training = self.config.training
        return self.config.data.batch_size * self.world.size * training.gradient_accumulation_steps

    def _train(self) -> tuple[str, int]:
        """Returns (reason of the end, exit code)."""
        config, training = self.config, self.config.training
        size, share = self._windows_a_step, training.val_check_interval
        eval_every = max(1, round(share * self.steps_per_epoch)) if share <= 1 else int(share)
        pace = 1 / training.pace_steps_per_s if training.pace_steps_per_s else 0.0
        self._saved_at = self._synced_at = time.monotonic()
        self._saved_step = self.step  # resumed from there, or nothing to save yet
        self._saved: Checkpoint | None = None
        began, rate, taken = time.perf_counter(), 0.0, 0
        due = time.monotonic()
        gc.collect()
        gc.freeze()  # torch's half a million objects need no visit by every full collection: 3 % of a step
        self.link.phase("training", self.step)
        while self.step < self.total:
            wish = self._wish()
            epoch, batch = divmod(self.step, self.steps_per_epoch)
            which = self.learner.batch(epoch, batch, size)
            lr, position = self._rate_and_position(self.step + 1)
            part, grad_norm, used = self.learner.step(which, lr)
            loss, wish = self.world.sum([part, wish])
            self.step += 1
            now = time.perf_counter()
            speed = len(which) / max(now - began, 1e-9)
            taken += 1
            rate = speed if taken <= 2 else 0.9 * rate + 0.1 * speed  # the first step warms caches up
            began = now
            if self._log is not None:
                self._log.append(
                    Step(
                        time=time.time(),
                        step=self.step,
                        epoch=epoch,
                        batch=batch + 1,
                        lr=used,
                        position=position,
                        loss=loss,
                        grad_norm=grad_norm,
                        samples_per_s=rate,
                    )
                )
            if self.step % config.logging.log_every_n_steps == 0:
                self._say(
                    f"epoch {epoch + 1}/{training.max_epochs} step {self.step}/{self.total} "
                    f"loss {loss:.4f} lr {used!r} grad_norm {grad_norm:.3f}"
                )
            if self.injected is not None and batch + 1 == self.steps_per_epoch:
                self.injected.step()  # the historical bug, on purpose: once an epoch
            self.link.tick(self.step)
            ended = self._housekeeping(epoch, eval_every) or self._obey(wish)
            if ended is not None:
                return ended, 0
            if pace:
                due = max(due + pace, time.monotonic() - 1.0)
                time.sleep(max(0.0, due - time.monotonic()))
        self._finish()
        return "completed", 0

    def _rate_and_position(self, step: int) -> tuple[float | None, float]:
        """What step n uses: (rate to set, schedule position). An injected scheduler sets the rate itself."""
        if self.injected is not None:
            return None, float(self.injected.last_epoch)
        if not self._ahead:
            # some hundred at a time, one by one: 8 µs a rate in a row, 50 between two steps with cold caches
            steps = range(step, min(step + RATES_AHEAD, self.total + 1))
            self._ahead = [self._at(n) for n in reversed(steps)]
        return self._ahead.pop()

    def _at(self, step: int) -> tuple[float, float]:
        position = position_at(self.schedule, step, self.steps_per_epoch)
        return float(rate_at(self.schedule, step, self.steps_per_epoch)), float(position)

    def _wish(self) -> float:
        """What rank 0 would have all do after this step: the supervisor's order, or a checkpoint that is due."""
        self._order = self._order or self.link.order()
        if self._order is not None:
            return STOP if self._order.order == "stop" else SAVE
        late = time.monotonic() - self._saved_at > self.config.training.checkpoint_minutes * 60
        return SAVE if late and self.world.leads else NOTHING

    def _obey(self, wish: float) -> str | None:
        """Carry out what rank 0 wished; a reason ends the attempt, with a checkpoint."""
        if wish == NOTHING:
            return None
        order, self._order = self._order, None
        if wish == STOP:
            self._save()
            return order.reason if order is not None else "stopped"
        self._save(command=order.command if order is not None else None, ordered=True)
        self.link.phase("training", self.step)
        return None

    def _housekeeping(self, epoch: int, eval_every: int) -> str | None:
        """What is due after a step: evaluation, system figures, log on disk. A reason ends the attempt."""
        if (system := self.vitals.due(self.step)) is not None:
            self._write(system)
        now = time.monotonic()
        if now - self._synced_at > SYNC_EVERY_S:
            self._synced_at = now
            self._sync()
        if self.step % eval_every == 0 and self.data.val is not None:
            return self._validate(self.data.val, epoch)
        return None

    # ---- evaluation, checkpoints, the end ----

    def _validate(self, val: Windows, epoch: int) -> str | None:
        self.link.phase("evaluating", self.step)
        scores = self._evaluate(val, "val", epoch)
        stopping = self.config.training.early_stopping
        monitor = stopping.monitor if stopping else "val_auroc"
        value = {"val_auroc": scores.auroc, "val_balanced_accuracy": scores.balanced_accuracy, "val_loss": scores.loss}
        signed = float(value[monitor] or 0.0) * (-1 if stopping and stopping.mode == "min" else 1)
        signed = -np.inf if np.isnan(signed) else signed  # a loss that diverged, a validation set of one class
        improved = signed > self.best + (stopping.min_delta if stopping else 0.0)
        self.best, self.waited = (signed, 0) if improved else (self.best, self.waited + 1)
        name, top_k = checkpoints.name_of(self.step), self.config.logging.save_top_k
        self.ranking = checkpoints.ranked(self.ranking, signed, name, top_k)
        self._save(best=improved, ordered=True)
        target = self.config.target_metrics.auroc
        if self.config.training.stop_at_target and target is not None and float(scores.auroc or 0) >= target:
            self._say(f"target reached: AUROC {scores.auroc:.4f} of {target}")
            self._test(epoch)
            return "completed"
        if stopping and self.waited > stopping.patience:
            self._test(epoch)
            return "early_stopped"
        self.link.phase("training", self.step)
        return None

    def _finish(self) -> None:
        self._save()
        self._test(self.config.training.max_epochs - 1)

    def _test(self, epoch: int) -> None:
        """The official evaluation set, reported once, at the end: it steers nothing."""
        self.link.phase("evaluating", self.step)
        self._evaluate(self.data.test, "eval", epoch)

    def _evaluate(self, windows: Windows, split: str, epoch: int) -> Eval:
        logits = self.learner.logits(windows, lambda: self.link.tick(self.step))
        scores = score(logits, windows, split, self.step, epoch)
        self._write(scores)
        self._say(f"{split}: step {self.step} AUROC {scores.auroc} balanced accuracy {scores.balanced_accuracy}")
        return scores

    def _save(self, *, best: bool = False, command: str | None = None, ordered: bool = False) -> None:
        """A checkpoint: the log durable first, then the file, then its record. One that is there is not made again."""
        if self._saved_step == self.step:
            if ordered and self._saved is not None:
                best = best or self._saved.best
                self._record(msgspec.structs.replace(self._saved, time=time.time(), best=best, command=command))
            return
        self.link.phase("checkpointing", self.step)
        self._sync()
        learned = self.learner.state()  # of all processes
        self._saved_at, self._saved_step = time.monotonic(), self.step
        if not self.world.leads:
            return
        epoch = self.step // self.steps_per_epoch
        state = learned | {
            "version": checkpoints.VERSION,
            "run_id": self.folder.name,
            "attempt": self.attempt.attempt,
            "step": self.step,
            "epoch": epoch,
            "batch": self.step % self.steps_per_epoch,
            "position": float(self.injected.last_epoch) if self.injected is not None else float(self.step),
            "total_steps": self.total,
            "steps_per_epoch": self.steps_per_epoch,
            "schedule": msgspec.json.encode(as_dict(self.schedule)).decode(),
            "overrides": self.attempt.overrides,
            "sampler": {"seed": self.config.experiment.seed},
            "best": float(self.best),
            "ranking": [[value, path] for value, path in self.ranking],
            "waited": self.waited,
            "world_size": self.world.size,
            "config_hash": configuration.training_hash(self.config),
            "data_hash": self.data.hash(),
        }
        path, sha256 = checkpoints.save(self.folder, self.step, state)
        now = time.time()
        self._record(
            Checkpoint(time=now, step=self.step, epoch=epoch, path=path, best=best, sha256=sha256, command=command)
        )

    def _record(self, saved: Checkpoint) -> None:
        self._saved = saved
        self._write(saved)
        self._sync()
        crash.point("checkpoint.after_record")
        if saved.command is not None:
            self.attempt.keep.append(saved.path)
        checkpoints.prune(self.folder, self.step, {name for _, name in self.ranking} | set(self.attempt.keep))


class _Stopped(Exception):
    """An order to stop that came while there was nothing to checkpoint yet."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
