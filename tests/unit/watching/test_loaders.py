"""What a loader does that the order of one epoch does not tell: it never shuffles, leaves samples out, has old workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, SequentialSampler, TensorDataset, WeightedRandomSampler

from tests.unit.watching.loops import Loop, rules


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
        for beside in loop.log.watcher.orders[1:] if loop.log.watcher is not None else []:
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
