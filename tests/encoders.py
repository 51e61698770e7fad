"""Encoders of a user's own, as `model.backbone.entry` names them: for the tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def spread(x: torch.Tensor) -> torch.Tensor:
    """Logarithm of each channel's standard deviation in four parts of the window: (windows, 4 tokens, channels)."""
    return torch.log(x.unflatten(2, (4, -1)).std(3) + 1e-3).transpose(1, 2)


spread.rate, spread.unit, spread.version = 128, "zscore", "1"  # type: ignore[attr-defined]


class Projection(torch.nn.Module):
    """A random projection of every window."""

    rate, unit = 256, "uV"

    def __init__(self, channels: int, samples: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.register_buffer("matrix", torch.randn(channels * samples, 8, generator=generator) / 100)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ self.matrix  # type: ignore[operator]


def projection(*, channels: list[str], samples: int, rate: int) -> Projection:
    assert rate == Projection.rate
    return Projection(len(channels), samples)


def in_numpy(x: Any) -> Any:
    return np.abs(np.asarray(x)).mean(2)


in_numpy.rate, in_numpy.unit = 256, "mV"  # type: ignore[attr-defined]


class InTrainingMode:
    """A wrapper that is no module itself, so nobody puts the model in it into evaluation mode."""

    rate, unit = 256, "mV"

    def __init__(self, layer: torch.nn.Module) -> None:
        self.model = torch.nn.Sequential(layer)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.model(x).abs().mean(2)
        return out


def with_dropout(*, channels: list[str], samples: int, rate: int) -> InTrainingMode:
    return InTrainingMode(torch.nn.Dropout(0.1))


def with_batch_norm(*, channels: list[str], samples: int, rate: int) -> InTrainingMode:
    return InTrainingMode(torch.nn.BatchNorm1d(len(channels)))


def evaluating(*, channels: list[str], samples: int, rate: int) -> InTrainingMode:
    encoder = with_batch_norm(channels=channels, samples=samples, rate=rate)
    encoder.model.eval()
    return encoder


def in_its_own_order(*, channels: list[str], samples: int, rate: int) -> InTrainingMode:
    encoder = evaluating(channels=channels, samples=samples, rate=rate)
    encoder.channels = channels[::-1]  # type: ignore[attr-defined]
    return encoder


def broken(x: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("no such kernel\nand a long story")


broken.rate, broken.unit = 256, "mV"  # type: ignore[attr-defined]


def of_a_strange_unit(x: torch.Tensor) -> torch.Tensor:
    return x.mean(2)


of_a_strange_unit.rate, of_a_strange_unit.unit = 256, "furlong"  # type: ignore[attr-defined]


def a_number(x: torch.Tensor) -> torch.Tensor:
    return x.mean()


a_number.rate, a_number.unit = 256, "mV"  # type: ignore[attr-defined]


def undeclared(*, channels: list[str], samples: int, rate: int) -> Any:
    return lambda x: x
