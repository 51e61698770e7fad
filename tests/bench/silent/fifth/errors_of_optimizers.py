"""Errors of what an optimizer holds, of its groups and rates, and of formulas of one's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import StepLR

from tests.bench.silent.case import error
from tests.bench.silent.script import Script
from tests.bench.silent.toy import CLASSES, FEATURES, batches, mlp, update, weights


def train(script: Script, model: nn.Module, optimizer: Optimizer, steps: int = 24, **watch: Any) -> Tensor:
    """The plain loop, watched."""
    log = script.log()
    log.watch(model, optimizer, **watch)
    for batch in batches(steps):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


class TwoPhases(Optimizer):
    """Moments in a first phase, weights in a second, as Ranger21 does.

    `first`: the second phase begins only if the first parameter has moments.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, first: bool) -> None:
        super().__init__(params, {"lr": lr, "betas": (0.9, 0.99)})
        self.first = first

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        held = [(group, p) for group in self.param_groups for p in group["params"]]
        for group, p in held:
            if p.grad is None:
                continue
            state = self.state[p]
            state["step"] = state.get("step", 0) + 1
            for name, beta, value in zip("mv", group["betas"], (p.grad, p.grad.square())):
                state[name] = state.get(name, torch.zeros_like(p)).lerp(value, 1 - beta)
        if self.first and not self.state[held[0][1]]:
            return
        for group, p in held:
            if state := self.state[p]:
                m, v = (state[name] / (1 - beta ** state["step"]) for name, beta in zip("mv", group["betas"]))
                p.sub_(group["lr"] * m / (v.sqrt() + 1e-8))


@error(
    "kozistr/pytorch_optimizer/pull/125",
    "Ranger21 leaves out its second phase if the first parameter has no gradient: nothing is trained",
    "update_lost",
    "update_differs",
    "step_not_taken",
    "optimizer_state_stands",
    first=1,
    note="two phases in a few lines stand for Ranger21",
)
def second_phase_left_out(script: Script, faulty: bool) -> Tensor:
    model = nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, CLASSES))
    model[0].weight.requires_grad_(False)
    return train(script, model, TwoPhases(model.parameters(), 1e-2, first=faulty))


class Stack(nn.Module):
    """Layers one after the other, in a list of Python's or of torch's."""

    def __init__(self, registered: bool) -> None:
        super().__init__()
        layers = [nn.Linear(FEATURES, FEATURES) for _ in range(2)]
        self.layers: Any = nn.ModuleList(layers) if registered else layers
        self.out = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return self.out(x)


@error(
    "pytorch/pytorch/issues/59925",
    "layers in a list of Python's are no part of the module: no optimizer gets their parameters",
    "not_in_optimizer",
    first=1,
    again=True,
)
def layers_in_a_plain_list(script: Script, faulty: bool) -> Tensor:
    model = Stack(registered=not faulty)
    train(script, model, Adam(model.parameters(), lr=1e-2))
    return weights(*model.layers, model.out)


class Quantised(nn.Linear):
    """A linear layer whose weights are rounded in the forward pass, the gradient straight through."""

    def forward(self, x: Tensor) -> Tensor:
        rounded = (self.weight * 8).round() / 8
        return nn.functional.linear(x, self.weight + (rounded - self.weight).detach(), self.bias)


def quantise(model: nn.Sequential) -> None:
    for name, module in list(model.named_children()):
        if isinstance(module, nn.Linear):
            made = Quantised(module.in_features, module.out_features)
            made.load_state_dict(module.state_dict())
            model.register_module(name, made)


@error(
    "hustzxd/EfficientPyTorch/issues/1",
    "the optimizer is defined before the layers are replaced by quantised ones",
    "optimizer_holds_strangers",
    "not_in_optimizer",
    "no_gradient",
    first=1,
    again=True,
)
def defined_before_the_replacement(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    if not faulty:
        quantise(model)
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    if faulty:
        quantise(model)
    return train(script, model, optimizer)


@error(
    "microsoft/nni/issues/4521",
    "pruning makes layers smaller in the middle of the run: the optimizer holds those of before",
    "optimizer_holds_strangers",
    "not_in_optimizer",
    "no_gradient",
    first=13,
    again=True,
)
def layers_made_smaller(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log()
    log.watch(model, optimizer)
    for step, batch in enumerate(batches(30)):
        if step == 12:
            keep = model[0].weight.detach().norm(dim=1).topk(8).indices
            small = nn.Linear(FEATURES, 8), nn.Linear(8, CLASSES)
            with torch.no_grad():
                small[0].weight.copy_(model[0].weight[keep])
                small[0].bias.copy_(model[0].bias[keep])
                small[1].weight.copy_(model[2].weight[:, keep])
                small[1].bias.copy_(model[2].bias)
            model[0], model[2] = small
            if not faulty:
                optimizer = SGD(model.parameters(), lr=0.1)
                log.watch(model, optimizer, fresh_optimizer=True)
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


class Kernel(nn.Module):
    """A block whose parameters have names of their own, as a fused kernel gives them."""

    def __init__(self) -> None:
        super().__init__()
        self.attn_ow, self.attn_ob = nn.Parameter(torch.randn(8, 8) / 3), nn.Parameter(torch.zeros(8))
        self.norm_w, self.norm_b = nn.Parameter(torch.ones(8)), nn.Parameter(torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.layer_norm(x + torch.tanh(x @ self.attn_ow + self.attn_ob), (8,), self.norm_w, self.norm_b)


@error(
    "deepspeedai/DeepSpeedExamples/pull/75",
    "the kernel's biases and norms have names that the list of what must not decay does not know",
    "empty_group",
    "off_schedule",
    first=1,
    again=True,
)
def names_that_the_list_does_not_know(script: Script, faulty: bool) -> Tensor:
    model = nn.Sequential(nn.Linear(FEATURES, 8, bias=False), Kernel(), nn.Linear(8, CLASSES, bias=False))
    no_decay = ["bias", "LayerNorm.weight"] + ([] if faulty else ["attn_ob", "norm_w", "norm_b"])
    named = list(model.named_parameters())
    groups = [
        {"params": [p for name, p in named if not any(part in name for part in no_decay)], "weight_decay": 0.1},
        {"params": [p for name, p in named if any(part in name for part in no_decay)], "weight_decay": 0.0},
    ]
    decays = {"weight_decay": lambda step, group: (0.1, 0.0)[group]}  # noqa: ARG005
    return train(script, model, AdamW(groups, lr=1e-2), scheduled=decays)


class SGDW(Optimizer):
    """SGD with momentum and decoupled decay; `constant`: the decay is taken off as a number, not as a share."""

    def __init__(self, params: Iterable[Tensor], lr: float, weight_decay: float, constant: bool) -> None:
        super().__init__(params, {"lr": lr, "momentum": 0.9, "weight_decay": weight_decay})
        self.constant = constant

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                buffer = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
                buffer.mul_(group["momentum"]).add_(p.grad)
                decay = torch.full_like(p, group["weight_decay"]) if self.constant else group["weight_decay"] * p
                p.add_(buffer, alpha=-group["lr"]).add_(decay, alpha=-group["lr"])


@error(
    "jettify/pytorch-optimizer/pull/455",
    "SGDW takes lr * weight_decay off each weight, in place of that share of it",
    "update_differs",
    first=1,
)
def decay_taken_off_as_a_number(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    return train(script, model, SGDW(model.parameters(), 0.05, 0.1, constant=faulty))


class OwnAdamW(Optimizer):
    """AdamW written out; `late`: the weights decay after the step, the step itself included."""

    def __init__(self, params: Iterable[Tensor], lr: float, weight_decay: float, late: bool) -> None:
        super().__init__(params, {"lr": lr, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": weight_decay})
        self.late = late

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                state, (one, two) = self.state[p], group["betas"]
                if not state:
                    state |= {"step": 0, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
                state["step"] += 1
                state["exp_avg"].lerp_(p.grad, 1 - one)
                state["exp_avg_sq"].mul_(two).addcmul_(p.grad, p.grad, value=1 - two)
                kept = 1 - group["lr"] * group["weight_decay"]
                if not self.late:
                    p.mul_(kept)
                root = (state["exp_avg_sq"] / (1 - two ** state["step"])).sqrt() + group["eps"]
                p.addcdiv_(state["exp_avg"], root, value=-group["lr"] / (1 - one ** state["step"]))
                if self.late:
                    p.mul_(kept)


@error(
    "bitsandbytes-foundation/bitsandbytes/issues/2010",
    "AdamW on one backend: the weights decay after the update, which decays with them",
    "update_differs",
    first=1,
    note="the optimizer is written out, in float32",
)
def decay_after_the_update(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    return train(script, model, OwnAdamW(model.parameters(), 0.02, 0.5, late=faulty))


class Arguments:
    """The arguments of a training, with their defaults."""

    def __init__(self, learning_rate: float = 5e-5, weight_decay: float = 0.0) -> None:
        self.learning_rate, self.weight_decay = learning_rate, weight_decay


@error(
    "neuralmagic/sparseml/pull/206",
    "load_optimizer() is given a default instance of the arguments: --learning_rate has no effect",
    "off_schedule",
    "lr_*",
    first=1,
    again=True,
)
def default_instance_of_the_arguments(script: Script, faulty: bool) -> Tensor:
    given = Arguments(learning_rate=1e-2, weight_decay=0.01)
    model = mlp()

    def load_optimizer(arguments: Arguments) -> Optimizer:
        return AdamW(model.parameters(), lr=arguments.learning_rate, weight_decay=arguments.weight_decay)

    optimizer = load_optimizer(Arguments() if faulty else given)
    wanted = {"lr": lambda step, group: given.learning_rate}  # noqa: ARG005
    return train(script, model, optimizer, scheduled=wanted)


@error(
    "victorchall/EveryDream2trainer/issues/102",
    "the rate of optimizer.json, a default, wins over the one of the command line",
    "off_schedule",
    "lr_*",
    first=1,
    again=True,
)
def default_of_a_file_wins(script: Script, faulty: bool) -> Tensor:
    script.path("optimizer.json").write_text(json.dumps({"lr": 1e-6, "betas": [0.9, 0.999]}))
    command_line = {"lr": 3e-3}
    of_file = json.loads(script.path("optimizer.json").read_text())
    settings = command_line | of_file if faulty else of_file | command_line
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=settings["lr"], betas=tuple(settings["betas"]))
    law = {"name": "constant", "total_steps": 24, "lr": command_line["lr"]}
    log = script.log(schedule=law, optimizer=optimizer, total_steps=24)
    log.watch(model, optimizer)
    for batch in batches(24):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@error(
    "nianticlabs/manydepth/issues/46",
    "the scheduler is made anew when the teacher is frozen: it counts from zero, and the rate never falls",
    "off_schedule",
    "lr_*",
    "schedule_*",
    first=19,
)
def scheduler_made_anew_at_the_freeze(script: Script, faulty: bool) -> Tensor:
    teacher, model = nn.Linear(FEATURES, FEATURES), mlp()

    def made() -> Any:
        held = [p for part in (teacher, model) for p in part.parameters() if p.requires_grad]
        optimizer = Adam(held, lr=1e-2)
        return optimizer, StepLR(optimizer, step_size=3, gamma=0.1)

    optimizer, scheduler = made()
    rates = {"lr": lambda step, group: 1e-2 * 0.1 ** ((step - 1) // 18)}  # noqa: ARG005
    log = script.log(steps_per_epoch=6, epochs=5)
    whole = nn.Sequential(teacher, model)
    log.watch(whole, optimizer, scheduled=rates)
    for epoch in range(5):
        if epoch == 2:
            teacher.requires_grad_(False)
            counted = scheduler.state_dict()
            optimizer, scheduler = made()
            if not faulty:
                scheduler.load_state_dict(counted)
            log.watch(whole, optimizer, scheduled=rates, fresh_optimizer=True)
        for batch in batches(6, seed=epoch):
            log.step(loss=update(whole, optimizer, batch))
        scheduler.step()
    return weights(whole)


@error(
    "offbit/evo-design/issues/3",
    "the optimizer is given the decay as its rate",
    "off_schedule",
    "lr_*",
    first=1,
    again=True,
)
def decay_given_as_the_rate(script: Script, faulty: bool) -> Tensor:
    lr, weight_decay = 1e-2, 1e-3
    model = mlp()
    optimizer = Adam(model.parameters(), lr=weight_decay if faulty else lr, weight_decay=weight_decay)
    return train(script, model, optimizer, scheduled={"lr": lambda step, group: lr})  # noqa: ARG005
