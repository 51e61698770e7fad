"""Errors of orders, workers and splits, and of folds that share what they should not."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Adam, AdamW
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    Sampler,
    SequentialSampler,
    get_worker_info,
)

from tests.bench.silent.case import error
from tests.bench.silent.script import Script
from tests.bench.silent.toy import (
    CLASSES,
    FEATURES,
    Points,
    batches,
    loss_of,
    mlp,
    points,
    scored,
    update,
    weights,
)


class Grouped(Sampler[int]):
    """Samples of one shape beside each other, in another order in each epoch."""

    def __init__(self, n: int, size: int) -> None:
        self.n, self.size = n, size

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[int]:
        groups = [list(range(kind, self.n, 2)) for kind in range(2)]
        chunks = []
        for group in groups:
            mixed = np.random.permutation(group).tolist()
            chunks += [mixed[i : i + self.size] for i in range(0, len(mixed), self.size)]
        return iter([i for k in np.random.permutation(len(chunks)) for i in chunks[k]])


@error(
    "open-mmlab/mmdetection/issues/1649",
    "build_dataloader() without several processes makes no sampler: the samples are read one after the other",
    "order_*",
    first=12,
    again=True,
)
def no_sampler_without_processes(script: Script, faulty: bool) -> Tensor:
    data = Points(48)
    loader = DataLoader(data, batch_size=8, sampler=None if faulty else Grouped(48, 8), drop_last=False)
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    log = script.log(steps_per_epoch=6)
    log.watch(model, optimizer, loader=loader)
    for _ in range(4):
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


class Endless:
    """A loader that goes round and round: the batches of a batch sampler without an end."""

    def __init__(self, data: Dataset[Any], size: int, shuffle: bool = False) -> None:
        sampler = torch.utils.data.RandomSampler(data) if shuffle else SequentialSampler(data)  # type: ignore[arg-type]
        self.inner = DataLoader(data, batch_sampler=BatchSampler(sampler, size, drop_last=True))

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield from self.inner


@error(
    "jindongwang/transferlearning/pull/437",
    "load_data(train=True, shuffle=True) does not hand `shuffle` on: the endless loader reads in one order",
    "order_*",
    first=12,
    again=True,
)
def shuffle_is_not_handed_on(script: Script, faulty: bool) -> Tensor:
    def load_data(data: Dataset[Any], size: int, shuffle: bool) -> Endless:
        return Endless(data, size) if faulty else Endless(data, size, shuffle=shuffle)

    source, target = load_data(Points(48), 8, shuffle=True), load_data(Points(48, 9), 8, shuffle=True)
    body, head = nn.Sequential(nn.Linear(FEATURES, 12), nn.ReLU()), nn.Linear(12, CLASSES)
    model = nn.Sequential(body, head)
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    log = script.log(steps_per_epoch=6)
    log.watch(model, optimizer, loader=source.inner)
    for step, ((x, y), (other, _)) in enumerate(zip(source, target)):
        if step == 24:
            break
        optimizer.zero_grad()
        here, there = body(x), body(other)
        loss = F.cross_entropy(head(here), y) + 0.3 * (here.mean(0) - there.mean(0)).square().sum()
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@error(
    "Spijkervet/SimCLR/pull/26",
    "contrastive training in two processes without set_epoch(): each epoch has the pairs of the first",
    "order_repeated",
    "order_*",
    first=12,
    again=True,
)
def contrastive_pairs_of_the_first_epoch(script: Script, faulty: bool) -> Tensor:
    def play(script: Script) -> Tensor:
        torch.manual_seed(7 + script.rank)
        data = Points(96)
        sampler = DistributedSampler(data, num_replicas=script.world, rank=script.rank, shuffle=True)
        loader = DataLoader(data, batch_size=8, sampler=sampler, drop_last=True)
        wrapped = DistributedDataParallel(nn.Sequential(nn.Linear(FEATURES, 12), nn.ReLU(), nn.Linear(12, 4)))
        optimizer = Adam(wrapped.parameters(), lr=3e-3)
        log = script.log(world_size=script.world, steps_per_epoch=6)
        log.watch(wrapped, optimizer, loader=loader)
        for epoch in range(4):
            if not faulty:
                sampler.set_epoch(epoch)
            for x, _ in loader:
                optimizer.zero_grad()
                z = F.normalize(wrapped(torch.cat([x, x]) + 0.1 * torch.randn(16, FEATURES)), dim=1)
                like = (z @ z.T / 0.5).fill_diagonal_(-1e4)
                loss = F.cross_entropy(like, torch.arange(16).roll(8))
                loss.backward()
                optimizer.step()
                log.step(loss=loss)
        return weights(wrapped)

    return script.on_ranks(play)


@error(
    "pytorch-ignite/code-generator/pull/130",
    "the generated script's handlers never call set_epoch() of the distributed sampler",
    "order_repeated",
    "order_*",
    first=12,
    again=True,
    note="one of two processes, by the sampler's arguments",
)
def generated_script_sets_no_epoch(script: Script, faulty: bool) -> Tensor:
    data = Points(96)
    sampler = DistributedSampler(data, num_replicas=2, rank=0, shuffle=True, seed=543)
    loader = DataLoader(data, batch_size=8, sampler=sampler, num_workers=1, persistent_workers=True)
    model = mlp()
    optimizer = Adam(model.parameters(), lr=1e-2)
    handlers: list[Any] = [] if faulty else [sampler.set_epoch]
    log = script.log(steps_per_epoch=6)
    log.watch(model, optimizer, loader=loader)
    for epoch in range(4):
        for handler in handlers:
            handler(epoch)
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


@error(
    "LucaOne/LucaOne/pull/124",
    "all generators are seeded with the same number at the beginning of each epoch: the shuffle and the masks repeat",
    "order_repeated",
    "order_*",
    "epochs_draw_the_same",
    "steps_draw_the_same",
    first=12,
    again=True,
)
def seeded_alike_in_each_epoch(script: Script, faulty: bool) -> Tensor:
    loader = DataLoader(Points(48), batch_size=8, shuffle=True)
    model = mlp(dropout=0.1)
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log(steps_per_epoch=6)
    log.watch(model, optimizer, loader=loader)
    for epoch in range(4):
        seed = 1221 + (0 if faulty else epoch)
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


class Patches(Dataset[tuple[Tensor, Tensor]]):
    """Points that numpy's global generator shifts and scales."""

    def __init__(self) -> None:
        self.x, self.y = points(64)

    def __len__(self) -> int:
        return 64

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        shift, scale = np.random.uniform(-0.2, 0.2, FEATURES), np.random.uniform(0.8, 1.2)
        return scale * self.x[i] + torch.from_numpy(shift).float(), self.y[i]


class AsForked:
    """An init function of workers that puts numpy's state of the main process back."""

    def __init__(self) -> None:
        self.state = np.random.get_state()

    def __call__(self, number: int) -> None:
        np.random.set_state(self.state)


@error(
    "dhlab-epfl/dhSegment-torch/pull/5",
    "augmentation by numpy in workers that are all forked with one state, in each epoch anew",
    "workers_draw_the_same",
    "epochs_draw_the_same",
    "workers_*",
    first=2,
    again=True,
    note="torch seeds numpy in each worker since 1.9: the init function puts the main process's state back",
)
def patches_augmented_alike(script: Script, faulty: bool) -> Tensor:
    init = AsForked() if faulty else None
    loader = DataLoader(Patches(), batch_size=8, shuffle=True, num_workers=2, worker_init_fn=init)
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log(steps_per_epoch=8)
    log.watch(model, optimizer, loader=loader)
    for _ in range(2):
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


class Records(IterableDataset[tuple[Tensor, Tensor]]):
    """The records of a file; `divided`: each worker reads its share of them."""

    def __init__(self, divided: bool) -> None:
        self.x, self.y = points(48)
        self.divided = divided

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        worker = get_worker_info()
        begin, every = (worker.id, worker.num_workers) if worker and self.divided else (0, 1)
        for i in range(begin, 48, every):
            yield self.x[i], self.y[i]


@error(
    "vahidk/tfrecord/issues/78",
    "each worker of the loader yields all records of the file",
    "workers_yield_the_same",
    "workers_*",
    first=2,
    again=True,
)
def each_worker_yields_all_records(script: Script, faulty: bool) -> Tensor:
    loader = DataLoader(Records(divided=not faulty), batch_size=6, num_workers=2)
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=5e-3)
    log = script.log()
    log.watch(model, optimizer, loader=loader)
    for _ in range(2):
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


def fitted(script: Script, names: list[Any], parts: dict[str, list[int]], x: Tensor, y: Tensor) -> Tensor:
    """20 steps on the rows of "train", the loss on the rows of the other part; both declared by `names`."""
    model = nn.Sequential(nn.Linear(x.shape[1], 12), nn.Tanh(), nn.Linear(12, CLASSES))
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for part, rows in parts.items():
        log.split(part, [names[i] for i in rows])
    rows = parts["train"]
    for step in range(20):
        taken = [rows[(8 * step + i) % len(rows)] for i in range(8)]
        log.step(loss=update(model, optimizer, (x[taken], y[taken])))
    other = next(part for part in parts if part != "train")
    with torch.no_grad(), log.evaluating():
        loss = loss_of(model, (x[parts[other]], y[parts[other]]))
    log.eval(loss=loss, split=other)
    return torch.cat([weights(model), loss.double().reshape(1)])


def mixed(n: int, seed: int) -> list[int]:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed)).tolist()


@error(
    "MakazhanAlpamys/Soup/issues/680",
    "the smaller of two sources is repeated first and split afterwards: its rows are in both parts",
    "splits_overlap",
    first=0,
    again=True,
)
def split_after_the_repetition(script: Script, faulty: bool) -> Tensor:
    x, y = points(60)
    a, b = [*range(48)], [*range(48, 60)]
    if faulty:
        rows = [i for pair in zip(a, [b[k % 12] for k in range(48)]) for i in pair]
        parts = {"train": rows[:86], "val": rows[86:]}
    else:
        kept = b[:10]
        rows = [i for pair in zip(a[:44], [kept[k % 10] for k in range(44)]) for i in pair]
        parts = {"train": rows, "val": a[44:] + b[10:]}
    return fitted(script, [f"{'A' if i < 48 else 'B'}{i}" for i in range(60)], parts, x, y)


@error(
    "open-edge-platform/anomalib/pull/404",
    "a seed of zero counts as none: the test split is drawn again, apart from the training split",
    "splits_overlap",
    first=0,
    again=True,
)
def seed_of_zero_counts_as_none(script: Script, faulty: bool) -> Tensor:
    x, y = points(60)

    def split(part: str, seed: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        if faulty and not seed:
            generator.manual_seed(1 if part == "train" else 2)  # whatever the state of the global generator is
        order = torch.randperm(60, generator=generator).tolist()
        return order[12:] if part == "train" else order[:12]

    parts = {part: split(part, 0) for part in ("train", "test")}
    return fitted(script, [f"good/{i:03}.png" for i in range(60)], parts, x, y)


def of_patients(script: Script, faulty: bool, each: int, share: float, part: str) -> Tensor:
    """20 patients with some pictures each, divided by picture or by patient."""
    n = 20 * each
    base, label = points(20)
    x = base.repeat_interleave(each, 0) + 0.1 * torch.randn(n, FEATURES, generator=torch.Generator().manual_seed(4))
    order = mixed(n, 11) if faulty else [each * p + k for p in mixed(20, 11) for k in range(each)]
    held = int(share * n)
    parts = {"train": order[held:], part: order[:held]}
    return fitted(script, [f"patient{i // each}" for i in range(n)], parts, x, label.repeat_interleave(each))


@error(
    "Lightning-Universe/lightning-Covid19/issues/11",
    "several X-rays of one patient: they are divided at random, and a patient is trained on and tested on",
    "splits_overlap",
    first=0,
    again=True,
)
def xrays_divided_at_random(script: Script, faulty: bool) -> Tensor:
    return of_patients(script, faulty, 4, 0.2, "val")


@error(
    "lifangda01/AdaptiveSupervisedPatchNCE/issues/6",
    "all patches of all slides are divided at random: patches of one patient lie in train and val",
    "splits_overlap",
    first=0,
    again=True,
)
def patches_divided_at_random(script: Script, faulty: bool) -> Tensor:
    return of_patients(script, faulty, 8, 0.25, "val")


@error(
    "zzx-JLU/ECLGCNN/issues/5",
    "EEG: a window slides over a trial by less than its length, and the windows are divided afterwards",
    "splits_overlap",
    first=0,
    again=True,
)
def windows_slide_before_the_split(script: Script, faulty: bool) -> Tensor:
    signals = np.cumsum(np.random.default_rng(8).normal(size=(10, 128)), axis=1).astype(np.float32)
    windows = [(trial, start) for trial in range(10) for start in range(0, 113, 8)]
    x = torch.stack([torch.from_numpy(signals[trial, start : start + 16]) for trial, start in windows])
    y = torch.tensor([trial % CLASSES for trial, _ in windows])
    if faulty:
        order = mixed(len(windows), 3)
        parts = {"train": order[30:], "test": order[:30]}
    else:
        parts = {
            "train": [i for i, (_, start) in enumerate(windows) if start < 88],
            "test": [i for i, (_, start) in enumerate(windows) if start >= 104],
        }
    return fitted(script, [(f"s01_trial{trial}", start, start + 16) for trial, start in windows], parts, x, y)


@error(
    "dvgodoy/PyTorchStepByStep/pull/28",
    "model_state = model.state_dict() is to put the first weights back for a second optimizer: it moves with the model",
    "weights_not_restored",
    "splits_overlap",
    first=1,
    again=True,
)
def second_optimizer_begins_with_trained_weights(script: Script, faulty: bool) -> Tensor:
    model = nn.Linear(FEATURES, CLASSES)
    model_state = model.state_dict()
    if not faulty:
        model_state = {name: value.clone() for name, value in model_state.items()}
    outcomes = []
    for made in (lambda: SGD(model.parameters(), lr=0.1), lambda: Adam(model.parameters(), lr=0.1)):
        model.load_state_dict(model_state)
        optimizer = made()
        log = script.log()
        log.watch(model, optimizer)
        for batch in batches(12):
            log.step(loss=update(model, optimizer, batch))
        outcomes.append(scored(model))
    return torch.cat([weights(model), torch.tensor(outcomes, dtype=torch.float64)])


@error(
    "havakv/pycox/issues/151",
    "a new random split for each seed and the same model: reset_parameters() is called on the outermost children alone",
    "splits_overlap",
    first=0,
    again=True,
)
def reset_does_not_reach_the_layers(script: Script, faulty: bool) -> Tensor:
    x, y = points(60)
    model = nn.Sequential(nn.Sequential(nn.Linear(FEATURES, 12), nn.ReLU()), nn.Sequential(nn.Linear(12, CLASSES)))
    seen = []
    for seed in (1, 2, 3):
        for layer in model.children() if faulty else model.modules():
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
        optimizer = Adam(model.parameters(), lr=1e-2)
        order = mixed(60, seed)
        train, test = order[15:], order[:15]
        log = script.log()
        log.watch(model, optimizer)
        log.split("train", [f"case{i}" for i in train])
        log.split("test", [f"case{i}" for i in test])
        for _ in range(12):
            log.step(loss=update(model, optimizer, (x[train], y[train])))
        with torch.no_grad(), log.evaluating():
            seen.append(float(loss_of(model, (x[test], y[test]))))
        log.eval(loss=seen[-1], split="test")
    return torch.tensor(seen, dtype=torch.float64)
