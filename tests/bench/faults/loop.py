"""A training loop with a real optimizer, and the case that it leaves behind: what was declared, what was used."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.optim import lr_scheduler as torch_schedulers

from eegwatch.run.history import StepBlock
from eegwatch.run.records import Run

warnings.filterwarnings(
    "ignore", message=".*lr_scheduler.step.*before.*optimizer.step.*"
)  # that is what some faults do


@dataclass
class Attempt:
    """What one attempt declared in its `run` record, and the rate that each of its steps used."""

    run: Run
    lrs: list[float] = field(default_factory=list)
    skipped: list[int] | None = None

    def block(self, form: str | None = None, every: int = 1) -> StepBlock:
        """The steps as columns: printed with `form` (read back), every nth record."""
        n = np.arange(self.run.step + 1, self.run.step + len(self.lrs) + 1)
        lrs = np.array(self.lrs) if form is None else np.array([float(form % lr) for lr in self.lrs])
        zeros = np.zeros(len(n), np.float32)
        skipped = np.zeros(len(n), np.int32) if self.skipped is None else np.array(self.skipped, np.int32)
        whole = StepBlock(n, zeros.astype(float), lrs, np.full(len(n), np.nan), zeros, zeros, zeros, skipped)
        return whole[::every]


@dataclass
class Case:
    """One labelled run. `cause` None: healthy. `faulty` is the index of the attempt in which the fault is."""

    name: str
    reference: str
    cause: str | None
    attempts: list[Attempt]
    faulty: int = -1


class Loop:
    """An optimizer, torch's schedulers on it, and a log of the rate that every optimizer step used."""

    def __init__(self, declared: dict[str, Any], per_epoch: int, **counts: Any) -> None:
        self.declared, self.per_epoch, self.counts = declared, per_epoch, counts
        self.attempts: list[Attempt] = []
        self.step_now = 0
        self.new_process()

    def new_process(self, lr: float = 1e-3, **record: Any) -> None:
        """Begin an attempt: a fresh optimizer, as after a start or a crash."""
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.optimizer = torch.optim.AdamW([self.weight], lr=lr)
        fields: dict[str, Any] = {
            "schedule": self.declared,
            "steps_per_epoch": self.per_epoch,
            "step": self.step_now,
            "attempt": len(self.attempts) + 1,
            "total_steps": self.total,
            "epochs": max(1, self.total // self.per_epoch),
        }
        self.attempts.append(Attempt(Run(**{**fields, **self.counts, **record})))

    @property
    def total(self) -> int:
        steps = int(self.declared["total_steps"])
        return steps * self.per_epoch if self.declared.get("unit") == "epoch" else steps

    def train(
        self, steps: int, *, each: Callable[[int], None] | None = None, epoch_end: Callable[[], None] | None = None
    ) -> None:
        """Optimizer steps: log the rate, step, then `each(n)`; `epoch_end` after every epoch's last."""
        for _ in range(steps):
            self.attempts[-1].lrs.append(float(self.optimizer.param_groups[0]["lr"]))
            self.optimizer.step()
            self.step_now += 1
            if each is not None:
                each(self.step_now)
            if epoch_end is not None and self.step_now % self.per_epoch == 0:
                epoch_end()

    def one_cycle(self, total: int | None = None, **changes: Any) -> torch_schedulers.OneCycleLR:
        d = self.declared
        arguments = {"max_lr": d["max_lr"], "pct_start": d.get("pct_start", 0.3), "div_factor": d.get("div_factor", 25.0),
                     "final_div_factor": d.get("final_div_factor", 1e4), "cycle_momentum": False}  # fmt: skip
        return torch_schedulers.OneCycleLR(
            self.optimizer, total_steps=total or d["total_steps"], **{**arguments, **changes}
        )

    def warm_linear(self, factor: float = 1.0) -> torch_schedulers.LambdaLR:
        """Hugging Face's get_linear_schedule_with_warmup, as it is: a LambdaLR."""
        warm, total = self.declared["warmup_steps"], self.declared["total_steps"]
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] = self.declared["max_lr"] * factor

        def multiplier(p: int) -> float:
            return p / max(1, warm) if p < warm else max(0.0, (total - p) / max(1, total - warm))

        return torch_schedulers.LambdaLR(self.optimizer, multiplier)

    def warm_cosine(self) -> torch_schedulers.LambdaLR:
        """Hugging Face's get_cosine_schedule_with_warmup."""
        warm, total = self.declared["warmup_steps"], self.declared["total_steps"]
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] = self.declared["max_lr"]

        def multiplier(p: int) -> float:
            if p < warm:
                return p / max(1, warm)
            return max(0.0, 0.5 * (1.0 + float(np.cos(np.pi * (p - warm) / max(1, total - warm)))))

        return torch_schedulers.LambdaLR(self.optimizer, multiplier)

    def cosine(self) -> torch_schedulers.CosineAnnealingLR:
        d = self.declared
        for group in self.optimizer.param_groups:
            group["lr"] = d["max_lr"]
        return torch_schedulers.CosineAnnealingLR(
            self.optimizer, T_max=d["total_steps"], eta_min=d.get("final_lr", 0.0)
        )
