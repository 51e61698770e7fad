"""Errors between steps: resumes and orders of data."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, DistributedSampler

from tests.bench.silent.case import error
from tests.bench.silent.script import Script
from tests.bench.silent.toy import CLASSES, FEATURES, Points, batches, loss_of, mlp, update, weights


@error(
    "KempnerInstitute/KempnerForge/pull/115",
    "the state dict has no moments to be filled when it is loaded: they are dropped without a word",
    "optimizer_state_lost",
    "optimizer_state_*",
    first=13,
    note="the distributed checkpoint that filled an empty template is a state dict whose state is empty",
)
def moments_dropped_by_the_loader(script: Script, faulty: bool) -> Tensor:
    model = nn.Sequential(nn.Linear(FEATURES, 12), nn.LayerNorm(12), nn.GELU(), nn.Linear(12, CLASSES))
    optimizer = AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.95))
    log = script.log(total_steps=24)
    log.watch(model, optimizer)
    for batch in batches(12):
        log.step(loss=update(model, optimizer, batch))
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, script.path("last.pt"))
    log.checkpoint(script.path("last.pt"))
    kept = torch.load(script.path("last.pt"))
    model = copy.deepcopy(model)
    model.load_state_dict(kept["model"])
    optimizer = AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.95))
    optimizer.load_state_dict(kept["optimizer"] | ({"state": {}} if faulty else {}))
    log = script.log(resume=True, step=12, total_steps=24)
    log.watch(model, optimizer)
    for batch in batches(12, seed=1):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


class WithMasters:
    """Adam over float32 copies of bfloat16 weights, as mixed precision by hand does it."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.masters = [p.detach().float().clone().requires_grad_(True) for p in model.parameters()]
        self.adam = Adam(self.masters, lr=1e-2)

    def step(self) -> None:
        for master, p in zip(self.masters, self.model.parameters()):
            master.grad = None if p.grad is None else p.grad.float()
        self.adam.step()
        with torch.no_grad():
            for master, p in zip(self.masters, self.model.parameters()):
                p.copy_(master)


@error(
    "NVIDIA/apex/pull/42",
    "the master weights were copied before the checkpoint was loaded: the first step overwrites what was restored",
    "weights_not_restored",
    "weights_*",
    "update_*",
    first=13,
)
def masters_copied_before_the_load(script: Script, faulty: bool) -> Tensor:
    def train(log: Any, model: nn.Module, both: WithMasters, seed: int) -> None:
        for x, y in batches(12, seed=seed):
            model.zero_grad()
            loss = F.cross_entropy(model(x.bfloat16()).float(), y)
            loss.backward()
            both.step()
            log.step(loss=loss)

    model = mlp().bfloat16()
    both = WithMasters(model)
    log = script.log(total_steps=24)
    log.watch(model, both.adam)
    train(log, model, both, 0)
    torch.save(model.state_dict(), script.path("last.pt"))
    log.checkpoint(script.path("last.pt"))
    torch.manual_seed(5)
    model = mlp().bfloat16()
    if faulty:
        both = WithMasters(model)
        model.load_state_dict(torch.load(script.path("last.pt")))
    else:
        model.load_state_dict(torch.load(script.path("last.pt")))
        both = WithMasters(model)
    log = script.log(resume=True, step=12, total_steps=24)
    log.watch(model, both.adam, fresh_optimizer=True)
    train(log, model, both, 1)
    return weights(model)


@error(
    "huggingface/accelerate/issues/4289",
    "the state of the gradient scaler is not restored: its scale begins anew",
    "*scale*",
    "optimizer_state_*",
    first=13,
)
def scale_not_restored(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = Adam(model.parameters(), lr=1e-2)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120, growth_interval=4)

    def train(log: Any, scaler: torch.amp.GradScaler, seed: int) -> None:
        for batch in batches(12, seed=seed):
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            scaler.scale(loss * 2.0**9).backward()
            scaler.step(optimizer)
            scaler.update()
            log.step(loss=loss)

    log = script.log(total_steps=24)
    log.watch(model, optimizer, scaler=scaler)
    train(log, scaler, 0)
    kept = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "scaler": scaler.state_dict()}
    torch.save(kept, script.path("last.pt"))
    log.checkpoint(script.path("last.pt"))
    kept = torch.load(script.path("last.pt"))
    model.load_state_dict(kept["model"])
    optimizer.load_state_dict(kept["optimizer"])
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126, growth_interval=4)
    if not faulty:
        scaler.load_state_dict(kept["scaler"])
    log = script.log(resume=True, step=12, total_steps=24)
    log.watch(model, optimizer, scaler=scaler)
    train(log, scaler, 1)
    return torch.cat([weights(model), torch.tensor([scaler.get_scale()], dtype=torch.float64)])


WARM = {"name": "linear", "total_steps": 32, "max_lr": 1e-2, "warmup_steps": 8, "initial_lr": 0.0}


def warm(position: int) -> float:
    """The factor of WARM at a position: up in 8 steps, down to nothing at 32."""
    return position / 8 if position < 8 else max(0.0, (32 - position) / 24)


def _half_a_run(script: Script) -> tuple[nn.Module, SGD, LambdaLR]:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=1e-2)
    scheduler = LambdaLR(optimizer, warm)
    log = script.log(total_steps=32, schedule=WARM, optimizer=optimizer)
    log.watch(model, optimizer)
    for batch in batches(16):
        loss = update(model, optimizer, batch)
        scheduler.step()
        log.step(loss=loss)
    torch.save(model.state_dict(), script.path("last.pt"))
    log.checkpoint(script.path("last.pt"))
    return model, optimizer, scheduler


@error(
    "YehLi/xmodaler/issues/15",
    "the scheduler is not restored: the warm-up is made again",
    "off_schedule",
    "lr_*",
    first=17,
)
def warm_up_made_again(script: Script, faulty: bool) -> Tensor:
    model, optimizer, scheduler = _half_a_run(script)
    if faulty:
        scheduler = LambdaLR(optimizer, warm)
    log = script.log(resume=True, step=16, total_steps=32, schedule=WARM, optimizer=optimizer)
    log.watch(model, optimizer)
    for batch in batches(16, seed=1):
        loss = update(model, optimizer, batch)
        scheduler.step()
        log.step(loss=loss)
    return weights(model)


@error(
    "ildoonet/pytorch-gradual-warmup-lr/issues/27",
    "after a resume the scheduler moves the rates of another optimizer: the rate stands",
    "off_schedule",
    "lr_*",
    first=18,
)
def scheduler_of_another_optimizer(script: Script, faulty: bool) -> Tensor:
    model, optimizer, scheduler = _half_a_run(script)
    kept = copy.deepcopy(optimizer.state_dict())
    optimizer = SGD(model.parameters(), lr=1e-2)
    optimizer.load_state_dict(kept)
    if not faulty:
        scheduler.optimizer = optimizer
    log = script.log(resume=True, step=16, total_steps=32, schedule=WARM, optimizer=optimizer)
    log.watch(model, optimizer)
    for batch in batches(16, seed=1):
        loss = update(model, optimizer, batch)
        scheduler.step()
        log.step(loss=loss)
    return weights(model)


@error(
    "kyutai-labs/pocket-tts/pull/287",
    "a fixed seed of the loader: each relaunch replays the same permutation from its beginning",
    "order_repeated",
    "order_*",
    first=12,
)
def relaunch_replays_the_order(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    for attempt in range(2):
        start = 6 * attempt
        generator = torch.Generator().manual_seed(1 if faulty else 1 + start)
        loader = DataLoader(Points(48), batch_size=8, shuffle=True, generator=generator)
        log = script.log(resume=attempt > 0, step=start, steps_per_epoch=6, total_steps=12)
        log.watch(model, optimizer, loader=loader)
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
        torch.save(model.state_dict(), script.path("last.pt"))
        log.checkpoint(script.path("last.pt"))
    return weights(model)


@error(
    "wyim-pgl/transgenic/issues/59",
    "a resume within an epoch skips the first batches of another permutation: some samples twice, others never",
    "order_*",
    first=7,
)
def resume_reshuffles_the_epoch(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    done = 0
    for attempt in range(2):
        generator = torch.Generator().manual_seed(2 + attempt if faulty else 2)
        loader = DataLoader(Points(80), batch_size=8, shuffle=True, generator=generator)
        log = script.log(resume=attempt > 0, step=done, steps_per_epoch=10, total_steps=10)
        log.watch(model, optimizer, loader=loader)
        for number, batch in enumerate(loader):
            if number < done:
                continue
            if attempt == 0 and number == 6:
                break
            log.step(loss=update(model, optimizer, batch))
        done = 6
        torch.save(model.state_dict(), script.path("last.pt"))
        log.checkpoint(script.path("last.pt"))
    return weights(model)


@error(
    "AUTOMATIC1111/stable-diffusion-webui/pull/3803",
    "a preview image is drawn with a fixed seed after each epoch: every epoch has the same order",
    "order_repeated",
    first=18,
)
def preview_resets_the_seed(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    loader = DataLoader(Points(48), batch_size=8, shuffle=True)
    log = script.log(steps_per_epoch=6)
    log.watch(model, optimizer, loader=loader)
    for _ in range(4):
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
        state = torch.get_rng_state()
        torch.manual_seed(42)
        model(torch.randn(2, FEATURES))
        if not faulty:
            torch.set_rng_state(state)
    return weights(model)


@error(
    "cszn/KAIR/pull/106",
    "two ranks without set_epoch: the order of every epoch is the first one",
    "order_repeated",
    first=12,
)
def set_epoch_forgotten_on_two_ranks(script: Script, faulty: bool) -> Tensor:
    def play(script: Script) -> Tensor:
        wrapped = DistributedDataParallel(mlp())
        optimizer = SGD(wrapped.parameters(), lr=0.1)
        sampler = DistributedSampler(Points(48), shuffle=True)
        loader = DataLoader(Points(48), batch_size=4, sampler=sampler)
        log = script.log(world_size=script.world, steps_per_epoch=6)
        log.watch(wrapped, optimizer, loader=loader, rank=script.rank, world=script.world)
        for epoch in range(3):
            if not faulty:
                sampler.set_epoch(epoch)
            for batch in loader:
                log.step(loss=update(wrapped, optimizer, batch))
        return weights(wrapped)

    return script.on_ranks(play)
