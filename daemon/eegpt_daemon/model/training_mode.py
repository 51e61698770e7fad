"""Parts of a frozen encoder that act only in training mode (dropout, batch norm), and a test for their effect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

KINDS = ("Dropout", "DropPath", "StochasticDepth", "BatchNorm", "InstanceNorm")  # by the names of their classes
Encode = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def active_in_training_mode(module: nn.Module) -> list[str]:
    """Names of the parts in training mode whose forward pass depends on it."""
    return [
        name or type(part).__name__
        for name, part in module.named_modules()
        if part.training and any(kind in type(part).__name__ for kind in KINDS) and float(getattr(part, "p", 1.0) or 0)
    ]


def behaviour(encode: Encode, windows: NDArray[np.float32], features: NDArray[np.float32]) -> dict[str, Any]:
    """{"repeat", "alone"}: change of the features when computed again, and when half of the windows are left out.

    `features` are those of `windows`, (n, F); both are the root mean square of the difference, in their spread.
    """
    half = max(1, len(windows) // 2)
    spread = float(features.std()) or 1.0

    def apart(others: NDArray[np.float32]) -> float:
        return float(np.sqrt(np.mean((others - features[: len(others)]).astype(np.float64) ** 2))) / spread

    return {"repeat": apart(encode(windows)), "alone": apart(encode(windows[:half]))}
