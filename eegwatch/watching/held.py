"""The tensors that an optimizer holds, with their names and the places of them that are read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from eegwatch.watching.tensors import places, why_unread

AT_FIRST, LATER = 512, 64  # tensors that one look reads: of the first steps, and later, by turns


@dataclass(eq=False)
class Held:
    """One tensor of a parameter group. `why`: why its elements are not read; `places`: flat indices that are read."""

    name: str
    parameter: Any
    group: int
    why: str | None
    places: Any


class Table:
    """All tensors that an optimizer holds; made anew when its groups have changed."""

    def __init__(self) -> None:
        self.all: list[Held] = []
        self.skipped: Counter[str] = Counter()
        self._known: list[tuple[tuple[Any, ...], ...]] = []
        self._turn = 0

    def refresh(self, optimizer: Any, names: dict[int, str]) -> bool:
        """Look at the groups; returns whether they have changed.

        Names are those of the watched models, others are called by their group and place.
        """
        now = [tuple((id(p), p.device, p.dtype, p.shape) for p in group["params"]) for group in optimizer.param_groups]
        if now == self._known:
            return False
        self._known = now
        self.all = []
        held = [p for group in optimizer.param_groups for p in group["params"]]
        memory = Counter(p.data_ptr() for p in held if why_unread(p) is None)
        for number, group in enumerate(optimizer.param_groups):
            for place, parameter in enumerate(group["params"]):
                why = why_unread(parameter)
                if why is None and memory[parameter.data_ptr()] > 1:
                    why = "in the memory of another"  # each step moves it once for every name that it has
                name = names.get(id(parameter), f"group {number} tensor {place}")
                self.all.append(Held(name, parameter, number, why, None if why else places(parameter)))
        self.skipped = Counter(one.why for one in self.all if one.why is not None)
        return True

    def still(self, chosen: list[Held]) -> list[Held]:
        """Of tensors that were chosen before the groups changed, those that are held as they were."""
        now = {(id(held.parameter), held.group) for held in self.all if held.why is None}
        return [held for held in chosen if (id(held.parameter), held.group) in now and _fits(held)]

    def chosen(self, first: bool) -> list[Held]:
        """The tensors that the next look reads; where there are many, a part of them by turns."""
        readable = [held for held in self.all if held.why is None]
        most = AT_FIRST if first else LATER
        if len(readable) <= most:
            return readable
        start = self._turn % len(readable)
        self._turn += most
        return (readable + readable)[start : start + most]


def _fits(held: Held) -> bool:
    """Are the places that are read still on the tensor's device, and within it?"""
    return bool(held.places.device == held.parameter.device and int(held.places[-1]) < held.parameter.numel())
