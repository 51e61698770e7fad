"""Elements of many tensors as one vector: one copy for each device and type, one transfer for each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from eegwatch.watching.tensors import host, torch_module


class Gathered:
    """Collects pieces, copies them, and gives their values in the order in which they came."""

    def __init__(self) -> None:
        self._pending: list[Any] = []
        self._sizes: list[int] = []
        self._copied: list[tuple[list[int], Any]] = []  # (numbers of pieces, all of their elements)

    def add(self, piece: Any, size: int) -> int:
        """Take a flat piece of `size` elements; it may be a view until `copy` is called. Returns its number."""
        self._pending.append(piece)
        self._sizes.append(size)
        return len(self._sizes) - 1

    def copy(self) -> None:
        """Copy what came since the last call, as it is now."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        first = len(self._sizes) - len(pending)
        kinds: dict[tuple[Any, Any], list[int]] = {}
        for number, piece in enumerate(pending):
            kinds.setdefault((piece.device, piece.dtype), []).append(number)
        for numbers in kinds.values():
            vector = torch_module().cat([pending[number] for number in numbers])
            self._copied.append(([first + number for number in numbers], vector))

    def values(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """(all elements in the order of their pieces, where each piece begins; one more for the end)."""
        starts = np.zeros(len(self._sizes) + 1, np.int64)
        np.cumsum(self._sizes, out=starts[1:])
        found = np.empty(int(starts[-1]))
        parts = self._copied
        if len({(vector.device, vector.dtype) for _, vector in parts}) == 1 and len(parts) > 1:
            parts = [
                ([n for numbers, _ in parts for n in numbers], torch_module().cat([vector for _, vector in parts]))
            ]
        for numbers, vector in parts:
            read = host(vector)
            if numbers[-1] - numbers[0] == len(numbers) - 1:
                found[starts[numbers[0]] : starts[numbers[-1] + 1]] = read
                continue
            at = 0
            for number in numbers:
                size = self._sizes[number]
                found[starts[number] : starts[number + 1]] = read[at : at + size]
                at += size
        return found, starts
