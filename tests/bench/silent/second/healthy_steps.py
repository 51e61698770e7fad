"""Healthy steps: gradients, updates and parameters that are handled in unusual ways on purpose."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_, clip_grad_value_, parametrizations
from torch.optim import ASGD, SGD, Adagrad, Adam, AdamW, NAdam, Optimizer, RAdam, RMSprop, Rprop
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, OneCycleLR

from tests.bench.silent.case import healthy
from tests.bench.silent.script import Script
from tests.bench.silent.toy import CLASSES, FEATURES, Probe, batches, loss_of, mlp, points, scored, update, weights


def trained(script: Script, model: nn.Module, optimizer: Optimizer, steps: int = 26, **watch: Any) -> Tensor:
    log = script.log()
    log.watch(model, optimizer, **watch)
    for batch in batches(steps):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@healthy("fused AdamW")
def fused_adamw(script: Script) -> Tensor:
    model = mlp()
    return trained(script, model, AdamW(model.parameters(), lr=1e-2, weight_decay=0.1, fused=True))


@healthy("foreach SGD that maximises, with Nesterov momentum, dampening left out, and decay")
def foreach_sgd_that_maximises(script: Script) -> Tensor:
    model = mlp()
    optimizer = SGD(
        model.parameters(), lr=1e-2, momentum=0.9, nesterov=True, weight_decay=0.01, maximize=True, foreach=True
    )
    log = script.log()
    log.watch(model, optimizer)
    for x, y in batches(26):
        optimizer.zero_grad()
        score = -F.cross_entropy(model(x), y)
        score.backward()
        optimizer.step()
        log.step(loss=-score)
    return weights(model)


@healthy("Adam with amsgrad and a rate that is a tensor, moved in place")
def amsgrad_with_a_tensor_rate(script: Script) -> Tensor:
    model = mlp()
    rate = torch.tensor(1e-2)
    optimizer = Adam(model.parameters(), lr=rate, amsgrad=True, weight_decay=0.01, foreach=False)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(26):
        log.step(loss=update(model, optimizer, batch))
        rate.mul_(0.95)
    return weights(model)


@healthy("SGD with dampening and momentum, two groups, one of them at a rate of 0")
def a_group_at_rate_zero(script: Script) -> Tensor:
    model = Probe()
    groups = [{"params": model.backbone.parameters(), "lr": 0.0}, {"params": model.head.parameters()}]
    return trained(script, model, SGD(groups, lr=0.1, momentum=0.9, dampening=0.5))


@healthy("seven optimizers, each over a layer of its own")
def seven_optimizers(script: Script) -> Tensor:
    layers = [nn.Linear(FEATURES, FEATURES) for _ in range(7)]
    model = nn.Sequential(
        *itertools.chain.from_iterable((layer, nn.Tanh()) for layer in layers), nn.Linear(FEATURES, CLASSES)
    )
    kinds: list[Any] = [NAdam, RAdam, RMSprop, Adagrad, ASGD, Rprop, AdamW]
    optimizers = [kind(layer.parameters(), lr=1e-3) for kind, layer in zip(kinds, layers)]
    optimizers[0].add_param_group({"params": model[-1].parameters()})
    log = script.log()
    log.watch(model, optimizers)
    for batch in batches(26):
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        log.step(loss=loss)
    return weights(model)


class Centralised(SGD):
    """SGD over gradients without their mean: a subclass that calls super().step()."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None and p.ndim > 1:
                    p.grad.sub_(p.grad.mean(dim=1, keepdim=True))
        return super().step(closure)


@healthy("an optimizer that subclasses SGD, changes the gradients and calls super().step()")
def gradient_centralisation(script: Script) -> Tensor:
    model = mlp()
    return trained(script, model, Centralised(model.parameters(), lr=0.1, momentum=0.9))


class Lookahead:
    """Slow weights, pulled every five steps to the fast ones."""

    def __init__(self, inner: Optimizer) -> None:
        self.inner, self.count = inner, 0
        self.slow = [[p.detach().clone() for p in group["params"]] for group in inner.param_groups]

    def step(self) -> None:
        self.inner.step()
        self.count += 1
        if self.count % 5 == 0:
            with torch.no_grad():
                for group, slow in zip(self.inner.param_groups, self.slow):
                    for p, s in zip(group["params"], slow):
                        s.add_(p - s, alpha=0.5)
                        p.copy_(s)


@healthy("Lookahead: the weights go back half of the way every five steps", "michaelrzhang/lookahead")
def lookahead(script: Script) -> Tensor:
    model = mlp()
    inner = Adam(model.parameters(), lr=1e-2)
    optimizer = Lookahead(inner)
    log = script.log()
    log.watch(model, inner)
    for batch in batches(26):
        inner.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


class Lamb(Optimizer):
    """LAMB in a few lines: an optimizer that no rule knows."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": 0.01, "betas": (0.9, 0.99)})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["step"], state["m"], state["v"] = 0, torch.zeros_like(p), torch.zeros_like(p)
                state["step"] += 1
                state["m"].lerp_(p.grad, 0.1)
                state["v"].lerp_(p.grad**2, 0.01)
                move = state["m"] / (state["v"].sqrt() + 1e-6) + group["weight_decay"] * p
                trust = (p.norm() / move.norm()).nan_to_num(1.0, 1.0, 1.0) if p.norm() > 0 else torch.tensor(1.0)
                p.sub_(group["lr"] * trust * move)


@healthy("an optimizer of one's own with trust ratios (LAMB)")
def lamb(script: Script) -> Tensor:
    model = mlp()
    return trained(script, model, Lamb(model.parameters(), lr=1e-2))


@healthy("master weights in float32 beside a model in bfloat16, copied after each step")
def master_weights(script: Script) -> Tensor:
    model = mlp().bfloat16()
    masters = [p.detach().float().clone().requires_grad_(True) for p in model.parameters()]
    optimizer = AdamW(masters, lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for x, y in batches(26):
        model.zero_grad()
        loss = F.cross_entropy(model(x.bfloat16()).float(), y)
        loss.backward()
        for master, p in zip(masters, model.parameters()):
            master.grad = p.grad.float()
        optimizer.step()
        with torch.no_grad():
            for master, p in zip(masters, model.parameters()):
                p.copy_(master)
        log.step(loss=loss)
    return weights(model)


@healthy("noise on the gradients and clipping by value before each step")
def noisy_gradients_clipped_by_value(script: Script) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(26):
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        for p in model.parameters():
            p.grad.add_(torch.randn_like(p.grad), alpha=0.01)
        clip_grad_value_(model.parameters(), 0.1)
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@healthy(
    "differential privacy: gradients of single samples, clipped, summed, with noise, put on by hand", "pytorch/opacus"
)
def gradients_of_single_samples(script: Script) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log()
    log.watch(model, optimizer)
    for x, y in batches(24, size=4):
        total = [torch.zeros_like(p) for p in model.parameters()]
        for i in range(len(x)):
            model.zero_grad()
            loss = loss_of(model, (x[i : i + 1], y[i : i + 1]))
            loss.backward()
            clip_grad_norm_(model.parameters(), 0.5)
            for t, p in zip(total, model.parameters()):
                t.add_(p.grad)
        for t, p in zip(total, model.parameters()):
            p.grad = (t + 0.05 * torch.randn_like(t)) / len(x)
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@healthy("gradients of two tasks are projected onto each other (PCGrad)", "tianheyu927/PCGrad")
def projected_gradients(script: Script) -> Tensor:
    model = mlp()
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    params = list(model.parameters())
    for x, y in batches(24):
        out = model(x)
        losses = [F.cross_entropy(out, y), out.pow(2).mean()]
        a, b = (
            torch.cat([g.flatten() for g in torch.autograd.grad(each, params, retain_graph=True)]) for each in losses
        )
        if a @ b < 0:
            a, b = a - (a @ b) / (b @ b) * b, b - (a @ b) / (a @ a) * a
        optimizer.zero_grad()
        at = 0
        for p in params:
            p.grad = (a + b)[at : at + p.numel()].view_as(p).clone()
            at += p.numel()
        optimizer.step()
        log.step(loss=losses[0])
    return weights(model)


@healthy("two losses with a backward pass each over one graph, one step for both")
def two_backward_passes(script: Script) -> Tensor:
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for x, y in batches(24):
        optimizer.zero_grad()
        out = model(x)
        loss = F.cross_entropy(out, y)
        loss.backward(retain_graph=True)
        (0.01 * out.pow(2).mean()).backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@healthy("accumulation over three micro-batches that was not declared, zeros kept instead of None")
def undeclared_accumulation(script: Script) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    log = script.log()
    log.watch(model, optimizer)
    for number, batch in enumerate(batches(72), start=1):
        loss = loss_of(model, batch) / 3
        loss.backward()
        if number % 3 == 0:
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
            log.step(loss=loss)
    return weights(model)


@healthy("a step by closure that is no L-BFGS: SGD calls forward and backward itself")
def step_with_a_closure(script: Script) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(26):

        def closure(batch: Any = batch) -> Tensor:
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            loss.backward()
            return loss

        log.step(loss=optimizer.step(closure))
    return weights(model)


@healthy("proximal policy optimisation: several passes over the same samples, clipped by norm")
def several_passes_over_the_same_samples(script: Script) -> Tensor:
    model = mlp()
    optimizer = Adam(model.parameters(), lr=3e-3)
    log = script.log()
    log.watch(model, optimizer, clip=0.5)
    for rollout in range(6):
        x, action = points(16, 40 + rollout)
        with torch.no_grad():
            old = model(x).log_softmax(-1).gather(1, action[:, None])
        for _ in range(4):
            optimizer.zero_grad()
            ratio = (model(x).log_softmax(-1).gather(1, action[:, None]) - old).exp()
            loss = -torch.min(ratio, ratio.clamp(0.8, 1.2)).mean()
            loss.backward()
            clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            log.step(loss=loss)
    return weights(model)


@healthy("weight and spectral normalisation: parameters are recomputed, buffers move in forward passes")
def parametrised_weights(script: Script) -> Tensor:
    model = nn.Sequential(
        parametrizations.weight_norm(nn.Linear(FEATURES, 12)),
        nn.ReLU(),
        parametrizations.spectral_norm(nn.Linear(12, CLASSES)),
    )
    return trained(script, model, AdamW(model.parameters(), lr=1e-2))


@healthy("distillation: the teacher is watched too, in eval mode, and no optimizer holds it")
def distillation(script: Script) -> Tensor:
    teacher, student = Probe(), mlp(8)
    teacher.requires_grad_(False).eval()
    optimizer = AdamW(student.parameters(), lr=1e-2)
    log = script.log()
    log.watch([student, teacher], optimizer)
    for x, _ in batches(24):
        optimizer.zero_grad()
        loss = F.kl_div(student(x).log_softmax(-1), teacher(x).log_softmax(-1), log_target=True, reduction="batchmean")
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(student)


@healthy("a mean teacher whose decay rises, which nobody declared; dropout in the teacher on purpose")
def mean_teacher(script: Script) -> Tensor:
    student = mlp(dropout=0.2)
    teacher = copy.deepcopy(student).requires_grad_(False)
    optimizer = SGD(student.parameters(), lr=0.1, momentum=0.9)
    log = script.log()
    log.watch(student, optimizer)
    for step, (x, y) in enumerate(batches(26)):
        optimizer.zero_grad()
        out = student(x)
        loss = F.cross_entropy(out, y) + (out - teacher(x)).pow(2).mean()
        loss.backward()
        optimizer.step()
        decay = min(1 - 1 / (step + 1), 0.99)
        with torch.no_grad():
            for t, p in zip(teacher.parameters(), student.parameters()):
                t.mul_(decay).add_(p, alpha=1 - decay)
        log.step(loss=loss)
    return weights(student, teacher)


@healthy("a siamese network: one encoder is used three times a step")
def siamese(script: Script) -> Tensor:
    encoder = mlp(12)
    optimizer = Adam(encoder.parameters(), lr=1e-2)
    log = script.log()
    log.watch(encoder, optimizer)
    for step in range(24):
        a, b, c = (points(8, 3 * step + k)[0] for k in range(3))
        optimizer.zero_grad()
        loss = F.triplet_margin_loss(encoder(a), encoder(a + 0.05 * b), encoder(c))
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(encoder)


@healthy("a layer is frozen late, its gradient taken away, batch statistics in eval mode from then on")
def frozen_late(script: Script) -> Tensor:
    model = Probe()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    log = script.log()
    log.watch(model, optimizer)
    for step, batch in enumerate(batches(28), start=1):
        if step == 12:
            model.backbone.requires_grad_(False).eval()
            for p in model.backbone.parameters():
                p.grad = None
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@healthy("one-cycle with the momentum that torch cycles by default, read off the scheduler")
def one_cycle_momentum(script: Script) -> Tensor:
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-3)
    scheduler = OneCycleLR(optimizer, max_lr=1e-2, total_steps=30)
    log = script.log(schedule=scheduler, total_steps=30)
    log.watch(model, optimizer)
    for batch in batches(30):
        loss = update(model, optimizer, batch)
        scheduler.step()
        log.step(loss=loss)
    return weights(model)


@healthy("warm restarts, the weights of the best evaluation loaded at each restart", "loshchil/SGDR")
def restart_from_the_best(script: Script) -> Tensor:
    model = mlp(dropout=0.1)
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = CosineAnnealingWarmRestarts(optimizer, T_0=8)
    log = script.log(schedule=scheduler, total_steps=24)
    log.watch(model, optimizer)
    best: tuple[float, dict[str, Tensor]] = (float("inf"), {})
    for step, batch in enumerate(batches(24), start=1):
        model.train()
        loss = update(model, optimizer, batch)
        scheduler.step()
        log.step(loss=loss)
        if step % 4 == 0:
            model.eval()
            with log.evaluating():
                value = scored(model)
            log.eval(loss=value)
            if value < best[0]:
                best = value, copy.deepcopy(model.state_dict())
        if step % 8 == 0:
            model.load_state_dict(best[1])
    return weights(model)
