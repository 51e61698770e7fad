"""A callback for Hugging Face transformers: `Trainer(callbacks=[EegwatchCallback("logs")])`, then `eegwatch logs`.

Every optimizer step is written with the rate that it used; the loss is there where the Trainer logs one
(`logging_steps`), since it tells callbacks no other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from eegwatch.runlog import RunLog


class EegwatchCallback(TrainerCallback):
    """Writes the run log of the process of rank 0. A step is written when the next begins: its loss comes after it."""

    def __init__(self, logs: str | Path = "logs", name: str = "transformers") -> None:
        self.logs, self.name = logs, name
        self.log_: RunLog | None = None
        self._rate: float | None = None
        self._pending: dict[str, Any] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if not state.is_world_process_zero:
            return
        epochs = max(1, round(float(state.num_train_epochs)))
        self.log_ = RunLog(
            self.logs,
            self.name,
            schedule=given.get("lr_scheduler"),
            total_steps=int(state.max_steps),
            steps_per_epoch=-(-int(state.max_steps) // epochs),
            epochs=epochs,
            batch_size=int(args.per_device_train_batch_size),
            accumulate=int(args.gradient_accumulation_steps),
            seed=int(args.seed),
            step=int(state.global_step),
        )

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self._rate = float(given["optimizer"].param_groups[0]["lr"])

    def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self._flush()

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self._pending = {"step": int(state.global_step), "lr": self._rate}

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **given: Any) -> None:
        if self._pending is not None and logs and "loss" in logs:
            self._pending |= {"loss": float(logs["loss"]), "grad_norm": float(logs.get("grad_norm") or 0.0) or None}

    def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self._flush()
        metrics: dict[str, Any] = given.get("metrics") or {}
        if self.log_ is not None:
            auroc = next((float(v) for key, v in metrics.items() if "auroc" in key.lower()), None)
            self.log_.eval(loss=metrics.get("eval_loss"), auroc=auroc)

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self._flush()
        if self.log_ is not None:
            self.log_.end("completed" if state.global_step >= state.max_steps else "stopped")

    def _flush(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None and self.log_ is not None:
            self.log_.step(**pending)
