"""Healthy trainings with optimizers, rates and gradients of one's own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import ChainedScheduler, ConstantLR, ExponentialLR, LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tests.bench.silent.case import healthy
from tests.bench.silent.script import Script
from tests.bench.silent.toy import CLASSES, FEATURES, Probe, batches, loss_of, mlp, points, update, weights


def trained(script: Script, model: nn.Module, optimizer: Optimizer, steps: int = 26, **watch: Any) -> Tensor:
    log = script.log()
    log.watch(model, optimizer, **watch)
    for batch in batches(steps):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


def two_tasks() -> tuple[nn.Module, list[nn.Module]]:
    return nn.Linear(FEATURES, 8), [nn.Linear(8, CLASSES), nn.Linear(8, 1)]


def losses_of(body: nn.Module, heads: list[nn.Module], x: Tensor, y: Tensor) -> list[Tensor]:
    hidden = body(x).relu()
    return [F.cross_entropy(heads[0](hidden), y), F.mse_loss(heads[1](hidden).squeeze(1), x.sum(1))]


@healthy("gradient surgery: what of a task's gradient points against the other task's is taken away (PCGrad)")
def gradient_surgery(script: Script) -> Tensor:
    body, heads = two_tasks()
    model = nn.ModuleList([body, *heads])
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    shared = list(body.parameters())
    for x, y in batches(26):
        optimizer.zero_grad()
        losses = losses_of(body, heads, x, y)
        given = [torch.autograd.grad(loss, shared, retain_graph=True) for loss in losses]
        sum(losses).backward()
        for p, a, b in zip(shared, *given):
            dot = (a * b).sum()
            if dot < 0:
                a, b = a - dot / b.square().sum() * b, b - dot / a.square().sum() * a
            p.grad = a + b
        optimizer.step()
        log.step(loss=sum(losses))
    return weights(model)


@healthy("GradNorm: the weights of two tasks have an optimizer of their own and are scaled to a sum of two after it")
def weights_of_tasks_by_gradient_norms(script: Script) -> Tensor:
    body, heads = two_tasks()
    model, share = nn.ModuleList([body, *heads]), nn.ParameterList([nn.Parameter(torch.ones(2))])
    of_model, of_share = Adam(model.parameters(), lr=1e-2), SGD(share.parameters(), lr=0.025)
    log = script.log()
    log.watch([model, share], [of_model, of_share])
    first: list[float] = []
    for x, y in batches(26):
        losses = torch.stack(losses_of(body, heads, x, y))
        first = first or losses.tolist()
        of_model.zero_grad()
        (share[0].detach() * losses).sum().backward(retain_graph=True)
        norms = torch.stack(
            [torch.autograd.grad(loss, body.weight, retain_graph=True)[0].norm() for loss in losses]
        ).detach()
        rate = losses.detach() / torch.tensor(first)
        wanted = (share[0] * norms).mean().detach() * (rate / rate.mean()) ** 0.5
        of_share.zero_grad()
        (share[0] * norms - wanted).abs().sum().backward()
        of_model.step()
        of_share.step()
        with torch.no_grad():
            share[0].mul_(2 / share[0].sum())
        log.step(loss=losses.sum())
    return weights(model, share)


class AdaBelief(Optimizer):
    """The second moment is that of what the gradient differs from its mean by."""

    def __init__(self, params: Iterable[Tensor], lr: float) -> None:
        super().__init__(params, {"lr": lr, "betas": (0.9, 0.99), "eps": 1e-12, "weight_decay": 0.01})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                state, (one, two) = self.state[p], group["betas"]
                if not state:
                    state |= {"step": torch.zeros(()), "exp_avg": torch.zeros_like(p), "exp_avg_var": p * 0}
                state["step"] += 1
                state["exp_avg"].lerp_(p.grad, 1 - one)
                state["exp_avg_var"].mul_(two).add_((p.grad - state["exp_avg"]).square(), alpha=1 - two).add_(1e-12)
                root = (state["exp_avg_var"] / (1 - two ** state["step"])).sqrt()
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(group["lr"] * state["exp_avg"] / (1 - one ** state["step"]) / (root + group["eps"]))


@healthy("AdaBelief, written out with states that are named as Adam's")
def belief_in_the_gradient(script: Script) -> Tensor:
    model = mlp()
    return trained(script, model, AdaBelief(model.parameters(), 1e-2))


class ByCurvature(Optimizer):
    """A step by the mean gradient over an estimate of the diagonal curvature, clamped (Sophia)."""

    def __init__(self, params: Iterable[Tensor], lr: float) -> None:
        super().__init__(params, {"lr": lr, "rho": 0.04})

    @torch.no_grad()
    def estimate(self, values: Iterable[Tensor]) -> None:
        for p, value in zip((p for group in self.param_groups for p in group["params"]), values):
            self.state[p]["h"] = self.state[p].get("h", torch.zeros_like(p)).lerp(value, 0.1)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                mean = self.state[p].setdefault("m", torch.zeros_like(p)).lerp_(p.grad, 0.1)
                p.sub_(group["lr"] * (mean / (group["rho"] * self.state[p]["h"].abs() + 1e-8)).clamp(-1, 1))


@healthy("second order: every fifth step a product with the Hessian is taken beside the gradient (Sophia)")
def curvature_every_fifth_step(script: Script) -> Tensor:
    model = mlp()
    optimizer = ByCurvature(model.parameters(), 5e-3)
    held = list(model.parameters())
    log = script.log()
    log.watch(model, optimizer)
    for step, batch in enumerate(batches(26)):
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        if step % 5 == 0:
            grads = torch.autograd.grad(loss, held, create_graph=True)
            u = [torch.randint(0, 2, p.shape) * 2.0 - 1 for p in held]
            product = torch.autograd.grad(sum((g * v).sum() for g, v in zip(grads, u)), held, retain_graph=True)
            optimizer.estimate(v * h for v, h in zip(u, product))
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


class TrustRatio(SGD):
    """LARS around torch's SGD: gradients are scaled by the ratio of norms, then the step of the parent is taken."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.ndim > 1:
                    p.grad.mul_(0.02 * p.norm() / (p.grad.norm() + 1e-8))
        return super().step(closure)


@healthy("layer-wise rates: a subclass of SGD scales the gradients in its step before the parent's (LARS)")
def trust_ratios_within_the_step(script: Script) -> Tensor:
    model = mlp()
    return trained(script, model, TrustRatio(model.parameters(), lr=0.5, momentum=0.9, weight_decay=1e-4))


@healthy("hooks of the optimizer: one clips each tensor before the step, one counts after it")
def hooks_of_the_optimizer(script: Script) -> Tensor:
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    counted: list[int] = []

    def shorten(held: Optimizer, args: Any, kwargs: Any) -> None:
        for group in held.param_groups:
            for p in group["params"]:
                p.grad.mul_((0.05 / (p.grad.norm() + 1e-6)).clamp(max=1))

    def count(*_: Any) -> None:
        counted.append(1)

    optimizer.register_step_pre_hook(shorten)
    optimizer.register_step_post_hook(count)
    return trained(script, model, optimizer)


@healthy("decay by hand: the weights are multiplied after the optimizer's step, before it is logged")
def decay_by_hand(script: Script) -> Tensor:
    model = mlp()
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(26):
        loss = update(model, optimizer, batch)
        with torch.no_grad():
            for p in model.parameters():
                if p.ndim > 1:
                    p.mul_(1 - 1e-2 * 0.1)
        log.step(loss=loss)
    return weights(model)


@healthy("proximal steps: after each step small weights become zero (soft thresholding)")
def soft_thresholds(script: Script) -> Tensor:
    model = nn.Linear(FEATURES, CLASSES)
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(26):
        loss = update(model, optimizer, batch)
        with torch.no_grad():
            model.weight.copy_(model.weight.sign() * (model.weight.abs() - 0.002).clamp(min=0))
        log.step(loss=loss)
    return weights(model)


@healthy("low-rank gradients: each gradient is replaced by its projection to rank two, every step anew (GaLore)")
def gradients_of_rank_two(script: Script) -> Tensor:
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(26):
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        for p in model.parameters():
            if p.ndim > 1:
                u = torch.linalg.svd(p.grad, full_matrices=False)[0][:, :2]
                p.grad = u @ (u.T @ p.grad)
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@healthy("the limit of clipping is the median norm of the steps before (AutoClip), so none is declared")
def limit_by_earlier_norms(script: Script) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.2, momentum=0.9)
    log = script.log()
    log.watch(model, optimizer)
    norms: list[Tensor] = []
    for batch in batches(26):
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        norms.append(torch.stack([p.grad.norm() for p in model.parameters()]).norm())
        clip_grad_norm_(model.parameters(), float(torch.stack(norms).median()))
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@healthy("torch's AveragedModel with the buffers averaged, its decay declared")
def average_with_its_buffers(script: Script) -> Tensor:
    model = Probe()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    log = script.log()
    log.watch(model, optimizer)
    log.ema(average, lambda step: 0.0 if step == 1 else 0.9)
    for batch in batches(26):
        loss = update(model, optimizer, batch)
        average.update_parameters(model)
        log.step(loss=loss)
    return weights(model, average.module)


@healthy("an average that is updated every third step, declared as resting in between")
def average_every_third_step(script: Script) -> Tensor:
    model = mlp()
    average = copy.deepcopy(model).requires_grad_(False)
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    log.ema(average, lambda step: 0.8 if step % 3 == 0 else None)
    for step, batch in enumerate(batches(27), start=1):
        loss = update(model, optimizer, batch)
        if step % 3 == 0:
            with torch.no_grad():
                for a, p in zip(average.parameters(), model.parameters()):
                    a.mul_(0.8).add_(p, alpha=0.2)
        log.step(loss=loss)
    return weights(average)


@healthy("two schedulers that multiply, read off the one that chains them")
def chained_schedulers(script: Script) -> Tensor:
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    scheduler = ChainedScheduler([ConstantLR(optimizer, 0.1, 5), ExponentialLR(optimizer, 0.95)])
    log = script.log(schedule=scheduler, total_steps=26)
    log.watch(model, optimizer)
    for batch in batches(26):
        loss = update(model, optimizer, batch)
        scheduler.step()
        log.step(loss=loss)
    return weights(model)


@healthy("two groups with a law each: one warms up while the other falls")
def groups_with_a_law_each(script: Script) -> Tensor:
    model = Probe()
    groups = [{"params": model.backbone.parameters(), "lr": 1e-3}, {"params": model.head.parameters(), "lr": 1e-2}]
    optimizer = AdamW(groups)
    scheduler = LambdaLR(optimizer, [lambda p: min(1.0, (p + 1) / 13), lambda p: 0.9**p])
    log = script.log(schedule=scheduler, total_steps=26)
    log.watch(model, optimizer)
    for batch in batches(26):
        loss = update(model, optimizer, batch)
        scheduler.step()
        log.step(loss=loss)
    return weights(model)


@healthy("the rate of each epoch is looked up in a table and written into the groups, which is declared")
def rates_of_a_table(script: Script) -> Tensor:
    table = [1e-3, 1e-2, 1e-2, 5e-3, 1e-3]
    model = mlp()
    optimizer = SGD(model.parameters(), lr=table[0], momentum=0.9)
    log = script.log(steps_per_epoch=5)
    log.watch(model, optimizer, scheduled={"lr": lambda step, group: table[(step - 1) // 5]})  # noqa: ARG005
    for epoch in range(5):
        for group in optimizer.param_groups:
            group["lr"] = table[epoch]
        for batch in batches(5, seed=epoch):
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


@healthy("a temperature falls and the share of the teacher's answers too: both are declared and logged")
def two_values_fall(script: Script) -> Tensor:
    model = nn.GRUCell(FEATURES, 8)
    out = nn.Linear(8, FEATURES)
    whole = nn.ModuleList([model, out])
    optimizer = Adam(whole.parameters(), lr=1e-2)
    laws = {
        "temperature": lambda step, group: max(0.5, 2.0 * 0.95 ** (step - 1)),  # noqa: ARG005
        "forcing": lambda step, group: 1 / (1 + (step / 10) ** 2),  # noqa: ARG005
    }
    log = script.log()
    log.watch(whole, optimizer, scheduled=laws)
    for step, (x, _) in enumerate(batches(26), start=1):
        values = {name: law(step, 0) for name, law in laws.items()}
        optimizer.zero_grad()
        hidden, shown, loss = torch.zeros(8, 8), x, torch.zeros(())
        for turn in range(3):
            hidden = model(shown, hidden)
            guess = out(hidden)
            loss = loss + F.mse_loss(torch.tanh(guess / values["temperature"]), x.roll(turn + 1, 1).tanh())
            shown = torch.where(torch.rand(8, 1) < values["forcing"], x.roll(turn + 1, 1), guess)
        loss.backward()
        optimizer.step()
        log.step(loss=loss, metrics=values)
    return weights(whole)


@healthy("the whole data set is one step: its gradient comes in eleven passes of unequal size")
def one_step_of_unequal_passes(script: Script) -> Tensor:
    x, y = points(83)
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.5)
    log = script.log()
    log.watch(model, optimizer)
    for _ in range(24):
        optimizer.zero_grad()
        total = torch.zeros(())
        for part in torch.arange(83).split(8):
            loss = F.cross_entropy(model(x[part]), y[part], reduction="sum") / 83
            loss.backward()
            total += loss.detach()
        optimizer.step()
        log.step(loss=total)
    return weights(model)
