"""Errors of orders, workers, splits and folds, and of several processes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Adam, AdamW
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, Sampler, default_collate, get_worker_info

from tests.bench.silent.case import error
from tests.bench.silent.script import Script
from tests.bench.silent.toy import CLASSES, FEATURES, Points, batches, loss_of, mlp, points, update, weights


class Safe(Sampler[int]):
    """A sampler around another; `once`: it draws the order when it is made and keeps it."""

    def __init__(self, inner: Sampler[int], length: int, once: bool) -> None:
        self.inner, self.length, self.order = inner, length, list(inner) if once else None

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        return iter(self.inner if self.order is None else self.order)


@error(
    "msamogh/nonechucks/issues/8",
    "a sampler that skips broken samples is put around the random one and draws its order once: no epoch is shuffled anew",
    "order_repeated",
    "order_*",
    first=12,
    note="the report shows the repeated orders; that they are drawn once is this reproduction's cause",
)
def wrapped_sampler_keeps_its_order(script: Script, faulty: bool) -> Tensor:
    data = Points(48)
    loader = DataLoader(data, batch_size=8, sampler=Safe(RandomSampler(data), len(data), once=faulty))
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log(steps_per_epoch=6)
    log.watch(model, optimizer, loader=loader)
    for _ in range(4):
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


class Seedable(RandomSampler):
    """A random sampler that seeds itself with the number of its epoch at each pass."""

    epoch = 0

    def __iter__(self) -> Iterator[int]:
        self.generator = torch.Generator().manual_seed(42 + self.epoch)
        return super().__iter__()


@error(
    "huggingface/accelerate/issues/2627",
    "the sampler of the prepared loader seeds itself with its epoch, which is never counted up",
    "order_repeated",
    "order_*",
    first=12,
    note="the sampler of accelerate 0.25, which later versions use on request only",
)
def seedable_sampler_stays_in_its_epoch(script: Script, faulty: bool) -> Tensor:
    data = Points(48)
    sampler = Seedable(data)
    loader = DataLoader(data, batch_size=8, sampler=sampler)
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log(steps_per_epoch=6)
    log.watch(model, optimizer, loader=loader)
    for epoch in range(4):
        if not faulty:
            sampler.epoch = epoch
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


@error(
    "hiyouga/EasyR1/issues/57",
    "the loader's position is not in the checkpoint: a resume trains on the first samples of the epoch again",
    "order_*",
    first=7,
)
def resume_begins_the_epoch_again(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = Adam(model.parameters(), lr=1e-2)
    done = 0
    for attempt in range(2):
        generator = torch.Generator().manual_seed(11)
        loader = DataLoader(Points(96), batch_size=8, shuffle=True, generator=generator)
        log = script.log(resume=attempt > 0, step=done, steps_per_epoch=12, total_steps=12)
        log.watch(model, optimizer, loader=loader)
        trained = done
        for number, batch in enumerate(loader):
            if number < done and not faulty:
                continue
            if trained == (6, 12)[attempt]:
                break
            log.step(loss=update(model, optimizer, batch))
            trained += 1
        done = trained
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, script.path("last.pt"))
        log.checkpoint(script.path("last.pt"))
    return weights(model)


class Shards(IterableDataset[tuple[Tensor, Tensor]]):
    """Two shards that every worker goes through; within a shard each draws samples by a generator of its own."""

    def __init__(self, alike: bool) -> None:
        self.x, self.y = points(64)
        self.alike, self.epoch = alike, 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        info = get_worker_info()
        number = 0 if info is None or self.alike else info.id + 1
        generator = np.random.default_rng(100 * self.epoch + 7919 * number)
        for shard in range(2):
            for i in generator.permutation(32)[:16]:
                yield self.x[32 * shard + i], self.y[32 * shard + i]


@error(
    "dreamzero0/dreamzero/issues/91",
    "the shuffle within a shard has the base seed alone: workers on one shard yield the same samples in the same order",
    "workers_yield_the_same",
    "workers_*",
    first=2,
)
def workers_shuffle_a_shard_alike(script: Script, faulty: bool) -> Tensor:
    data = Shards(alike=faulty)
    loader = DataLoader(data, batch_size=8, num_workers=2)
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log(steps_per_epoch=8)
    log.watch(model, optimizer, loader=loader)
    for epoch in range(2):
        data.epoch = epoch
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


class Masks:
    """An augmentation for a batch of signals: some features are set to zero by a generator of its own."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, x: Tensor) -> Tensor:
        return x * (torch.rand(x.shape, generator=self.generator) > 0.3)


@error(
    "benchopt/benchmark_bci/pull/7",
    "the augmentation of EEG windows is made anew with one seed for each batch: all batches have the same mask",
    "epochs_draw_the_same",
    "workers_*",
    first=2,
)
def augmentation_seeded_for_each_batch(script: Script, faulty: bool) -> Tensor:
    kept = Masks(3)

    def collate(samples: Any) -> Any:
        x, y = default_collate(samples)
        return (Masks(3) if faulty else kept)(x), y

    loader = DataLoader(Points(48), batch_size=8, shuffle=True, collate_fn=collate)
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log(steps_per_epoch=6)
    log.watch(model, optimizer, loader=loader)
    for _ in range(3):
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


@error(
    "NeuroTechX/moabb/pull/222",
    "cross-validation within a session goes on with the model of the last fold: it has trained on what it is tested on",
    "splits_overlap",
    "weights_not_restored",
    first=0,
)
def model_of_the_last_fold(script: Script, faulty: bool) -> Tensor:
    x, y = points(60)
    model = mlp(24)
    begin = copy.deepcopy(model.state_dict())
    held = []
    for fold in range(3):
        if not faulty:
            model.load_state_dict(begin)
        test = list(range(20 * fold, 20 * fold + 20))
        train = [i for i in range(60) if i not in test]
        optimizer = Adam(model.parameters(), lr=1e-2)
        log = script.log(config={"fold": fold})
        log.watch(model, optimizer)
        log.split("train", [f"trial{i:02}" for i in train])
        log.split("test", [f"trial{i:02}" for i in test])
        for _ in range(10):
            log.step(loss=update(model, optimizer, (x[train], y[train])))
        with torch.no_grad(), log.evaluating():
            held.append(loss_of(model, (x[test], y[test])))
        log.eval(loss=held[-1], split="test")
    return torch.stack(held).double()


@error(
    "torcheeg/torcheeg/issues/141",
    "the names of SEED's trials hold the subject: folds over trials test film clips that other subjects trained on",
    "splits_overlap",
    first=0,
)
def folds_over_names_of_trials(script: Script, faulty: bool) -> Tensor:
    pairs = [(subject, clip) for subject in ("jl", "phl", "xyl") for clip in range(1, 16)]
    names = [f"{subject}_eeg{clip}" if faulty else str(clip) for subject, clip in pairs]
    order = sorted(set(names))
    shuffled = [order[i] for i in torch.randperm(len(order), generator=torch.Generator().manual_seed(1)).tolist()]
    held = set(shuffled[: len(shuffled) // 5])
    parts = {"train": [], "test": []}  # type: dict[str, list[int]]
    for i, name in enumerate(names):
        parts["test" if name in held else "train"].append(i)
    x, _ = points(len(pairs), 31)
    y = torch.tensor([clip % CLASSES for _, clip in pairs])
    model = mlp()
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for part, rows in parts.items():
        log.split(part, sorted({f"clip{pairs[i][1]:02}" for i in rows}))
    for _ in range(20):
        log.step(loss=update(model, optimizer, (x[parts["train"]], y[parts["train"]])))
    with torch.no_grad(), log.evaluating():
        loss = loss_of(model, (x[parts["test"]], y[parts["test"]]))
    log.eval(loss=loss, split="test")
    return torch.cat([weights(model), loss.double().reshape(1)])


@error(
    "talmolab/sleap-nn/pull/600",
    "a resume draws the split anew: it validates on what the first attempt trained on",
    "splits_overlap",
    first=13,
)
def split_drawn_anew_on_resume(script: Script, faulty: bool) -> Tensor:
    x, y = points(60)
    model = mlp()
    optimizer = Adam(model.parameters(), lr=1e-2)
    seen = []
    for attempt in range(2):
        seed = 40 + attempt if faulty else 40
        order = torch.randperm(60, generator=torch.Generator().manual_seed(seed)).tolist()
        train, val = order[:48], order[48:]
        log = script.log(resume=attempt > 0, step=12 * attempt, total_steps=24)
        log.watch(model, optimizer)
        log.split("train", [f"video{i:02}" for i in train])
        log.split("val", [f"video{i:02}" for i in val])
        for _ in range(12):
            log.step(loss=update(model, optimizer, (x[train], y[train])))
        with torch.no_grad(), log.evaluating():
            seen.append(loss_of(model, (x[val], y[val])))
        log.eval(loss=seen[-1])
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, script.path("last.pt"))
        log.checkpoint(script.path("last.pt"))
    return torch.cat([weights(model), torch.stack(seen).double()])


class Lateral(nn.Module):
    """A classifier with lateral weights that the forward pass itself moves by a local rule."""

    def __init__(self) -> None:
        super().__init__()
        self.feed, self.head = nn.Linear(FEATURES, 8), nn.Linear(8, CLASSES)
        self.lateral = nn.Parameter(torch.zeros(8, 8), requires_grad=False)
        self.shared = False

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.feed(x) + torch.tanh(self.feed(x)).detach() @ self.lateral)
        with torch.no_grad():
            self.lateral.add_(h.T @ h / len(h) - torch.eye(8), alpha=0.01)
            if self.shared:
                dist.all_reduce(self.lateral)
                self.lateral /= dist.get_world_size()
        return self.head(h)


@error(
    "iCog-Labs-Dev/PC-Transformers/pull/135",
    "weights that a local rule moves in the forward pass are not averaged over the ranks",
    "replicas_differ",
    first=1,
)
def local_rule_past_ddp(script: Script, faulty: bool) -> Tensor:
    def play(script: Script) -> Tensor:
        model = Lateral()
        model.shared = not faulty
        wrapped = DistributedDataParallel(model)
        optimizer = SGD(wrapped.parameters(), lr=0.1)
        log = script.log(world_size=script.world)
        log.watch(wrapped, optimizer, rank=script.rank, world=script.world)
        for batch in batches(24, seed=1 + script.rank):
            log.step(loss=update(wrapped, optimizer, batch))
        return weights(model)

    return script.on_ranks(play)


@error(
    "ByteDance-Seed/VeOmni/pull/1086",
    "with sequence parallelism the data-parallel group is one rank: each steps with the gradient of its own slice",
    "replicas_differ",
    first=1,
    note="halves of the features stand for the slices of a sequence",
)
def reduced_over_a_group_of_one(script: Script, faulty: bool) -> Tensor:
    def play(script: Script) -> Tensor:
        groups = [dist.new_group([rank]) for rank in range(script.world)]
        group = groups[script.rank] if faulty else dist.group.WORLD
        model = mlp()
        optimizer = AdamW(model.parameters(), lr=1e-2)
        log = script.log(world_size=script.world)
        log.watch(model, optimizer, rank=script.rank, world=script.world)
        log.replica()
        for x, y in batches(24):
            part = x.clone()
            part[:, 3 * script.rank : 3 * script.rank + 3] = 0
            optimizer.zero_grad()
            loss = F.cross_entropy(model(part), y)
            loss.backward()
            for p in model.parameters():
                dist.all_reduce(p.grad, group=group)
            optimizer.step()
            log.step(loss=loss)
            log.replica()
        return weights(model)

    return script.on_ranks(play)


@error(
    "verl-project/verl-SpeCo/pull/29",
    "the loss is divided by the tokens of all ranks and the gradients are averaged over them: steps are half as large",
    "microbatch_weights",
    first=1,
)
def averaged_over_ranks_twice(script: Script, faulty: bool) -> Tensor:
    def play(script: Script) -> Tensor:
        wrapped = DistributedDataParallel(mlp())
        optimizer = SGD(wrapped.parameters(), lr=0.2)
        log = script.log(world_size=script.world)
        log.watch(wrapped, optimizer, rank=script.rank, world=script.world)
        for x, y in batches(24, seed=1 + script.rank):
            tokens = torch.tensor(float(len(x)))
            dist.all_reduce(tokens)
            optimizer.zero_grad()
            loss = F.cross_entropy(wrapped(x), y, reduction="sum") / tokens
            (loss if faulty else loss * script.world).backward()
            optimizer.step()
            log.step(loss=loss * script.world)
        return weights(wrapped)

    return script.on_ranks(play)


@error(
    "neuralmagic/sparseml/pull/135",
    "the loss is multiplied by the number of ranks, the gradients are averaged over them all the same",
    "microbatch_weights",
    first=1,
)
def loss_times_world_size(script: Script, faulty: bool) -> Tensor:
    def play(script: Script) -> Tensor:
        wrapped = DistributedDataParallel(mlp())
        optimizer = SGD(wrapped.parameters(), lr=0.1)
        log = script.log(world_size=script.world)
        log.watch(wrapped, optimizer, rank=script.rank, world=script.world)
        for batch in batches(24, seed=1 + script.rank):
            optimizer.zero_grad()
            loss = loss_of(wrapped, batch)
            (loss * script.world if faulty else loss).backward()
            optimizer.step()
            log.step(loss=loss)
        return weights(wrapped)

    return script.on_ranks(play)


@error(
    "TensorAuto/OpenTau/pull/498",
    "each rank draws the split from a seed of its own: what one validates on another trains on",
    "splits_overlap",
    first=0,
)
def each_rank_draws_its_split(script: Script, faulty: bool) -> Tensor:
    def play(script: Script) -> Tensor:
        x, y = points(64)
        seed = 1234 + 12345 * script.rank if faulty else 1234
        order = torch.randperm(64, generator=torch.Generator().manual_seed(seed)).tolist()
        train, val = order[:48], order[48:]
        wrapped = DistributedDataParallel(mlp())
        optimizer = Adam(wrapped.parameters(), lr=1e-2)
        log = script.log(world_size=script.world)
        log.watch(wrapped, optimizer, rank=script.rank, world=script.world)
        log.split("train", [f"frame{i:02}" for i in train])
        log.split("val", [f"frame{i:02}" for i in val])
        own = train[script.rank :: script.world]
        for start in range(0, 24, 4):
            rows = own[start : start + 4]
            log.step(loss=update(wrapped, optimizer, (x[rows], y[rows])))
        with torch.no_grad(), log.evaluating():
            held = loss_of(wrapped.module, (x[val], y[val]))
        log.eval(loss=held)
        return torch.cat([weights(wrapped), held.double().reshape(1)])

    return script.on_ranks(play)


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    """The shards of a stream, shuffled, every `world`-th of them for this rank."""

    def __init__(self, rank: int, world: int, seed: int) -> None:
        self.rank, self.world, self.seed = rank, world, seed
        self.x, self.y = points(64)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(16, generator=torch.Generator().manual_seed(self.seed)).tolist()
        for shard in order[self.rank :: self.world]:
            for i in range(4 * shard, 4 * shard + 4):
                yield self.x[i], self.y[i]


@error(
    "huggingface/datasets/issues/5696",
    "without a seed each rank shuffles the list of shards its own way: some shards are read twice and others never",
    "ranks_overlap",
    "ranks_*",
    first=8,
)
def shards_shuffled_by_each_rank(script: Script, faulty: bool) -> Tensor:
    def play(script: Script) -> Tensor:
        wrapped = DistributedDataParallel(mlp())
        optimizer = SGD(wrapped.parameters(), lr=0.1)
        log = script.log(world_size=script.world, steps_per_epoch=8)
        data = Stream(script.rank, script.world, 0)
        loader = DataLoader(data, batch_size=4)
        log.watch(wrapped, optimizer, loader=loader, rank=script.rank, world=script.world)
        for epoch in range(3):
            data.seed = 10 * epoch + (script.rank if faulty else 0)
            for batch in loader:
                log.step(loss=update(wrapped, optimizer, batch))
        return weights(wrapped)

    return script.on_ranks(play)
