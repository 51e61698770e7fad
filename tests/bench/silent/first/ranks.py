"""Errors of several processes: replicas that drift apart, ranks that read the same samples."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD
from torch.utils.data import DataLoader, DistributedSampler

from tests.bench.silent.case import error
from tests.bench.silent.script import Script
from tests.bench.silent.toy import Points, batches, loss_of, mlp, update, weights


@error(
    "https://x.com/jxmnop/status/1778520637193240892",
    "the wrapped module is called past DistributedDataParallel: gradients are not reduced (TrainCheck: x-jxmnop)",
    "replicas_differ",
    first=1,
)
def module_called_past_ddp(script: Script, faulty: bool) -> Tensor:
    def play(script: Script) -> Tensor:
        wrapped = DistributedDataParallel(mlp())
        optimizer = SGD(wrapped.parameters(), lr=0.1)
        data = Points(96)
        loader = DataLoader(data, batch_size=4, sampler=DistributedSampler(data, shuffle=False))
        log = script.log(world_size=script.world)
        log.watch(wrapped, optimizer, rank=script.rank, world=script.world)
        for batch in loader:
            log.step(loss=update(wrapped.module if faulty else wrapped, optimizer, batch))
        return weights(wrapped)

    return script.on_ranks(play)


@error(
    "deepspeedai/DeepSpeed/issues/1801",
    "gradients of replicated layers are clipped by one rank alone (BLOOM-176B; TrainCheck: deepspeed-1801)",
    "replicas_differ",
    first=1,
    note="two gloo processes that reduce their gradients themselves stand for the tensor-parallel group",
)
def clipped_on_one_rank(script: Script, faulty: bool) -> Tensor:
    def play(script: Script) -> Tensor:
        model = mlp()
        optimizer = SGD(model.parameters(), lr=0.1)
        log = script.log(world_size=script.world)
        log.watch(model, optimizer, rank=script.rank, world=script.world)
        log.replica()
        data = Points(96, seed=script.rank)
        for batch in DataLoader(data, batch_size=4):
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            loss.backward()
            for p in model.parameters():
                dist.all_reduce(p.grad, op=dist.ReduceOp.SUM)
                if script.rank == 0 or not faulty:
                    p.grad.mul_(min(1.0, 0.1 / (float(p.grad.norm()) + 1e-6)))
            optimizer.step()
            log.step(loss=loss)
            log.replica()
        return weights(model)

    return script.on_ranks(play)


@error(
    "k2-fsa/icefall/issues/1616",
    "the data is not divided among the ranks: all of them read the same",
    "ranks_read_the_same",
    "ranks_overlap",
    first=1,
)
def ranks_read_the_same(script: Script, faulty: bool) -> Tensor:
    def play(script: Script) -> Tensor:
        wrapped = DistributedDataParallel(mlp())
        optimizer = SGD(wrapped.parameters(), lr=0.1)
        data = Points(64)
        rank = 0 if faulty else script.rank
        sampler = DistributedSampler(data, num_replicas=script.world, rank=rank, shuffle=True)
        loader = DataLoader(data, batch_size=4, sampler=sampler)
        log = script.log(world_size=script.world, steps_per_epoch=len(loader))
        log.watch(wrapped, optimizer, loader=loader, rank=script.rank, world=script.world)
        for epoch in range(3):
            sampler.set_epoch(epoch)
            for batch in loader:
                log.step(loss=update(wrapped, optimizer, batch))
        return weights(wrapped)

    return script.on_ranks(play)


@error(
    "NVlabs/LongLive/issues/71",
    "each rank shuffles with a seed of its own: their parts overlap and others are never read",
    "ranks_overlap",
    first=8,
)
def ranks_shuffle_with_other_seeds(script: Script, faulty: bool) -> Tensor:
    def play(script: Script) -> Tensor:
        wrapped = DistributedDataParallel(mlp())
        optimizer = SGD(wrapped.parameters(), lr=0.1)
        data = Points(64)
        seed = 7 + script.rank if faulty else 7
        sampler = DistributedSampler(data, shuffle=True, seed=seed)
        loader = DataLoader(data, batch_size=4, sampler=sampler)
        log = script.log(world_size=script.world, steps_per_epoch=len(loader))
        log.watch(wrapped, optimizer, loader=loader, rank=script.rank, world=script.world)
        for epoch in range(3):
            sampler.set_epoch(epoch)
            for batch in loader:
                log.step(loss=update(wrapped, optimizer, batch))
        return weights(wrapped)

    return script.on_ranks(play)


@error(
    "pytorch/pytorch/issues/104336",
    "the hooks of DistributedDataParallel are lost after a move of the model (TrainCheck: pytorch-104336)",
    "replicas_differ",
    first=9,
    note="without a GPU to move to and from: from step 9 on the wrapper does not reduce",
)
def ddp_hooks_lost(script: Script, faulty: bool) -> Tensor:
    def play(script: Script) -> Tensor:
        wrapped = DistributedDataParallel(mlp())
        optimizer = SGD(wrapped.parameters(), lr=0.1)
        log = script.log(world_size=script.world)
        log.watch(wrapped, optimizer, rank=script.rank, world=script.world)
        for step, batch in enumerate(batches(24, seed=1 + script.rank), start=1):
            if step == 9 and faulty:
                wrapped.require_backward_grad_sync = False
            log.step(loss=update(wrapped, optimizer, batch))
        return weights(wrapped)

    return script.on_ranks(play)


@error(
    "pytorch/pytorch/issues/84803",
    "a copy between two devices arrives as zeros (TrainCheck: pytorch-84803, pytorch-96600)",
    "replicas_differ",
    first=1,
    note="the broadcast of the first weights is replaced by what arrived there: zeros in one tensor of rank 1",
)
def broadcast_loses_data(script: Script, faulty: bool) -> Tensor:
    def play(script: Script) -> Tensor:
        model = mlp()
        for p in model.parameters():
            dist.broadcast(p.data, src=0)
        if faulty and script.rank == 1:
            nn.init.zeros_(model[0].weight)
        optimizer = SGD(model.parameters(), lr=0.1)
        log = script.log(world_size=script.world)
        log.watch(model, optimizer, rank=script.rank, world=script.world)
        log.replica()
        for batch in batches(24, seed=1 + script.rank):
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            loss.backward()
            for p in model.parameters():
                dist.all_reduce(p.grad)
                p.grad /= script.world
            optimizer.step()
            log.step(loss=loss)
            log.replica()
        return weights(model)

    return script.on_ranks(play)
