"""What a loader does that the order of one epoch does not tell: it never shuffles, leaves samples out, has old workers."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Sampler,
    SequentialSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from eegwatch import RunLog
from tests.unit.watching.loops import Loop, rules, silent, small


def data(n: int = 40) -> TensorDataset:
    return TensorDataset(torch.randn(n, 8))


class Own(Dataset[Any]):
    """A data set with an order of its own; `draws`: it draws it anew when an epoch begins."""

    def __init__(self, draws: bool) -> None:
        self.x, self.order = torch.randn(40, 8), list(range(40))
        self.draws = draws

    def __len__(self) -> int:
        return 40

    def __getitem__(self, i: int) -> Any:
        return self.x[self.order[i]]

    def begin(self) -> None:
        if self.draws:
            self.order = torch.randperm(40).tolist()


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(8, 4, batch_first=True)

    def forward(self, x: Any) -> Any:
        return self.cell(x[:, None])[0]


def trained(
    folder: Path, loader: Any, *, epochs: int = 3, leave: int = 99, steps: bool = True, **more: Any
) -> set[str]:
    """Epochs of a loader; it is left after so many batches; `steps`: a step is taken with each batch."""
    loop = Loop(folder, model=more.pop("model", None), loader=[loader, *more.pop("beside", [])])
    for _ in range(epochs):
        if hasattr(loader.dataset, "begin"):
            loader.dataset.begin()
        for beside in loop.log.watcher.loaders.orders[1:] if loop.log.watcher is not None else []:
            list(beside._loader)
        for number, _ in enumerate(loader):
            if number == leave:
                break
            if steps:
                loop.step(0)
                loop.log.step()
        if not steps:
            loop.step(0)
            loop.log.step()
    return rules(loop.judged())


def test_data_that_are_read_by_their_indices_in_each_epoch_are_a_fact(tmp_path: Path) -> None:
    assert trained(tmp_path, DataLoader(data(), batch_size=8)) == {"order_unshuffled"}
    assert trained(tmp_path, DataLoader(data(), batch_size=8), leave=1) == {"order_unshuffled"}  # next(iter(loader))
    assert trained(tmp_path, DataLoader(data(), batch_size=8, shuffle=True)) == set()
    assert trained(tmp_path, DataLoader(data(), batch_size=8), epochs=1) == set()


def test_an_order_that_may_be_meant_is_no_fact(tmp_path: Path) -> None:
    assert trained(tmp_path, DataLoader(data(24), batch_size=8)) == set()  # three batches: to be overfitted
    assert trained(tmp_path, DataLoader(data(), batch_size=8), steps=False) == set()  # read for an evaluation
    assert trained(tmp_path, DataLoader(Own(draws=False), batch_size=8)) == {"order_unshuffled"}
    assert trained(tmp_path, DataLoader(Own(draws=True), batch_size=8)) == set()
    assert trained(tmp_path, DataLoader(data(), batch_size=8), model=Recurrent()) == set()
    shuffled = DataLoader(data(), batch_size=8, shuffle=True)
    assert trained(tmp_path, DataLoader(data(), batch_size=8), beside=[shuffled]) == set()


def test_weights_by_class_in_place_of_weights_by_sample_are_a_fact(tmp_path: Path) -> None:
    for weights, found in ((torch.ones(3), {"sampler_leaves_out"}), (torch.ones(40), set())):
        sampler = WeightedRandomSampler(weights.tolist(), 40)
        assert trained(tmp_path, DataLoader(data(), batch_size=8, sampler=sampler)) == found
    part = DataLoader(data(), batch_size=8, sampler=SequentialSampler(data(32)))
    assert "sampler_leaves_out" in trained(tmp_path, part)


class Staged(Dataset[Any]):
    """A data set whose samples depend on the epoch; `shared`: it is kept where its workers see it."""

    def __init__(self, shared: bool) -> None:
        self.epoch = 0
        self.shared = torch.zeros(1).share_memory_() if shared else None

    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> Any:
        return torch.full((8,), float(self.epoch + i))


def staged(folder: Path, *, persistent: bool, shared: bool = False, moves: bool = True) -> set[str]:
    loader = DataLoader(Staged(shared), batch_size=4, shuffle=True, num_workers=1, persistent_workers=persistent)
    loop = Loop(folder, loader=loader)
    for epoch in range(2):
        loader.dataset.epoch = epoch if moves else 0  # type: ignore[attr-defined]
        for _ in loader:
            loop.step(0)
            loop.log.step()
    return rules(loop.judged())


def test_persistent_workers_that_a_change_of_the_data_set_does_not_reach_are_a_fact(tmp_path: Path) -> None:
    assert staged(tmp_path, persistent=True) == {"workers_stale"}
    assert staged(tmp_path, persistent=True, shared=True) == set()
    assert staged(tmp_path, persistent=True, moves=False) == set()
    assert staged(tmp_path, persistent=False) == set()


class Drawn(IterableDataset[Any]):
    """A stream in an order by the epoch's seed; `asks`: it has something that says it is to be drawn anew."""

    def __init__(self, **asks: Any) -> None:
        self.x, self.epoch = torch.randn(32, 8), 0
        self.__dict__ |= asks

    def __iter__(self) -> Any:
        order = torch.randperm(32, generator=torch.Generator().manual_seed(self.epoch)).tolist()
        return iter([self.x[i] for i in order])


class Settable(Drawn):
    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


def streamed(folder: Path, stream: Any, *, told: bool = False, **options: Any) -> set[str]:
    """Three epochs of a stream; `told`: each begins with the number of the epoch."""
    loader: Any = DataLoader(stream, batch_size=8, **options)
    before = loader.collate_fn
    loop = Loop(folder, loader=loader)
    for epoch in range(3):
        if told:
            stream.epoch = epoch
        for _ in loader:
            loop.step(0)
            loop.log.step()
    found = rules(loop.judged())
    assert loader.collate_fn is before
    return found


def test_a_stream_that_is_to_be_shuffled_and_repeats_its_order_is_a_fact(tmp_path: Path) -> None:
    assert streamed(tmp_path, Settable()) == {"order_repeated"}
    assert streamed(tmp_path, Drawn(shuffle=True)) == {"order_repeated"}
    assert streamed(tmp_path, Settable(), told=True) == set()
    assert streamed(tmp_path, Drawn()) == set()  # nothing says that its order is to change
    assert streamed(tmp_path, Settable(shuffle=False)) == set()
    assert streamed(tmp_path, Settable(_shuffling=None)) == set()  # a stream of `datasets` that is not shuffled


def test_persistent_workers_of_a_stream_that_set_epoch_does_not_reach_are_a_fact(tmp_path: Path) -> None:
    assert streamed(tmp_path, Settable(), told=True, num_workers=1) == set()
    persistent = streamed(tmp_path, Settable(), told=True, num_workers=1, persistent_workers=True)
    assert persistent == {"order_repeated", "workers_stale"}


def cycled(folder: Path, *, shuffle: bool, begins: bool) -> set[str]:
    """Twenty steps over five batches; `begins`: the loader begins anew when it is exhausted."""
    loader = DataLoader(data(), batch_size=8, shuffle=shuffle)
    loop = Loop(folder, loader=loader)
    passes = itertools.chain.from_iterable(itertools.repeat(loader)) if begins else itertools.cycle(loader)
    for _ in itertools.islice(passes, 20):
        loop.step(0)
        loop.log.step()
    return rules(loop.judged())


def test_the_batches_of_the_first_epoch_over_and_over_are_a_fact(tmp_path: Path) -> None:
    assert cycled(tmp_path, shuffle=True, begins=False) == {"order_repeated"}
    assert cycled(tmp_path, shuffle=True, begins=True) == set()
    assert cycled(tmp_path, shuffle=False, begins=False) == set()


def test_a_loader_that_is_made_anew_and_watched_once_is_no_cycle(tmp_path: Path) -> None:
    for workers in (0, 1):
        samples = data()
        loop = Loop(tmp_path, watch=False)
        for epoch in range(5):
            loader = DataLoader(samples, batch_size=8, shuffle=True, num_workers=workers if epoch == 0 else 0)
            if epoch == 0:
                loop.log.watch(loop.model, loop.optimizer, loader=loader)
            for _ in loader:
                loop.step(0)
                loop.log.step()
        assert rules(loop.judged()) == set()


def lengths(folder: Path, declared: int, **more: Any) -> set[str]:
    """Three epochs of ten batches, a step at every second one; `declared`: steps of an epoch."""
    loader = DataLoader(data(), batch_size=4, shuffle=True)
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    log = RunLog(folder, optimizer=optimizer, control=False, steps_per_epoch=declared, **more)
    log.watch(model, optimizer, loader=loader)
    for _ in range(3):
        for number, (x,) in enumerate(loader, start=1):
            (model(x).pow(2).mean() / 2).backward()
            if number % 2 == 0:
                optimizer.step()
                optimizer.zero_grad()
                log.step()
    log.end()
    return rules(silent(log.folder))


def test_an_epoch_that_is_declared_in_micro_batches_is_a_fact(tmp_path: Path) -> None:
    assert lengths(tmp_path, 10, accumulate=2) == {"epoch_length"}
    assert lengths(tmp_path, 5, accumulate=2) == set()
    assert lengths(tmp_path, 10) == set()  # nothing says what else it might count


def loaded(folder: Path, prefix: str, **options: Any) -> set[str]:
    """A checkpoint with a prefix in its names is loaded into the watched model before the first step."""
    loop = Loop(folder)
    loop.model.load_state_dict({f"{prefix}{name}": p for name, p in small().state_dict().items()}, **options)
    return rules(loop.run(2))


def test_a_checkpoint_of_which_no_name_fits_is_a_fact(tmp_path: Path) -> None:
    assert loaded(tmp_path, "model.", strict=False) == {"weights_not_restored"}
    assert loaded(tmp_path, "", strict=False) == loaded(tmp_path, "") == set()


def test_the_rest_of_an_epoch_that_becomes_no_step_is_a_fact(tmp_path: Path) -> None:
    def epochs(folder: Path, batches: int) -> set[str]:
        loop = Loop(folder)

        def epoch(_: int) -> None:
            loop.optimizer.zero_grad()
            for number in range(1, batches + 1):
                loop.backward()
                if number % 2 == 0:
                    loop.optimizer.step()
                    loop.log.step()
                    loop.optimizer.zero_grad()

        for number in range(6):
            epoch(number)
        return rules(loop.judged())

    assert epochs(tmp_path / "rest", 5) == {"micro_gradients_dropped"}
    assert epochs(tmp_path / "whole", 4) == set()


def skipping(folder: Path, *, each: bool) -> set[str]:
    """A resume in the middle of an epoch of ten steps that skips four; `each`: in every epoch."""
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    log: Any = None
    for attempt in range(2):
        generator = torch.Generator().manual_seed(0)
        loader = DataLoader(data(), batch_size=4, shuffle=True, generator=generator)
        where = {"resume": log.folder, "step": 4} if attempt else {}
        log = RunLog(folder, optimizer=optimizer, control=False, steps_per_epoch=10, **where)
        log.watch(model, optimizer, loader=loader)
        for epoch in range(3 if attempt else 1):
            for number, (x,) in enumerate(loader):
                if attempt and number < 4 and (each or not epoch):
                    continue
                if not attempt and number == 4:
                    break
                optimizer.zero_grad()
                model(x).pow(2).mean().backward()
                optimizer.step()
                log.step()
        log.end()
    return rules(silent(log.folder))


def test_batches_that_are_skipped_in_each_epoch_of_a_resume_are_a_fact(tmp_path: Path) -> None:
    assert skipping(tmp_path / "each", each=True) == {"epoch_length"}
    assert skipping(tmp_path / "once", each=False) == set()


def folds(folder: Path, *, optimizer: str, weights: str) -> set[str]:
    """Two runs of one process; what is new in the second: "new" or "old" optimizer and weights."""
    model = small()
    found: set[str] = set()
    begin = {name: p.clone() for name, p in model.state_dict().items()}
    adam = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(2):
        if weights == "new":
            model.load_state_dict(begin)
        if optimizer == "new":
            adam = torch.optim.Adam(model.parameters(), lr=1e-2)
        log = RunLog(folder, optimizer=adam, control=False)
        log.watch(model, adam)
        for _ in range(3):
            adam.zero_grad()
            model(torch.randn(4, 8)).pow(2).mean().backward()
            adam.step()
            log.step()
        log.end()
        found |= rules(silent(log.folder))
    return found


def test_an_optimizer_of_the_last_fold_on_new_weights_is_a_fact(tmp_path: Path) -> None:
    assert folds(tmp_path, optimizer="old", weights="new") == {"optimizer_state_carried"}
    assert folds(tmp_path, optimizer="new", weights="new") == set()
    assert folds(tmp_path, optimizer="old", weights="old") == set()  # the training goes on


def test_a_resume_of_a_folder_without_a_run_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no run\.jsonl; give the folder of the run"):
        RunLog(tmp_path, control=False, resume=tmp_path, step=3)


class Packs:
    """Batches of a permutation by the epoch, of which the data set has a few."""

    def __init__(self, moves: bool) -> None:
        self.epoch, self.moves = 0, moves

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch if self.moves else 0

    def __len__(self) -> int:
        return 5

    def __iter__(self) -> Any:
        order = torch.randperm(40, generator=torch.Generator().manual_seed(self.epoch)).tolist()
        return iter([order[i : i + 8] for i in range(0, 40, 8)])


def test_a_few_batches_that_repeat_again_and_again_are_a_fact(tmp_path: Path) -> None:
    def packed(epochs: int, *, moves: bool) -> set[str]:
        packs = Packs(moves)
        loader = DataLoader(data(), batch_sampler=packs)  # type: ignore[arg-type]
        loop = Loop(tmp_path, loader=loader)
        for epoch in range(epochs):
            packs.set_epoch(epoch)
            for _ in loader:
                loop.step(0)
                loop.log.step()
        return rules(loop.judged())

    assert packed(4, moves=False) == {"order_repeated"}  # 5! three times: once in 1.7 million
    assert packed(3, moves=False) == set()  # by chance once in 14,400
    assert packed(4, moves=True) == set()


class Odd(Dataset[Any]):
    """A data set whose attributes raise, or are of another kind than their name says."""

    datasets = 7

    def __len__(self) -> int:
        return 40

    def __getitem__(self, i: int) -> Any:
        return torch.full((8,), float(i))

    def __getattr__(self, name: str) -> Any:
        if name == "set_epoch":
            raise RuntimeError("not opened")
        raise AttributeError(name)


class OddStream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(torch.randn(16, 8))

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("not opened") if name == "set_epoch" else AttributeError(name)


def test_a_data_set_whose_attributes_raise_is_watched_all_the_same(tmp_path: Path) -> None:
    assert trained(tmp_path, DataLoader(Odd(), batch_size=8)) == set()
    assert trained(tmp_path, DataLoader(Odd(), batch_size=8, shuffle=True)) == set()
    assert streamed(tmp_path, OddStream()) == set()


def in_parts(folder: Path, begins: tuple[int, ...]) -> set[str]:
    """One epoch of 96 samples in three attempts of 5, 3 and 4 batches; `begins`: the sample that each begins with."""
    log: Any = None
    for attempt, (begin, batches) in enumerate(zip(begins, (5, 3, 4), strict=True)):
        order = torch.randperm(96, generator=torch.Generator().manual_seed(4)).tolist()
        loop = Loop(folder, watch=False, resume=None if log is None else log.folder, step=(0, 5, 8)[attempt])
        log = loop.log
        loader = DataLoader(data(96), batch_size=8, sampler=Rest(order, begin))
        log.watch(loop.model, loop.optimizer, loader=loader, fresh_optimizer=True)
        for _ in itertools.islice(loader, batches):
            loop.step(0)
            log.step()
        log.end()
    return rules(silent(log.folder))


class Rest(Sampler[int]):
    """What is left of an order; it has as many samples as the whole."""

    def __init__(self, order: list[int], begin: int) -> None:
        self.order, self.begin = order, begin

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Any:
        return iter(self.order[self.begin :])


def test_a_second_resume_within_an_epoch_that_skips_too_little_is_a_fact(tmp_path: Path) -> None:
    assert in_parts(tmp_path / "faulty", (0, 40, 24)) == {"order_restarted"}
    assert in_parts(tmp_path / "right", (0, 40, 64)) == set()


def test_a_resume_from_the_average_with_an_average_is_a_fact(tmp_path: Path) -> None:
    def resumed(folder: Path, *, of: str, averages: bool = True) -> set[str]:
        log: Any = None
        model = small()
        average = copy.deepcopy(model).requires_grad_(False)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for attempt in range(2):
            where = {"resume": log.folder, "step": 4} if attempt else {}
            log = RunLog(folder, optimizer=optimizer, control=False, **where)
            log.watch(model, optimizer)
            if averages or not attempt:
                log.ema(average, 0.9)
            for _ in range(4):
                optimizer.zero_grad()
                model(torch.randn(4, 8)).pow(2).mean().backward()
                optimizer.step()
                with torch.no_grad():
                    for a, p in zip(average.parameters(), model.parameters()):
                        a.lerp_(p, 0.1)
                log.step()
            log.checkpoint("c.pt")
            if of == "average" and not attempt:
                model.load_state_dict(average.state_dict())
            log.end()
        return rules(silent(log.folder))

    assert resumed(tmp_path / "average", of="average") == {"weights_not_restored"}
    assert resumed(tmp_path / "alone", of="average", averages=False) == set()
    assert resumed(tmp_path / "weights", of="weights") == set()
