"""Tokens of a window's patches to its features: one way for cached features and for a backbone in training."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from eegpt_daemon.model.encoder import EncoderError
from eegwatch.run.config import Config

Tokens = TypeVar("Tokens", NDArray[np.float32], Tensor)


def pooling_of(config: Config, dim: int, summary: int, patches: int) -> tuple[str, int]:
    """(pooling, number of features). `model.probe.input_dim` names it too: D, 4 D or patches * 4 D.

    Raises EncoderError for a size that this encoder does not have.
    """
    sizes = {"patches": summary * dim, "patches_and_tokens": dim, "none": patches * summary * dim}
    probe = config.model.probe
    if probe.pooling is None and probe.input_dim is None:
        return "patches", sizes["patches"]
    named: str | None = probe.pooling
    pooling = named or next((name for name, size in sizes.items() if size == probe.input_dim), None)
    if pooling is None or (probe.input_dim is not None and sizes[pooling] != probe.input_dim):
        options = ", ".join(f"{size} ({name})" for name, size in sizes.items())
        raise EncoderError(
            f"model.probe.input_dim: {probe.input_dim} does not fit this encoder; write one of {options}"
        )
    return pooling, sizes[pooling]


def pool(encoded: Tokens, pooling: str) -> Tokens:
    """(windows, patches, summary tokens, D) -> (windows, features), in the order of memory."""
    if pooling != "none":
        encoded = encoded.mean(1)  # over the patches
        if pooling == "patches_and_tokens":
            encoded = encoded.mean(1)
    return encoded.reshape(len(encoded), -1)
