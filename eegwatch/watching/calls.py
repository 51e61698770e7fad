"""Calls of log.step() against steps of the optimizer: a step that is logged has been taken, or a scaler skipped it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eegwatch.watching.tensors import torch_module, why_unread

if TYPE_CHECKING:
    from eegwatch.watching.eye import Eye

SKIPS = 20  # a scaler that halves 65,536 skips at most 16 steps in a row before its scale is 1


class Calls:
    """Counts calls that found no step of any watched optimizer since the call before."""

    def __init__(self) -> None:
        self.taken = 0  # steps of all watched optimizers at the last call
        self.calls = 0
        self.told = False
        self._idle = 0
        self._finite = 0  # of those, calls whose gradients are there and finite: no scaler skipped them

    def moved(self, taken: int) -> None:
        """A step was taken since the last call."""
        self.taken, self._idle, self._finite, self.told = taken, 0, 0, False

    def idle(self, step: int, eyes: list[Eye]) -> dict[str, Any] | None:
        """No step was taken since the last call. What is written of it, if it tells anything."""
        self._idle += 1
        self._finite = self._finite + 1 if _all_finite(eyes) else 0
        if self._idle < 2 or (self._idle & (self._idle - 1) and self._idle != 3):
            return None  # told at 2, 3, 4, 8, 16, … calls
        self.told = True
        return {"idle": self._idle, "finite": self._finite, "taken": self.taken, "calls": self.calls + 1}


def _all_finite(eyes: list[Eye]) -> bool:
    """Are there gradients, and are all of them finite?"""
    torch, any_there = torch_module(), False
    for eye in eyes:
        for held in eye.table.all:  # the optimizer itself may be gone: one that is built anew takes its place
            gradient = held.parameter.grad
            if gradient is None or why_unread(gradient) is not None:
                continue
            any_there = True
            if not bool(torch.isfinite(gradient.detach()).all()):
                return False
    return any_there
