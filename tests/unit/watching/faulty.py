"""One fault in a random training: what it is, which trainings can have it, and the rules that describe it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.unit.watching.drawn import EPOCH, ROWS, STEPS, Plan, Training
from tests.unit.watching.loops import silent


@dataclass(frozen=True)
class Fault:
    """`rules`: any of them describes it. `fits`: the plan nearest to a given one that can have it; None where none can."""

    name: str
    rules: tuple[str, ...]
    fits: Callable[[Plan], Plan | None]


def plain(plan: Plan) -> Plan:
    """Without what would hide a fault: steps that fail or are left out, a closure, skipped steps, a resume right before it."""
    optimizer = plan.optimizer if plan.optimizer != "LBFGS" else "AdamW"
    precision = "" if plan.precision == "scaler" else plan.precision
    none: frozenset[int] = frozenset()
    resume = None if plan.resume is not None and plan.at - plan.resume in (1, 2) else plan.resume
    return replace(
        plan,
        optimizer=optimizer,
        closure=False,
        fails=none,
        leaves_out=none,
        precision=precision,
        resume=resume,
        at=max(2, plan.at),
    )


def dense(plan: Plan, **changes: object) -> Plan:
    """With a model all of whose tensors have a gradient that is not zero at each step."""
    model = plan.model if plan.model in ("conv", "shared", "recurrent", "float64", "normed") else "recurrent"
    return replace(plain(plan), model=model, frozen="", **changes)  # type: ignore[arg-type]


FAULTS = (
    Fault("gradients are not cleared", ("gradients_not_cleared",), lambda p: dense(p)),
    Fault("step() is called twice", ("gradient_applied_twice",), lambda p: dense(p, clears="before")),
    Fault(
        "gradients are cleared before each micro-batch",
        ("micro_gradients_dropped", "passes_unused"),
        lambda p: dense(p, accumulate=3, short=False, micro=False),
    ),
    Fault("gradients are cleared before step()", ("micro_gradients_dropped",), lambda p: dense(p, set_to_none=True)),
    Fault(
        "a tensor is frozen while its gradient lies there",
        ("frozen_moves",),
        lambda p: dense(p, set_to_none=False, optimizer="SGD", option=1),
    ),
    Fault("what is declared frozen is written to", ("frozen_changed",), lambda p: replace(plain(p), frozen="declared")),
    Fault(
        "the decay is not set any more",
        ("off_schedule",),
        lambda p: replace(plain(p), scheduled=True, optimizer="AdamW" if "dam" not in p.optimizer else p.optimizer),
    ),
    Fault("the norm is not clipped", ("clip_missing",), lambda p: dense(p, clip=0.001)),
    Fault("the norm is clipped before it is unscaled", ("clip_before_unscale",), lambda p: dense(p, clip=0.1, precision="scaler")),
    Fault("the optimizer holds a copy's tensors", ("optimizer_holds_strangers",), lambda p: dense(p, resume=None, average="")),
    Fault("step() is not called any more", ("step_not_taken",), lambda p: dense(p, clears="before", second=False, accumulate=1, resume=None, at=7)),
    Fault("the optimizer's state is not loaded", ("optimizer_state_lost",), lambda p: dense(p, resume=7, optimizer="AdamW")),
    Fault("the weights are not loaded", ("weights_not_restored",), lambda p: replace(plain(p), resume=7, average="")),
    Fault("the average is not loaded", ("ema_not_restored",), lambda p: dense(p, resume=7, average="always")),
    Fault("each epoch begins with the same seed", ("order_repeated",), lambda p: dense(p, loader="shuffled", resume=None)),
    Fault(
        "the evaluation runs in training mode",
        ("evaluation_in_train_mode",),
        lambda p: replace(plain(p), model="conv", evaluate=frozenset({5})),
    ),
    Fault(
        "the evaluation steps the optimizer",
        ("evaluation_changed_model",),
        lambda p: dense(p, evaluate=frozenset({5}), resume=None),
    ),
    Fault(
        "micro-batches are added up",
        ("microbatch_weights",),
        lambda p: dense(p, accumulate=2, short=False, micro=True, clears="before"),
    ),
    Fault("the average is not updated any more", ("ema_not_updated",), lambda p: dense(p, average="always", resume=None)),
    Fault("the average is updated twice", ("ema_updated_twice",), lambda p: dense(p, average="always", resume=None)),
    Fault("the average is the model", ("ema_aliased",), lambda p: dense(p, average="always", resume=None)),
    Fault("the model stays in evaluation mode", ("train_mode_lost",), lambda p: replace(plain(p), model="mlp", resume=None)),
    Fault("the tie is lost", ("tying_lost",), lambda p: replace(plain(p), model="shared", frozen="", resume=None, average="")),
    Fault("a layer is in no optimizer", ("not_in_optimizer",), lambda p: replace(plain(p), average="", resume=None)),
)  # fmt: skip
BY_NAME = {fault.name: fault for fault in FAULTS}


class FaultyTraining(Training):
    """A training whose plan names a fault. `shown`: the first logged step that has it; None where it came to nothing."""

    first_scale = 2.0**12

    def __init__(self, plan: Plan, folder: Path | None) -> None:
        self.shown: int | None = None
        self.number = 1
        super().__init__(plan, folder)

    def wrong(self, name: str, number: int | None = None) -> bool:
        """Is it time for this fault? `number`: of the step, where it begins with one."""
        if self.plan.fault != name or (number is not None and number < self.plan.at):
            return False
        self.shown = self.taken + 1 if self.shown is None else self.shown
        return True

    def build(self) -> None:
        super().build()
        if self.plan.fault == "the optimizer holds a copy's tensors":
            self.wrong(self.plan.fault)
            self.model = copy.deepcopy(self.model)
        elif self.plan.fault == "a layer is in no optimizer":
            self.wrong(self.plan.fault)
            held = self.optimizer.param_groups[-1]["params"]
            del held[next(number for number, one in enumerate(held) if one.requires_grad)]
        elif self.plan.fault == "the average is the model":
            self.wrong(self.plan.fault)
            assert self.average is not None
            self.average.module = self.model

    def clear(self, when: str) -> None:
        if not self.wrong("gradients are not cleared", self.number):
            super().clear(when)

    def change(self, number: int) -> None:
        self.number = number
        super().change(number)
        first = next(self.model.parameters())
        if number == self.plan.at and self.wrong("a tensor is frozen while its gradient lies there"):
            first.requires_grad_(False)
        if number == self.plan.at and self.wrong("what is declared frozen is written to"):
            with torch.no_grad():
                first.add_(1.0)
        if number == self.plan.at and self.wrong("the tie is lost"):
            self.model.out.weight = nn.Parameter(self.model.out.weight.detach().clone())  # type: ignore[union-attr]
        if self.wrong("the model stays in evaluation mode", number):
            self.model.eval()
        if not (number - 1) % EPOCH and number > 1 and self.wrong("each epoch begins with the same seed"):
            self.shown = self.taken + EPOCH if self.shown == self.taken + 1 else self.shown

    def update(self, optimizer: torch.optim.Optimizer) -> None:
        if self.wrong("step() is not called any more", self.number):
            return
        if self.wrong("gradients are cleared before step()", self.number):
            optimizer.zero_grad()
        super().update(optimizer)
        if self.number == self.plan.at and self.wrong("step() is called twice"):
            super().update(optimizer)

    def set_decay(self) -> None:
        if not self.decays or not self.wrong("the decay is not set any more", self.number):
            super().set_decay()

    def before_micro_batch(self, place: int) -> None:
        if place and self.wrong("gradients are cleared before each micro-batch", self.number):
            self.optimizer.zero_grad()

    def share(self, rows: int, of: int) -> float:
        return 1.0 if self.wrong("micro-batches are added up", self.number) else super().share(rows, of)

    def clip(self, most: float) -> None:
        if self.wrong("the norm is not clipped", self.number):
            return
        if self.wrong("the norm is clipped before it is unscaled", self.number):
            nn.utils.clip_grad_norm_(list(self.model.parameters()), most)
            return
        super().clip(most)

    def move_average(self) -> None:
        if self.wrong("the average is not updated any more", self.number):
            return
        super().move_average()
        if self.wrong("the average is updated twice", self.number):
            super().move_average()

    def evaluation(self) -> None:
        if self.wrong("the evaluation runs in training mode"):
            self.model.eval = self.model.train  # type: ignore[method-assign,assignment]
            self.shown = self.taken
        super().evaluation()

    def evaluated(self) -> torch.Tensor:
        if self.wrong("the evaluation steps the optimizer"):
            self.shown = self.taken
            with torch.enable_grad():
                self.optimizer.zero_grad()
                super().evaluated().backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.optimizer.zero_grad()
        return super().evaluated()

    def load(self, name: str, state: dict[str, Any]) -> None:
        what = {"optimizer": "the optimizer's state is not loaded", "model": "the weights are not loaded"}
        what["average"] = "the average is not loaded"
        if name in what and self.wrong(what[name]):
            self.shown = self.taken
            return
        super().load(name, state)
        if name == "average" and self.plan.fault == "the average is the model":
            assert self.average is not None
            self.average.module = self.model

    def endless(self) -> Iterator[torch.Tensor]:
        while True:
            if self.loader is None:
                yield torch.randn(ROWS, 8)
                continue
            if self.plan.fault == "each epoch begins with the same seed":
                torch.manual_seed(5)
            for (rows,) in self.loader:
                yield rows


def outcome(fault: Fault, plan: Plan, folder: Path) -> tuple[int, int | None, str | None] | None:
    """(the first step that has it, the step at which it was said, by which rule); None where the plan can not have it."""
    fitting = fault.fits(plan)
    if fitting is None:
        return None
    training = FaultyTraining(replace(fitting, fault=fault.name), folder)
    training.run()
    if training.shown is None or training.shown > STEPS:
        return None
    assert training.log is not None
    found = sorted((f for f in silent(training.log.folder) if f.rule in fault.rules), key=lambda f: f.since_step)
    if not found:
        return training.shown, None, None
    return training.shown, found[0].since_step, found[0].rule
