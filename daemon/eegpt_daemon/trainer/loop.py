"""The training loop: one attempt, every optimizer step logged, nothing lost.

The learning rate is a pure function of the global step, assigned before each optimizer step and logged as read back
from the optimizer. Batches come from a permutation of (seed, epoch), cut at the batch: a resume needs no replay.
"""

from __future__ import annotations

import hashlib
import os
import random
import socket
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.functional.classification import binary_auroc, multiclass_accuracy

from eegpt_daemon.eeg.corpus import CorpusError
from eegpt_daemon.eeg.features import Features, FeatureStore
from eegpt_daemon.model.encoder import EncoderError
from eegpt_daemon.model.probe import Probe
from eegpt_daemon.trainer import checkpoint as checkpoints
from eegpt_daemon.trainer import prepare
from eegpt_daemon.trainer.attempt import SUPERVISOR_GONE, Attempt, Link
from eegpt_daemon.trainer.checkpoint import CheckpointError
from eegpt_daemon.trainer.scheduler import effective, torch_scheduler
from eegpt_daemon.trainer.vitals import Vitals
from eegwatch import __version__
from eegwatch.run import config as configuration
from eegwatch.run.config import Config, ConfigError
from eegwatch.run.folder import CONFIG, RUN_LOG
from eegwatch.run.log import AppendLog
from eegwatch.run.records import Checkpoint, End, Eval, Progress, Run, Step, finite
from eegwatch.schedule import Schedule, ScheduleError, as_dict, position_at, rate_at

USER_ERRORS = (ConfigError, CorpusError, EncoderError, CheckpointError, ScheduleError)
SYNC_EVERY_S = 1.0  # of log lost to a power cut at most; a killed process loses none
PROGRESS_EVERY_S = 0.5
EVAL_BATCH = 8192


class Trainer:
    """One attempt at the run in `folder`. `run()` returns the exit code: 0 ended, 75 try again, 78 configuration."""

    def __init__(self, folder: Path, attempt: Attempt, link: Link) -> None:
        self.folder, self.attempt, self.link = folder, attempt, link
        self.log = AppendLog(folder / RUN_LOG)
        self.vitals = Vitals()
        self.step = 0
        self._progress_at = 0.0

    def run(self) -> int:
        """Train to the end, a stop or an error; the `end` record says which."""
        try:
            self._prepare()
            reason, code = self._train()
            error = None
        except USER_ERRORS as problem:
            reason, error, code = "failed", str(problem), 78
            print(f"eegpt-daemon: {problem}", file=sys.stderr)
        except _Stopped as stopped:
            reason, error, code = stopped.reason, None, 0
        except Exception as problem:
            self._end("failed", f"{type(problem).__name__}: {problem}")
            raise
        if reason == SUPERVISOR_GONE:
            reason, error, code = "stopped", SUPERVISOR_GONE, 75
        self._end(reason, error)
        return code

    def _end(self, reason: str, error: str | None) -> None:
        self.log.append(End(time=time.time(), step=self.step, reason=reason, error=error))
        self.log.sync()

    # ---- preparation ----

    def _prepare(self) -> None:
        self.config = configuration.load(self.folder / CONFIG, expand=False)
        config = self.config
        torch.manual_seed(config.experiment.seed)
        random.seed(config.experiment.seed)
        self.device = prepare.best_device()
        self.link.phase("preparing", reason="building the encoder")
        encoder, notes = prepare.build_encoder(config)
        store = FeatureStore(config, encoder, self.device)
        plan = prepare.plan(config, store, self._silent_progress)
        self.notes = [*self.attempt.notes, *notes, *plan.notes]
        for note in self.notes:
            print(note, flush=True)
        self._load_checkpoint()
        self._count(plan.windows["train"])
        self._begin()
        data = prepare.features(config, store, plan.entries, self._progress, lambda text: print(text, flush=True))
        self.data = data
        if len(data.train) != plan.windows["train"]:  # a file kept less than its header promised
            said = f"{len(data.train):,} train windows were read, the headers promised {plan.windows['train']:,}"
            print(said, flush=True)
            if self._count(len(data.train)):
                self.notes.append(said)
                self._begin()
        self._build()

    def _count(self, windows: int) -> bool:
        """Steps an epoch and in all, and the schedule over them; True if they changed."""
        training = self.config.training
        batches = -(-windows // self.config.data.batch_size)
        per_epoch = max(1, -(-batches // training.gradient_accumulation_steps))
        changed = per_epoch != getattr(self, "steps_per_epoch", None)
        self.steps_per_epoch, self.total = per_epoch, per_epoch * training.max_epochs
        self.declared = configuration.schedule_of(self.config, per_epoch)
        self.schedule: Schedule = effective(self.declared, self.attempt.overrides, per_epoch)
        return changed

    def _load_checkpoint(self) -> None:
        self.state: dict[str, Any] | None = None
        if self.attempt.checkpoint is None:
            return
        self.state = checkpoints.load(self.folder / self.attempt.checkpoint)
        self.step = int(self.state["step"])
        was, now = self.state["config_hash"], config_hash(self.config)
        if was != now:
            raise CheckpointError(
                f"{self.folder / CONFIG} has changed since {self.attempt.checkpoint} (hash {was}, now {now}); "
                "restore it, or start a fresh run with the new one"
            )

    def _begin(self) -> None:
        """The `run` record: first line of the attempt."""
        config, state = self.config, self.state
        restored = None
        if state is not None:
            restored = {"step": state["step"], "position": state["position"], "total_steps": state["total_steps"]}
        inject = config.inject
        target = {"auroc": config.target_metrics.auroc} if config.target_metrics.auroc is not None else None
        self.log.append(
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
                world_size=1,
                schedule=as_dict(self.schedule),
                target=target,
                expected=configuration.expected_rates(config) or None,
                parent=self.attempt.parent,
                checkpoint=self.attempt.checkpoint,
                restored=restored,
                overrides=self.attempt.overrides,
                command=self.attempt.command,
                inject=inject,
                detectors=dict(config.detectors),
                notes=self.notes,
                seed=config.experiment.seed,
                pid=os.getpid(),
                host=socket.gethostname(),
                versions={
                    "eegwatch": __version__,
                    "python": sys.version.split()[0],
                    "torch": str(torch.__version__),
                    "numpy": np.__version__,
                },
            )
        )
        self.log.sync()

    def _silent_progress(self, what: str, done: int, total: int) -> None:
        """Progress before the `run` record, which must be the attempt's first line: told to the supervisor alone."""
        self._obey_while_preparing()
        self.link.tick(self.step, f"{what}: {done} of {total}")

    def _progress(self, what: str, done: int, total: int) -> None:
        self._obey_while_preparing()
        self.link.tick(self.step, f"{what}: {done} of {total}")
        if done == total or time.monotonic() - self._progress_at > PROGRESS_EVERY_S:
            self._progress_at = time.monotonic()
            self.log.append(Progress(time=time.time(), what=what, done=done, total=total))

    def _obey_while_preparing(self) -> None:
        order = self.link.order()
        if order is None:
            return
        if order.order == "stop":
            raise _Stopped(order.reason)
        self.link.put_back(order)  # a checkpoint is possible once there is a model

    def _build(self) -> None:
        config, data, state = self.config, self.data, self.state
        if state is not None and state["data_hash"] != data.hash():
            raise CheckpointError(
                f"{config.data.root_dir} is not the corpus that {self.attempt.checkpoint} was trained on: files, "
                "labels or windows differ; restore it, or start a fresh run"
            )
        self.x = torch.from_numpy(data.train.x).to(self.device)
        self.y = torch.from_numpy(data.train.y).to(self.device)
        self.mean = torch.from_numpy(data.mean).to(self.device)
        self.std = torch.from_numpy(data.std).to(self.device)
        self.model = Probe(config.model.probe, data.train.x.shape[1]).to(self.device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=self._rate(1), weight_decay=config.training.optimizer.weight_decay
        )
        self.weight = None
        if config.training.weighted_loss:
            share = np.bincount(data.train.y, minlength=2)
            self.weight = torch.tensor(share.sum() / (2 * share), dtype=torch.float32, device=self.device)
        self.best, self.waited = -np.inf, 0
        self.best_path: str | None = None
        if state is not None:
            self.model.load_state_dict(state["probe"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.best, self.waited, self.best_path = state["best"], state["waited"], state["best_path"]
            torch.set_rng_state(state["rng"]["torch"])
            random.setstate(_tuples(state["rng"]["python"]))
            if self.device.type == "cuda" and "cuda" in state["rng"]:
                torch.cuda.set_rng_state_all(state["rng"]["cuda"])
        self.injected = torch_scheduler(self.declared, self.optimizer) if config.inject else None

    # ---- the loop ----

    def _train(self) -> tuple[str, int]:
        """Returns (reason of the end, exit code)."""
        config, training = self.config, self.config.training
        batch_windows = config.data.batch_size * training.gradient_accumulation_steps
        share = training.val_check_interval
        eval_every = max(1, round(share * self.steps_per_epoch)) if share <= 1 else int(share)
        pace = 1 / training.pace_steps_per_s if training.pace_steps_per_s else 0.0
        self._saved_at = self._synced_at = time.monotonic()
        self._saved_step = self.step  # resumed from there, or nothing to save yet
        permutation, permuted_epoch = None, -1
        began, rate, taken = time.perf_counter(), 0.0, 0
        due = time.monotonic()
        self.link.phase("training", self.step)
        while self.step < self.total:
            reason = self._obey()
            if reason is not None:
                return reason, 0
            epoch, batch = divmod(self.step, self.steps_per_epoch)
            if epoch != permuted_epoch or permutation is None:
                permutation, permuted_epoch = self._permutation(epoch), epoch
            rows = permutation[batch * batch_windows : (batch + 1) * batch_windows]
            loss, grad_norm, lr, position = self._optimizer_step(rows)
            self.step += 1
            now = time.perf_counter()
            speed = len(rows) / max(now - began, 1e-9)
            taken += 1
            rate = speed if taken <= 2 else 0.9 * rate + 0.1 * speed  # the first step warms caches up
            began = now
            self.log.append(
                Step(
                    time=time.time(),
                    step=self.step,
                    epoch=epoch,
                    batch=batch + 1,
                    lr=lr,
                    position=position,
                    loss=loss,
                    grad_norm=grad_norm,
                    samples_per_s=rate,
                )
            )
            if self.step % config.logging.log_every_n_steps == 0:
                print(
                    f"epoch {epoch + 1}/{training.max_epochs} step {self.step}/{self.total} "
                    f"loss {loss:.4f} lr {lr!r} grad_norm {grad_norm:.3f}",
                    flush=True,
                )
            if self.injected is not None and batch + 1 == self.steps_per_epoch:
                self.injected.step()  # the historical bug, on purpose: once an epoch
            self.link.tick(self.step)
            ended = self._housekeeping(epoch, eval_every)
            if ended is not None:
                return ended, 0
            if pace:
                due = max(due + pace, time.monotonic() - 1.0)
                time.sleep(max(0.0, due - time.monotonic()))
        self._finish()
        return "completed", 0

    def _rate(self, step: int) -> float:
        return float(rate_at(self.schedule, step, self.steps_per_epoch))

    def _optimizer_step(self, rows: Tensor) -> tuple[float, float, float, float]:
        """One optimizer step over the given windows: (loss, gradient norm, rate used, position)."""
        n = self.step + 1
        if self.injected is None:
            position = float(position_at(self.schedule, n, self.steps_per_epoch))
            for group in self.optimizer.param_groups:
                group["lr"] = self._rate(n)
        else:
            position = float(self.injected.last_epoch)
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        for micro in torch.split(rows, self.config.data.batch_size):
            logits = self.model((self.x[micro].float() - self.mean) / self.std)
            loss = F.cross_entropy(logits, self.y[micro], weight=self.weight) * (len(micro) / len(rows))
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        clip = self.config.training.gradient_clip_val
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), clip if clip else float("inf"))
        lr = self.optimizer.param_groups[0]["lr"]
        self.optimizer.step()
        return float(total), float(norm), float(lr), position

    def _permutation(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.config.experiment.seed * 1_000_003 + epoch)
        return torch.randperm(len(self.data.train), generator=generator).to(self.device)

    def _obey(self) -> str | None:
        """Carry out what the supervisor ordered; a reason ends the attempt, with a checkpoint."""
        while (order := self.link.order()) is not None:
            if order.order == "stop":
                self._save()
                return order.reason
            self._save(command=order.command)
            self.link.phase("training", self.step)
        return None

    def _housekeeping(self, epoch: int, eval_every: int) -> str | None:
        """What is due after a step: evaluation, checkpoint, system figures, log on disk. A reason ends the attempt."""
        if (system := self.vitals.due(self.step)) is not None:
            self.log.append(system)
        now = time.monotonic()
        if now - self._synced_at > SYNC_EVERY_S:
            self._synced_at = now
            self.log.sync()
        if self.step % eval_every == 0 and len(self.data.val):
            return self._validate(epoch)
        if now - self._saved_at > self.config.training.checkpoint_minutes * 60:
            self._save()
            self.link.phase("training", self.step)
        return None

    # ---- evaluation, checkpoints, the end ----

    def _validate(self, epoch: int) -> str | None:
        self.link.phase("evaluating", self.step)
        scores = self._evaluate(self.data.val, "val", epoch)
        stopping = self.config.training.early_stopping
        monitor = stopping.monitor if stopping else "val_auroc"
        value = {"val_auroc": scores.auroc, "val_balanced_accuracy": scores.balanced_accuracy, "val_loss": scores.loss}
        signed = float(value[monitor] or 0.0) * (-1 if stopping and stopping.mode == "min" else 1)
        improved = signed > self.best + (stopping.min_delta if stopping else 0.0)
        self.best, self.waited = (signed, 0) if improved else (self.best, self.waited + 1)
        self._save(best=improved)
        target = self.config.target_metrics.auroc
        if self.config.training.stop_at_target and target is not None and float(scores.auroc or 0) >= target:
            print(f"target reached: AUROC {scores.auroc:.4f} of {target}", flush=True)
            self._test(epoch)
            return "completed"
        if stopping and self.waited > stopping.patience:
            self._test(epoch)
            return "early_stopped"
        self.link.phase("training", self.step)
        return None

    def _finish(self) -> None:
        epoch = self.config.training.max_epochs - 1
        if self._saved_step != self.step:
            self._save()
        self._test(epoch)

    def _test(self, epoch: int) -> None:
        """The official evaluation set, reported once, at the end: it steers nothing."""
        self.link.phase("evaluating", self.step)
        self._evaluate(self.data.test, "eval", epoch)

    def _evaluate(self, data: Features, split: str, epoch: int) -> Eval:
        self.model.eval()
        with torch.inference_mode():
            parts = []
            for begin in range(0, len(data), EVAL_BATCH):
                x = torch.from_numpy(data.x[begin : begin + EVAL_BATCH]).to(self.device).float()
                parts.append(self.model((x - self.mean) / self.std))
                self.link.tick(self.step)
            logits = torch.cat(parts).cpu()
        y = torch.from_numpy(data.y)
        margin = logits[:, 1] - logits[:, 0]
        recordings = torch.from_numpy(data.recording).long()
        votes = torch.zeros(len(data.names)).index_add_(0, recordings, margin)
        size = torch.bincount(recordings, minlength=len(data.names))
        labels = torch.zeros(len(data.names), dtype=torch.long).index_copy_(0, recordings, y)
        scores = Eval(
            time=time.time(),
            step=self.step,
            epoch=epoch,
            split=split,
            loss=finite(float(F.cross_entropy(logits, y))),
            auroc=finite(float(binary_auroc(margin.sigmoid(), y))),
            balanced_accuracy=finite(float(multiclass_accuracy(logits.argmax(1), y, num_classes=2, average="macro"))),
            n=len(data),
            recording_auroc=finite(float(binary_auroc((votes / size).sigmoid(), labels))),
        )
        self.log.append(scores)
        print(
            f"{split}: step {self.step} AUROC {scores.auroc} balanced accuracy {scores.balanced_accuracy}", flush=True
        )
        return scores

    def _save(self, *, best: bool = False, command: str | None = None) -> None:
        """A checkpoint: the log durable first, then the file, then its record."""
        if self._saved_step == self.step and not best and command is None:
            return
        self.link.phase("checkpointing", self.step)
        self.log.sync()
        if best:
            self.best_path = checkpoints.name_of(self.step)
        state = {
            "version": checkpoints.VERSION,
            "run_id": self.folder.name,
            "attempt": self.attempt.attempt,
            "probe": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "epoch": self.step // self.steps_per_epoch,
            "batch": self.step % self.steps_per_epoch,
            "position": float(self.injected.last_epoch) if self.injected is not None else float(self.step),
            "total_steps": self.total,
            "steps_per_epoch": self.steps_per_epoch,
            "schedule": msgspec.json.encode(as_dict(self.schedule)).decode(),
            "overrides": self.attempt.overrides,
            "sampler": {"seed": self.config.experiment.seed},
            "standardiser": {"mean": self.mean.cpu(), "std": self.std.cpu()},
            "best": float(self.best),
            "best_path": self.best_path,
            "waited": self.waited,
            "rng": self._rng(),
            "config_hash": config_hash(self.config),
            "data_hash": self.data.hash(),
        }
        path, sha256 = checkpoints.save(self.folder, self.step, state)
        self._saved_at, self._saved_step = time.monotonic(), self.step
        epoch = self.step // self.steps_per_epoch
        self.log.append(
            Checkpoint(
                time=time.time(), step=self.step, epoch=epoch, path=path, best=best, sha256=sha256, command=command
            )
        )
        self.log.sync()
        keep = {self.best_path} if self.best_path else set()
        checkpoints.prune(self.folder, self.config.logging.save_top_k, keep)

    def _rng(self) -> dict[str, Any]:
        """All random states in forms that weights-only loading accepts."""
        state: dict[str, Any] = {"torch": torch.get_rng_state(), "python": random.getstate()}
        if self.device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state_all()
        return state


class _Stopped(Exception):
    """An order to stop that came while there was nothing to checkpoint yet."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def config_hash(config: Config) -> str:
    """Hash of what training depends on: not of workers, paces, log intervals or the guard."""
    tree = msgspec.to_builtins(config)
    for name in ("num_workers", "pin_memory", "persistent_workers", "prefetch_factor", "cache_dir"):
        del tree["data"][name]
    for name in ("checkpoint_minutes", "pace_steps_per_s"):
        del tree["training"][name]
    for name in ("logging", "guard", "detectors", "expected", "target_metrics", "inject", "experiment"):
        del tree[name]
    tree["seed"] = config.experiment.seed
    return hashlib.sha256(msgspec.json.encode(tree, order="sorted")).hexdigest()[:16]


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value
