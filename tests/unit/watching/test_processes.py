"""Ranks and workers: what several processes do alike, though they should not, and differently, though they must not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from eegwatch.diagnosis.silent.watch import SilentWatch
from eegwatch.run.records import Run, Watch
from tests.unit.watching.loops import Loop, rules, silent

JOB = """
import os, sys, torch
import torch._dynamo  # else each rank loads it, with its first optimizer
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, RandomSampler, WeightedRandomSampler

class Stream(IterableDataset):
    def __init__(self, data):
        self.data = data
    def __iter__(self):
        return iter(self.data)

class Local(torch.nn.Module):  # its forward pass moves a frozen parameter, a buffer or statistics by what it sees
    def __init__(self, what):
        super().__init__()
        self.what, self.layer, self.norm = what, torch.nn.Linear(4, 2), torch.nn.BatchNorm1d(4)
        self.frozen = torch.nn.Parameter(torch.zeros(4), requires_grad=False)
        self.register_buffer("kept", torch.zeros(4))
        self.register_buffer("cached", torch.zeros(4), persistent=False)
    def forward(self, x):
        with torch.no_grad():
            self.cached.add_(x.mean(0))
            if self.what in ("moves", "buffers"):
                (self.frozen if self.what == "moves" else self.kept).add_(x.mean(0))
        return self.layer(self.norm(x))

from eegwatch import RunLog

def train(rank, folder, fault):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    local = fault in ("moves", "buffers", "statistics")
    model = DistributedDataParallel(Local(fault) if local else torch.nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = torch.randn(32, 4)
    sampler = DistributedSampler(data, rank=0 if fault == "order" else None)
    loader = DataLoader(data, batch_size=4, sampler=sampler)
    if fault == "parts":  # each rank holds a part of the data: a number means another sample in each
        loader = DataLoader(data[rank::2], batch_size=4, shuffle=True)
    if fault == "shares":  # each rank reads all and takes its own share of each batch
        loader = DataLoader(data, batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(0))
    if fault == "replacement":
        sampler = RandomSampler(data, replacement=True, generator=torch.Generator().manual_seed(rank))
        loader = DataLoader(data, batch_size=4, sampler=sampler)
    if fault == "weights":  # each rank draws without replacement from all of the data
        generator = torch.Generator().manual_seed(rank)
        sampler = WeightedRandomSampler([1.0] * 32, 16, replacement=False, generator=generator)
        loader = DataLoader(data, batch_size=4, sampler=sampler)
    if fault in ("stream", "streams"):
        loader = DataLoader(Stream(data if fault == "stream" else data[rank::2]), batch_size=4)
    if fault.startswith("shuffled"):  # each rank takes every second sample of an order of its own, or of one
        order = torch.randperm(32, generator=torch.Generator().manual_seed(rank if "apart" in fault else 0))[rank::2]
        if "doubles" in fault:
            data = data[torch.arange(32) // 2]  # a data set that holds each sample twice
        loader = DataLoader(Stream(data[order]), batch_size=4)
    if fault == "replicas":  # twice as many parts as ranks
        sampler = DistributedSampler(data, num_replicas=4, rank=rank)
        loader = DataLoader(data, batch_size=4, sampler=sampler)
    log = RunLog(folder, name="job", optimizer=optimizer, world_size=2, control=False)
    if fault in ("splits", "split shares"):
        seed = 0 if fault == "split shares" else rank
        ids = torch.randperm(32, generator=torch.Generator().manual_seed(seed)).tolist()
        share = (rank, 2) if fault == "split shares" else (0, 1)
        log.split("train", ids[:24][share[0]::share[1]])
        log.split("val", ids[24:][share[0]::share[1]])
    log.watch(model, optimizer, loader=loader, rank=rank, world=2)
    for epoch in range(2):
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        for batch in loader:
            batch = batch[rank::2] if fault == "shares" else batch
            optimizer.zero_grad()
            (model.module if fault == "past" and log.step_done == 2 else model)(batch).pow(2).mean().backward()
            optimizer.step()
            log.step()
    log.end()
    dist.barrier()
    dist.destroy_process_group()

for fault in sys.argv[2:]:
    os.mkdir(f"{sys.argv[1]}/{fault}")
    ranks = []
    for rank in range(2):
        child = os.fork()
        if not child:
            train(rank, f"{sys.argv[1]}/{fault}", fault)
            os._exit(0)
        ranks.append(child)
    for child in ranks:
        assert os.waitpid(child, 0)[1] == 0
"""


FAULTS = (
    *("none", "past", "order", "parts", "shares", "replacement", "stream", "streams"),
    *("splits", "split shares", "moves", "buffers", "statistics", "replicas"),
    *("shuffled apart", "shuffled", "shuffled doubles", "weights"),
)


def test_ranks_are_compared_beside_the_run_of_rank_0(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", JOB, str(tmp_path), *FAULTS], check=True)

    def said(fault: str) -> dict[str, int]:
        run = next(path.parent for path in (tmp_path / fault).glob("*/run.rank1.jsonl"))
        return {finding.rule: finding.since_step for finding in silent(run)}

    for healthy in ("none", "parts", "shares", "replacement", "streams", "split shares", "statistics"):
        assert said(healthy) == {}, healthy
    assert said("stream") == {"ranks_read_the_same": 1}
    assert said("past") == {"replicas_differ": 3}
    assert said("order") == {"ranks_read_the_same": 1}
    assert said("splits") == {"splits_overlap": 0}
    assert said("moves") == said("buffers") == {"replicas_differ": 1}
    assert said("shuffled apart") == {"ranks_overlap": 3}
    assert said("shuffled") == said("shuffled doubles") == {}
    assert said("replicas") == {"ranks_leave_out": 1}
    assert said("weights") == {"ranks_overlap": 4}


def drawn(rank: int, attempt: int, state: int) -> Watch:
    values = {"from": state, "to": state + 1} | ({"rank": rank, "attempt": attempt} if rank else {})
    return Watch(step=12 * (attempt - 1) + 1, look="rank_draws", values=values)


def test_ranks_that_draw_the_same_since_a_resume_are_a_fact_in_whatever_order_their_files_are_read() -> None:
    def said(*states: tuple[int, int], late: bool) -> list[str]:
        """`states`: of the generators of rank 0 and 1 in each attempt; `late`: the file of rank 1 is read last."""
        watch, found = SilentWatch(), []
        waiting: list[Watch] = []
        for attempt, (first, second) in enumerate(states, start=1):
            found += watch.begin(Run(attempt=attempt, step=12 * (attempt - 1)))
            found += watch.feed(drawn(0, attempt, first))
            waiting.append(drawn(1, attempt, second))
            while waiting and not late:
                found += watch.feed(waiting.pop(0))
        for record in waiting:
            found += watch.feed(record)
        return [f"{one.rule} {one.severity} {one.step}" for one in found]

    for late in (False, True):
        assert said((1, 5), (9, 9), late=late) == ["ranks_draw_the_same warning 13"]
        assert said((1, 5), (9, 8), late=late) == []
        assert said((5, 5), (9, 9), late=late) == []  # one seed for all ranks


def test_what_another_rank_wrote_in_an_attempt_that_is_over_is_judged_and_past() -> None:
    watch = SilentWatch()
    for attempt in (1, 2):
        watch.begin(Run(attempt=attempt, step=4 * (attempt - 1)))
        for step in (1, 2):
            values = {"nth": "step 1", "n": 1, "crc": "aa", "parts": {"w": "aa"}}
            watch.feed(Watch(step=4 * (attempt - 1) + step, look="replica", values=values))
    late = {"nth": "step 1", "n": 1, "crc": "bb", "parts": {"w": "bb"}, "rank": 1, "attempt": 1}
    found = watch.feed(Watch(step=2, look="replica", values=late))
    assert [(one.rule, one.severity) for one in found] == [
        ("replicas_differ", "error"),
        ("replicas_differ", "resolved"),
    ]
    assert watch.findings == []
    assert watch.feed(Watch(step=1, look="replica", values=late)) == []  # it has been said


class Noisy(Dataset[Any]):
    def __init__(self) -> None:
        self.generator: Any = None

    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> Any:
        noise = np.random.normal() if self.generator is None else self.generator.normal()
        return torch.full((8,), float(i)) + noise


class Stream(IterableDataset[Any]):
    divided = True

    def __iter__(self) -> Any:
        worker = get_worker_info()
        first, every = (worker.id, worker.num_workers) if worker is not None and self.divided else (0, 1)
        yield from torch.eye(8)[first::every]


def seeded(worker: int) -> None:
    np.random.seed(worker)


def read(folder: Path, data: Any, epochs: int = 2, **options: Any) -> set[str]:
    loader = DataLoader(data, batch_size=2, num_workers=2, **options)
    before = loader.collate_fn, loader.worker_init_fn
    loop = Loop(folder, loader=loader)
    for _ in range(epochs):
        for _ in loader:
            loop.step(0)
            loop.log.step()
    found = rules(loop.judged())
    assert (loader.collate_fn, loader.worker_init_fn) == before
    return found


def test_workers_that_draw_or_yield_the_same_are_found(tmp_path: Path) -> None:
    assert read(tmp_path, Noisy()) == set()
    assert read(tmp_path, Noisy(), worker_init_fn=seeded) == {"epochs_draw_the_same"}
    held = Noisy()
    held.generator = np.random.default_rng(0)
    assert read(tmp_path, held, epochs=1) == {"workers_draw_the_same"}
    stream = Stream()
    assert read(tmp_path, stream, epochs=1) == set()
    stream.divided = False
    assert read(tmp_path, stream, epochs=1) == {"workers_yield_the_same"}
