"""Healthy trainings whose optimizers, gradients or steps are unusual on purpose."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_
from torch.optim import LBFGS, SGD, Adafactor, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import CyclicLR

from tests.bench.silent.case import healthy
from tests.bench.silent.script import Script
from tests.bench.silent.toy import CLASSES, FEATURES, batches, loss_of, mlp, points, scored, update, weights


def trained(script: Script, model: nn.Module, optimizer: Optimizer, steps: int = 26, **watch: Any) -> Tensor:
    log = script.log()
    log.watch(model, optimizer, **watch)
    for batch in batches(steps):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@healthy("gradient penalty: gradients of gradients, autograd.grad within the loss", "caogang/wgan-gp")
def gradient_penalty(script: Script) -> Tensor:
    generator, critic = nn.Linear(4, 6), nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 1))
    of_g, of_d = Adam(generator.parameters(), 1e-3, (0.0, 0.9)), Adam(critic.parameters(), 1e-3, (0.0, 0.9))
    log = script.log()
    log.watch([generator, critic], [of_g, of_d])
    for step, (x, _) in enumerate(batches(30)):
        fake = generator(torch.randn(len(x), 4)).detach()
        between = torch.lerp(x, fake, torch.rand(len(x), 1)).requires_grad_()
        slope = torch.autograd.grad(critic(between).sum(), between, create_graph=True)[0]
        loss = critic(fake).mean() - critic(x).mean() + 10 * (slope.norm(dim=1) - 1).pow(2).mean()
        of_d.zero_grad()
        loss.backward()
        of_d.step()
        if step % 5 == 4:
            of_g.zero_grad()
            (-critic(generator(torch.randn(len(x), 4))).mean()).backward()
            of_g.step()
        log.step(loss=loss)
    return weights(generator, critic)


class Lion(Optimizer):
    """Evolved sign momentum: the step is the sign of an interpolation, decay is decoupled."""

    def __init__(self, params: Iterable[Tensor], lr: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "betas": (0.9, 0.99), "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                mean = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(torch.lerp(p.grad, mean, group["betas"][0]).sign(), alpha=-group["lr"])
                mean.lerp_(p.grad, 1 - group["betas"][1])


@healthy("Lion: each element moves by the same amount, whatever its gradient", "lucidrains/lion-pytorch")
def lion(script: Script) -> Tensor:
    model = mlp()
    return trained(script, model, Lion(model.parameters(), lr=1e-3, weight_decay=0.1))


class Muon(Optimizer):
    """Momentum made orthogonal by five Newton-Schulz iterations, for matrices."""

    def __init__(self, params: Iterable[Tensor], lr: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": 0.95})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                moved = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
                moved.mul_(group["momentum"]).add_(p.grad)
                x = p.grad.add(moved, alpha=group["momentum"])
                x = x / (x.norm() + 1e-7)
                for _ in range(5):
                    gram = x @ x.T
                    x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
                p.add_(x, alpha=-group["lr"])


@healthy("Muon for the matrices, AdamW for the rest, one after the other in each step", "KellerJordan/Muon")
def muon_beside_adamw(script: Script) -> Tensor:
    model = mlp()
    matrices = [p for p in model.parameters() if p.ndim == 2]
    both = [Muon(matrices, lr=0.02), AdamW([p for p in model.parameters() if p.ndim < 2], lr=1e-2)]
    log = script.log()
    log.watch(model, both)
    for batch in batches(26):
        for optimizer in both:
            optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        for optimizer in both:
            optimizer.step()
        log.step(loss=loss)
    return weights(model)


@healthy("torch's Adafactor: factored averages, a rate relative to the weights")
def adafactor(script: Script) -> Tensor:
    model = mlp()
    return trained(script, model, Adafactor(model.parameters(), lr=1e-2))


class ScheduleFree(SGD):
    """Schedule-free SGD: gradients at an interpolation of two sequences; eval() puts the averaged one into the model."""

    def __init__(self, params: Iterable[Tensor], lr: float) -> None:
        super().__init__(params, lr=lr)
        self.count, self.averaged = 0, False

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.count += 1
        for group in self.param_groups:
            for p in group["params"]:
                z = self.state[p].setdefault("z", p.clone())
                p.lerp_(z, 1 / self.count).add_(p.grad, alpha=-group["lr"] * (1 - 0.9 * (1 - 1 / self.count)))
                z.sub_(p.grad, alpha=group["lr"])

    @torch.no_grad()
    def swap(self, averaged: bool) -> None:
        if averaged != self.averaged:
            for group in self.param_groups:
                for p in group["params"]:
                    z = self.state[p]["z"]
                    p.copy_(p.lerp(z, 1 - 1 / 0.9) if averaged else p.lerp(z, 1 - 0.9))
            self.averaged = averaged


@healthy(
    "schedule-free SGD: other weights for evaluations, put in before and taken out after them",
    "facebookresearch/schedule_free",
)
def schedule_free(script: Script) -> Tensor:
    model = mlp()
    optimizer = ScheduleFree(model.parameters(), lr=0.2)
    log = script.log()
    log.watch(model, optimizer)
    for epoch in range(4):
        model.train()
        for batch in batches(8, seed=epoch):
            log.step(loss=update(model, optimizer, batch))
        model.eval()
        optimizer.swap(averaged=True)
        with log.evaluating():
            value = scored(model)
        optimizer.swap(averaged=False)
        log.eval(loss=value)
    return weights(model)


@healthy("one graph, three backward passes with retain_graph, another weight each")
def three_backward_passes(script: Script) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    log = script.log()
    log.watch(model, optimizer)
    for x, y in batches(26):
        optimizer.zero_grad()
        out = model(x)
        losses = [F.cross_entropy(out, y), 0.01 * out.pow(2).mean(), 0.1 * out.softmax(1).max()]
        for i, loss in enumerate(losses):
            loss.backward(retain_graph=i < 2)
        optimizer.step()
        log.step(loss=losses[0])
    return weights(model)


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]  # noqa: ARG004
        return -0.3 * grad


@healthy("domain adaptation: gradients are reversed on their way into the features", "fungtion/DANN")
def gradient_reversal(script: Script) -> Tensor:
    features, label, domain = nn.Linear(FEATURES, 12), nn.Linear(12, CLASSES), nn.Linear(12, 2)
    model = nn.ModuleList([features, label, domain])
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    log = script.log()
    log.watch(model, optimizer)
    for x, y in batches(26):
        optimizer.zero_grad()
        hidden = features(x).relu()
        loss = F.cross_entropy(label(hidden), y)
        (loss + F.cross_entropy(domain(Reversed.apply(hidden)), (y > 0).long())).backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@healthy("hooks of the user scale the gradients of single layers")
def hooks_scale_gradients(script: Script) -> Tensor:
    model = mlp()
    for p in model[0].parameters():
        p.register_hook(lambda grad: grad * 0.1)
    model[2].weight.register_hook(lambda grad: grad - grad.mean())
    return trained(script, model, Adam(model.parameters(), lr=1e-2))


@healthy("the optimizer's step in the backward pass: one optimizer a parameter, cleared as soon as it has stepped")
def optimizers_in_the_backward_pass(script: Script) -> Tensor:
    model = mlp()
    optimizers = {p: SGD([p], lr=0.1, momentum=0.9) for p in model.parameters()}

    def step(p: Tensor) -> None:
        optimizers[p].step()
        optimizers[p].zero_grad()

    log = script.log()
    log.watch(model, list(optimizers.values()))
    for p in model.parameters():
        p.register_post_accumulate_grad_hook(step)
    for batch in batches(26):
        loss = loss_of(model, batch)
        loss.backward()
        log.step(loss=loss)
    return weights(model)


@healthy("torch.func: an ensemble of four models as stacked tensors, mapped over by vmap")
def stacked_ensemble(script: Script) -> Tensor:
    members = [mlp(8) for _ in range(4)]
    stacked, buffers = stack_module_state(members)  # type: ignore[arg-type]
    skeleton = copy.deepcopy(members[0]).to("meta")
    held = nn.ParameterList(nn.Parameter(value.detach().clone()) for value in stacked.values())
    names = list(stacked)
    optimizer = AdamW(held, lr=1e-2)
    log = script.log()
    log.watch(held, optimizer)
    for x, y in batches(26):
        optimizer.zero_grad()
        one = lambda params, x: functional_call(skeleton, (params, buffers), (x,))  # noqa: E731
        out = vmap(one, in_dims=(0, None))(dict(zip(names, held)), x)
        loss = F.cross_entropy(out.flatten(0, 1), y.repeat(4))
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(held)


@healthy("evolution strategies: no backward pass, the estimate is put on the parameters by hand")
def evolution_strategies(script: Script) -> Tensor:
    model = mlp(8).requires_grad_(True)
    optimizer = Adam(model.parameters(), lr=3e-2)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(26):
        with torch.no_grad():
            for p in model.parameters():
                p.grad = torch.zeros_like(p)
            for _ in range(6):
                noise = [torch.randn_like(p) for p in model.parameters()]
                for sign in (1, -1):
                    for p, e in zip(model.parameters(), noise):
                        p.add_(e, alpha=0.1 * sign)
                    loss = loss_of(model, batch)
                    for p, e in zip(model.parameters(), noise):
                        p.sub_(e, alpha=0.1 * sign)
                        p.grad += sign * loss * e / 1.2
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@healthy("a physics-informed network: derivatives by the input, full batch, Adam first and L-BFGS after it")
def adam_then_lbfgs(script: Script) -> Tensor:
    model = nn.Sequential(nn.Linear(1, 12), nn.Tanh(), nn.Linear(12, 1))
    t = torch.linspace(0, 2, 20)[:, None].requires_grad_()

    def residual() -> Tensor:
        u = model(t)
        du = torch.autograd.grad(u.sum(), t, create_graph=True)[0]
        return (du + u).pow(2).mean() + (model(torch.zeros(1, 1)) - 1).pow(2).mean()

    adam, lbfgs = Adam(model.parameters(), lr=1e-2), LBFGS(model.parameters(), lr=0.5, max_iter=5)
    log = script.log()
    log.watch(model, [adam, lbfgs])
    for _ in range(20):
        adam.zero_grad()
        loss = residual()
        loss.backward()
        adam.step()
        log.step(loss=loss)

    def closure() -> Tensor:
        lbfgs.zero_grad()
        loss = residual()
        loss.backward()
        return loss

    for _ in range(10):
        log.step(loss=lbfgs.step(closure))
    return weights(model)


@healthy(
    "Reptile: after some inner steps the weights go back a part of the way, outside of any optimizer",
    "openai/supervised-reptile",
)
def reptile(script: Script) -> Tensor:
    model = mlp()
    inner = SGD(model.parameters(), lr=0.1)
    log = script.log()
    log.watch(model, inner)
    for task in range(6):
        before = copy.deepcopy(model.state_dict())
        for batch in batches(5, seed=task):
            log.step(loss=update(model, inner, batch))
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(before[name] + 0.3 * (p - before[name]))
    return weights(model)


@healthy("batches with a loss above a limit are dropped before backward(): no step, no record of a step")
def bad_batches_are_dropped(script: Script) -> Tensor:
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer, clip=1.0)
    for number, (x, y) in enumerate(batches(34)):
        optimizer.zero_grad()
        loss = loss_of(model, (x * 50 if number % 7 == 3 else x, y))
        if float(loss) > 4:
            continue
        loss.backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@healthy("a static loss scale by hand: the loss times 1,024, the gradients divided by it before the step")
def loss_scale_by_hand(script: Script) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    log = script.log()
    log.watch(model, optimizer, clip=0.5)
    for batch in batches(26):
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        (loss * 1024).backward()
        for p in model.parameters():
            p.grad.div_(1024)
        clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@healthy("one scaler for two optimizers: one of them overflows and is skipped, the other steps")
def scaler_for_two_optimizers(script: Script) -> Tensor:
    body, head = nn.Linear(FEATURES, 12), nn.Linear(12, CLASSES)
    of_body, of_head = SGD(body.parameters(), lr=0.05), Adam(head.parameters(), lr=1e-2)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=6)
    log = script.log()
    log.watch([body, head], [of_body, of_head], scaler=scaler)
    for number, (x, y) in enumerate(batches(30)):
        of_body.zero_grad()
        of_head.zero_grad()
        loss = F.cross_entropy(head(body(x).relu()), y)
        scaler.scale(loss).backward()
        if number in (4, 11, 25):
            body.weight.grad[0, 0] = float("inf")
        for optimizer in (of_body, of_head):
            scaler.step(optimizer)
        scaler.update()
        log.step(loss=loss)
    return weights(body, head)


@healthy("cyclic rate and momentum, read off the scheduler")
def cyclic_rate_and_momentum(script: Script) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.01, momentum=0.9)
    scheduler = CyclicLR(optimizer, base_lr=0.01, max_lr=0.1, step_size_up=6)
    log = script.log(schedule=scheduler, total_steps=30)
    log.watch(model, optimizer)
    for batch in batches(30):
        loss = update(model, optimizer, batch)
        scheduler.step()
        log.step(loss=loss)
    return weights(model)


@healthy("accumulation that grows from 1 to 4 micro-batches as the run goes on, each step averaged")
def growing_accumulation(script: Script) -> Tensor:
    model = mlp()
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for step in range(28):
        parts = 1 + step // 7
        optimizer.zero_grad()
        for part in range(parts):
            loss = log.micro(loss_of(model, points(8, 10 * step + part)), items=8)
            (loss / parts).backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@healthy("adaptive clipping by unit, which is no clipping by norm and is not declared", "vballoli/nfnets-pytorch")
def clipping_by_unit(script: Script) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.2, momentum=0.9, nesterov=True)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(26):
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        for p in model.parameters():
            rows = p.grad.reshape(len(p), -1).norm(dim=1)
            limit = 0.05 * p.detach().reshape(len(p), -1).norm(dim=1).clamp(min=1e-3)
            p.grad.mul_((limit / rows.clamp(min=1e-6)).clamp(max=1).reshape(-1, *[1] * (p.ndim - 1)))
        optimizer.step()
        log.step(loss=loss)
    return weights(model)
