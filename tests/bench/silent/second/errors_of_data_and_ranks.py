"""Errors of workers, splits and several processes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Adam, AdamW
from torch.utils.data import DataLoader, Dataset, IterableDataset

from tests.bench.silent.case import error
from tests.bench.silent.script import Script
from tests.bench.silent.toy import CLASSES, batches, loss_of, mlp, points, update, weights


class Impaired(Dataset[tuple[Tensor, Tensor]]):
    """Points with an impairment whose generator belongs to the transform, as signal toolkits have it."""

    class Transform:
        def __init__(self) -> None:
            self.generator = np.random.default_rng(7)

        def __call__(self, x: Tensor) -> Tensor:
            return x * float(self.generator.uniform(0.5, 1.5))

    def __init__(self) -> None:
        self.x, self.y = points(48)
        self.transform = self.Transform()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.transform(self.x[i]), self.y[i]


def reseed_the_transform(worker: int) -> None:
    info = torch.utils.data.get_worker_info()
    assert info is not None
    info.dataset.transform.generator = np.random.default_rng(info.seed)  # type: ignore[attr-defined]


@error(
    "TorchDSP/torchsig/issues/343",
    "the transform's own generator is copied into every worker: all draw the same numbers",
    "workers_draw_the_same",
    "workers_*",
    "epochs_draw_the_same",
    first=2,
)
def transforms_draw_the_same(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    init = None if faulty else reseed_the_transform
    loader = DataLoader(Impaired(), batch_size=8, shuffle=True, num_workers=2, worker_init_fn=init)
    log = script.log(steps_per_epoch=6)
    log.watch(model, optimizer, loader=loader)
    for _ in range(2):
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


class Augmented(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self) -> None:
        self.x, self.y = points(48)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.x[i] + float(np.random.randn()) * 0.1, self.y[i]


def seeded_alike(worker: int) -> None:
    np.random.seed(0)


@error(
    "facebookresearch/fairseq/issues/1383",
    "all workers have one state of numpy's generator, again in every epoch",
    "workers_draw_the_same",
    "epochs_draw_the_same",
    "workers_*",
    first=2,
    note="torch before 1.9 left numpy's state alone; here each worker is seeded alike",
)
def workers_seeded_alike(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    init = seeded_alike if faulty else None
    loader = DataLoader(Augmented(), batch_size=8, shuffle=True, num_workers=2, worker_init_fn=init)
    log = script.log(steps_per_epoch=6)
    log.watch(model, optimizer, loader=loader)
    for _ in range(2):
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


class Shards(IterableDataset[tuple[Tensor, Tensor]]):
    def __init__(self, rank: int, world: int) -> None:
        self.rank, self.world = rank, world
        self.x, self.y = points(64)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for i in range(self.rank, len(self.x), self.world):
            yield self.x[i], self.y[i]


@error(
    "huggingface/datasets/issues/5360",
    "an iterable dataset under DistributedDataParallel: every rank reads all of it",
    "ranks_read_the_same",
    "ranks_overlap",
    "ranks_*",
    first=1,
)
def stream_not_divided_among_ranks(script: Script, faulty: bool) -> Tensor:
    def play(script: Script) -> Tensor:
        wrapped = DistributedDataParallel(mlp())
        optimizer = SGD(wrapped.parameters(), lr=0.1)
        data = Shards(0, 1) if faulty else Shards(script.rank, script.world)
        loader = DataLoader(data, batch_size=4)
        log = script.log(world_size=script.world)
        log.watch(wrapped, optimizer, loader=loader, rank=script.rank, world=script.world)
        for _ in range(2):
            for number, batch in enumerate(loader):
                if number < 8:
                    log.step(loss=update(wrapped, optimizer, batch))
        return weights(wrapped)

    return script.on_ranks(play)


@error(
    "Y-debug-sys/Diffusion-TS/issues/67",
    "sliding windows of one series are shuffled and then divided: every test window has neighbours in the training set",
    "splits_overlap",
    first=0,
)
def sliding_windows_shuffled(script: Script, faulty: bool) -> Tensor:
    series = torch.randn(240, generator=torch.Generator().manual_seed(3)).cumsum(0) / 4
    starts = list(range(0, 240 - 12 + 1, 2))
    if faulty:
        order = torch.randperm(len(starts), generator=torch.Generator().manual_seed(4)).tolist()
        train, test = [starts[i] for i in order[:80]], [starts[i] for i in order[80:]]
    else:
        train, test = [s for s in starts if s + 12 <= 168], [s for s in starts if s >= 168]

    def cut(chosen: list[int]) -> tuple[Tensor, Tensor]:
        x = torch.stack([series[s : s + 12].reshape(6, 2).mean(1) for s in chosen])
        return x, torch.tensor([s // 40 % CLASSES for s in chosen])

    model = mlp(32)
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    log.split("train", [("series", s, s + 12) for s in train])
    log.split("test", [("series", s, s + 12) for s in test])
    for _ in range(20):
        log.step(loss=update(model, optimizer, cut(train)))
    with torch.no_grad(), log.evaluating():
        loss = loss_of(model, cut(test))
    log.eval(loss=loss, split="test")
    return torch.cat([weights(model), loss.double().reshape(1)])


@error(
    "ambitious-octopus/MI-EEG-1D-CNN/issues/22",
    "pairs of channels of one trial are divided as if they were trials: most trials are in both sets",
    "splits_overlap",
    first=0,
)
def channel_pairs_of_a_trial_in_both_splits(script: Script, faulty: bool) -> Tensor:
    pairs = [(trial, pair) for trial in range(30) for pair in range(4)]
    if faulty:
        order = torch.randperm(120, generator=torch.Generator().manual_seed(9)).tolist()
        train, val = [pairs[i] for i in order[:96]], [pairs[i] for i in order[96:]]
    else:
        train, val = pairs[:96], pairs[96:]

    def cut(chosen: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        x = torch.cat([points(1, 500 + t)[0] + 0.05 * points(1, 900 + 4 * t + p)[0] for t, p in chosen])
        return x, torch.tensor([t * 7 % CLASSES for t, _ in chosen])

    model = mlp(32)
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    log.split("train", [f"S{t // 10:03}R{t % 10:02}" for t, _ in train])
    log.split("val", [f"S{t // 10:03}R{t % 10:02}" for t, _ in val])
    for _ in range(20):
        log.step(loss=update(model, optimizer, cut(train)))
    with torch.no_grad(), log.evaluating():
        loss = loss_of(model, cut(val))
    log.eval(loss=loss)
    return torch.cat([weights(model), loss.double().reshape(1)])


@error(
    "kohya-ss/sd-scripts/pull/989",
    "adapters that are put into the forward pass beside the wrapped model are not reduced over the ranks",
    "replicas_differ",
    first=1,
)
def adapters_beside_the_wrapper(script: Script, faulty: bool) -> Tensor:
    def play(script: Script) -> Tensor:
        body = mlp()
        wrapped = DistributedDataParallel(body)
        adapter = nn.Linear(CLASSES, CLASSES)
        optimizer = AdamW([*body.parameters(), *adapter.parameters()], lr=1e-2)
        log = script.log(world_size=script.world)
        log.watch([wrapped, adapter], optimizer, rank=script.rank, world=script.world)
        log.replica()
        for x, y in batches(24, seed=1 + script.rank):
            optimizer.zero_grad()
            out = wrapped(x)
            loss = F.cross_entropy(out + adapter(out), y)
            loss.backward()
            if not faulty:
                for p in adapter.parameters():
                    dist.all_reduce(p.grad)
                    p.grad /= script.world
            optimizer.step()
            log.step(loss=loss)
            log.replica()
        return weights(body, adapter)

    return script.on_ranks(play)


@error(
    "modelscope/FunASR/pull/3472",
    "no_sync() covers the last micro-batch instead of the first ones: the ranks step with sums of their own",
    "replicas_differ",
    first=1,
)
def no_sync_on_the_wrong_micro_batch(script: Script, faulty: bool) -> Tensor:
    def play(script: Script) -> Tensor:
        wrapped = DistributedDataParallel(mlp())
        optimizer = SGD(wrapped.parameters(), lr=0.1)
        log = script.log(world_size=script.world, accumulate=3)
        log.watch(wrapped, optimizer, accumulate=3, rank=script.rank, world=script.world)
        for step in range(20):
            optimizer.zero_grad()
            for part, batch in enumerate(batches(3, seed=10 * step + script.rank)):
                wrapped.require_backward_grad_sync = part % 3 == 0 if faulty else (part + 1) % 3 == 0
                loss = loss_of(wrapped, batch) / 3
                loss.backward()
            optimizer.step()
            log.step(loss=loss)
        return weights(wrapped)

    return script.on_ranks(play)


@error(
    "pytorch/pytorch/issues/48188",
    "the weights are not the same on all ranks after the construction of DistributedDataParallel",
    "replicas_differ",
    first=1,
    note="the broadcast of the constructor is left out and each rank has a seed of its own",
)
def ddp_begins_out_of_sync(script: Script, faulty: bool) -> Tensor:
    def play(script: Script) -> Tensor:
        torch.manual_seed(script.rank)
        wrapped = DistributedDataParallel(mlp(), init_sync=not faulty)
        optimizer = SGD(wrapped.parameters(), lr=0.1)
        log = script.log(world_size=script.world)
        log.watch(wrapped, optimizer, rank=script.rank, world=script.world)
        for batch in batches(24, seed=1 + script.rank):
            log.step(loss=update(wrapped, optimizer, batch))
        return weights(wrapped)

    return script.on_ranks(play)


@error(
    "pytorch/pytorch/issues/136009",
    "the gradient scalers of two ranks have other scales: reduced gradients are divided by each rank's own",
    "replicas_differ",
    first=1,
)
def scales_of_the_ranks_differ(script: Script, faulty: bool) -> Tensor:
    def play(script: Script) -> Tensor:
        wrapped = DistributedDataParallel(mlp())
        optimizer = SGD(wrapped.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0 * (1 + script.rank) if faulty else 1024.0)
        log = script.log(world_size=script.world)
        log.watch(wrapped, optimizer, scaler=scaler, rank=script.rank, world=script.world)
        for batch in batches(24, seed=1 + script.rank):
            optimizer.zero_grad()
            loss = loss_of(wrapped, batch)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            log.step(loss=loss)
        return weights(wrapped)

    return script.on_ranks(play)
