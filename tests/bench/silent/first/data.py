"""Errors of data: the same order every epoch, the same draws in every worker, the same samples in both splits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.optim import SGD, Adam
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset, get_worker_info

from tests.bench.silent.case import error
from tests.bench.silent.script import Script
from tests.bench.silent.toy import Points, loss_of, mlp, points, update, weights


@error(
    "pytorch/pytorch/issues/31771",
    "sampler.set_epoch() is not called: every epoch has the same order",
    "order_repeated",
    first=12,
)
def set_epoch_forgotten(script: Script, faulty: bool) -> Tensor:
    data = Points(48)
    sampler = DistributedSampler(data, num_replicas=1, rank=0, shuffle=True)
    loader = DataLoader(data, batch_size=8, sampler=sampler)
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log(steps_per_epoch=6)
    log.watch(model, optimizer, loader=loader)
    for epoch in range(4):
        if not faulty:
            sampler.set_epoch(epoch)
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


@error(
    "NVIDIA/tacotron2/issues/241",
    "torch.manual_seed inside the loop over epochs: every epoch has the same order",
    "order_repeated",
    first=12,
)
def seeded_in_the_epoch_loop(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    loader = DataLoader(Points(48), batch_size=8, shuffle=True)
    log = script.log(steps_per_epoch=6)
    log.watch(model, optimizer, loader=loader)
    for epoch in range(4):
        torch.manual_seed(1234 if faulty else 1234 + epoch)
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """Points with noise from numpy's global generator, as augmentations draw it."""

    def __init__(self) -> None:
        self.x, self.y = points(48)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.x[i] + torch.from_numpy(np.random.normal(0, 0.1, 6).astype(np.float32)), self.y[i]


def seeded_by_the_worker(worker: int) -> None:
    np.random.seed(worker)


@error(
    "xingyizhou/CenterNet/issues/233",
    "np.random.seed(worker_id): the workers draw the same augmentations in every epoch",
    "epochs_draw_the_same",
    "workers_*",
    first=4,
)
def workers_seeded_by_their_number(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    loader = DataLoader(
        Noisy(), batch_size=16, shuffle=True, num_workers=2, worker_init_fn=seeded_by_the_worker if faulty else None
    )
    log = script.log(steps_per_epoch=3)
    log.watch(model, optimizer, loader=loader)
    for _ in range(3):
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


class HeldGenerator(Noisy):
    """The noise comes from a generator that the dataset holds: each worker has a copy in the same state."""

    def __init__(self, apart: bool) -> None:
        super().__init__()
        self.generator = np.random.default_rng(0)
        self.apart = apart

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        worker = get_worker_info()
        if self.apart and worker is not None and self.generator is not None:
            self.generator, self.apart = np.random.default_rng(worker.seed), False
        return self.x[i] + torch.from_numpy(self.generator.normal(0, 0.1, 6).astype(np.float32)), self.y[i]


@error(
    "https://stackoverflow.com/questions/67180955",
    "the workers share the state of numpy's generator and draw the same noise (TrainCheck: stackoverflow-67180955)",
    "workers_draw_the_same",
    "epochs_draw_the_same",
    "workers_*",
    first=2,
    note="torch seeds numpy's global generator in each worker since 1.9: the state is that of a generator that is held",
)
def workers_share_a_generator(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    loader = DataLoader(HeldGenerator(apart=not faulty), batch_size=8, shuffle=True, num_workers=2)
    log = script.log(steps_per_epoch=6)
    log.watch(model, optimizer, loader=loader)
    for _ in range(2):
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    """A stream of 48 points; `divided`: each worker reads its own part of it."""

    def __init__(self, divided: bool) -> None:
        self.divided = divided
        self.x, self.y = points(48)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        worker = get_worker_info()
        first, every = (worker.id, worker.num_workers) if worker is not None and self.divided else (0, 1)
        for i in range(first, len(self.x), every):
            yield self.x[i], self.y[i]


@error(
    "huggingface/datasets/issues/3423",
    "an iterable dataset that is not divided: each worker yields all of it",
    "workers_yield_the_same",
    "workers_*",
    first=2,
)
def iterable_dataset_not_divided(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    loader = DataLoader(Stream(divided=not faulty), batch_size=8, num_workers=2)
    log = script.log()
    log.watch(model, optimizer, loader=loader)
    for _ in range(2):
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


def windows(recording: str, seconds: float, length: float, hop: float) -> list[tuple[str, float, float]]:
    """The windows of a recording as (recording, start, stop), in seconds."""
    return [(recording, k * hop, k * hop + length) for k in range(int((seconds - length) / hop) + 1)]


def signal(recording: str, seconds: float = 30.0) -> Tensor:
    """A slow random walk of 60 samples a second, another one for each recording."""
    generator = torch.Generator().manual_seed(sum(recording.encode()))
    return torch.randn(int(60 * seconds), generator=generator).cumsum(0) / 8


def cut(parts: list[tuple[str, float, float]]) -> tuple[Tensor, Tensor]:
    """Six means of each window, and a label that belongs to the half-minute's part: what a leak makes easy."""
    x = [signal(name)[int(60 * a) : int(60 * b)].reshape(6, -1).mean(1) for name, a, b in parts]
    y = [(sum(name.encode()) + int(a // 3) * 7) % 3 for name, a, _ in parts]
    return torch.stack(x), torch.tensor(y)


def trained_on(
    script: Script, train: list[tuple[str, float, float]], val: list[tuple[str, float, float]], ids: int | None = None
) -> Tensor:
    """Train on one split, score on the other; `ids`: declare only this field of the windows (0: the recording)."""
    model = mlp(32)
    optimizer = Adam(model.parameters(), lr=3e-2)
    log = script.log()
    log.watch(model, optimizer)
    log.split("train", train if ids is None else [window[ids] for window in train])
    log.split("val", val if ids is None else [window[ids] for window in val])
    batch = cut(train)
    for _ in range(24):
        log.step(loss=update(model, optimizer, batch))
    with torch.no_grad(), log.evaluating():
        loss = loss_of(model, cut(val))
    log.eval(loss=loss)
    return torch.cat([weights(model), loss.double().reshape(1)])


@error(
    "fchest/EEG-AAD/issues/7",
    "windows of 1 s with 0.5 s overlap, divided at random after they were cut: halves lie in both splits",
    "splits_overlap",
    first=0,
)
def overlapping_windows_divided_at_random(script: Script, faulty: bool) -> Tensor:
    every = [window for subject in ("s01", "s02") for window in windows(subject, 30.0, 1.0, 0.5)]
    if faulty:
        order = torch.randperm(len(every), generator=torch.Generator().manual_seed(0)).tolist()
        parts = [every[i] for i in order]
        return trained_on(script, parts[: len(parts) * 8 // 10], parts[len(parts) * 8 // 10 :])
    return trained_on(script, [w for w in every if w[2] <= 24.0], [w for w in every if w[1] >= 24.0])


@error(
    "LGong666/EEG_ACTNN/issues/4",
    "ten folds over single windows: every subject is in the training and the test fold",
    "splits_overlap",
    first=0,
)
def subjects_in_both_splits(script: Script, faulty: bool) -> Tensor:
    subjects = [f"s{number:02}" for number in range(1, 11)]
    every = [window for subject in subjects for window in windows(subject, 30.0, 3.0, 3.0)]
    fold = [w for i, w in enumerate(every) if (i % 10 == 9 if faulty else w[0] == "s10")]
    return trained_on(script, [w for w in every if w not in fold], fold, ids=0)
