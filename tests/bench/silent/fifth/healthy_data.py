"""Healthy orders, workers, splits and folds that look odd."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, SubsetRandomSampler, WeightedRandomSampler

from tests.bench.silent.case import healthy
from tests.bench.silent.script import Script
from tests.bench.silent.toy import CLASSES, FEATURES, Points, batches, loss_of, mlp, points, scored, update, weights


@healthy("three samples, shuffled in 24 epochs: an order comes again by chance")
def three_samples_shuffled(script: Script) -> Tensor:
    loader = DataLoader(Points(3), batch_size=1, shuffle=True)
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.05)
    log = script.log(steps_per_epoch=3)
    log.watch(model, optimizer, loader=loader)
    for _ in range(24):
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


class Recordings(Dataset[tuple[Tensor, Tensor]]):
    """Windows of four channels; `by_index`: the augmentation of a window is the same whenever it is read."""

    def __init__(self, by_index: bool) -> None:
        draw = torch.Generator().manual_seed(2)
        self.x, self.y = torch.randn(48, 4, 16, generator=draw), torch.arange(48) % CLASSES
        self.by_index = by_index

    def __len__(self) -> int:
        return 48

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        draw = torch.Generator().manual_seed(i) if self.by_index else None
        x = self.x[i].roll(int(torch.randint(-3, 4, (), generator=draw)), -1)
        x = x * (torch.rand(4, 1, generator=draw) > 0.2)
        return x + 0.1 * torch.randn(4, 16, generator=draw), self.y[i]


def on_recordings(script: Script, by_index: bool, **options: Any) -> Tensor:
    loader = DataLoader(Recordings(by_index), batch_size=8, shuffle=True, num_workers=2, **options)
    model = nn.Sequential(nn.Conv1d(4, 6, 5), nn.BatchNorm1d(6), nn.ELU(), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    model.append(nn.Linear(6, CLASSES))
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log(steps_per_epoch=6)
    log.watch(model, optimizer, loader=loader)
    for _ in range(4):
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


@healthy("EEG windows are shifted, lose channels and get noise in two workers that stay")
def windows_augmented_in_workers(script: Script) -> Tensor:
    return on_recordings(script, by_index=False, persistent_workers=True, prefetch_factor=4)


@healthy("the augmentation of a window is drawn from a generator that its number seeds: the same in each epoch")
def augmentation_by_the_number(script: Script) -> Tensor:
    return on_recordings(script, by_index=True, persistent_workers=True)


@healthy("the batch grows in place of a falling rate: the loader is made anew and watched again")
def batch_that_grows(script: Script) -> Tensor:
    data, model = Points(64), mlp()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    log = script.log()
    for size in (4, 8, 16):
        loader = DataLoader(data, batch_size=size, shuffle=True)
        log.watch(model, optimizer, loader=loader)
        for _ in range(2):
            for batch in loader:
                log.step(loss=update(model, optimizer, batch))
    return weights(model)


@healthy("three corpora of unequal size are mixed by weights, so that the small ones come again and again")
def corpora_mixed_by_weights(script: Script) -> Tensor:
    corpora = [Points(48, 1), Points(12, 2), Points(6, 3)]
    shares = [w / len(c) for w, c in zip((0.5, 0.3, 0.2), corpora) for _ in range(len(c))]
    loader = DataLoader(ConcatDataset(corpora), batch_size=8, sampler=WeightedRandomSampler(shares, 48))
    model = mlp()
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log(steps_per_epoch=6)
    log.watch(model, optimizer, loader=loader)
    for _ in range(5):
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


class Mixing:
    """A collate function that mixes each batch with itself, turned, by a share that it draws."""

    def __call__(self, rows: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x, y = torch.stack([row[0] for row in rows]), torch.stack([row[1] for row in rows])
        order, share = torch.randperm(len(x)), torch.distributions.Beta(0.4, 0.4).sample()
        return share * x + (1 - share) * x[order], y, y[order], share


@healthy("mixup in the collate function, in two workers")
def mixed_while_collated(script: Script) -> Tensor:
    loader = DataLoader(
        Points(48), batch_size=8, shuffle=True, num_workers=2, collate_fn=Mixing(), persistent_workers=True
    )
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log(steps_per_epoch=6)
    log.watch(model, optimizer, loader=loader)
    for _ in range(4):
        for x, y, other, share in loader:
            optimizer.zero_grad()
            logits = model(x)
            loss = share * F.cross_entropy(logits, y) + (1 - share) * F.cross_entropy(logits, other)
            loss.backward()
            optimizer.step()
            log.step(loss=loss)
    return weights(model)


@healthy("two domains: the loader of the smaller one is begun again whenever it ends (correlations aligned)")
def smaller_domain_begun_again(script: Script) -> Tensor:
    source, target = (DataLoader(Points(n, n), batch_size=8, shuffle=True) for n in (56, 24))
    body, head = nn.Linear(FEATURES, 8), nn.Linear(8, CLASSES)
    model = nn.Sequential(body, nn.ReLU(), head)
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)
    log = script.log(steps_per_epoch=7)
    log.watch(model, optimizer, loader=target)
    others = iter(target)
    for _ in range(4):
        for x, y in source:
            batch = next(others, None)
            if batch is None:
                others = iter(target)
                batch = next(others)
            optimizer.zero_grad()
            here, there = body(x).relu(), body(batch[0]).relu()
            loss = F.cross_entropy(head(here), y) + (here.T.cov() - there.T.cov()).square().sum()
            loss.backward()
            optimizer.step()
            log.step(loss=loss)
    return weights(model)


@healthy("leave one subject out: in each fold the model is made anew, the others train, one is the test, in one log")
def leave_one_subject_out(script: Script) -> Tensor:
    x, y = points(64)
    log = script.log()
    seen = []
    for left in range(4):
        model = mlp()
        optimizer = Adam(model.parameters(), lr=1e-2)
        log.watch(model, optimizer, fresh_optimizer=True)
        log.split(f"train {left + 1}", [f"sub-{s:02}" for s in range(4) if s != left])
        log.split(f"test {left + 1}", [f"sub-{left:02}"])
        rows = torch.tensor([i for i in range(64) if i % 4 != left])
        for number in range(10):
            taken = rows[(8 * number + torch.arange(8)) % 48]
            log.step(loss=update(model, optimizer, (x[taken], y[taken])))
        with torch.no_grad(), log.evaluating():
            seen.append(float(loss_of(model, (x[left::4], y[left::4]))))
        log.eval(loss=seen[-1])
    return torch.tensor(seen, dtype=torch.float64)


@healthy("folds in one log: a copy of the first weights is put back before each, with a new optimizer")
def first_weights_put_back_for_each_fold(script: Script) -> Tensor:
    x, y = points(60)
    model = mlp()
    first = copy.deepcopy(model.state_dict())
    log = script.log()
    seen = []
    for fold in range(3):
        model.load_state_dict(first)
        optimizer = AdamW(model.parameters(), lr=1e-2)
        log.watch(model, optimizer, fresh_optimizer=True)
        test = list(range(20 * fold, 20 * fold + 20))
        train = [i for i in range(60) if i not in test]
        log.split(f"train {fold + 1}", [f"trial{i}" for i in train])
        log.split(f"test {fold + 1}", [f"trial{i}" for i in test])
        for _ in range(10):
            log.step(loss=update(model, optimizer, (x[train], y[train])))
        with torch.no_grad(), log.evaluating():
            seen.append(float(loss_of(model, (x[test], y[test]))))
        log.eval(loss=seen[-1])
    return torch.tensor(seen, dtype=torch.float64)


@healthy("nested cross-validation: what validates in one inner fold trains in the next, with a run for each")
def inner_folds_within_outer_ones(script: Script) -> Tensor:
    x, y = points(36)
    seen = []
    for outer in range(2):
        held = [i for i in range(36) if i % 2 == outer and i < 12]
        rest = [i for i in range(36) if i not in held]
        for inner in range(2):
            val = rest[inner::2][:8]
            train = [i for i in rest if i not in val]
            model = mlp()
            optimizer = Adam(model.parameters(), lr=1e-2)
            log = script.log()
            log.watch(model, optimizer)
            for part, rows in (("train", train), ("val", val), ("test", held)):
                log.split(part, [f"s{i:02}" for i in rows])
            for _ in range(8):
                log.step(loss=update(model, optimizer, (x[train], y[train])))
            with torch.no_grad(), log.evaluating():
                seen.append(float(loss_of(model, (x[val], y[val]))))
            log.eval(loss=seen[-1])
    return torch.tensor(seen, dtype=torch.float64)


@healthy("bagging: each of three models draws its own samples with repetitions, from the same data")
def samples_drawn_for_each_model(script: Script) -> Tensor:
    data = Points(48)
    models = [mlp(8) for _ in range(3)]
    optimizers = [Adam(model.parameters(), lr=1e-2) for model in models]
    bags = [torch.randint(0, 48, (48,), generator=torch.Generator().manual_seed(i)).tolist() for i in range(3)]
    loaders = [DataLoader(Subset(data, bag), batch_size=8, shuffle=True) for bag in bags]
    log = script.log(steps_per_epoch=6)
    log.watch(models, optimizers, loader=loaders[0])
    for _ in range(4):
        for parts in zip(*loaders):
            losses = [update(*each) for each in zip(models, optimizers, parts)]
            log.step(loss=torch.stack(losses).mean())
    return weights(*models)


@healthy("active learning: the pool that is sampled grows by what the model is least sure of, the sampler is made anew")
def pool_that_grows(script: Script) -> Tensor:
    data, model = Points(96), mlp()
    known = list(range(24))
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    log = script.log()
    for _ in range(4):
        loader = DataLoader(data, batch_size=8, sampler=SubsetRandomSampler(known))
        log.watch(model, optimizer, loader=loader)
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
        with torch.no_grad():
            sure = model(data.x).softmax(1).max(1).values
        sure[known] = 2
        known = known + sure.argsort()[:8].tolist()
    return weights(model)


@healthy("validation and training share recordings and no windows, and each epoch is evaluated on two sets")
def windows_apart_within_a_recording(script: Script) -> Tensor:
    model = mlp(dropout=0.1)
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    log.split("train", [(f"rec{r}", 10.0 * i, 10.0 * i + 10) for r in range(4) for i in range(12)])
    log.split("val", [(f"rec{r}", 10.0 * i, 10.0 * i + 10) for r in range(4) for i in range(12, 15)])
    log.split("test", [(f"rec{r}", 10.0 * i, 10.0 * i + 10) for r in range(4, 6) for i in range(15)])
    seen = []
    for epoch in range(3):
        model.train()
        for batch in batches(8, seed=epoch):
            log.step(loss=update(model, optimizer, batch))
        model.eval()
        for part in ("val", "test"):
            with log.evaluating():
                seen.append(scored(model, 24 if part == "val" else 40))
            log.eval(loss=seen[-1], split=part)
    return torch.cat([weights(model), torch.tensor(seen, dtype=torch.float64)])
