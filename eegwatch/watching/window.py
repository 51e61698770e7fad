"""The micro-batches of one step: how many a step holds, and whether the run ends before the last of them made a step.

Between looks no pass is seen. What tells there is how often the gradient was written to, which torch counts for each
tensor: every pass after the first adds one, and a gradient that is made anew begins at 0.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from eegwatch.watching.optimizer_tensors import OptimizerTensor

ASKED = 8  # tensors whose gradients are asked
ALIKE = 3  # looks that have to show the same


class Window:
    """The passes of the steps that were looked at."""

    def __init__(self) -> None:
        self._counted: deque[int] = deque(maxlen=ALIKE)
        self._written: deque[list[int]] = deque(maxlen=ALIKE)
        self._accumulate = 0

    def before_step(self, held: Sequence[OptimizerTensor]) -> None:
        """A step that is looked at comes, with the gradients as they are."""
        self._written.append(_written(held))

    def stepped(self, counted: int, accumulate: int) -> None:
        """It has used so many passes; `accumulate`: as declared."""
        self._counted.append(counted)
        self._accumulate = accumulate

    def left(self, held: Sequence[OptimizerTensor], seen: int | None) -> dict[str, Any] | None:
        """{"window", "passes"} of a step that was begun and not taken. `seen`: passes since the last step, if known."""
        usual = self._accumulate
        if usual < 2 and len(self._counted) == ALIKE and len(set(self._counted)) == 1:
            usual = self._counted[0]
        if usual < 2 or not any(_lies(one) for one in held[:ASKED]):
            return None
        if seen is not None:
            return {"window": usual, "passes": seen} if 0 < seen < usual else None
        now = _written(held)
        same = len(self._written) == ALIKE and all(one == self._written[0] for one in self._written)
        if not same or len(now) != len(self._written[0]):
            return None
        fewer = [a < b for a, b in zip(now, self._written[0])]
        return {"window": usual} if fewer and all(fewer) else None


def _written(held: Sequence[OptimizerTensor]) -> list[int]:
    """How often the gradients of a few tensors were written to; views (of a bucket, say) count with their base."""
    gradients = [one.parameter.grad for one in held[:ASKED]]
    return [int(one._version) for one in gradients if one is not None and not one._is_view()]


def _lies(held: OptimizerTensor) -> bool:
    gradient = held.parameter.grad
    return gradient is not None and bool((gradient != 0).any())
