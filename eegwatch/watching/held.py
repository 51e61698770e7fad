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
        self._known: list[tuple[int, ...]] = []
        self._turn = 0

    def refresh(self, optimizer: Any, names: dict[int, str]) -> None:
        """Look at the groups; names are those of the watched models, others are called by their group and place."""
        now = [tuple(id(parameter) for parameter in group["params"]) for group in optimizer.param_groups]
        if now == self._known:
            return
        self._known = now
        self.all = []
        for number, group in enumerate(optimizer.param_groups):
            for place, parameter in enumerate(group["params"]):
                why = why_unread(parameter)
                name = names.get(id(parameter), f"group {number} tensor {place}")
                self.all.append(Held(name, parameter, number, why, None if why else places(parameter)))
        self.skipped = Counter(held.why for held in self.all if held.why is not None)

    def chosen(self, first: bool) -> list[Held]:
        """The tensors that the next look reads; where there are many, a part of them by turns."""
        readable = [held for held in self.all if held.why is None]
        most = AT_FIRST if first else LATER
        if len(readable) <= most:
            return readable
        start = self._turn % len(readable)
        self._turn += most
        return (readable + readable)[start : start + most]
