"""Errors of several processes, and of the scale of the loss."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.utils.data import DataLoader, DistributedSampler, WeightedRandomSampler

from tests.bench.silent.case import error
from tests.bench.silent.script import Script
from tests.bench.silent.toy import CLASSES, FEATURES, Points, batches, loss_of, mlp, update, weights


class AutoEncoder(nn.Module):
    """An encoder and a decoder; `forward` runs both."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(FEATURES, 4), nn.Linear(4, FEATURES)

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z)

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(torch.tanh(self.encoder(x)))


@error(
    "bytetriper/RAE/issues/40",
    "the trainer calls decode() of the model inside DistributedDataParallel",
    "replicas_differ",
    first=1,
    again=True,
)
def decode_of_the_model_inside(script: Script, faulty: bool) -> Tensor:
    def play(script: Script) -> Tensor:
        wrapped = DistributedDataParallel(AutoEncoder())
        bare = wrapped.module
        optimizer = AdamW(wrapped.parameters(), lr=1e-2)
        log = script.log(world_size=script.world)
        log.watch(wrapped, optimizer, rank=script.rank, world=script.world)
        for x, _ in batches(24, seed=1 + script.rank):
            optimizer.zero_grad()
            out = bare.decode(torch.tanh(bare.encoder(x))) if faulty else wrapped(x)
            loss = F.mse_loss(out, x)
            loss.backward()
            optimizer.step()
            log.step(loss=loss)
        return weights(bare)

    return script.on_ranks(play)


class Adapted(nn.Module):
    """A classifier and a discriminator of domains."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.classifier, self.discriminator = nn.Linear(FEATURES, 8), nn.Linear(8, CLASSES), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(x).relu()
        return self.classifier(h), self.discriminator(h)


@error(
    "intel/e2eAIOK/pull/198",
    "the two networks are taken out of the wrapped model for the forward pass",
    "replicas_differ",
    first=1,
    again=True,
)
def networks_taken_out_of_the_wrapper(script: Script, faulty: bool) -> Tensor:
    def play(script: Script) -> Tensor:
        wrapped = DistributedDataParallel(Adapted())
        optimizer = SGD(wrapped.parameters(), lr=0.1, momentum=0.9)
        log = script.log(world_size=script.world)
        log.watch(wrapped, optimizer, rank=script.rank, world=script.world)
        for x, y in batches(24, seed=1 + script.rank):
            if faulty:
                inner = wrapped.module
                hidden = inner.body(x).relu()
                label, domain = inner.classifier(hidden), inner.discriminator(hidden)
            else:
                label, domain = wrapped(x)
            optimizer.zero_grad()
            loss = F.cross_entropy(label, y) + 0.1 * F.cross_entropy(domain, (x[:, 0] > 0).long())
            loss.backward()
            optimizer.step()
            log.step(loss=loss)
        return weights(wrapped)

    return script.on_ranks(play)


@error(
    "binbinao/physicsnemo-from-zero-to-one/issues/143",
    "DataLoader(shuffle=True) in place of a distributed sampler: with one seed all ranks read the same batches",
    "ranks_read_the_same",
    "ranks_*",
    first=1,
    again=True,
)
def shuffled_alike_on_each_rank(script: Script, faulty: bool) -> Tensor:
    def play(script: Script) -> Tensor:
        data = Points(96)
        sampler = None if faulty else DistributedSampler(data, script.world, script.rank)
        loader = DataLoader(data, batch_size=8, shuffle=sampler is None, sampler=sampler)
        wrapped = DistributedDataParallel(mlp())
        optimizer = Adam(wrapped.parameters(), lr=1e-2)
        log = script.log(world_size=script.world)
        log.watch(wrapped, optimizer, loader=loader)
        for epoch in range(2):
            if sampler is not None:
                sampler.set_epoch(epoch)
            for batch in loader:
                log.step(loss=update(wrapped, optimizer, batch))
        return weights(wrapped)

    return script.on_ranks(play)


@error(
    "Parskatt/RoMa/issues/32",
    "each rank draws from all of the data by weights: parts are drawn on both ranks and others on none",
    "ranks_overlap",
    "ranks_*",
    first=1,
)
def weighted_draws_on_each_rank(script: Script, faulty: bool) -> Tensor:
    def play(script: Script) -> Tensor:
        data = Points(96)
        importance = torch.rand(96, generator=torch.Generator().manual_seed(9)) + 0.1
        if not faulty:
            own = torch.zeros(96)
            own[script.rank :: script.world] = 1
            importance = importance * own
        generator = torch.Generator().manual_seed(20 + script.rank)
        sampler = WeightedRandomSampler(importance.tolist(), 48, replacement=False, generator=generator)
        loader = DataLoader(data, batch_size=8, sampler=sampler)
        wrapped = DistributedDataParallel(mlp())
        optimizer = AdamW(wrapped.parameters(), lr=1e-2)
        log = script.log(world_size=script.world)
        log.watch(wrapped, optimizer, loader=loader, rank=script.rank, world=script.world)
        for _ in range(3):
            for batch in loader:
                log.step(loss=update(wrapped, optimizer, batch))
        return weights(wrapped)

    return script.on_ranks(play)


class Quantiser(nn.Module):
    """A random projection and its code book, which no one trains: they give the targets."""

    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Parameter(torch.randn(FEATURES, 4), requires_grad=False)
        self.codes = nn.Parameter(torch.randn(8, 4), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cdist(x @ self.projection, self.codes).argmin(1)


@error(
    "speechbrain/speechbrain/pull/2814",
    "modules without trainable parameters are not wrapped, each rank has its own seed: every rank has other targets",
    "replicas_differ",
    first=1,
)
def quantiser_of_each_rank(script: Script, faulty: bool) -> Tensor:
    def play(script: Script) -> Tensor:
        torch.manual_seed(40 + (script.rank if faulty else 0))
        quantiser, encoder = Quantiser(), nn.Linear(FEATURES, 8)
        wrapped = DistributedDataParallel(encoder)
        optimizer = Adam(wrapped.parameters(), lr=1e-2)
        log = script.log(world_size=script.world)
        log.watch([wrapped, quantiser], optimizer, rank=script.rank, world=script.world)
        log.replica()
        for x, _ in batches(24, seed=1 + script.rank):
            optimizer.zero_grad()
            loss = F.cross_entropy(wrapped(x + 0.2), quantiser(x))
            loss.backward()
            optimizer.step()
            log.step(loss=loss)
        return weights(wrapped)

    return script.on_ranks(play)


@error(
    "mosaicml/composer/issues/12",
    "the checkpoint has the seed of rank 0: after a resume all ranks draw the same dropout masks",
    "ranks_draw_*",
    first=13,
)
def ranks_resume_with_one_seed(script: Script, faulty: bool) -> Tensor:
    def play(script: Script) -> Tensor:
        wrapped = DistributedDataParallel(mlp(dropout=0.3))
        optimizer = SGD(wrapped.parameters(), lr=0.1)
        for attempt in range(2):
            torch.manual_seed(100 + attempt + (0 if attempt and faulty else 17 * script.rank))
            log = script.log(resume=attempt > 0, step=12 * attempt, world_size=script.world, total_steps=24)
            log.watch(wrapped, optimizer, rank=script.rank, world=script.world)
            for batch in batches(12, seed=1 + script.rank + 2 * attempt):
                log.step(loss=update(wrapped, optimizer, batch))
            parts = {"model": wrapped.module, "optimizer": optimizer}
            path = script.path(f"last{script.rank}.pt")
            torch.save({name: part.state_dict() for name, part in parts.items()}, path)
            log.checkpoint(path)
        return weights(wrapped)

    return script.on_ranks(play)


def gathered(own: Tensor, rank: int, world: int) -> Tensor:
    """The embeddings of all ranks; those of this one with their graph."""
    parts = [torch.empty_like(own) for _ in range(world)]
    dist.all_gather(parts, own.detach().contiguous())
    parts[rank] = own
    return torch.cat(parts)


def over_ranks(script: Script, loss_of_all: Any, faulty: bool) -> Tensor:
    def play(script: Script) -> Tensor:
        wrapped = DistributedDataParallel(nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, 4)))
        optimizer = SGD(wrapped.parameters(), lr=0.3)
        log = script.log(world_size=script.world)
        log.watch(wrapped, optimizer, rank=script.rank, world=script.world)
        for x, _ in batches(24, seed=1 + script.rank):
            both = wrapped(torch.cat([x, x + 0.1 * x.flip(0)]))
            pairs = [gathered(part, script.rank, script.world) for part in both.chunk(2)]
            loss = loss_of_all(*pairs)
            optimizer.zero_grad()
            (loss if faulty else loss * script.world).backward()
            optimizer.step()
            log.step(loss=loss)
        return weights(wrapped)

    return script.on_ranks(play)


def contrast(a: Tensor, b: Tensor) -> Tensor:
    return F.cross_entropy(F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / 0.2, torch.arange(len(a)))


def redundancy(a: Tensor, b: Tensor) -> Tensor:
    a, b = ((t - t.mean(0)) / (t.std(0) + 1e-4) for t in (a, b))
    return (a.T @ b / len(a) - torch.eye(a.shape[1])).pow(2).sum()


@error(
    "JohnGiorgi/DeCLUTR/pull/212",
    "embeddings of all ranks are gathered for the loss, gradients are averaged: they are half of what they should be",
    "microbatch_weights",
    "gradient_scale*",
    first=1,
    again=True,
)
def gathered_without_the_factor(script: Script, faulty: bool) -> Tensor:
    return over_ranks(script, contrast, faulty)


@error(
    "lightly-ai/lightly/issues/1977",
    "BarlowTwinsLoss(gather_distributed=True): the gradient is off by one over the number of ranks",
    "microbatch_weights",
    "gradient_scale*",
    first=1,
    again=True,
)
def cross_correlation_of_all_ranks(script: Script, faulty: bool) -> Tensor:
    return over_ranks(script, redundancy, faulty)


@error(
    "conservationtechlab/animl-py/pull/304",
    "a new gradient scaler is made in each epoch: its scale begins anew, and the first steps overflow again",
    "scaler_*",
    first=9,
)
def scaler_made_anew_each_epoch(script: Script, faulty: bool) -> Tensor:
    def made() -> torch.amp.GradScaler:
        return torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=1000)

    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.02)
    scaler = made()
    log = script.log(steps_per_epoch=8)
    log.watch(model, optimizer, scaler=scaler)
    for epoch in range(3):
        if faulty and epoch:
            scaler = made()
        for batch in batches(8, seed=epoch):
            optimizer.zero_grad()
            loss = 8 * loss_of(model, batch)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            log.step(loss=loss)
    return weights(model)


class LossScaled:
    """A wrapper that scales the loss; `late`: it divides the gradients by the scale after it was raised."""

    def __init__(self, inner: Optimizer, late: bool) -> None:
        self.inner, self.late, self.scale, self.good = inner, late, 4.0, 0

    def backward(self, loss: Tensor) -> None:
        (loss * self.scale).backward()

    def step(self) -> None:
        used = self.scale
        self.good += 1
        if self.good % 4 == 0:
            self.scale *= 2
        for group in self.inner.param_groups:
            for p in group["params"]:
                p.grad /= self.scale if self.late else used
        self.inner.step()
        self.inner.zero_grad()


@error(
    "deepspeedai/DeepSpeed/pull/8588",
    "the scale is raised before the gradients are unscaled: at each rise they are divided by twice the scale",
    "scaler_*",
    "unscale_*",
    "gradient_scale*",
    first=4,
    note="a comment in the discussion, with its measurement; the wrapper stands for FP16_UnfusedOptimizer",
)
def unscaled_by_the_next_scale(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    wrapped = LossScaled(SGD(model.parameters(), lr=0.2), late=faulty)
    log = script.log()
    log.watch(model, wrapped.inner)
    for batch in batches(24):
        loss = loss_of(model, batch)
        wrapped.backward(loss)
        wrapped.step()
        log.step(loss=loss)
    return weights(model)
