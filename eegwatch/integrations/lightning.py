"""A callback for PyTorch Lightning: `Trainer(callbacks=[EegwatchCallback("logs")])`, then `eegwatch logs`.

The rate is read just before each optimizer step; the schedule off the first scheduler of `configure_optimizers`.
Lightning steps a scheduler once an *epoch* unless its dict says `"interval": "step"`: declare what you mean with
`interval`, and the screen says whether that is what happens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.callbacks import Callback

from eegwatch.runlog import RunLog


class EegwatchCallback(Callback):
    """Writes the run log of the process of rank 0. `interval`: how often the scheduler is meant to be stepped."""

    def __init__(
        self, logs: str | Path = "logs", name: str = "lightning", interval: Literal["step", "epoch"] = "step"
    ) -> None:
        self.logs, self.name, self.interval = logs, name, interval
        self.log_: RunLog | None = None
        self._rate: float | None = None
        self._seen = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.is_global_zero:
            return
        total = int(trainer.estimated_stepping_batches) if trainer.estimated_stepping_batches != float("inf") else None
        accumulate = int(trainer.accumulate_grad_batches)
        per_epoch = -(-int(trainer.num_training_batches) // accumulate)
        schedulers = trainer.lr_scheduler_configs
        self.log_ = RunLog(
            self.logs,
            self.name,
            schedule=schedulers[0].scheduler if schedulers else None,
            unit=self.interval,
            total_steps=total,
            steps_per_epoch=per_epoch,
            epochs=trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None,
            accumulate=accumulate,
            step=int(trainer.global_step),
        )
        self._seen = int(trainer.global_step)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self._rate = float(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.log_ is None or int(trainer.global_step) == self._seen:
            return  # a micro-batch of an accumulated step
        self._seen = int(trainer.global_step)
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        self.log_.step(loss=loss, lr=self._rate, step=self._seen)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if self.log_ is None or trainer.sanity_checking:
            return
        metrics = {key.lower(): float(value) for key, value in trainer.callback_metrics.items()}
        loss = next((metrics[key] for key in ("val_loss", "val/loss") if key in metrics), None)
        auroc = next((v for key, v in metrics.items() if key.startswith("val") and "auroc" in key), None)
        self.log_.eval(loss=loss, auroc=auroc)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if self.log_ is not None:
            self.log_.end("completed")

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        if self.log_ is not None:
            stopped = isinstance(exception, KeyboardInterrupt)
            said = None if stopped else f"{type(exception).__name__}: {exception}"
            self.log_.end("stopped" if stopped else "failed", said)
