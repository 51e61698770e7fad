"""The small things that the cases train: models of a few hundred weights on points drawn from a fixed seed."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

FEATURES, CLASSES = 6, 3


def points(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(n, 6) float32 and (n,) int64: three classes that a linear layer tells apart with some errors."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, FEATURES, generator=generator)
    rule = torch.randn(FEATURES, CLASSES, generator=torch.Generator().manual_seed(99))
    y = (x @ rule + torch.randn(n, CLASSES, generator=generator)).argmax(1)
    return x, y


def batches(n: int, size: int = 8, seed: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """`n` batches of `size` points, each another."""
    for number in range(n):
        yield points(size, 1000 * seed + number)


class Points(Dataset[tuple[Tensor, Tensor]]):
    """A map-style dataset of `n` points."""

    def __init__(self, n: int = 24, seed: int = 0) -> None:
        self.x, self.y = points(n, seed)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.x[i], self.y[i]


def mlp(width: int = 16, dropout: float = 0.0) -> nn.Sequential:
    middle: list[nn.Module] = [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(nn.Linear(FEATURES, width), nn.ReLU(), *middle, nn.Linear(width, CLASSES))


class Probe(nn.Module):
    """A backbone with batch normalisation and a head, as one fine-tunes them."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(FEATURES, width), nn.BatchNorm1d(width), nn.ReLU())
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


def loss_of(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    x, y = batch
    return F.cross_entropy(model(x), y)


def update(model: nn.Module, optimizer: torch.optim.Optimizer, batch: tuple[Tensor, Tensor]) -> Tensor:
    """One plain step: clear, forward, backward, step. Returns the loss."""
    optimizer.zero_grad()
    loss = loss_of(model, batch)
    loss.backward()
    optimizer.step()
    return loss


def weights(*models: nn.Module) -> Tensor:
    """The outcome of a training: every parameter and buffer of the models, one vector."""
    tensors = [t for model in models for t in model.state_dict().values()]
    return torch.cat([t.detach().reshape(-1).double() for t in tensors])


@torch.no_grad()
def scored(model: nn.Module, n: int = 64) -> float:
    """The loss on points that were not trained on, as the model stands."""
    return float(loss_of(model, points(n, 7777)))
