"""Errors of orders, splits and workers, and of averages of the weights."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Adam, AdamW
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler

from tests.bench.silent.case import error
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


@error(
    "BatsResearch/taglets/pull/28",
    "two ranks train without sampler.set_epoch(): each epoch is read in one order",
    "order_repeated",
    "order_*",
    first=12,
    again=True,
)
def taglets_in_one_order(script: Script, faulty: bool) -> Tensor:
    def play(script: Script) -> Tensor:
        data = Points(96)
        sampler = DistributedSampler(data, num_replicas=script.world, rank=script.rank)
        loader = DataLoader(data, batch_size=8, sampler=sampler)
        wrapped = DistributedDataParallel(Probe())
        optimizer = Adam(wrapped.parameters(), lr=1e-2)
        log = script.log(world_size=script.world, steps_per_epoch=6)
        log.watch(wrapped, optimizer, loader=loader, rank=script.rank, world=script.world)
        for epoch in range(3):
            if not faulty:
                sampler.set_epoch(epoch)
            for batch in loader:
                log.step(loss=update(wrapped, optimizer, batch))
        return weights(wrapped)

    return script.on_ranks(play)


@error(
    "Snowdar/asv-subtools/issues/8",
    "the bunch of data has a distributed sampler whose epoch the trainer never sets",
    "order_repeated",
    "order_*",
    first=12,
    again=True,
    note="one of the two ranks alone, by the sampler's arguments",
)
def bunch_whose_epoch_stands(script: Script, faulty: bool) -> Tensor:
    data = Points(96)
    sampler = DistributedSampler(data, num_replicas=2, rank=1, shuffle=True, drop_last=True)
    loader = DataLoader(data, batch_size=8, sampler=sampler, num_workers=1, drop_last=True)
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    log = script.log(steps_per_epoch=6)
    log.watch(model, optimizer, loader=loader)
    for epoch in range(3):
        if not faulty:
            loader.sampler.set_epoch(epoch)
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


def validated(script: Script, parts: dict[str, list[int]], names: list[Any], x: Tensor, y: Tensor) -> Tensor:
    """20 full-batch steps on the rows of "train", then the loss on the other rows; declared by `names`."""
    model = mlp()
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for part, rows in parts.items():
        log.split(part, [names[i] for i in rows])
    for _ in range(20):
        log.step(loss=update(model, optimizer, (x[parts["train"]], y[parts["train"]])))
    other = next(part for part in parts if part != "train")
    with torch.no_grad(), log.evaluating():
        loss = loss_of(model, (x[parts[other]], y[parts[other]]))
    log.eval(loss=loss, split=other)
    return torch.cat([weights(model), loss.double().reshape(1)])


def drawn(n: int, share: float, seed: int) -> tuple[list[int], list[int]]:
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).tolist()
    return order[int(share * n) :], order[: int(share * n)]


@error(
    "theislab/multimil/issues/75",
    "multiple instance learning: cells are divided, and each patient's lie in both parts",
    "splits_overlap",
    first=0,
    again=True,
)
def instances_of_a_bag_in_both_parts(script: Script, faulty: bool) -> Tensor:
    x, y = points(80)
    bags = [f"patient{i // 8}" for i in range(80)]
    if faulty:
        train, val = drawn(80, 0.1, 3)
    else:
        _, held = drawn(10, 0.1, 3)
        val = [i for i in range(80) if i // 8 in held]
        train = [i for i in range(80) if i // 8 not in held]
    return validated(script, {"train": train, "val": val}, bags, x, y)


@error(
    "sarpaykent/GotenNet/issues/10",
    "the split is made of positions in the list of training ids, and they are used as ids: some are test molecules",
    "splits_overlap",
    first=0,
)
def positions_used_as_ids(script: Script, faulty: bool) -> Tensor:
    x, y = points(60)
    given, test = drawn(60, 0.2, 7)
    positions, _ = drawn(len(given), 0.2, 8)
    train = positions if faulty else [given[i] for i in positions]
    return validated(script, {"train": train, "test": test}, [f"molecule{i:03}" for i in range(60)], x, y)


@error(
    "HUST-NingKang-Lab/BGC-Prophet/issues/8",
    "each gene cluster is cut into five windows, and rows are divided by stratified draws: windows of one are in both",
    "splits_overlap",
    first=0,
    again=True,
)
def windows_of_a_cluster_in_both(script: Script, faulty: bool) -> Tensor:
    base, label = points(16)
    x = base.repeat_interleave(5, 0) + 0.05 * torch.randn(80, FEATURES, generator=torch.Generator().manual_seed(1))
    y, clusters = label.repeat_interleave(5), [f"BGC{i // 5:07}" for i in range(80)]
    parts: dict[str, list[int]] = {"train": [], "test": []}
    for kind in range(CLASSES):
        rows = [i for i in range(80) if y[i] == kind]
        units = rows if faulty else sorted({i // 5 for i in rows})
        train, test = drawn(len(units), 0.2, kind)
        for part, chosen in (("train", train), ("test", test)):
            picked = [units[i] for i in chosen]
            parts[part] += picked if faulty else [i for i in rows if i // 5 in picked]
    return validated(script, parts, clusters, x, y)


@error(
    "huggingface/datasets/issues/4261",
    "samples of the training split are in the validation split too, under numbers of their own",
    "splits_overlap",
    "signal_in_two_splits",
    first=0,
    note="signals of 96 numbers stand for the texts, and are declared themselves",
)
def samples_published_in_both(script: Script, faulty: bool) -> Tensor:
    generator = np.random.default_rng(5)
    signals = generator.normal(size=(60, 96)).astype(np.float32)
    if faulty:
        signals[50:54] = signals[4:8]
    x = torch.from_numpy(signals[:, :FEATURES].copy())
    parts = {"train": list(range(48)), "val": list(range(48, 60))}
    return validated(script, parts, list(signals), x, points(60)[1])


class Shaken(Dataset[tuple[Tensor, Tensor]]):
    """Points with noise from numpy's or Python's global generator."""

    def __init__(self, python: bool) -> None:
        self.x, self.y = points(48)
        self.python = python

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        draws = [random.gauss(0, 0.1) for _ in range(FEATURES)] if self.python else np.random.normal(0, 0.1, FEATURES)
        return self.x[i] + torch.tensor(draws, dtype=torch.float32), self.y[i]


class PutBack:
    """An init function of workers: the main process's state of Python's or numpy's generator."""

    def __init__(self, python: bool) -> None:
        self.python, self.state = python, random.getstate() if python else np.random.get_state()

    def __call__(self, number: int) -> None:
        random.setstate(self.state) if self.python else np.random.set_state(self.state)


def shaken(script: Script, python: bool, restore: Any) -> Tensor:
    loader = DataLoader(Shaken(python), batch_size=8, shuffle=True, num_workers=2, worker_init_fn=restore)
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log(steps_per_epoch=6)
    log.watch(model, optimizer, loader=loader)
    for _ in range(3):
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


@error(
    "open-mmlab/OpenPCDet/issues/886",
    "augmentations by numpy's generator, which each worker has in the state of the main process",
    "workers_draw_the_same",
    "epochs_draw_the_same",
    "workers_*",
    first=2,
    again=True,
    note="torch seeds numpy in each worker since 1.9: the init function puts the main process's state back",
)
def point_clouds_shaken_alike(script: Script, faulty: bool) -> Tensor:
    return shaken(script, False, PutBack(python=False) if faulty else None)


@error(
    "pytorch/pytorch/issues/3880",
    "workers are forked with the global generators of the main process: Python's draws the same crops in all",
    "workers_draw_the_same",
    "epochs_draw_the_same",
    "workers_*",
    first=2,
    again=True,
    note="torch seeds Python's generator in each worker today: the init function puts the main process's state back",
)
def forked_with_the_same_state(script: Script, faulty: bool) -> Tensor:
    return shaken(script, True, PutBack(python=True) if faulty else None)


def in_order(script: Script, shuffle: bool, optimizer_class: Any) -> Tensor:
    loader = DataLoader(Points(48), batch_size=8, shuffle=shuffle)
    model = mlp()
    optimizer = optimizer_class(model.parameters(), lr=1e-2)
    log = script.log(steps_per_epoch=6)
    log.watch(model, optimizer, loader=loader)
    for _ in range(4):
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


@error(
    "ant-research/EasyTemporalPointProcess/issues/54",
    "the runner's validation of its settings sets shuffle=False for the training data too",
    "order_*",
    first=12,
)
def settings_unshuffle_the_training(script: Script, faulty: bool) -> Tensor:
    settings = {"train": {"shuffle": True}, "valid": {"shuffle": True}}
    for part in ("train", "valid") if faulty else ("valid",):
        settings[part]["shuffle"] = False
    return in_order(script, settings["train"]["shuffle"], Adam)


@error(
    "braindecode/braindecode/pull/103",
    "an EEG classifier of skorch: the training iterator does not shuffle by default",
    "order_*",
    first=12,
    note="a DataLoader with the iterator's arguments stands for skorch's",
)
def eeg_classifier_does_not_shuffle(script: Script, faulty: bool) -> Tensor:
    iterator = {} if faulty else {"shuffle": True}
    return in_order(script, iterator.get("shuffle", False), AdamW)


@error(
    "saltoricristiano/cosmix-uda/issues/21",
    "the teacher's update has the parameters and forgets the buffers: its batch statistics stay",
    "ema_*",
    first=1,
    again=True,
)
def teacher_without_buffers(script: Script, faulty: bool) -> Tensor:
    student = Probe()
    teacher = copy.deepcopy(student).requires_grad_(False).eval()
    optimizer = SGD(student.parameters(), lr=0.1)
    log = script.log()
    log.watch(student, optimizer)
    log.ema(teacher, 0.9)
    for x, y in batches(24):
        optimizer.zero_grad()
        loss = F.cross_entropy(student(x), y) + F.mse_loss(student(x + 0.1).softmax(1), teacher(x).softmax(1))
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for t, p in zip(teacher.parameters(), student.parameters()):
                t.mul_(0.9).add_(p, alpha=0.1)
            for t, b in zip(teacher.buffers(), student.buffers()):
                if not faulty and b.is_floating_point():
                    t.mul_(0.9).add_(b, alpha=0.1)
        log.step(loss=loss)
    return torch.cat([weights(student), torch.tensor([scored(teacher)], dtype=torch.float64)])


@error(
    "hnuzhy/SSDA-YOLO/issues/21",
    "WeightEMA averages a list of parameters: the batch statistics of the teacher are none of them",
    "ema_*",
    first=1,
    again=True,
)
def list_of_parameters_averaged(script: Script, faulty: bool) -> Tensor:
    student = Probe()
    teacher = copy.deepcopy(student).requires_grad_(False).eval()
    optimizer = AdamW(student.parameters(), lr=1e-2)
    log = script.log()
    log.watch(student, optimizer)
    log.ema(teacher, 0.95)
    for batch in batches(24):
        loss = update(student, optimizer, batch)
        ours, theirs = ((list(m.parameters()) if faulty else list(m.state_dict().values())) for m in (teacher, student))
        with torch.no_grad():
            for t, s in zip(ours, theirs):
                t.copy_(0.95 * t + 0.05 * s if t.is_floating_point() else s)
        log.step(loss=loss)
    return torch.cat([weights(student), torch.tensor([scored(teacher)], dtype=torch.float64)])


@error(
    "SWivid/F5-TTS/issues/631",
    "the average is updated at each of four micro-batches",
    "ema_*",
    first=2,
)
def average_moves_at_each_micro_batch(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    averaged = copy.deepcopy(model).requires_grad_(False)
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log(accumulate=4)
    log.watch(model, optimizer, accumulate=4)
    log.ema(averaged, 0.9)
    for number, batch in enumerate(batches(96), start=1):
        loss = loss_of(model, batch)
        (loss / 4).backward()
        if number % 4 == 0:
            optimizer.step()
            optimizer.zero_grad()
        if faulty or number % 4 == 0:
            with torch.no_grad():
                for a, p in zip(averaged.parameters(), model.parameters()):
                    a.lerp_(p, 0.1)
        if number % 4 == 0:
            log.step(loss=loss)
    return weights(averaged)


class Skipping(Sampler[int]):
    """A permutation by the epoch's seed, of which the first ones are skipped."""

    def __init__(self, n: int, skip: int) -> None:
        self.n, self.skip, self.epoch = n, skip, 0

    def __len__(self) -> int:
        return self.n - self.skip

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(self.n, generator=torch.Generator().manual_seed(self.epoch)).tolist()
        skipped, self.skip = self.skip, 0
        return iter(order[skipped:])


@error(
    "determined-ai/determined/pull/6708",
    "the loader is built before the state is loaded: it skips no batch, and the epoch begins again",
    "order_*",
    first=7,
    again=True,
)
def loader_built_before_the_state(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    for attempt in range(2):
        trained = 6 * attempt
        loader = DataLoader(Points(96), batch_size=8, sampler=Skipping(96, 0 if faulty else 8 * trained))
        log = script.log(resume=attempt > 0, step=trained, steps_per_epoch=12, total_steps=12)
        log.watch(model, optimizer, loader=loader)
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
            trained += 1
            if trained == (6, 12)[attempt]:
                break
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, script.path("last.pt"))
        log.checkpoint(script.path("last.pt"))
    return weights(model)


class Packs(Sampler[list[int]]):
    """Batches of a permutation that is drawn by the epoch."""

    def __init__(self, n: int, size: int) -> None:
        self.n, self.size, self.epoch = n, size, 0

    def __len__(self) -> int:
        return self.n // self.size

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(self.n, generator=torch.Generator().manual_seed(self.epoch)).tolist()
        return iter([order[i : i + self.size] for i in range(0, self.n, self.size)])


@error(
    "nvidia-cosmos/cosmos-rl/pull/609",
    "set_epoch is not called on the batch sampler: it draws the batches of the first epoch each time",
    "order_repeated",
    "order_*",
    first=12,
    again=True,
)
def batch_sampler_stays_in_the_first_epoch(script: Script, faulty: bool) -> Tensor:
    data = Points(48)
    loader = DataLoader(data, batch_sampler=Packs(48, 8))
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log(steps_per_epoch=6)
    log.watch(model, optimizer, loader=loader)
    for epoch in range(4):
        sampler = loader.sampler if faulty else loader.batch_sampler
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
    return weights(model)
