"""Copies of a model in several processes: sums of their weights, noted at the same steps in each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eegwatch.watching.cadence import FIRST
from eegwatch.watching.state import weights_of
from eegwatch.watching.tensors import torch_module

EVERY = 100  # steps between two sums of the weights


class Copies:
    """The sums of the trainable weights of one watcher's models. `base`: steps before this attempt."""

    def __init__(self, base: int) -> None:
        self._base = base
        self._last: tuple[int, int] = (-1, 0)  # (step, sums that were noted at it)

    def asked(self, models: Sequence[Any], step: int) -> tuple[dict[str, Any], int]:
        """(values, step): log.replica() was called."""
        return self._summed(models, step, "asked")

    def stepped(self, models: Sequence[Any], taken: int) -> tuple[dict[str, Any], int] | None:
        """(values, step) after the step number `taken` of this attempt; None where it is not noted."""
        if taken > FIRST and taken % EVERY:
            return None
        return self._summed([model for model in models if is_copy(model)], taken + self._base, "step")

    def _summed(self, models: Sequence[Any], step: int, why: str) -> tuple[dict[str, Any], int]:
        nth = self._last[1] + 1 if self._last[0] == step else 1
        self._last = step, nth
        return {"nth": f"{why} {nth}", **weights_of(models, trainable=True)}, step


def is_copy(model: Any) -> bool:
    """Is this one of torch's copies that average their gradients at every step?"""
    ddp = torch_module().nn.parallel.DistributedDataParallel
    hooks = repr(getattr(model, "_comm_hooks", [])).lower()  # local SGD averages the weights now and then
    return isinstance(model, ddp) and "local" not in hooks
