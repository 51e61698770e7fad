"""A callback for Hugging Face transformers: `Trainer(callbacks=[EegwatchCallback("logs")])`, then `eegwatch logs`.

Every optimizer step is written with the rates that it used; the loss is there where the Trainer logs one
(`logging_steps`), since it tells callbacks no other. `resume_from_checkpoint` goes on in the same run. A stop, a
checkpoint and an evaluation that the monitor asks for are passed to the Trainer (`should_training_stop`, `should_save`,
`should_evaluate`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from eegwatch.integrations.common import EvaluationHooks, SafeCallback, evaluation, never_raises, scalar, whole
from eegwatch.run.folder import RUN_LOG
from eegwatch.run.log import read_all, run_decoder
from eegwatch.run.records import Run
from eegwatch.runlog import RunLog
from eegwatch.steering.ranks import rank_of_process

NO_METRIC = ("runtime", "samples_per_second", "steps_per_second", "epoch", "learning_rate", "total_flos")


class EegwatchCallback(SafeCallback, TrainerCallback):
    """Writes the run log in the process of rank 0; the others follow its commands.

    A step is written when the next begins: its loss comes after it.

    `schedule`: the schedule as docs/schedules.md has it, where it cannot be read off the Trainer's scheduler.
    `watch`: look for silent errors of the steps (docs/silent_errors.md).
    """

    def __init__(
        self,
        logs: str | Path = "logs",
        name: str = "transformers",
        *,
        schedule: dict[str, Any] | None = None,
        goals: dict[str, str] | None = None,
        watch: bool = True,
    ) -> None:
        self.logs, self.name, self.schedule, self.goals, self.watch = logs, name, schedule, goals, watch
        self._pending: dict[str, Any] | None = None
        self._batches = 0  # of the evaluation under way
        self._evaluated = EvaluationHooks()

    @never_raises
    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if not state.is_world_process_zero and not rank_of_process():
            return  # processes that torch.distributed does not know (a TPU's): rank 0 alone has a log
        total, done, epochs = int(state.max_steps), int(state.global_step), max(1, round(float(state.num_train_epochs)))
        output = str(Path(args.output_dir).resolve())
        self.log_ = RunLog(
            self.logs,
            self.name,
            schedule=self.schedule if self.schedule is not None else given.get("lr_scheduler"),
            optimizer=given.get("optimizer"),
            total_steps=total,
            steps_per_epoch=_steps_per_epoch(args, given.get("train_dataloader")) or -(-total // epochs),
            epochs=epochs,
            batch_size=int(args.train_batch_size),
            accumulate=int(args.gradient_accumulation_steps),
            world_size=int(args.world_size),
            goals=self.goals,
            config={"output_dir": output},
            seed=int(args.seed),
            resume=_run_of(Path(self.logs), output) if done else None,
            step=done,
        )
        if self.watch and not getattr(args, "deepspeed", None):  # whose engine steps, clips and accumulates itself
            loader, clip = given.get("train_dataloader"), float(args.max_grad_norm or 0.0)
            self.log_.watch(
                given.get("model"),
                given.get("optimizer"),
                loader=loader if getattr(loader, "batch_sampler", None) is not None else None,
                clip=clip or None,
            )

    @never_raises
    def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self._flush()

    @never_raises
    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self._flush()
        self._pending = {"step": int(state.global_step)}
        log = self.log_
        if log is not None:  # the Trainer's own switches: all its processes read them
            control.should_training_stop = control.should_training_stop or log.stop_requested
            control.should_save = control.should_save or log.checkpoint_requested
            control.should_evaluate = control.should_evaluate or log.evaluation_requested

    @never_raises
    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **given: Any) -> None:
        if self._pending is None or not logs or "loss" not in logs:
            return  # an evaluation's row, or the summary of the whole run: no step
        numbers = {key: number for key, value in logs.items() if (number := scalar(value)) is not None}
        self._pending |= {"loss": numbers.pop("loss", None), "grad_norm": numbers.pop("grad_norm", None)}
        self._pending["metrics"] = {key: value for key, value in numbers.items() if key not in NO_METRIC}

    @never_raises
    def on_prediction_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """A batch of an evaluation was read."""
        if not self.watch or self.log_ is None:
            return
        self._batches += 1
        try:
            length = len(given["eval_dataloader"])
        except (KeyError, TypeError):  # a stream
            return
        if self._batches == 1 and length > 1:
            self._evaluated.first_batch(self.log_)
        elif self._batches == length:
            self._evaluated.last_batch()
        self._batches %= length

    @never_raises
    def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self._flush()
        self._batches = 0
        metrics: Mapping[str, Any] = given.get("metrics") or {}
        if self.log_ is not None:
            kept = {key: value for key, value in metrics.items() if not key.endswith(NO_METRIC)}
            self.log_.eval(evaluation(kept, ("eval_", "eval/")))

    @never_raises
    def on_save(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self._flush()
        if self.log_ is not None:
            self.log_.checkpoint(Path(args.output_dir).resolve() / f"checkpoint-{state.global_step}")

    @never_raises
    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self._flush()
        if self.log_ is not None:
            self.log_.end("completed" if state.global_step >= state.max_steps else "stopped")

    def _flush(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None and self.log_ is not None:
            self.log_.step(**pending)


def _steps_per_epoch(args: Any, loader: Any) -> int | None:
    try:
        batches = whole(len(loader))
    except TypeError:  # an iterable data set
        return None
    return None if batches is None else -(-batches // int(args.gradient_accumulation_steps))


def _run_of(logs: Path, output: str) -> Path | None:
    """The newest run below `logs` that this callback wrote for the same output folder."""
    for log in sorted(logs.glob(f"*/{RUN_LOG}"), reverse=True):
        for record in read_all(log, run_decoder()):
            if isinstance(record, Run) and (record.config or {}).get("output_dir") == output:
                return log.parent
            break
    return None
