"""Copies of a model in several processes: sums of their weights, noted at the same steps in each of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from eegwatch.watching.cadence import FIRST
from eegwatch.watching.checkpoint_state import named_sums, summed, weights_of
from eegwatch.watching.model_state import STATISTICS
from eegwatch.watching.module_hooks import NotCopied
from eegwatch.watching.tensors import compiling, plain_name, prefixed, torch_module, why_unread

EVERY = 100  # steps between two sums of the weights
MOST_STILL, LONGEST = 256, 1 << 16  # tensors that no optimizer moves, and elements of each, that are summed


class ReplicaSums:
    """The sums of the weights of one watcher's models. `base`: steps before this attempt."""

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
        values = {"nth": f"{why} {nth}{_group_of(models)}", **weights_of(models, trainable=True)}
        still = still_of(models)
        return values | ({"still": summed(named_sums(still))} if still else {}), step


def still_of(models: Sequence[Any]) -> dict[str, Any]:
    """What no optimizer moves and a checkpoint holds: frozen parameters and buffers, the beginning of large ones.

    Running statistics are left out: each rank has its own between two forward passes. So are buffers that are not
    saved.
    """
    found: dict[str, Any] = {}
    for number, model in enumerate(models):
        for name, module in model.named_modules():
            if len(found) >= MOST_STILL:
                return found
            own = {key: p for key, p in module._parameters.items() if p is not None and not p.requires_grad}
            own |= {
                key: buffer
                for key, buffer in module._buffers.items()
                if buffer is not None and key not in module._non_persistent_buffers_set and key not in STATISTICS
            }
            for key, tensor in own.items():
                if why_unread(tensor) is None:
                    short = tensor.detach().reshape(-1)[:LONGEST] if tensor.is_contiguous() else tensor
                    found[prefixed(number, plain_name(f"{name}.{key}".strip(".")))] = short
    return found


def is_copy(model: Any) -> bool:
    """Is this one of torch's copies that average their gradients at every step?

    Weights in memory that processes share are no copies: each of them reads what the others write meanwhile.
    """
    ddp = torch_module().nn.parallel.DistributedDataParallel
    hooks = repr(getattr(model, "_comm_hooks", [])).lower()  # local SGD averages the weights now and then
    return isinstance(model, ddp) and "local" not in hooks and not in_shared_memory(model)


def in_shared_memory(model: Any) -> bool:
    """Has torch.multiprocessing handed these weights to other processes, on the CPU?"""
    return any(
        why_unread(parameter) is None and parameter.device.type == "cpu" and parameter.is_shared()
        for parameter in model.parameters()
    )


def _group_of(models: Sequence[Any]) -> str:
    """The ranks that train these copies, in words, where it is a group of its own and not all of the job."""
    dist = sys.modules.get("torch.distributed")
    groups = [model.process_group for model in models if getattr(model, "process_group", None) is not None]
    if dist is None or not groups:
        return ""
    ranks = dist.get_process_group_ranks(groups[0])
    return "" if len(ranks) == dist.get_world_size() else f" of ranks {ranks}"


class BatchRows(NotCopied):
    """How many rows the first batch has that a copy trains on: fewer than were loaded are a share of them.

    A hook on DistributedDataParallel for one forward pass, and on nothing that torch.compile runs.
    """

    def __init__(self, models: Sequence[Any]) -> None:
        self.rows: int | None = None
        ddp = torch_module().nn.parallel.DistributedDataParallel
        self._handles = [model.register_forward_pre_hook(self) for model in models if isinstance(model, ddp)]

    def __call__(self, module: Any, given: Any) -> None:
        if self.rows is None and not compiling():
            first = next((one for one in given if hasattr(one, "shape") and len(one.shape)), None)
            self.rows = 0 if first is None else int(first.shape[0])
            self.close()

    def close(self) -> None:
        """Take the hook off."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
