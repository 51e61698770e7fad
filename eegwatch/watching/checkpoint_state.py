"""What a checkpoint should bring back: sums of the bits of the weights and of the optimizers' state, by name."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from eegwatch.watching.optimizer_settings import settings_of
from eegwatch.watching.tensors import bit_sums, plain_name, prefixed, torch_module, why_unread

if TYPE_CHECKING:
    from eegwatch.watching.declarations import Declarations
    from eegwatch.watching.ema import WeightAverage
    from eegwatch.watching.optimizer_listener import OptimizerListener

MOST_NAMED = 64  # tensors that are kept by name; the sum of all is kept beside them


def whole_state(
    models: Sequence[Any],
    listeners: Sequence[OptimizerListener],
    averages: Sequence[WeightAverage],
    declared: Declarations,
    *,
    skipped: bool,
) -> dict[str, Any]:
    """{"weights", "optimizers", "averages", "scaler", …}: all that a resume has to bring back and that is watched.

    `skipped`: a scaler has skipped a step since: its scale is smaller by its factor.
    """
    values: dict[str, Any] = {"weights": weights_of(models)}
    values["optimizers"] = [state_of(listener) for listener in listeners if listener.hooks.optimizer is not None]
    norms = batches_counted(models)
    if norms is not None:
        values["norms"] = norms
    if averages:
        values["averages"] = [{"average": one.number} | summed(named_sums(one.tensors)) for one in averages]
    scaler = declared.scaler
    if scaler is not None and scaler.is_enabled():
        values["scaler"] = {
            "scale": float(scaler.get_scale()),
            "backoff": float(scaler.get_backoff_factor()) if skipped else 1.0,
        }
    if declared.fresh_optimizer:
        values["fresh_optimizer"] = True
    return values


def batches_counted(models: Sequence[Any]) -> int | None:
    """The most batches that a batch norm of the models has counted; None where there is none that counts."""
    torch = torch_module()
    counts = [getattr(module, "num_batches_tracked", None) for model in models for module in model.modules()]
    known = [one.reshape(1).cpu() for one in counts if isinstance(one, torch.Tensor) and one.device.type != "meta"]
    return int(torch.cat(known).max()) if known else None


def named_sums(named: dict[str, Any]) -> dict[str, int]:
    """The sum of the bits of each of these tensors that can be read."""
    read = {name: tensor for name, tensor in named.items() if why_unread(tensor) is None}
    return dict(zip(read, bit_sums(read.values())))


def weights_of(models: Sequence[Any], *, trainable: bool = False) -> dict[str, Any]:
    """{"n", "crc", "parts": {name: sum}, "kinds"} of the models' parameters; buffers change with every pass."""
    named = {
        prefixed(number, plain_name(name)): parameter
        for number, model in enumerate(models)
        for name, parameter in model.named_parameters()
        if why_unread(parameter) is None and (parameter.requires_grad or not trainable)
    }
    kinds = [f"{name} {parameter.dtype} {tuple(parameter.shape)}" for name, parameter in sorted(named.items())]
    return summed(dict(zip(named, bit_sums(named.values())))) | {"kinds": crc_of(kinds)}


def state_of(listener: OptimizerListener) -> dict[str, Any]:
    """{"opt", "entries", "count", "n", "crc", "parts", "kinds", "settings"} of one optimizer.

    `entries`: tensors that have a state; `count`: steps that it has counted.
    """
    torch, optimizer = torch_module(), listener.hooks.optimizer
    listener.table.refresh(optimizer, listener.watcher.names)
    entries, count, tensors = 0, 0.0, {}
    for held in listener.table.all:
        state = optimizer.state.get(held.parameter) or {}
        entries += bool(state)
        if "step" in state:
            count = max(count, float(state["step"]))
        for key, value in sorted(state.items(), key=lambda item: str(item[0])):
            if isinstance(value, torch.Tensor) and key != "step" and _readable(value):
                tensors[f"{held.name} {key}"] = value
    values = {
        "opt": listener.number,
        "name": listener.name,
        "held": len(listener.table.all),
        "entries": entries,
        "count": int(count),
    }
    values["settings"] = settings_of(optimizer)
    kinds = [f"{name} {tensor.dtype}" for name, tensor in sorted(tensors.items())]
    return values | summed(dict(zip(tensors, bit_sums(tensors.values())))) | {"kinds": crc_of(kinds)}


def crc_of(words: list[str]) -> str:
    """A sum of a list of words."""
    return f"{zlib.crc32(repr(words).encode()):08x}"


def _readable(tensor: Any) -> bool:
    why = why_unread(tensor)
    return why in (None, "integer") and tensor.numel() > 0


def summed(sums: dict[str, int]) -> dict[str, Any]:
    text = "\n".join(f"{name} {value}" for name, value in sorted(sums.items()))
    names = list(sums)
    if len(names) > MOST_NAMED:
        names = [names[i * len(names) // MOST_NAMED] for i in range(MOST_NAMED)]
    return {
        "n": len(sums),
        "crc": f"{zlib.crc32(text.encode()):08x}",
        "parts": {name: f"{sums[name] & 0xFFFFFFFFFFFF:012x}" for name in names},
    }
