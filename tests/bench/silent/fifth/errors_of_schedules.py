"""Errors of schedules: of the rate, of a weight of the loss, of an agent's exploration; counts of steps and windows."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, MultiStepLR, ReduceLROnPlateau, StepLR

from tests.bench.silent.case import error
from tests.bench.silent.script import Script
from tests.bench.silent.toy import CLASSES, FEATURES, batches, loss_of, mlp, points, update, weights

RATES = ("off_schedule", "lr_*", "schedule_*", "wrong_total_steps", "no_warmup")


@error(
    "nodefluxio/vortex/issues/58",
    "the default trainer steps every scheduler at each batch, also those that count epochs",
    *RATES,
    first=4,
    again=True,
)
def schedulers_of_epochs_at_each_batch(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = StepLR(optimizer, step_size=3, gamma=0.5)
    log = script.log(schedule=scheduler, unit="epoch", steps_per_epoch=6, epochs=5)
    log.watch(model, optimizer)
    for epoch in range(5):
        for batch in batches(6, seed=epoch):
            loss = update(model, optimizer, batch)
            if faulty:
                scheduler.step()
            log.step(loss=loss)
        if not faulty:
            scheduler.step()
    return weights(model)


@error(
    "pytorch/tutorials/pull/640",
    "the tutorial on transfer learning steps the scheduler in the loop over the batches",
    *RATES,
    first=8,
    again=True,
)
def tutorial_steps_within_the_phase(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)
    scheduler = StepLR(optimizer, step_size=7, gamma=0.1)
    log = script.log(steps_per_epoch=4)
    log.watch(model, optimizer, scheduled={"lr": lambda step, group: 0.05 * 0.1 ** ((step - 1) // 28)})  # noqa: ARG005
    for epoch in range(8):
        for batch in batches(4, seed=epoch):
            loss = update(model, optimizer, batch)
            if faulty:
                scheduler.step()
            log.step(loss=loss)
        if not faulty:
            scheduler.step()
    return weights(model)


@error(
    "lingxitong/MIL_BASELINE/issues/47",
    "WarmUpLR with a warm-up of two epochs stops at half of the rate, and the decay begins from there",
    *RATES,
    first=7,
    again=True,
)
def warm_up_stops_half_way(script: Script, faulty: bool) -> Tensor:
    base, warm, per_epoch = 2e-2, 2, 6

    def rate(epoch: int) -> float:
        if epoch < warm:
            return base * (epoch + 1) / warm
        return base * 0.9 ** ((epoch - warm) // 3)

    model = mlp()
    optimizer = Adam(model.parameters(), lr=rate(0))
    log = script.log(steps_per_epoch=per_epoch, epochs=6)
    log.watch(model, optimizer, scheduled={"lr": lambda step, group: rate((step - 1) // per_epoch)})  # noqa: ARG005
    for epoch in range(6):
        for group in optimizer.param_groups:
            group["lr"] = base / warm * (1 if epoch < warm else 0.9 ** ((epoch - warm) // 3)) if faulty else rate(epoch)
        for batch in batches(per_epoch, seed=epoch):
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


class WithWarmUp:
    """A warm-up, then another scheduler; `below_one`: warming up counts as going on while the factor is below one."""

    def __init__(self, optimizer: Optimizer, warm: int, total: int, below_one: bool) -> None:
        self.optimizer, self.warm, self.total, self.below_one = optimizer, warm, total, below_one
        self.base, self.updates = optimizer.param_groups[0]["lr"], 0
        self.set(self.base / (warm + 1))

    def set(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def warming_up(self) -> bool:
        last = self.optimizer.param_groups[0]["lr"]
        return last < 1.0 if self.below_one else self.updates <= self.warm

    def step(self) -> None:
        self.updates += 1
        if self.warming_up():
            self.set(self.base * min(1.0, (self.updates + 1) / (self.warm + 1)))
        else:
            self.set(self.base * (self.total - self.updates) / (self.total - self.warm))


@error(
    "facebookresearch/ParlAI/pull/4384",
    "a rate below one counts as warming up: after the warm-up it stays where it is and never falls",
    *RATES,
    first=8,
    again=True,
)
def warming_up_for_ever(script: Script, faulty: bool) -> Tensor:
    law = {"name": "linear", "total_steps": 30, "max_lr": 1e-2, "warmup_steps": 6, "initial_lr": 1e-2 / 7}
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    scheduler = WithWarmUp(optimizer, 6, 30, below_one=faulty)
    log = script.log(schedule=law, optimizer=optimizer, total_steps=30)
    log.watch(model, optimizer)
    for batch in batches(30):
        loss = update(model, optimizer, batch)
        scheduler.step()
        log.step(loss=loss)
    return weights(model)


def on_plateau(script: Script, mode: str, accuracy: bool) -> Tensor:
    """Eight epochs; the rate falls where the accuracy or the loss of the evaluation gets no better."""
    model = mlp()
    optimizer = Adam(model.parameters(), lr=2e-2)
    scheduler = ReduceLROnPlateau(optimizer, mode=mode, factor=0.2, patience=1)
    log = script.log(steps_per_epoch=5)
    log.watch(model, optimizer)
    x, y = points(64, 7777)
    for epoch in range(8):
        for batch in batches(5, seed=epoch):
            log.step(loss=update(model, optimizer, batch))
        with torch.no_grad(), log.evaluating():
            logits = model(x)
        loss, right = float(F.cross_entropy(logits, y)), float((logits.argmax(1) == y).float().mean())
        log.eval(loss=loss, metrics={"accuracy": right})
        scheduler.step(right if accuracy else loss)
    return weights(model)


@error(
    "md-mohaiminul/ViS4mer/issues/4",
    "ReduceLROnPlateau is given the accuracy in its mode for losses: the rate falls while the accuracy rises",
    *RATES,
    "plateau*",
    first=16,
)
def plateau_of_an_accuracy_by_its_minimum(script: Script, faulty: bool) -> Tensor:
    return on_plateau(script, "min" if faulty else "max", accuracy=True)


@error(
    "FunctionLab/selene/issues/115",
    "ReduceLROnPlateau watches the loss in the mode for scores: the rate falls while the loss does",
    *RATES,
    "plateau*",
    first=16,
)
def plateau_of_a_loss_by_its_maximum(script: Script, faulty: bool) -> Tensor:
    return on_plateau(script, "max" if faulty else "min", accuracy=False)


class Encoder(nn.Module):
    """A variational auto-encoder of the features."""

    def __init__(self, zdim: int) -> None:
        super().__init__()
        self.encoder, self.decoder, self.zdim = nn.Linear(FEATURES, 2 * zdim), nn.Linear(zdim, FEATURES), zdim

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, spread = self.encoder(x).chunk(2, dim=1)
        z = mean + (spread / 2).exp() * torch.randn_like(mean)
        kl = -0.5 * (1 + spread - mean.square() - spread.exp()).sum(1).mean()
        return F.mse_loss(self.decoder(z), x), kl


@error(
    "ml-struct-bio/cryodrgn/issues/356",
    "the default weight of the KL term is one over the number of tilts, not one over the dimension of z",
    "off_schedule",
    first=1,
    again=True,
)
def weight_by_the_number_of_tilts(script: Script, faulty: bool) -> Tensor:
    zdim, tilts = 8, 10
    beta = 1 / tilts if faulty else 1 / zdim
    model = Encoder(zdim)
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer, scheduled={"beta": lambda step, group: 1 / zdim})  # noqa: ARG005
    for x, _ in batches(24):
        optimizer.zero_grad()
        fit, kl = model(x)
        loss = fit + beta * kl
        loss.backward()
        optimizer.step()
        log.step(loss=loss, metrics={"beta": beta})
    return weights(model)


@error(
    "Lightning-AI/pytorch-lightning/issues/9620",
    "a missing pair of brackets: epsilon is at its end from the second step on",
    "off_schedule",
    first=1,
    again=True,
)
def epsilon_without_brackets(script: Script, faulty: bool) -> Tensor:
    start, end, last_frame = 1.0, 0.05, 30
    net, target = (nn.Sequential(nn.Linear(FEATURES, 12), nn.ReLU(), nn.Linear(12, CLASSES)) for _ in range(2))
    target.load_state_dict(net.state_dict())
    optimizer = Adam(net.parameters(), lr=1e-2)
    wanted = {"epsilon": lambda step, group: max(end, start - step / last_frame)}  # noqa: ARG005
    log = script.log()
    log.watch(net, optimizer, scheduled=wanted)
    for global_step, (x, y) in enumerate(batches(36)):
        if faulty:
            epsilon = max(end, start - global_step + 1 / last_frame)
        else:
            epsilon = max(end, start - (global_step + 1) / last_frame)
        with torch.no_grad():
            best, chance = net(x).argmax(1), torch.randint(0, CLASSES, (len(x),))
            action = torch.where(torch.rand(len(x)) < epsilon, chance, best)
            wished = (action == y).float() + 0.5 * target(x.flip(0)).max(1).values
        optimizer.zero_grad()
        loss = F.mse_loss(net(x).gather(1, action[:, None]).squeeze(1), wished)
        loss.backward()
        optimizer.step()
        if global_step % 6 == 5:
            target.load_state_dict(net.state_dict())
        log.step(loss=loss, metrics={"epsilon": epsilon})
    return weights(net)


@error(
    "huggingface/transformers/pull/22098",
    "the batches are counted anew in each epoch: the first window of an epoch has what the last one left too",
    "accumulation_*",
    "micro_*",
    "gradients_not_cleared",
    first=2,
)
def window_begun_in_the_epoch_before(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-2, eps=1e-2)
    log = script.log(accumulate=4)
    log.watch(model, optimizer, accumulate=4)
    total = 0
    for epoch in range(16):
        for step, batch in enumerate(batches(6, seed=epoch)):
            total += 1
            loss = loss_of(model, batch) / 4
            loss.backward()
            if (step + 1 if faulty else total) % 4 == 0:
                optimizer.step()
                optimizer.zero_grad()
                log.step(loss=4 * loss)
    return weights(model)


@error(
    "EvolvingLMMs-Lab/OneVision-Encoder/pull/82",
    "lr_scheduler.step() stands outside of the branch that steps: the rate moves at each of four micro-batches",
    *RATES,
    first=2,
    again=True,
)
def polynomial_moves_at_each_micro_batch(script: Script, faulty: bool) -> Tensor:
    steps = 24

    def power(p: int) -> float:
        return (p + 1) / 4 if p < 3 else max(0.0, 1 - (p - 3) / (steps - 3)) ** 2

    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    scheduler = LambdaLR(optimizer, power)
    log = script.log(accumulate=4, total_steps=steps)
    log.watch(model, optimizer, accumulate=4, scheduled={"lr": lambda step, group: 1e-2 * power(step - 1)})  # noqa: ARG005
    for number, batch in enumerate(batches(4 * steps), start=1):
        loss = loss_of(model, batch) / 4
        loss.backward()
        if number % 4 == 0:
            optimizer.step()
            optimizer.zero_grad()
        if faulty or number % 4 == 0:
            scheduler.step()
        if number % 4 == 0:
            log.step(loss=4 * loss)
    return weights(model)


class Experts(nn.Module):
    """Two experts and a router; `forward` gives the logits and how unevenly the router chooses."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(FEATURES, 2)
        self.experts = nn.ModuleList(nn.Linear(FEATURES, CLASSES) for _ in range(2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        share = self.router(x).softmax(1)
        out = torch.stack([expert(x) for expert in self.experts], 1)
        return (share[..., None] * out).sum(1), 2 * share.mean(0).square().sum()


@error(
    "huggingface/trl/pull/2201",
    "the coefficient of the auxiliary loss is read where it is not set: it is zero",
    "off_schedule",
    first=1,
    again=True,
)
def coefficient_of_the_auxiliary_loss_is_zero(script: Script, faulty: bool) -> Tensor:
    config = {"output_router_logits": True, "router_aux_loss_coef": 0.1}
    coefficient = config.get("aux_loss_coef" if faulty else "router_aux_loss_coef", 0.0)
    model = Experts()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log(config=config)
    wanted = config["router_aux_loss_coef"]
    log.watch(model, optimizer, scheduled={"aux_loss_coef": lambda step, group: wanted})  # noqa: ARG005
    for x, y in batches(24):
        optimizer.zero_grad()
        logits, uneven = model(x)
        loss = F.cross_entropy(logits, y) + coefficient * uneven
        loss.backward()
        optimizer.step()
        log.step(loss=loss, metrics={"aux_loss_coef": coefficient})
    return weights(model)


def with_skips(script: Script, scheduler_of: Any, always: bool, **options: Any) -> Tensor:
    """A scale that begins too high: steps are skipped; `always`: the scheduler moves at skipped steps too."""
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-2, eps=1e-4)
    scheduler = scheduler_of(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=1000)
    log = script.log(schedule=scheduler, total_steps=26)
    log.watch(model, optimizer, scaler=scaler, **options)
    for batch in batches(26):
        optimizer.zero_grad()
        loss = 32 * loss_of(model, batch)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        before = scaler.get_scale()
        scaler.update()
        if always or scaler.get_scale() >= before:
            scheduler.step()
        log.step(loss=loss)
    return weights(model)


@error(
    "NVIDIA-NeMo/Speech/pull/3293",
    "the scheduler counts steps that the scaler skips: the warm-up is over before the weights have moved",
    *RATES,
    "step_*",
    "scaler_*",
    first=2,
)
def warm_up_counts_skipped_steps(script: Script, faulty: bool) -> Tensor:
    def rate(p: int) -> float:
        return (p + 1) / 8 if p < 8 else 0.5 * (1 + math.cos(math.pi * (p - 8) / 18))

    return with_skips(script, lambda optimizer: LambdaLR(optimizer, rate), always=faulty)


@error(
    "nerfstudio-project/nerfstudio/pull/1854",
    "scheduler_step_all() does not ask whether the optimizer stepped",
    *RATES,
    "step_*",
    "scaler_*",
    first=2,
)
def scheduler_does_not_ask_the_scaler(script: Script, faulty: bool) -> Tensor:
    return with_skips(script, lambda optimizer: MultiStepLR(optimizer, [3, 12], gamma=0.3), always=faulty)
