"""A callback for PyTorch Lightning: `Trainer(callbacks=[EegwatchCallback("logs")])`, then `eegwatch logs`.

The rates are those that the optimizer's steps use; the schedule is read off the scheduler of `configure_optimizers`.
Lightning steps a scheduler once an *epoch* unless its dict says `"interval": "step"`. A scheduler that was built for
the run's steps is taken to be meant for every step all the same, and the screen says that it is not stepped so;
`interval` declares what is meant. A run that is continued from a checkpoint goes on in the same log. A stop that the
monitor asks for sets `trainer.should_stop`; a checkpoint is written by `trainer.save_checkpoint`.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import Callback

from eegwatch.integrations.common import EvaluationHooks, SafeCallback, evaluation, never_raises, scalar, whole
from eegwatch.run.folder import RUN_LOG
from eegwatch.runlog import RunLog
from eegwatch.schedule import from_torch
from eegwatch.steering.ranks import rank_of_process

PREFIXES = ("validation", "valid", "val", "test")


class EegwatchCallback(SafeCallback, Callback):
    """Writes the run log in the process of rank 0; the others follow its commands.

    `interval`: how often the scheduler is meant to be stepped.

    Of several optimizers the first that has a scheduler is logged; the first rate of each other one is a metric.
    `schedule`: the schedule as docs/schedules.md has it, where it cannot be read off the scheduler. `watch`: look for
    silent errors of the steps (docs/silent_errors.md).
    """

    def __init__(
        self,
        logs: str | Path = "logs",
        name: str = "lightning",
        interval: Literal["step", "epoch"] | None = None,
        *,
        schedule: dict[str, Any] | None = None,
        goals: dict[str, str] | None = None,
        watch: bool = True,
    ) -> None:
        self.logs, self.name, self.interval = logs, name, interval
        self.schedule, self.goals, self.watch = schedule, goals, watch
        self._state: dict[str, Any] = {}
        self._config: Any = None
        self._scheduler: Any = None
        self._others: dict[str, Any] = {}
        self._loss: Any = None
        self._micro = 0
        self._seen = self._begun = 0
        self._before: dict[str, float] = {}
        self._validated: dict[str, float] = {}  # what the last validation wrote
        self._evaluated = EvaluationHooks()

    @never_raises
    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.is_global_zero and not rank_of_process():
            return  # processes that torch.distributed does not know (a TPU's): rank 0 alone has a log
        accumulate = int(trainer.accumulate_grad_batches)
        batches = whole(trainer.num_training_batches)
        per_epoch = None if batches is None else -(-batches // accumulate)
        total, epochs = whole(trainer.estimated_stepping_batches), whole(trainer.max_epochs)
        optimizer = self._choose(trainer)
        done = int(trainer.global_step) if pl_module.automatic_optimization else int(self._state.get("step", 0))
        folder = self._state.get("folder")
        unit = None if self._scheduler is None else self._unit(pl_module, total, epochs, per_epoch)
        known = self._scheduler is None or unit is not None
        if not known:
            words = "manual optimisation steps the scheduler when it likes: give interval= to hold the rates against it"
            warnings.warn(f"eegwatch: {words}; rates are logged without a schedule", stacklevel=2)
        self.log_ = RunLog(
            self.logs,
            self.name,
            schedule=self.schedule if self.schedule is not None else self._scheduler if known else None,
            optimizer=optimizer,
            unit=unit,
            every=self._every(accumulate) if pl_module.automatic_optimization else 1,
            total_steps=total,
            steps_per_epoch=per_epoch,
            epochs=epochs,
            batch_size=_batch_size(trainer),
            accumulate=accumulate,
            world_size=int(trainer.world_size),
            goals=self.goals,
            resume=folder if folder and done and (Path(folder) / RUN_LOG).is_file() else None,
            step=done,
        )
        self._begun, self._seen = done, int(trainer.global_step)
        self._total = total
        if self.watch:
            self._watch(trainer, pl_module)

    def _watch(self, trainer: Any, pl_module: Any) -> None:
        """Look at what the steps do: the model as Lightning runs it, all its optimizers, its loader, its clip."""
        assert self.log_ is not None
        clip = trainer.gradient_clip_val if pl_module.automatic_optimization else None
        if _overridden(pl_module, "configure_gradient_clipping"):
            clip = None  # it clips as it likes
        algorithm = trainer.gradient_clip_algorithm
        loader = None if trainer.overfit_batches else trainer.train_dataloader  # a few batches, in one order on purpose
        self.log_.watch(
            trainer.model if trainer.model is not None else pl_module,
            list(trainer.optimizers),
            loader=loader if getattr(loader, "batch_sampler", None) is not None else None,
            clip=float(clip) if clip and algorithm in (None, "norm") else None,
        )

    @never_raises
    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        config = self._config
        if self.log_ is None or config is None or not trainer.lr_scheduler_configs:
            return
        now = next((c for c in trainer.lr_scheduler_configs if c is config), trainer.lr_scheduler_configs[0])
        if now.scheduler is not self._scheduler:  # stochastic weight averaging puts one of its own there
            self._config, self._scheduler = now, now.scheduler
            self.log_.schedule_changed(now.scheduler)

    @never_raises
    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.log_ is None:
            return
        self._add_loss(trainer, pl_module, outputs)
        step = self._step(trainer, pl_module)
        if step is None:
            return  # a micro-batch of an accumulated step, or a batch for the other optimizer
        loss = None if self._loss is None else self._loss / self._micro
        self._loss, self._micro = None, 0
        rates = {name: other.param_groups[0]["lr"] for name, other in self._others.items()}
        self.log_.step(loss=loss, step=step, metrics=rates)
        self._obey(trainer, step)

    def _obey(self, trainer: Any, step: int) -> None:
        """A stop or a checkpoint that the monitor asks for, by Lightning's own means."""
        assert self.log_ is not None
        if self.log_.checkpoint_requested:
            path = Path(trainer.default_root_dir) / "checkpoints" / f"eegwatch-step={step}.ckpt"
            trainer.save_checkpoint(path)
            self.log_.checkpoint(path.resolve())
        if self.log_.stop_requested:
            trainer.should_stop = True

    @never_raises
    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self._before = _numbers(trainer.callback_metrics)
        # what has changed since the last validation wrote it is the training's too
        self._validated = {key: value for key, value in self._validated.items() if self._before.get(key) == value}

    @never_raises
    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        first = batch_idx == 0 and dataloader_idx == 0 and not trainer.sanity_checking
        if first and self.watch and _length(trainer) and not _overridden(pl_module, "on_validation_model_eval"):
            self._evaluated.first_batch(self.log_)

    @never_raises
    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if (dataloader_idx, batch_idx + 1) == _length(trainer):
            self._evaluated.last_batch()

    @never_raises
    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if self.log_ is None or trainer.sanity_checking:
            return
        # callback_metrics keeps the training's numbers too: what this validation wrote is new, changed, named so, or
        # what the last one wrote and the training did not: a metric may have the same value again
        found = {
            key: value
            for key, value in _numbers(trainer.callback_metrics).items()
            if self._before.get(key) != value or key in self._validated or key.lower().startswith(PREFIXES)
        }
        self._validated = found
        self.log_.eval(evaluation(found, PREFIXES))

    @never_raises
    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if self.log_ is not None:
            early = trainer.should_stop and (self._total is None or self.log_.step_done < self._total)
            self.log_.end("early_stopped" if early else "completed")

    @never_raises
    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        if self.log_ is not None:
            stopped = isinstance(exception, KeyboardInterrupt)
            error = None if stopped else f"{type(exception).__name__}: {exception}"
            self.log_.end("stopped" if stopped else "failed", error)

    # ---- kept in Lightning's checkpoints, so that a run goes on in its own log ----

    def state_dict(self) -> dict[str, Any]:
        if self.log_ is None:
            return dict(self._state)
        return {"folder": str(self.log_.folder.resolve()), "step": self.log_.step_done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._state = dict(state_dict)

    # ---- how it reads the trainer ----

    def _choose(self, trainer: Any) -> Any:
        """The optimizer that is logged: the first scheduler's, else the first."""
        configs = trainer.lr_scheduler_configs
        self._config = configs[0] if configs else None
        self._scheduler = None if self._config is None else self._config.scheduler
        optimizers = list(trainer.optimizers)
        if not optimizers:
            return None
        chosen = getattr(self._scheduler, "optimizer", None) or optimizers[0]
        others = [o for o in optimizers if o is not chosen]
        self._others = {f"lr optimizer {optimizers.index(o)}": o for o in others}
        return chosen

    def _unit(self, module: Any, total: int | None, epochs: int | None, per_epoch: int | None) -> str | None:
        """The unit of the scheduler's positions: as declared, else as configured, but steps if it was built for steps.

        In manual optimisation nothing is configured: only a length of its own tells, else None.
        """
        automatic = module.automatic_optimization
        if self.interval is not None:
            return self.interval
        if (automatic and self._config.interval == "step") or not (per_epoch and total):
            return "step" if automatic else None
        law = from_torch.read(self._scheduler)  # without the run's length: what is known is the scheduler's own
        own = None if law is None else law.get("decay_steps") or law["total_steps"]
        length = epochs or -(-total // per_epoch)
        if own is None and not automatic:
            return None
        return "step" if own is not None and own * own > length * total and own > length else "epoch"

    def _every(self, accumulate: int) -> int:
        """Optimizer steps between two of the scheduler: Lightning counts `frequency` in batches, at steps only."""
        if self._config is None:
            return 1
        frequency = int(self._config.frequency)
        return frequency if self._config.interval == "epoch" else frequency // math.gcd(frequency, accumulate)

    def _step(self, trainer: Any, pl_module: Any) -> int | None:
        """The number of the step that this batch completed; None if it completed none."""
        log = self.log_
        assert log is not None
        if pl_module.automatic_optimization:
            now = int(trainer.global_step)
            if now == self._seen:
                return None
            self._seen = now
            return now
        # manual: the trainer counts the steps of all optimizers, the log those of its own
        taken = log.follower.steps_taken if log.follower is not None else int(trainer.global_step)
        now = self._begun + taken
        return now if now > log.step_done else None

    def _add_loss(self, trainer: Any, pl_module: Any, outputs: Any) -> None:
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if loss is None or (hasattr(loss, "numel") and loss.numel() != 1):
            return
        loss = loss.detach() if hasattr(loss, "detach") else loss
        if pl_module.automatic_optimization:
            loss = loss * int(trainer.accumulate_grad_batches)  # Lightning has divided it
        self._loss = loss if self._loss is None else self._loss + loss
        self._micro += 1


def _overridden(module: Any, hook: str) -> bool:
    """Has the script's own module another form of this hook of Lightning's?"""
    return getattr(type(module), hook, None) is not getattr(LightningModule, hook, None)


def _length(trainer: Any) -> tuple[int, int] | None:
    """(the last validation loader that has batches, how many); None where that is unknown."""
    counts = [whole(count) or 0 for count in trainer.num_val_batches]
    with_batches = [number for number, count in enumerate(counts) if count]
    return (with_batches[-1], counts[with_batches[-1]]) if with_batches and all(counts) else None


def _numbers(metrics: Any) -> dict[str, float]:
    return {str(key): number for key, value in metrics.items() if (number := scalar(value)) is not None}


def _batch_size(trainer: Any) -> int | None:
    size = getattr(trainer.train_dataloader, "batch_size", None)
    return size if isinstance(size, int) else None
