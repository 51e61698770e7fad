"""Copies of half-precision weights that an optimizer holds in float32: they are the weights before the first step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eegwatch.watching.gather import Gathered
from eegwatch.watching.tensors import elements, plain_name, prefixed, spread, torch_module, why_unread

MOST = 64  # tensors that are compared
ULPS = 4.0  # units of the half precision: rounding may be at random


class Masters:
    """The float32 copies that one optimizer holds of the weights of the watched models."""

    def __init__(self) -> None:
        self._looks = 0
        self._off: list[str] = []  # copies that were not the weights before the first step
        self._step = 0

    def compared(self, tensors: Sequence[Any], models: Sequence[Any], step: int) -> dict[str, Any] | None:
        """Before a step: what is to be written, at the second one, of copies that were not the weights at the first.

        `tensors`: what the optimizer holds. Only where the weights are the copies by then: they were overwritten.
        """
        self._looks += 1
        if self._looks > 2 or (self._looks == 2 and not self._off):
            return None
        pairs = _pairs(tensors, models)
        off = [name for name, differs in zip((name for name, _, _ in pairs), _differ(pairs)) if differs]
        if self._looks == 1:
            self._off, self._step = off, step
            return None
        if off or not pairs:
            return None
        return {"tensors": len(pairs), "n": len(self._off), "names": self._off[:5], "step": self._step}


def _pairs(tensors: Sequence[Any], models: Sequence[Any]) -> list[tuple[str, Any, Any]]:
    """(name, weight, its float32 copy), where the optimizer holds the one for the other in the same order of shapes."""
    torch = torch_module()
    held = {id(one) for one in tensors}
    named = [
        (prefixed(number, plain_name(name)), p)
        for number, model in enumerate(models)
        for name, p in model.named_parameters()
    ]
    own = {id(p) for _, p in named}
    copies = [one for one in tensors if id(one) not in own]
    missing = [(name, p) for name, p in named if p.requires_grad and id(p) not in held]
    if not copies or [one.shape for one in copies] != [p.shape for _, p in missing]:
        return []
    pairs = [(name, p, copy) for (name, p), copy in zip(missing, copies)]
    halves = (torch.float16, torch.bfloat16)
    alike = all(p.dtype in halves and copy.dtype == torch.float32 for _, p, copy in pairs)
    read = [pair for pair in pairs if why_unread(pair[1]) is None and why_unread(pair[2]) is None]
    return read[:MOST] if alike else []


def _differ(pairs: Sequence[tuple[str, Any, Any]]) -> list[bool]:
    """Of each pair: are a few elements of the copy others than those of the weight?"""
    if not pairs:
        return []
    gathered = Gathered()
    sizes = []
    for _, weight, copy in pairs:
        count, stride = spread(int(weight.numel()))
        sizes.append(count)
        gathered.add(elements(weight, count, stride), count)
        gathered.add(elements(copy.to(weight.dtype), count, stride), count)
    gathered.copy()
    values, found, at = gathered.values()[0], [], 0
    for size, (_, weight, _) in zip(sizes, pairs):
        one, other = values[at : at + size], values[at + size : at + 2 * size]
        bound = ULPS * float(torch_module().finfo(weight.dtype).eps) * abs(one) + 1e-30
        found.append(bool((abs(one - other) > bound).any()))
        at += 2 * size
    return found
