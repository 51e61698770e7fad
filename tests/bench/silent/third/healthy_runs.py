"""Healthy trainings whose resumes, data, frameworks or processes are unusual on purpose."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Adam, AdamW
from torch.utils.data import DataLoader, IterableDataset, Sampler, get_worker_info

from tests.bench.silent.case import healthy
from tests.bench.silent.script import Script
from tests.bench.silent.toy import (
    CLASSES,
    FEATURES,
    Points,
    batches,
    loss_of,
    mlp,
    points,
    update,
    weights,
)


@healthy("a resume with twice the batch size, half the accumulation and a lower rate, everything else restored")
def resume_with_another_batch_size(script: Script) -> Tensor:
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    for attempt in range(2):
        parts, size = ((4, 6), (2, 12))[attempt]
        if attempt:
            kept = torch.load(script.path("last.pt"))
            model, optimizer = mlp(), None
            optimizer = AdamW(model.parameters(), lr=1e-2)
            model.load_state_dict(kept["model"])
            optimizer.load_state_dict(kept["optimizer"])
            optimizer.param_groups[0]["lr"] = 5e-3
        log = script.log(resume=attempt > 0, step=12 * attempt, total_steps=24, accumulate=parts, batch_size=size)
        log.watch(model, optimizer, accumulate=parts)
        for step in range(12):
            optimizer.zero_grad()
            for part in range(parts):
                loss = loss_of(model, points(size, 1000 * attempt + 10 * step + part)) / parts
                loss.backward()
            optimizer.step()
            log.step(loss=loss * parts)
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, script.path("last.pt"))
        log.checkpoint(script.path("last.pt"))
    return weights(model)


@healthy("ranks with unequal numbers of batches, under join(), and parameters that a batch leaves out")
def unequal_ranks(script: Script) -> Tensor:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.a, self.b = nn.Linear(FEATURES, 8), nn.Linear(8, CLASSES), nn.Linear(8, CLASSES)

        def forward(self, x: Tensor, first: bool) -> Tensor:
            return (self.a if first else self.b)(self.body(x).relu())

    def play(script: Script) -> Tensor:
        wrapped = DistributedDataParallel(Branches(), find_unused_parameters=True)
        optimizer = SGD(wrapped.parameters(), lr=0.1, momentum=0.9)
        log = script.log(world_size=script.world)
        log.watch(wrapped, optimizer, rank=script.rank, world=script.world)
        with wrapped.join():
            for number, (x, y) in enumerate(batches(20 + 3 * script.rank, seed=1 + script.rank)):
                optimizer.zero_grad()
                loss = F.cross_entropy(wrapped(x, number % 3 > 0), y)
                loss.backward()
                optimizer.step()
                log.step(loss=loss)
        return weights(wrapped)

    return script.on_ranks(play)


@healthy("gradients are compressed to float16 while they are reduced, the optimizer's state is divided among the ranks")
def compressed_gradients_and_divided_state(script: Script) -> Tensor:
    def play(script: Script) -> Tensor:
        from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
        from torch.distributed.optim import ZeroRedundancyOptimizer

        wrapped = DistributedDataParallel(mlp())
        wrapped.register_comm_hook(None, fp16_compress_hook)
        optimizer = ZeroRedundancyOptimizer(wrapped.parameters(), AdamW, lr=1e-2)
        log = script.log(world_size=script.world)
        log.watch(wrapped, optimizer, rank=script.rank, world=script.world)
        for batch in batches(24, seed=1 + script.rank):
            log.step(loss=update(wrapped, optimizer, batch))
        return weights(wrapped)

    return script.on_ranks(play)


@healthy("a pipeline of two stages: each rank has another part of the model and sees the same samples")
def pipeline_of_two_stages(script: Script) -> Tensor:
    def play(script: Script) -> Tensor:
        part = nn.Linear(FEATURES, 8) if script.rank == 0 else nn.Linear(8, CLASSES)
        optimizer = Adam(part.parameters(), lr=1e-2)
        log = script.log(world_size=script.world)
        log.watch(part, optimizer, rank=0, world=1)
        for x, y in batches(22):
            optimizer.zero_grad()
            between, back = torch.empty(len(x), 8), torch.empty(len(x), 8)
            if script.rank == 0:
                out = part(x).relu()
                dist.send(out.detach(), 1)
                dist.recv(back, 1)
                out.backward(back)
                loss = out.detach().pow(2).mean()
            else:
                dist.recv(between, 0)
                between.requires_grad_()
                loss = F.cross_entropy(part(between), y)
                loss.backward()
                dist.send(between.grad, 0)
            optimizer.step()
            log.step(loss=loss)
        return weights(part)

    return script.on_ranks(play)


class Endless(Sampler[int]):
    """Permutations one after the other, without an end."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __iter__(self) -> Iterator[int]:
        while True:
            yield from torch.randperm(self.n).tolist()


@healthy(
    "an endless sampler that is never exhausted, beside a second loader that reads in one fixed order (distillation pairs)"
)
def endless_sampler_beside_a_fixed_order(script: Script) -> Tensor:
    endless = DataLoader(Points(24), batch_size=8, sampler=Endless(24))
    fixed = DataLoader(Points(24, seed=5), batch_size=8, shuffle=False)
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer, loader=[endless, fixed])
    stream = iter(endless)
    for _ in range(9):
        for batch in fixed:
            optimizer.zero_grad()
            loss = loss_of(model, next(stream)) + 0.1 * loss_of(model, batch)
            loss.backward()
            optimizer.step()
            log.step(loss=loss)
    return weights(model)


class Buffered(IterableDataset[tuple[Tensor, Tensor]]):
    """A stream divided among the workers and shuffled in a buffer that is seeded by the epoch."""

    def __init__(self) -> None:
        self.x, self.y = points(64)
        self.epoch = 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        info = get_worker_info()
        number, workers = (0, 1) if info is None else (info.id, info.num_workers)
        own = list(range(number, 64, workers))
        random.Random(self.epoch).shuffle(own)
        for i in own:
            yield self.x[i], self.y[i]


@healthy("a stream over two workers, divided and shuffled by each with one seed on purpose")
def divided_stream(script: Script) -> Tensor:
    data = Buffered()
    loader = DataLoader(data, batch_size=8, num_workers=2)
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log(steps_per_epoch=8)
    log.watch(model, optimizer, loader=loader)
    for epoch in range(3):
        data.epoch = epoch
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


@healthy("accelerate: a prepared model, optimizer and loader, accumulation, clipping at the steps")
def prepared_by_accelerate(script: Script) -> Tensor:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=3)
    bare = mlp()
    model, optimizer, loader = accelerator.prepare(
        bare, AdamW(bare.parameters(), lr=1e-2), DataLoader(Points(64), batch_size=8, shuffle=True)
    )
    log = script.log(accumulate=3)
    log.watch(model, optimizer, loader=loader, accumulate=3, clip=1.0)
    for _ in range(8):
        for batch in loader:
            with accelerator.accumulate(model):
                loss = loss_of(model, batch)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
            if accelerator.sync_gradients:
                log.step(loss=loss)
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    return weights(bare)


@healthy("Lightning with manual optimisation: two optimizers, the generator's stepped at every second batch")
def lightning_by_hand(script: Script) -> Tensor:
    import lightning

    from eegwatch.integrations.lightning import EegwatchCallback

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Gan(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.generator = nn.Linear(4, FEATURES)
            self.critic = nn.Sequential(nn.Linear(FEATURES, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))

        def training_step(self, batch: Any, number: int) -> None:
            of_g, of_d = self.optimizers()
            fake = self.generator(torch.randn(len(batch[0]), 4))
            of_d.zero_grad()
            self.manual_backward(
                F.softplus(-self.critic(batch[0])).mean() + F.softplus(self.critic(fake.detach())).mean()
            )
            of_d.step()
            if number % 2:
                of_g.zero_grad()
                self.manual_backward(F.softplus(-self.critic(fake)).mean())
                of_g.step()

        def configure_optimizers(self) -> Any:
            return Adam(self.generator.parameters(), 1e-3), Adam(self.critic.parameters(), 1e-3)

    model = Gan()
    trainer = lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=script.root,
        callbacks=[EegwatchCallback(script.logs)] if script.watched else [],
    )
    trainer.fit(model, DataLoader(Points(80), batch_size=8, shuffle=True))
    return weights(model)
