"""Healthy loops: several passes a step, skipped steps, averaged weights, odd orders of data, several processes."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim import LBFGS, SGD, Adam, AdamW
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from torch.utils.data import DataLoader, DistributedSampler, Sampler

from tests.bench.silent.case import healthy
from tests.bench.silent.script import Script
from tests.bench.silent.toy import (
    CLASSES,
    FEATURES,
    Points,
    Probe,
    batches,
    loss_of,
    mlp,
    points,
    scored,
    update,
    weights,
)


@healthy("sharpness-aware minimisation: two backward passes a step, the weights moved between them", "davda54/sam")
def sam(script: Script) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(24):
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        with torch.no_grad():
            norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
            moved = [0.05 * p.grad / (norm + 1e-12) for p in model.parameters()]
            for p, e in zip(model.parameters(), moved):
                p.add_(e)
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        with torch.no_grad():
            for p, e in zip(model.parameters(), moved):
                p.sub_(e)
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@healthy("MAML of first order: the gradients are put on the parameters by hand", "cbfinn/maml")
def maml(script: Script) -> Tensor:
    model = mlp()
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for step in range(24):
        total = [torch.zeros_like(p) for p in model.parameters()]
        for task in range(2):
            fast = copy.deepcopy(model)
            inner = SGD(fast.parameters(), lr=0.05)
            update(fast, inner, points(8, 100 * step + task))
            loss = loss_of(fast, points(8, 100 * step + 50 + task))
            grads = torch.autograd.grad(loss, list(fast.parameters()))
            total = [a + g / 2 for a, g in zip(total, grads)]
        for p, g in zip(model.parameters(), total):
            p.grad = g
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@healthy("mixed precision with a scaler whose first steps overflow and are skipped")
def scaler_skips_steps(script: Script) -> Tensor:
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=5)
    log = script.log()
    log.watch(model, optimizer, clip=1.0, scaler=scaler)
    for batch in batches(30):
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        scaler.scale(loss * 8).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        log.step(loss=loss)
    return weights(model)


@healthy("weights in bfloat16: most updates are lost to rounding")
def bfloat16_weights(script: Script) -> Tensor:
    model = mlp().bfloat16()
    optimizer = AdamW(model.parameters(), lr=1e-4)
    log = script.log()
    log.watch(model, optimizer)
    for x, y in batches(24):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x.bfloat16()).float(), y)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@healthy("autocast in bfloat16 over weights in float32, without a scaler")
def autocast_bfloat16(script: Script) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(24):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(model, batch)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@healthy("gradient accumulation whose last window of each epoch is short: 10 micro-batches, 4 a step")
def accumulation_with_a_tail(script: Script) -> Tensor:
    model = mlp()
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log(accumulate=4, steps_per_epoch=3)
    log.watch(model, optimizer, accumulate=4)
    for epoch in range(8):
        optimizer.zero_grad()
        for number, batch in enumerate(batches(10, seed=epoch), start=1):
            loss = loss_of(model, batch) / (4 if number <= 8 else 2)
            loss.backward()
            if number % 4 == 0 or number == 10:
                optimizer.step()
                optimizer.zero_grad()
                log.step(loss=loss)
    return weights(model)


@healthy("micro-batches of unequal size, each weighed by its items")
def micro_batches_weighed_by_items(script: Script) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log(accumulate=3)
    log.watch(model, optimizer, accumulate=3)
    for step in range(24):
        sizes = (2 + step % 5, 9, 4)
        optimizer.zero_grad()
        for part, size in enumerate(sizes):
            x, y = points(size, 10 * step + part)
            loss = log.micro(F.cross_entropy(model(x), y), items=size)
            (loss * (size / sum(sizes))).backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


class EasyFirst(Sampler[int]):
    """A curriculum: the samples by difficulty, the same order in every epoch on purpose, more of them each time."""

    def __init__(self, n: int) -> None:
        self.n, self.epoch = n, 0

    def __len__(self) -> int:
        return min(self.n, 16 * (1 + self.epoch))

    def __iter__(self) -> Any:
        return iter(range(len(self)))


@healthy("a curriculum reads in order of difficulty, every epoch from the beginning")
def curriculum(script: Script) -> Tensor:
    data = Points(64)
    sampler = EasyFirst(len(data))
    loader = DataLoader(data, batch_size=8, sampler=sampler)
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log()
    log.watch(model, optimizer, loader=loader)
    for epoch in range(4):
        sampler.epoch = epoch
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


@healthy("full-batch training with shuffle=True: one batch an epoch, four samples")
def full_batch(script: Script) -> Tensor:
    loader = DataLoader(Points(4), batch_size=4, shuffle=True)
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log(steps_per_epoch=1)
    log.watch(model, optimizer, loader=loader)
    for _ in range(48):
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


@healthy("L-BFGS: several forward and backward passes in one step, by a closure")
def lbfgs(script: Script) -> Tensor:
    model = mlp()
    optimizer = LBFGS(model.parameters(), lr=0.5, max_iter=4, line_search_fn="strong_wolfe")
    batch = points(32)
    log = script.log()
    log.watch(model, optimizer)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        return loss

    for _ in range(12):
        log.step(loss=optimizer.step(closure))
    return weights(model)


@healthy("an averaged model (torch's AveragedModel), used and put back in each evaluation")
def averaged_model_in_evaluations(script: Script) -> Tensor:
    model = mlp()
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    log.ema(averaged.module, 0.9)
    averaged.update_parameters(model)  # the first update copies
    for epoch in range(3):
        model.train()
        for batch in batches(8, seed=epoch):
            loss = update(model, optimizer, batch)
            averaged.update_parameters(model)
            log.step(loss=loss)
        model.eval()
        with log.evaluating():
            kept = copy.deepcopy(model.state_dict())
            model.load_state_dict(averaged.module.state_dict())
            value = scored(model)
            model.load_state_dict(kept)
        log.eval(loss=value)
    return weights(model, averaged.module)


@healthy("stochastic weight averaging, its batch statistics made anew at the end")
def swa(script: Script) -> Tensor:
    model = Probe()
    averaged = AveragedModel(model)
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log()
    log.watch(model, optimizer)
    for step, batch in enumerate(batches(24), start=1):
        loss = update(model, optimizer, batch)
        if step > 12 and step % 4 == 0:
            averaged.update_parameters(model)
        log.step(loss=loss)
    update_bn(batches(6, seed=3), averaged)
    with log.evaluating():
        averaged.eval()
        value = scored(averaged)
    log.eval(loss=value)
    return weights(model, averaged)


@healthy("a run that is resumed with everything restored")
def exact_resume(script: Script) -> Tensor:
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log(total_steps=24)
    log.watch(model, optimizer)
    for batch in batches(12):
        log.step(loss=update(model, optimizer, batch))
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, script.path("last.pt"))
    log.checkpoint(script.path("last.pt"))
    kept = torch.load(script.path("last.pt"))
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    model.load_state_dict(kept["model"])
    optimizer.load_state_dict(kept["optimizer"])
    log = script.log(resume=True, step=12, total_steps=24)
    log.watch(model, optimizer)
    for batch in batches(12, seed=1):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@healthy("a resume with a new optimizer on purpose, declared so")
def fresh_optimizer_declared(script: Script) -> Tensor:
    model = mlp()
    optimizer: torch.optim.Optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log(total_steps=24)
    log.watch(model, optimizer)
    for batch in batches(12):
        log.step(loss=update(model, optimizer, batch))
    torch.save(model.state_dict(), script.path("last.pt"))
    log.checkpoint(script.path("last.pt"))
    model = mlp()
    model.load_state_dict(torch.load(script.path("last.pt")))
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)
    log = script.log(resume=True, step=12, total_steps=24)
    log.watch(model, optimizer, fresh_optimizer=True)
    for batch in batches(12, seed=1):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@healthy("torch.compile of the model, traced with aot_eager")
def compiled_model(script: Script) -> Tensor:
    model = mlp()
    compiled = torch.compile(model, backend="aot_eager")
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(compiled, optimizer)
    for batch in batches(24):
        log.step(loss=update(compiled, optimizer, batch))
    torch._dynamo.reset()
    return weights(model)


@healthy("two replicas under DistributedDataParallel, local batch statistics, gradient accumulation under no_sync")
def two_processes(script: Script) -> Tensor:
    def play(script: Script) -> Tensor:
        wrapped = DistributedDataParallel(Probe())
        optimizer = SGD(wrapped.parameters(), lr=0.1, momentum=0.9)
        data = Points(96)
        sampler = DistributedSampler(data, shuffle=True)
        loader = DataLoader(data, batch_size=4, sampler=sampler)
        log = script.log(world_size=script.world, accumulate=2)
        log.watch(wrapped, optimizer, loader=loader, accumulate=2, rank=script.rank, world=script.world)
        for epoch in range(3):
            sampler.set_epoch(epoch)
            for number, batch in enumerate(loader, start=1):
                if number % 2:
                    optimizer.zero_grad()
                    with wrapped.no_sync():
                        (loss_of(wrapped, batch) / 2).backward()
                else:
                    loss = loss_of(wrapped, batch) / 2
                    loss.backward()
                    optimizer.step()
                    log.step(loss=loss)
        return weights(*wrapped.module.head.children(), wrapped.module.head)

    return script.on_ranks(play)


@healthy("FSDP2 over two processes: each rank holds a shard of every parameter")
def fully_sharded(script: Script) -> Tensor:
    def play(script: Script) -> Tensor:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        model = mlp()
        fully_shard(model, mesh=init_device_mesh("cpu", (script.world,)))
        optimizer = AdamW(model.parameters(), lr=1e-2)
        log = script.log(world_size=script.world)
        log.watch(model, optimizer, rank=script.rank, world=script.world)
        for batch in batches(24, seed=script.rank):
            log.step(loss=update(model, optimizer, batch))
        dist.barrier()
        return torch.cat([p.full_tensor().detach().reshape(-1).double() for p in model.parameters()])  # type: ignore[attr-defined]

    return script.on_ranks(play)


@healthy("tensor parallelism: all ranks read the same samples on purpose and hold parts of one layer")
def tensor_parallel_ranks_read_the_same(script: Script) -> Tensor:
    def play(script: Script) -> Tensor:
        part = nn.Linear(FEATURES, CLASSES, bias=False)
        nn.init.normal_(part.weight, generator=torch.Generator().manual_seed(script.rank))
        optimizer = SGD(part.parameters(), lr=0.1)
        log = script.log(world_size=script.world)
        log.watch(part, optimizer, rank=0, world=1)  # one data-parallel group of one: nothing is divided
        for x, y in batches(24):
            optimizer.zero_grad()
            own = part(x)
            other = own.detach().clone()
            dist.all_reduce(other)
            loss = F.cross_entropy(own + (other - own.detach()), y)
            loss.backward()
            optimizer.step()
            log.step(loss=loss)
        return weights(part)

    return script.on_ranks(play)
