"""What is compared over attempts and runs: splits that are drawn anew, epochs that a resume begins again or reorders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Sampler, TensorDataset, WeightedRandomSampler

from eegwatch import RunLog
from eegwatch.diagnosis.findings import ERROR, WARNING
from eegwatch.watching.sampler_draws import LOOKS_ON
from tests.unit.watching.loops import Loop, rules, silent, small

# ---- splits ----


def two_attempts(folder: Path, second: dict[str, list[int]], *, told: bool = True, restored: bool = True) -> Any:
    """Train on 0 to 7 and validate on 8 to 11, then resume with the splits of `second`; what is said of it."""
    first = Loop(folder)
    first.log.split("train", range(8))
    first.log.split("val", range(8, 12))
    for number in range(1, 4):
        first.step(number)
        first.log.step()
    if told:
        first.log.checkpoint("c.pt")
    saved = {name: tensor.clone() for name, tensor in first.model.state_dict().items()}
    state = first.optimizer.state_dict()
    first.log.end()
    again = Loop(folder, resume=first.log.folder, step=3)
    if restored:
        again.model.load_state_dict(saved)
        again.optimizer.load_state_dict(state)
    for name, ids in second.items():
        again.log.split(name, ids)
    return {(one.rule, one.severity) for one in again.run(2)}


OTHER = {"train": [4, 5, 6, 7, 8, 9, 10, 11], "val": [0, 1, 2, 3]}


def test_a_resume_that_holds_out_what_was_trained_on_is_found(tmp_path: Path) -> None:
    assert two_attempts(tmp_path, OTHER) == {("splits_overlap", ERROR)}
    assert two_attempts(tmp_path, OTHER, told=False) == {("splits_overlap", WARNING)}  # are they its weights?


def test_a_resume_with_the_same_split_or_with_more_to_train_on_is_clean(tmp_path: Path) -> None:
    assert two_attempts(tmp_path, {"train": [*range(8)], "val": [*range(8, 12)]}) == set()
    assert two_attempts(tmp_path, {"train": [*range(12)], "val": [*range(12, 15)]}) == set()
    found = two_attempts(tmp_path, OTHER, restored=False)  # other weights have not been trained on it
    assert {rule for rule, _ in found} == {"optimizer_state_lost", "weights_not_restored"}


@pytest.mark.parametrize("fresh", ["nothing", "weights", "model", "weights before the end"])
def test_a_fold_that_goes_on_with_the_model_of_the_last_one_is_a_fact(tmp_path: Path, fresh: str) -> None:
    model, found = small(), []
    begin = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for fold in range(3):
        if fresh == "model":
            model = small()
        if fresh == "weights":
            model.load_state_dict(begin)
        loop = Loop(tmp_path, model=model)
        loop.log.split("train", [one for one in range(12) if one % 3 != fold])
        loop.log.split("test", [one for one in range(12) if one % 3 == fold])
        for number in range(1, 3):
            loop.step(number)
            loop.log.step()
        if fresh == "weights before the end":
            model.load_state_dict(begin)
        found.append([(one.rule, one.severity) for one in loop.judged()])
    assert found == [[], *(2 * [[("splits_overlap", WARNING)] if fresh == "nothing" else []])]


def test_a_large_split_is_compared_by_some_of_its_ids(tmp_path: Path) -> None:
    def held_out(shift: int) -> Any:
        return {"train": [*range(shift, 20_000)], "val": [*range(shift), "other"]}

    first = Loop(tmp_path)
    first.log.split("train", range(10_000, 20_000))
    first.run(2)
    again = Loop(tmp_path, resume=first.log.folder, step=2, fresh_optimizer=True)
    for name, ids in held_out(10_000).items():
        again.log.split(name, ids)
    assert rules(again.run(2)) == set()
    again = Loop(tmp_path, resume=first.log.folder, step=4, fresh_optimizer=True)
    for name, ids in held_out(12_000).items():
        again.log.split(name, ids)
    assert rules(again.run(2)) == {"splits_overlap"}


# ---- a resume in the middle of an epoch ----


def resumed(folder: Path, how: str, *, sampler: Any = None, steps: int = 4, workers: int = 0) -> set[tuple[str, str]]:
    """Four of twelve batches, a checkpoint, and a resume that goes on with the epoch as `how` says."""
    data = TensorDataset(torch.randn(96, 8))

    def loader(seed: int) -> Any:
        generator = torch.Generator().manual_seed(seed)
        if sampler is not None:
            return DataLoader(data, batch_size=8, sampler=sampler(data, generator))
        return DataLoader(data, batch_size=8, shuffle=True, generator=generator, num_workers=workers)

    reads = loader(1)
    first = Loop(folder, loader=reads)
    for number, _ in enumerate(reads, start=1):
        first.step(number)
        first.log.step()
        if number == steps:
            first.log.checkpoint("c.pt")
            break
    saved = {name: tensor.clone() for name, tensor in first.model.state_dict().items()}
    state = first.optimizer.state_dict()
    first.log.end()
    reads = loader(1 if how in ("skip", "again") else 2)
    again = Loop(folder, resume=first.log.folder, step=steps, loader=reads)
    again.model.load_state_dict(saved)
    again.optimizer.load_state_dict(state)
    for number, _ in enumerate(reads, start=1):
        if how in ("skip", "skip others") and number <= steps:
            continue
        if how == "left out" and number <= steps:  # their loss is not finite: the script takes no step
            again.backward()
            again.optimizer.zero_grad()
            continue
        again.step(number)
        again.log.step()
        if how == "rest of others" and number == 12 - steps:
            break
    return {(one.rule, one.severity) for one in again.judged()}


def test_an_epoch_that_a_resume_begins_again_or_reorders_is_found(tmp_path: Path) -> None:
    assert resumed(tmp_path, "skip") == set()
    assert resumed(tmp_path, "new epoch") == set()
    assert resumed(tmp_path, "left out") == set()
    assert resumed(tmp_path, "again") == {("order_restarted", WARNING)}
    assert resumed(tmp_path, "skip others") == {("order_lost", ERROR)}
    assert resumed(tmp_path, "rest of others") == {("order_lost", WARNING)}


def test_a_resume_at_the_end_of_an_epoch_or_with_replacement_is_clean(tmp_path: Path) -> None:
    assert resumed(tmp_path, "new epoch", steps=12) == set()
    assert resumed(tmp_path, "skip others", steps=12) == set()
    with_replacement = lambda data, generator: RandomSampler(data, replacement=True, generator=generator)  # noqa: E731
    assert resumed(tmp_path, "skip others", sampler=with_replacement) == set()
    assert resumed(tmp_path, "rest of others", sampler=with_replacement) == set()


# ---- samplers of the script's own ----


class Keeps(Sampler[int]):
    """An order that is drawn once, by a sampler that it holds, by itself, or given."""

    def __init__(self, data: Any, how: str) -> None:
        self.inner = RandomSampler(data) if how == "holds" else None
        self.order = torch.randperm(len(data)).tolist() if self.inner is None else list(self.inner)

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[int]:
        return iter(self.order)


class Epochs(Sampler[int]):
    """It has an epoch, which somebody has to count up."""

    def __init__(self, data: Any) -> None:
        self.n, self.epoch = len(data), 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        yield from torch.randperm(self.n, generator=torch.Generator().manual_seed(self.epoch)).tolist()


class Seeds(RandomSampler):
    def __iter__(self) -> Iterator[int]:
        torch.manual_seed(3)
        return super().__iter__()


class Draws(Sampler[int]):
    """It seeds the global generator in each epoch."""

    def __init__(self, data: Any) -> None:
        self.n = len(data)

    def __iter__(self) -> Iterator[int]:
        torch.manual_seed(3)
        yield from torch.randperm(self.n).tolist()


class Batches(Sampler[list[int]]):
    """Batches that are drawn once from a random sampler."""

    def __init__(self, data: Any, sampler: Any) -> None:
        self.sampler, self.batches = sampler, list(BatchSampler(sampler, 2, False))

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)


def epochs(folder: Path, prepare: Any = None, **options: Any) -> set[tuple[str, str]]:
    data = TensorDataset(torch.randn(40, 8))
    given = {name: make(data) for name, make in options.items()}
    loader = DataLoader(data, **({"batch_size": 4} if "batch_sampler" not in given else {}), **given)
    loop = Loop(folder, loader=loader)
    for epoch in range(3):
        if prepare is not None:
            prepare(loader, epoch)
        for _ in loader:
            loop.step(0)
            loop.log.step()
    held = [one for one in (loader.batch_sampler, getattr(loader.batch_sampler, "sampler", None)) if one is not None]
    found = {(one.rule, one.severity) for one in loop.judged()}
    assert not any(hasattr(one, LOOKS_ON) for one in held)  # they are of their own classes again
    return found


REPEATED = {("order_repeated", WARNING)}


def test_a_sampler_of_ones_own_that_keeps_an_order_it_was_to_draw_anew_is_a_fact(tmp_path: Path) -> None:
    assert epochs(tmp_path, sampler=lambda data: Keeps(data, "holds")) == REPEATED
    assert epochs(tmp_path, sampler=Epochs) == REPEATED
    assert epochs(tmp_path, sampler=Seeds) == REPEATED
    assert epochs(tmp_path, sampler=Draws) == REPEATED
    assert epochs(tmp_path, batch_sampler=lambda data: Batches(data, RandomSampler(data))) == REPEATED


class Blocks(Sampler[Any]):
    """Blocks of samples that stay together are shuffled as a whole, when its iterator is made."""

    def __init__(self, data: Any, *, batches: bool) -> None:
        self.data, self.batches = data, batches

    def __len__(self) -> int:
        return 4 if self.batches else len(self.data)

    def __iter__(self) -> Iterator[Any]:
        order = torch.randperm(4).tolist()
        blocks = [list(range(10 * one, 10 * one + 10)) for one in order]
        return iter(blocks if self.batches else [one for block in blocks for one in block])


def test_a_few_blocks_that_fall_alike_by_chance_are_clean(tmp_path: Path) -> None:
    def seeded(loader: Any, epoch: int) -> None:
        torch.manual_seed(7)

    assert epochs(tmp_path, seeded, batch_sampler=lambda data: Blocks(data, batches=True)) == set()
    assert epochs(tmp_path, seeded, sampler=lambda data: Blocks(data, batches=False)) == set()


@pytest.mark.parametrize("how", ["batches", "samples", "no batches"])
def test_a_sampler_that_draws_when_its_iterator_is_made_draws_what_it_drew(tmp_path: Path, how: str) -> None:
    data = TensorDataset(torch.arange(40.0).reshape(40, 1))
    read = []
    for watched in (False, True):
        sampler = Blocks(data, batches=how == "batches")
        given = {"batches": {"batch_sampler": sampler}, "samples": {"sampler": sampler, "batch_size": 4}}
        loader = DataLoader(data, **given.get(how, {"sampler": sampler, "batch_size": None}))  # type: ignore[arg-type]
        loop = Loop(tmp_path, watch=watched, **({"loader": loader} if watched else {}))
        torch.manual_seed(3)
        read.append([torch.cat([x.reshape(-1) for (x,) in loader]).tolist() + [float(torch.rand(1))] for _ in range(3)])
        loop.log.end()
    assert read[0] == read[1]


def test_an_order_that_nothing_asked_to_be_drawn_anew_is_clean(tmp_path: Path) -> None:
    assert epochs(tmp_path, sampler=lambda data: Keeps(data, "given")) == set()  # a curriculum, say
    assert epochs(tmp_path, lambda loader, epoch: loader.sampler.set_epoch(epoch), sampler=Epochs) == set()
    assert epochs(tmp_path, batch_sampler=lambda data: Batches(data, range(40))) == set()
    own = lambda data: BatchSampler(RandomSampler(data), 4, False)  # noqa: E731
    assert epochs(tmp_path, batch_sampler=own) == set()

    def seeded(data: Any) -> Any:
        sampler = Epochs(data)
        sampler.shuffle = False  # type: ignore[attr-defined]
        return sampler

    assert epochs(tmp_path, sampler=seeded) == set()


def test_draws_with_replacement_repeat_no_more_than_shuffles_do(tmp_path: Path) -> None:
    def weighted(data: Any) -> Any:
        return WeightedRandomSampler(torch.ones(len(data)), 40)

    def seeded(loader: Any, epoch: int) -> None:
        torch.manual_seed(7)

    assert epochs(tmp_path, seeded, sampler=weighted) == {("order_repeated", ERROR)}
    assert epochs(tmp_path, sampler=weighted) == set()
    rare = lambda _: WeightedRandomSampler([1.0] + 39 * [1e-12], 40)  # noqa: E731
    assert epochs(tmp_path, sampler=rare) == set()  # it has one sample to draw


def test_a_loader_that_is_made_anew_in_each_epoch_is_compared_with_the_last(tmp_path: Path) -> None:
    data = TensorDataset(torch.randn(40, 8))

    def judged(seed: Any) -> set[str]:
        loop = Loop(tmp_path)
        for epoch in range(3):
            generator = torch.Generator().manual_seed(seed(epoch))
            loader = DataLoader(data, batch_size=4, shuffle=True, generator=generator)
            loop.log.watch(loop.model, loop.optimizer, loader=loader)
            for _ in loader:
                loop.step(0)
                loop.log.step()
        return rules(loop.judged())

    assert judged(lambda _: 0) == {"order_repeated"}
    assert judged(lambda epoch: epoch) == set()


def test_a_run_without_a_step_or_splits_leaves_nothing_to_a_later_one(tmp_path: Path) -> None:
    model = nn.Linear(8, 2)
    loop = Loop(tmp_path, model=model)
    loop.log.split("train", range(4))
    loop.log.end()
    assert silent(loop.log.folder) == []
    loop = Loop(tmp_path, model=model)
    loop.log.split("test", range(4))
    assert loop.run(2) == []
    RunLog(tmp_path, control=False).end()
