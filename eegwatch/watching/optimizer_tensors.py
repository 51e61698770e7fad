"""The tensors that an optimizer holds, with their names and the places of them that are read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from eegwatch.watching.tensors import spread, why_unread

AT_FIRST, LATER = 512, 64  # tensors that one look reads: of the first steps, and later, by turns
SEARCHED = 2  # of those that a later look reads, the largest gradient of so many is looked for


@dataclass(eq=False)
class OptimizerTensor:
    """One tensor of a parameter group. `why`: why its elements are not read.

    `count`, `stride`: the flat indices 0, stride, … that are read; count is 0 where none is.
    """

    name: str
    parameter: Any
    group: int
    why: str | None
    count: int = 0
    stride: int = 1

    @property
    def fits(self) -> bool:
        """Do the places that are read lie within the tensor? It may have become another one meanwhile."""
        return bool((self.count - 1) * self.stride < self.parameter.numel())


class OptimizerTensors:
    """All tensors that an optimizer holds; made anew when its groups have changed."""

    def __init__(self) -> None:
        self.all: list[OptimizerTensor] = []
        self.ids: frozenset[int] = frozenset()  # of all these tensors
        self.readable: list[OptimizerTensor] = []
        self.skipped: Counter[str] = Counter()
        self._known: list[tuple[tuple[Any, ...], ...]] = []
        self._turn = self._searches = 0

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
                elif why is None and parameter.device.type == "cpu" and parameter.is_shared():
                    why = "in memory that processes share"  # another one may step between two looks (Hogwild)
                name = names.get(id(parameter), f"group {number} tensor {place}")
                at = (0, 1) if why else spread(int(parameter.numel()))
                self.all.append(OptimizerTensor(name, parameter, number, why, *at))
        self.ids = frozenset(id(one.parameter) for one in self.all)
        self.readable = [one for one in self.all if one.why is None]
        self.skipped = Counter(one.why for one in self.all if one.why is not None)
        return True

    def still(self, chosen: list[OptimizerTensor]) -> list[OptimizerTensor]:
        """Of tensors that were chosen before the groups changed, those that are held as they were."""
        now = {(id(held.parameter), held.group) for held in self.readable}
        return [held for held in chosen if (id(held.parameter), held.group) in now and held.fits]

    def chosen(self, first: bool) -> list[OptimizerTensor]:
        """The tensors that the next look reads; where there are many, a part of them by turns."""
        readable = self.readable
        most = AT_FIRST if first else LATER
        if len(readable) <= most:
            return readable
        start = self._turn % len(readable)
        self._turn += most
        return (readable + readable)[start : start + most]

    def searched(self, chosen: list[OptimizerTensor], first: bool) -> set[int]:
        """The ids of those of `chosen` whose largest gradient is looked for: later a few, by turns."""
        if first or len(chosen) <= SEARCHED:
            return {id(held) for held in chosen}
        start = self._searches % len(chosen)
        self._searches += SEARCHED
        return {id(held) for held in (chosen + chosen)[start : start + SEARCHED]}
