"""Healthy runs: orders of data, evaluations, resumes, splits, several processes, used in unusual ways on purpose."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Adam, AdamW
from torch.utils.data import BatchSampler, DataLoader, Dataset, DistributedSampler, Sampler, WeightedRandomSampler

from tests.bench.silent.case import healthy
from tests.bench.silent.script import Script
from tests.bench.silent.toy import CLASSES, Points, Probe, batches, loss_of, mlp, points, scored, update, weights


@healthy("sampling with replacement: orders overlap, samples come twice")
def sampling_with_replacement(script: Script) -> Tensor:
    data = Points(32)
    sampler = WeightedRandomSampler(torch.ones(32).tolist(), num_samples=32, replacement=True)
    loader = DataLoader(data, batch_size=8, sampler=sampler)
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log(steps_per_epoch=4)
    log.watch(model, optimizer, loader=loader)
    for _ in range(6):
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


@healthy("a series is read in its order, in every epoch (shuffle=False)")
def order_of_a_series(script: Script) -> Tensor:
    loader = DataLoader(Points(48), batch_size=8, shuffle=False)
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log(steps_per_epoch=6)
    log.watch(model, optimizer, loader=loader)
    for _ in range(5):
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


class Buckets(Sampler[list[int]]):
    """Batches of samples of like length; the batches are shuffled, their members stay together."""

    def __init__(self, n: int, size: int) -> None:
        self.batches = [list(range(i, i + size)) for i in range(0, n, size)]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Any:
        return iter([self.batches[i] for i in torch.randperm(len(self.batches)).tolist()])


@healthy("buckets by length: the batches are shuffled, not their members; three of them repeat by chance")
def buckets(script: Script) -> Tensor:
    loader = DataLoader(Points(24), batch_sampler=Buckets(24, 8))
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log(steps_per_epoch=3)
    log.watch(model, optimizer, loader=loader)
    for _ in range(12):
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


@healthy("one pass is cached and cycled for ever on purpose")
def cached_and_cycled(script: Script) -> Tensor:
    loader = DataLoader(Points(40), batch_sampler=BatchSampler(range(40), batch_size=8, drop_last=False))
    model = mlp()
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer, loader=loader)
    for batch in itertools.islice(itertools.cycle(loader), 30):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self) -> None:
        self.x, self.y = points(48)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.x[i] + 0.1 * torch.randn(6) + float(np.random.randn()) * 0.1, self.y[i]


@healthy("two persistent workers with augmentations from torch's and numpy's generators")
def persistent_workers(script: Script) -> Tensor:
    loader = DataLoader(Noisy(), batch_size=8, shuffle=True, num_workers=2, persistent_workers=True)
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log(steps_per_epoch=6)
    log.watch(model, optimizer, loader=loader)
    for _ in range(3):
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


def same_seed_on_purpose(worker: int) -> None:
    np.random.seed(0)


@healthy("workers are seeded alike, and nothing is drawn in them")
def workers_that_draw_nothing(script: Script) -> Tensor:
    loader = DataLoader(Points(48), batch_size=8, shuffle=True, num_workers=2, worker_init_fn=same_seed_on_purpose)
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log(steps_per_epoch=6)
    log.watch(model, optimizer, loader=loader)
    for _ in range(2):
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


@healthy("batch statistics are made anew before each evaluation, dropout sampled after it, both outside of it")
def calibration_and_sampled_dropout(script: Script) -> Tensor:
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, CLASSES))
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log()
    log.watch(model, optimizer)
    for epoch in range(3):
        model.train()
        for batch in batches(8, seed=epoch):
            log.step(loss=update(model, optimizer, batch))
        with torch.no_grad():
            for x, _ in batches(3, seed=70):
                model(x)
        model.eval()
        with log.evaluating():
            value = scored(model)
        model[3].train()
        with torch.no_grad():
            spread = torch.stack([model(points(16, 71)[0]) for _ in range(4)]).std()
        model.eval()
        log.eval(loss=value, metrics={"spread": float(spread)})
    return weights(model)


@healthy("cross-validation: a model, an optimizer and a log of its own for each fold, one after the other")
def cross_validation(script: Script) -> Tensor:
    outcome = []
    subjects = [f"sub-{n:02}" for n in range(1, 10)]
    for fold in range(3):
        model = mlp()
        optimizer = Adam(model.parameters(), lr=1e-2)
        log = script.log()
        log.watch(model, optimizer)
        held = subjects[3 * fold : 3 * fold + 3]
        log.split("train", (s for s in subjects if s not in held))
        log.split("val", np.array(held))
        for batch in batches(8, seed=fold):
            log.step(loss=update(model, optimizer, batch))
        outcome.append(weights(model))
    return torch.cat(outcome)


@healthy("splits whose windows touch, of recordings with like names, and three splits in all")
def splits_that_touch(script: Script) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log()
    log.watch(model, optimizer)
    log.split("train", [("rec1", 4.0 * k, 4.0 * k + 4.0) for k in range(20)])
    log.split("val", [("rec1", 80.0 + 4.0 * k, 84.0 + 4.0 * k) for k in range(5)])
    log.split("test", [("rec10", 4.0 * k, 4.0 * k + 4.0) for k in range(25)])
    for batch in batches(24):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@healthy("the whole model is pickled, copied and compared while it trains")
def pickled_and_copied(script: Script) -> Tensor:
    model = Probe()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for step, batch in enumerate(batches(24), start=1):
        log.step(loss=update(model, optimizer, batch))
        if step % 6 == 0:
            torch.save(model, script.path("model.pt"))
            again = pickle.loads(pickle.dumps(copy.deepcopy((model, optimizer.state_dict()))))
            update(again[0], SGD(again[0].parameters(), lr=0.1), batch)
            log.checkpoint(script.path("model.pt"))
    return weights(model)


@healthy("the whole step is compiled, traced with the eager backend")
def compiled_step(script: Script) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log()
    log.watch(model, optimizer)

    @torch.compile(backend="eager")
    def forward(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(model(x), y)

    for x, y in batches(24):
        optimizer.zero_grad()
        loss = forward(x, y)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    torch._dynamo.reset()
    return weights(model)


@healthy("mixed precision with accumulation: unscaled once a step, clipped, some steps skipped")
def scaler_with_accumulation(script: Script) -> Tensor:
    model = mlp()
    optimizer = Adam(model.parameters(), lr=1e-2)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126, growth_interval=3)
    log = script.log(accumulate=2)
    log.watch(model, optimizer, accumulate=2, clip=0.5, scaler=scaler)
    for number, batch in enumerate(batches(52), start=1):
        loss = loss_of(model, batch) / 2
        scaler.scale(loss * 8).backward()
        if number % 2 == 0:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            log.step(loss=loss)
    return weights(model)


@healthy("a resume with scaler, scheduler and generator restored, in the middle of an epoch")
def resume_in_the_middle_of_an_epoch(script: Script) -> Tensor:
    def loader_of(generator: torch.Generator) -> Any:
        return DataLoader(Points(80), batch_size=8, shuffle=True, generator=generator)

    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(3)
    state = generator.get_state()
    log = script.log(steps_per_epoch=10, total_steps=20)
    loader = loader_of(generator)
    log.watch(model, optimizer, loader=loader)
    for number, batch in enumerate(loader):
        if number == 6:
            break
        log.step(loss=update(model, optimizer, batch))
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, script.path("last.pt"))
    log.checkpoint(script.path("last.pt"))
    kept = torch.load(script.path("last.pt"))
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    model.load_state_dict(kept["model"])
    optimizer.load_state_dict(kept["optimizer"])
    generator = torch.Generator()
    generator.set_state(state)
    loader = loader_of(generator)
    log = script.log(resume=True, step=6, steps_per_epoch=10, total_steps=20)
    log.watch(model, optimizer, loader=loader)
    for epoch in range(2):
        for number, batch in enumerate(loader):
            if epoch == 0 and number < 6:
                continue
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


@healthy("fine-tuning begins from another run's weights with a new head: no resume")
def fine_tuning_of_another_run(script: Script) -> Tensor:
    model = Probe()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(10):
        log.step(loss=update(model, optimizer, batch))
    torch.save(model.state_dict(), script.path("pretrained.pt"))
    log.checkpoint(script.path("pretrained.pt"))
    tuned = Probe()
    tuned.load_state_dict(torch.load(script.path("pretrained.pt")))
    tuned.head = nn.Linear(16, CLASSES)
    optimizer = AdamW(
        [{"params": tuned.backbone.parameters(), "lr": 1e-3}, {"params": tuned.head.parameters()}], lr=1e-2
    )
    log = script.log()
    log.watch(tuned, optimizer)
    for batch in batches(12, seed=4):
        log.step(loss=update(tuned, optimizer, batch))
    return weights(tuned)


@healthy("local SGD: the replicas drift apart for four steps and are averaged")
def local_sgd(script: Script) -> Tensor:
    def play(script: Script) -> Tensor:
        model = mlp()
        optimizer = SGD(model.parameters(), lr=0.1)
        log = script.log(world_size=script.world)
        log.watch(model, optimizer, rank=script.rank, world=script.world)
        for step, batch in enumerate(batches(24, seed=1 + script.rank), start=1):
            log.step(loss=update(model, optimizer, batch))
            if step % 4 == 0:
                with torch.no_grad():
                    for p in model.parameters():
                        dist.all_reduce(p)
                        p /= script.world
        return weights(model)

    return script.on_ranks(play)


@healthy("experts: each rank has one of its own beside the replicated rest")
def an_expert_on_each_rank(script: Script) -> Tensor:
    def play(script: Script) -> Tensor:
        shared = DistributedDataParallel(mlp())
        torch.manual_seed(10 + script.rank)
        expert = nn.Linear(CLASSES, CLASSES)
        optimizer = AdamW([*shared.parameters(), *expert.parameters()], lr=1e-2)
        log = script.log(world_size=script.world)
        log.watch([shared, expert], optimizer, rank=script.rank, world=script.world)
        for x, y in batches(24, seed=1 + script.rank):
            optimizer.zero_grad()
            loss = F.cross_entropy(expert(shared(x)), y)
            loss.backward()
            optimizer.step()
            log.step(loss=loss)
        return weights(shared, expert)

    return script.on_ranks(play)


@healthy("two ranks, 51 samples: the sampler pads with samples that come twice")
def padded_sampler(script: Script) -> Tensor:
    def play(script: Script) -> Tensor:
        wrapped = DistributedDataParallel(mlp())
        optimizer = SGD(wrapped.parameters(), lr=0.1)
        data = Points(51)
        sampler = DistributedSampler(data, shuffle=True)
        loader = DataLoader(data, batch_size=4, sampler=sampler)
        log = script.log(world_size=script.world, steps_per_epoch=len(loader))
        log.watch(wrapped, optimizer, loader=loader, rank=script.rank, world=script.world)
        for epoch in range(3):
            sampler.set_epoch(epoch)
            for batch in loader:
                log.step(loss=update(wrapped, optimizer, batch))
        return weights(wrapped)

    return script.on_ranks(play)


@healthy("only rank 0 evaluates, and it alone keeps an average of the weights")
def evaluation_on_one_rank(script: Script) -> Tensor:
    def play(script: Script) -> Tensor:
        model = Probe()
        wrapped = DistributedDataParallel(model)
        averaged = copy.deepcopy(model).requires_grad_(False)
        optimizer = SGD(wrapped.parameters(), lr=0.1)
        log = script.log(world_size=script.world)
        log.watch(wrapped, optimizer, rank=script.rank, world=script.world)
        if script.rank == 0:
            log.ema(averaged, 0.9)
        for epoch in range(3):
            wrapped.train()
            for batch in batches(7, seed=10 * epoch + script.rank):
                loss = update(wrapped, optimizer, batch)
                if script.rank == 0:
                    with torch.no_grad():
                        for a, p in zip(averaged.parameters(), model.parameters()):
                            a.mul_(0.9).add_(p, alpha=0.1)
                log.step(loss=loss)
            if script.rank == 0:
                model.eval()
                with log.evaluating():
                    value = scored(model)
                log.eval(loss=value)
            dist.barrier()
        return weights(model.head)

    return script.on_ranks(play)
