"""Errors of single steps: gradients, clipping, optimizers of one's own, accumulation."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, Adam, AdamW, Optimizer

from tests.bench.silent.case import error
from tests.bench.silent.script import Script
from tests.bench.silent.toy import CLASSES, Points, Probe, batches, loss_of, mlp, points, update, weights


@error(
    "dscripka/openWakeWord/issues/316",
    "hard examples are gathered until a step has enough of them; zero_grad() in each iteration drops the earlier batches",
    "micro_gradients_dropped",
    "accumulation_differs",
    "micro_*",
    first=1,
)
def small_batches_cleared(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    gathered = 0
    sizes = torch.randint(3, 14, (80,), generator=torch.Generator().manual_seed(5)).tolist()
    optimizer.zero_grad()
    for number, size in enumerate(sizes):
        if faulty:
            optimizer.zero_grad()
        loss = loss_of(model, points(size, number)) * size / 16
        loss.backward()
        gathered += size
        if gathered >= 16:
            optimizer.step()
            optimizer.zero_grad()
            gathered = 0
            log.step(loss=loss)
    return weights(model)


@error(
    "huggingface/transformers/pull/38872",
    "the last window of an epoch is short, its losses are divided by the length of a full window",
    "microbatch_weights",
    "micro_*",
    first=2,
)
def last_window_divided_by_the_full_length(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.2)
    log = script.log(accumulate=4)
    log.watch(model, optimizer, accumulate=4)
    for epoch in range(12):
        for start, length in ((0, 4), (4, 2)):
            optimizer.zero_grad()
            for part in range(length):
                loss = log.micro(loss_of(model, points(8, 10 * epoch + start + part)), items=8)
                (loss / (4 if faulty else length)).backward()
            optimizer.step()
            log.step(loss=loss)
    return weights(model)


class Arguments(dict[str, Any]):
    """What a trainer is configured with."""


@error(
    "msalhab96/SpeeQ/issues/50",
    "the trainer is given max_grad_norm and does not hand it on to its loop",
    "clip_missing",
    "clip_*",
    first=1,
)
def clip_argument_ignored(script: Script, faulty: bool) -> Tensor:
    arguments = Arguments(lr=0.2, max_grad_norm=0.1)
    kept = {key: value for key, value in arguments.items() if not faulty or key == "lr"}
    model = mlp()
    optimizer = SGD(model.parameters(), lr=kept["lr"])
    limit = kept.get("max_grad_norm")
    log = script.log()
    log.watch(model, optimizer, clip=arguments["max_grad_norm"])
    for batch in batches(24):
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        if limit is not None:
            clip_grad_norm_(model.parameters(), limit)
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


class ClipsInside(Optimizer):
    """SGD that clips the norm of a group within its step; `ignored`: the clipped gradient is computed and not used."""

    def __init__(self, params: Iterable[Tensor], lr: float, limit: float, ignored: bool) -> None:
        super().__init__(params, {"lr": lr, "limit": limit, "ignored": ignored})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            held = [p for p in group["params"] if p.grad is not None]
            norm = torch.stack([p.grad.norm() for p in held]).norm()
            scale = min(1.0, group["limit"] / (float(norm) + 1e-6))
            for p in held:
                clipped = p.grad * scale
                p.add_(p.grad if group["ignored"] else clipped, alpha=-group["lr"])


@error(
    "k2-fsa/icefall/pull/1292",
    "the optimizer clips within its step: the clipped gradient is not passed on to the function that uses it",
    "clip_*",
    "update_*",
    first=1,
)
def clipped_gradient_not_passed_on(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = ClipsInside(model.parameters(), lr=0.2, limit=0.1, ignored=faulty)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(24):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


class WarmedUp(Optimizer):
    """Adam with a warm-up inside and decoupled decay; `raw_decay`: the decay takes the rate without the warm-up."""

    def __init__(self, params: Iterable[Tensor], lr: float, decay: float, raw_decay: bool) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": decay, "raw_decay": raw_decay, "step": 0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            group["step"] += 1
            n = group["step"]
            lr = group["lr"] * min(1.0, n / 20)
            for p in group["params"]:
                state = self.state[p]
                mean = state.setdefault("exp_avg", torch.zeros_like(p)).lerp_(p.grad, 0.1)
                square = state.setdefault("exp_avg_sq", torch.zeros_like(p)).lerp_(p.grad**2, 0.001)
                p.mul_(1 - (group["lr"] if group["raw_decay"] else lr) * group["weight_decay"])
                p.sub_(lr * (mean / (1 - 0.9**n)) / ((square / (1 - 0.999**n)).sqrt() + 1e-8))


@error(
    "kozistr/pytorch_optimizer/pull/170",
    "the optimizer's decay uses the group's rate, the rest of its step the rate that it has warmed up",
    "update_*",
    "off_schedule",
    first=1,
)
def decay_at_another_rate(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = WarmedUp(model.parameters(), lr=1e-2, decay=0.1, raw_decay=faulty)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(24):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@error(
    "yandex-research/tabular-dl-tabr/issues/19",
    "`with_decay if needs_it else with_decay`: the group without decay stays empty",
    "off_schedule",
    "decay_*",
    first=1,
)
def group_without_decay_stays_empty(script: Script, faulty: bool) -> Tensor:
    model = Probe()
    decayed: dict[str, Any] = {"params": []}
    spared: dict[str, Any] = {"params": [], "weight_decay": 0.0}
    for p in model.parameters():
        chosen = decayed if p.ndim > 1 or faulty else spared
        chosen["params"].append(p)
    optimizer = AdamW([decayed, spared], lr=1e-2, weight_decay=0.2)
    log = script.log()
    log.watch(model, optimizer, scheduled={"weight_decay": lambda step, group: (0.2, 0.0)[group]})  # noqa: ARG005
    for batch in batches(24):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


class SkipStepAdamW(Optimizer):
    """AdamW whose step counter is a tensor; `stands`: it is never counted up, so the averages are not corrected."""

    def __init__(self, params: Iterable[Tensor], lr: float, stands: bool) -> None:
        super().__init__(params, {"lr": lr, "betas": (0.9, 0.95), "weight_decay": 0.1, "stands": stands})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            b1, b2 = group["betas"]
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state |= {"step": torch.tensor(0.0), "exp_avg": torch.zeros_like(p)}
                    state["exp_avg_sq"] = torch.zeros_like(p)
                if not group["stands"]:
                    state["step"] += 1
                n = float(state["step"])
                c1, c2 = (1 - b1**n, 1 - b2**n) if n else (1.0, 1.0)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                state["exp_avg"].lerp_(p.grad, 1 - b1)
                state["exp_avg_sq"].lerp_(p.grad**2, 1 - b2)
                p.sub_(group["lr"] / c1 * state["exp_avg"] / ((state["exp_avg_sq"] / c2).sqrt() + 1e-8))


@error(
    "allenai/OLMo-core/pull/317",
    "the optimizer's step counter is never counted up: no bias correction, steps 2.2 times as large at first",
    "update_*",
    "optimizer_state_*",
    first=1,
)
def step_counter_stands(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = SkipStepAdamW(model.parameters(), lr=1e-2, stands=faulty)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(24):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


def rounded_by_chance(x: Tensor, generator: torch.Generator) -> Tensor:
    """float32 to bfloat16, up or down in proportion to the distance."""
    noise = torch.randint(0, 1 << 16, x.shape, generator=generator, dtype=torch.int32)
    return ((x.view(torch.int32) + noise) & -65536).view(torch.float32).bfloat16()


class RoundsByChance(AdamW):
    """AdamW for weights in bfloat16; `early`: the decay is multiplied onto the bfloat16 weight before it is made float32."""

    def __init__(self, params: Iterable[Tensor], lr: float, decay: float, early: bool) -> None:
        super().__init__(params, lr=lr, weight_decay=decay)
        self.early, self.generator = early, torch.Generator().manual_seed(1)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            factor = 1 - group["lr"] * group["weight_decay"]
            for p in group["params"]:
                state, grad = self.state[p], p.grad.float()
                n = state["step"] = state.get("step", 0) + 1
                mean = state.setdefault("exp_avg", torch.zeros_like(grad)).lerp_(grad, 0.1)
                square = state.setdefault("exp_avg_sq", torch.zeros_like(grad)).lerp_(grad**2, 0.001)
                if self.early:
                    p.mul_(factor)
                exact = p.float() * (1.0 if self.early else factor)
                exact -= group["lr"] * (mean / (1 - 0.9**n)) / ((square / (1 - 0.999**n)).sqrt() + 1e-8)
                p.copy_(rounded_by_chance(exact, self.generator))


@error(
    "Nerogar/OneTrainer/issues/996",
    "the decay is multiplied onto weights in bfloat16, which rounds all of it away",
    "update_lost",
    "update_differs",
    first=1,
)
def decay_rounded_away(script: Script, faulty: bool) -> Tensor:
    model = mlp().bfloat16()
    optimizer = RoundsByChance(model.parameters(), lr=1e-2, decay=0.1, early=faulty)
    log = script.log()
    log.watch(model, optimizer)
    for x, y in batches(24):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x.bfloat16()).float(), y)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@error(
    "Lightning-AI/pytorch-lightning/issues/591",
    "each optimizer clears its own gradients after its step: those of the generator's pass stay in the discriminator",
    "gradients_not_cleared",
    "accumulation_differs",
    "micro_*",
    first=1,
)
def discriminator_keeps_the_gradients_of_the_generator(script: Script, faulty: bool) -> Tensor:
    generator, critic = nn.Linear(4, 6), nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
    of_g, of_d = Adam(generator.parameters(), lr=1e-3), Adam(critic.parameters(), lr=1e-3)
    log = script.log()
    log.watch([generator, critic], [of_g, of_d])
    for x, _ in batches(24):
        noise = torch.randn(len(x), 4)
        loss_g = F.softplus(-critic(generator(noise))).mean()
        loss_g.backward()
        of_g.step()
        of_g.zero_grad()
        if not faulty:
            of_d.zero_grad()
        loss_d = F.softplus(-critic(x)).mean() + F.softplus(critic(generator(noise).detach())).mean()
        loss_d.backward()
        of_d.step()
        of_d.zero_grad()
        log.step(loss=loss_d)
    return weights(generator, critic)


@error(
    "nikhilsinghmus/image2reverb/issues/37",
    "the generator's step detaches its output before the discriminator: only the other loss reaches it",
    "no_gradient",
    first=1,
)
def adversarial_loss_detached(script: Script, faulty: bool) -> Tensor:
    generator, critic = nn.Linear(6, 6), nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
    of_g, of_d = Adam(generator.parameters(), lr=1e-2), Adam(critic.parameters(), lr=1e-2)
    log = script.log()
    log.watch([generator, critic], [of_g, of_d])
    for x, _ in batches(24):
        of_d.zero_grad()
        fake = generator(x)
        (F.softplus(-critic(x)).mean() + F.softplus(critic(fake.detach())).mean()).backward()
        of_d.step()
        of_g.zero_grad()
        judged = critic(fake.detach() if faulty else fake)
        loss = F.softplus(-judged).mean() + 10 * F.l1_loss(fake, x.flip(1))
        loss.backward()
        of_g.step()
        log.step(loss=loss)
    return weights(generator, critic)


@error(
    "Goingqs/PyramidBox/issues/7",
    "the loss is computed and logged, backward() is not called",
    "step_not_taken",
    "no_gradient",
    "update_lost",
    "nothing_to_train",
    first=1,
)
def no_backward(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(24):
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        if not faulty:
            loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@error(
    "lucidrains/med-seg-diff-pytorch/pull/6",
    "loss.backward() in place of accelerator.backward(loss): the loss is not divided by the accumulation",
    "microbatch_weights",
    "micro_*",
    first=1,
)
def backward_past_the_accelerator(script: Script, faulty: bool) -> Tensor:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState
    from torch.utils.data import DataLoader

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=4)
    bare = mlp()
    prepared = accelerator.prepare(bare, SGD(bare.parameters(), lr=0.2), DataLoader(Points(96), batch_size=8))
    model, optimizer, loader = prepared
    log = script.log(accumulate=4)
    log.watch(model, optimizer, accumulate=4)
    for _ in range(8):
        for batch in loader:
            with accelerator.accumulate(model):
                loss = log.micro(loss_of(model, batch), items=8)
                if faulty:
                    loss.backward()
                else:
                    accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
            if accelerator.sync_gradients:
                log.step(loss=loss)
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    assert math.isfinite(float(loss))
    assert bare[2].out_features == CLASSES
    return weights(bare)
