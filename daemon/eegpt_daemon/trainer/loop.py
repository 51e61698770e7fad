"""The training loop: every optimizer step logged, evaluations between them, orders obeyed at step boundaries.

The learning rate is a pure function of the global step, assigned before each optimizer step and logged as read back
from the optimizer. With several processes all of this runs in each, in step; rank 0 alone writes.
"""

from __future__ import annotations

import gc
import time

import numpy as np
from torch import Tensor

from eegpt_daemon.data.windows import Windows
from eegpt_daemon.link import Link, NullLink, Order
from eegpt_daemon.trainer import checkpoint as checkpoints
from eegpt_daemon.trainer.evaluator import Evaluator
from eegpt_daemon.trainer.journal import Journal
from eegpt_daemon.trainer.preparation import Prepared, Stopped
from eegpt_daemon.trainer.saving import Saver
from eegpt_daemon.trainer.step_watcher import WatchedTrainer
from eegpt_daemon.trainer.system_load import Vitals
from eegwatch.run.records import Step
from eegwatch.schedule import position_at, rate_at

SYNC_EVERY_S = 1.0  # of log lost to a power cut at most; a killed process loses none
RATES_AHEAD = 256
NOTHING, SAVE, STOP = 0.0, 1.0, 2.0  # what rank 0 asks for, summed with every step's loss so that all do it together


class Loop:
    """The steps of one attempt. `step`: optimizer steps done so far, of the whole run."""

    def __init__(
        self, prepared: Prepared, saver: Saver, link: Link | NullLink, journal: Journal, *, go_on_after_end: bool
    ) -> None:
        """`go_on_after_end`: the attempt before ended by itself, and a person wants more than its evaluation."""
        self.prepared, self.saver, self.link, self.journal = prepared, saver, link, journal
        self.config, self.processes, self.learner = prepared.config, prepared.processes, prepared.learner
        self.step = prepared.step
        self.evaluator = Evaluator(prepared, saver.standing, journal, self._predict)
        self.vitals = Vitals()
        home, attempt = journal.home.path, saver.attempt.attempt
        self.watched = WatchedTrainer(prepared, journal, home, attempt, lambda: self.step)
        saver.noted = self.watched.checkpointed
        share = self.config.training.val_check_interval
        self.eval_every = max(1, round(share * prepared.steps_per_epoch)) if share <= 1 else int(share)
        self._go_on_after_end = go_on_after_end
        self._order: Order | None = None
        self._ahead: list[tuple[float, float]] = []
        self._synced_at = time.monotonic()

    def run(self) -> str:
        """Train to the end; returns the reason of the `end` record. Raises Stopped from an evaluation cut short."""
        gc.collect()
        gc.freeze()  # torch's half a million objects need no visit by every full collection: 3 % of a step
        reason = self._catch_up()
        if reason is None:
            self.link.phase("training", self.step)
            reason = self._steps()
        self.watched.close()
        return reason

    def _catch_up(self) -> str | None:
        """Run an evaluation, or the official one, that a crash or a stop interrupted at this step."""
        standing, val = self.saver.standing, self.prepared.data.val
        if standing.finishing is not None:
            if not self._go_on_after_end:
                return self._finish(standing.finishing)
            standing.finishing = None
        due = val is not None and self.step > 0 and self.step % self.eval_every == 0
        if val is not None and due and standing.evaluated != self.step:
            return self._validate(val)
        return None

    def _steps(self) -> str:
        config, training, prepared = self.config, self.config.training, self.prepared
        size = prepared.windows_a_step
        pace = 1 / training.pace_steps_per_s if training.pace_steps_per_s else 0.0
        began, rate, taken = time.perf_counter(), 0.0, 0
        due = time.monotonic()
        while self.step < prepared.total:
            wish = self._wish()
            epoch, batch = divmod(self.step, prepared.steps_per_epoch)
            which = self.learner.batch(epoch, batch, size)
            lr, position = self._rate_and_position(self.step + 1)
            part, grad_norm, used = self.learner.step(which, lr)
            loss, wish = self.processes.sum([part, wish])
            self.step += 1
            now = time.perf_counter()
            speed = len(which) / max(now - began, 1e-9)
            taken += 1
            rate = speed if taken <= 2 else 0.9 * rate + 0.1 * speed  # the first step warms caches up
            began = now
            if self.processes.leads:
                self.journal.write(
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
            self.watched.logged(self.step)
            if self.step % config.logging.log_every_n_steps == 0:
                self.journal.say(
                    f"epoch {epoch + 1}/{training.max_epochs} step {self.step}/{prepared.total} "
                    f"loss {loss:.4f} lr {used:.7g} grad_norm {grad_norm:.3f}"
                )
            if prepared.injected is not None and batch + 1 == prepared.steps_per_epoch:
                prepared.injected.step()  # the historical bug, on purpose: once an epoch
            self.link.tick(self.step)
            ended = self._after_step(wish)
            if ended is not None:
                return ended
            if pace:
                due = max(due + pace, time.monotonic() - 1.0)
                time.sleep(max(0.0, due - time.monotonic()))
        self.saver.save(self.step)
        return self._finish("completed")

    def _rate_and_position(self, step: int) -> tuple[float | None, float | None]:
        """(rate to set, schedule position if known) of step n. An injected scheduler sets the rate itself."""
        if self.prepared.injected is not None:
            return None, float(self.prepared.injected.last_epoch)
        if not self._ahead:
            # some hundred at a time, one by one: 8 µs a rate in a row, 50 between two steps with cold caches
            steps = range(step, min(step + RATES_AHEAD, self.prepared.total + 1))
            self._ahead = [self._at(n) for n in reversed(steps)]
        return self._ahead.pop()

    def _at(self, step: int) -> tuple[float, float]:
        schedule, per_epoch = self.prepared.schedule, self.prepared.steps_per_epoch
        return float(rate_at(schedule, step, per_epoch)), float(position_at(schedule, step, per_epoch))

    # ---- between two steps ----

    def _wish(self) -> float:
        """Rank 0's request to all processes after this step: the supervisor's order, or a checkpoint that is due."""
        self._order = self._order or self.link.order()
        if self._order is not None:
            return STOP if self._order.order == "stop" else SAVE
        late = time.monotonic() - self.saver.saved_at > self.config.training.checkpoint_minutes * 60
        return SAVE if late and self.processes.leads else NOTHING

    def _after_step(self, wish: float) -> str | None:
        """Handle a stop, evaluation, checkpoint and system record after a step. Returns a reason to end the attempt."""
        if (system := self.vitals.due(self.step)) is not None:
            self.journal.write(system)
        now = time.monotonic()
        if now - self._synced_at > SYNC_EVERY_S:
            self._synced_at = now
            self.journal.sync(self.step)
        if wish == STOP:
            order, self._order = self._order, None
            self.saver.save(self.step)
            return order.reason if order is not None else "stopped"
        val = self.prepared.data.val
        if val is not None and self.step % self.eval_every == 0:
            ended = self._validate(val)
            if ended is not None:
                return ended
        if wish == SAVE:
            order, self._order = self._order, None
            self.saver.save(self.step, order.command if order is not None else None)
            self.link.phase("training", self.step)
        return None

    # ---- evaluation ----

    def _validate(self, val: Windows) -> str | None:
        """Save, evaluate, save what that led to. A reason ends the attempt."""
        self.saver.save(self.step)
        scores = self.evaluator.validate(val, self.step)
        stopping, standing = self.config.training.early_stopping, self.saver.standing
        monitor = stopping.monitor if stopping else "val_auroc"
        value = {"val_auroc": scores.auroc, "val_balanced_accuracy": scores.balanced_accuracy, "val_loss": scores.loss}
        signed = float(value[monitor] or 0.0) * (-1 if stopping and stopping.mode == "min" else 1)
        signed = -np.inf if np.isnan(signed) else signed  # a loss that diverged, a validation set of one class
        improved = signed > standing.best + (stopping.min_delta if stopping else 0.0)
        standing.best, standing.waited = (signed, 0) if improved else (standing.best, standing.waited + 1)
        name, top_k = checkpoints.name_of(self.step), self.config.logging.save_top_k
        standing.ranking = checkpoints.ranked(standing.ranking, signed, name, top_k)
        standing.evaluated = self.step
        self.evaluator.keep_best(self.step)
        target = self.config.target_metrics.auroc
        if self.config.training.stop_at_target and target is not None and float(scores.auroc or 0) >= target:
            self.journal.say(f"target reached: AUROC {scores.auroc:.4f} of {target}")
            standing.finishing = "completed"
        elif stopping and standing.waited >= stopping.patience:  # as Lightning counts
            standing.finishing = "early_stopped"
        self.saver.refresh(self.step, best=improved)
        if standing.finishing is not None:
            return self._finish(standing.finishing)
        self.link.phase("training", self.step)
        return None

    def _finish(self, reason: str) -> str:
        """The official evaluation set, at the end: it steers nothing."""
        self.evaluator.finish(self.step)
        return reason

    def _predict(self, windows: Windows) -> Tensor:
        """Raises Stopped where a stop came meanwhile: the checkpoint of this step has been written before."""
        self.link.phase("evaluating", self.step)
        with self.watched.evaluating():
            logits = self.learner.logits(windows, self._look_for_orders)
        if logits is None:
            order, self._order = self._order, None
            raise Stopped(order.reason if order is not None else "stopped")
        return logits

    def _look_for_orders(self) -> bool:
        """Between two batches of an evaluation: True to stop. A checkpoint that is asked for is the newest one."""
        self.link.tick(self.step)
        self._order = self._order or self.link.order()
        if self._order is not None and self._order.order == "checkpoint":
            if self._order.command is not None:  # else the guard asks: the newest is of this step
                self.saver.keep_for(self._order.command)
            self._order = None
        return self._order is not None
