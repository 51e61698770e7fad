"""What a checkpoint should bring back: sums of the bits of the weights and of the optimizers' state, by name."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from eegwatch.watching.tensors import bit_sums, plain_name, prefixed, torch_module, why_unread

if TYPE_CHECKING:
    from eegwatch.watching.eye import Eye

MOST_NAMED = 64  # tensors that are kept by name; the sum of all is kept beside them


def weights_of(models: Sequence[Any], *, trainable: bool = False) -> dict[str, Any]:
    """{"n", "crc", "parts": {name: sum}} of the parameters of the models; buffers change with every forward pass."""
    named = {
        prefixed(number, plain_name(name)): parameter
        for number, model in enumerate(models)
        for name, parameter in model.named_parameters()
        if why_unread(parameter) is None and (parameter.requires_grad or not trainable)
    }
    return _summed(dict(zip(named, bit_sums(named.values()))))


def state_of(eye: Eye) -> dict[str, Any]:
    """{"opt", "entries", "count", "n", "crc", "parts"} of one optimizer: tensors with a state, steps it has counted."""
    torch, optimizer = torch_module(), eye.hooks.optimizer
    eye.table.refresh(optimizer, eye.watcher.names)
    entries, count, tensors = 0, 0.0, {}
    for held in eye.table.all:
        state = optimizer.state.get(held.parameter) or {}
        entries += bool(state)
        if "step" in state:
            count = max(count, float(state["step"]))
        for key, value in sorted(state.items(), key=lambda item: str(item[0])):
            if isinstance(value, torch.Tensor) and key != "step" and _readable(value):
                tensors[f"{held.name} {key}"] = value
    return {"opt": eye.number, "entries": entries, "count": int(count)} | _summed(
        dict(zip(tensors, bit_sums(tensors.values())))
    )


def _readable(tensor: Any) -> bool:
    why = why_unread(tensor)
    return why in (None, "integer") and tensor.numel() > 0


def _summed(sums: dict[str, int]) -> dict[str, Any]:
    text = "\n".join(f"{name} {value}" for name, value in sorted(sums.items()))
    names = list(sums)
    if len(names) > MOST_NAMED:
        names = [names[i * len(names) // MOST_NAMED] for i in range(MOST_NAMED)]
    return {
        "n": len(sums),
        "crc": f"{zlib.crc32(text.encode()):08x}",
        "parts": {name: f"{sums[name] & 0xFFFFFFFFFFFF:012x}" for name in names},
    }
