"""`grad_zero` and `grad_exploding`: gradient norms of exactly zero, or far above the usual ones, for several steps."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from eegwatch.diagnosis.findings import WARNING, Finding
from eegwatch.diagnosis.latch import Latch
from eegwatch.diagnosis.rules.levels import quantile
from eegwatch.diagnosis.rules.rule import Attempt, Rule
from eegwatch.run.history import StepBlock

EXPLODING, EXPLODING_FOR = 100.0, 3  # times the median gradient norm
ZERO_FOR = 5
NONE_TRUE = np.empty(0, np.int64)


def _run_of(true: NDArray[np.bool_], before: int) -> NDArray[np.int64]:
    """Length of the current run of True at each place, continuing a run of `before`; empty if none is True."""
    if not true.any():
        return NONE_TRUE
    index = np.arange(1, len(true) + 1)
    last_false = np.maximum.accumulate(np.where(true, -before, index))
    length: NDArray[np.int64] = index - last_false
    return np.where(true, length, 0)


class GradZero(Rule):
    name = "grad_zero"

    def __init__(self, attempt: Attempt, latch: Latch, factor: float) -> None:
        super().__init__(attempt, latch, factor)
        self._zeros = 0

    def look(self, part: StepBlock) -> list[Finding]:
        run = _run_of(part.grad_norm == 0, self._zeros)
        self._zeros = int(run[-1]) if len(run) else 0
        if not len(run) or run.max() < ZERO_FOR * self.factor:
            return []
        step = int(part.step[int(np.argmax(run >= ZERO_FOR))])
        said = f"the gradient norm is exactly zero since step {step - ZERO_FOR + 1:,}"
        return self.latch.say(WARNING, step, step - ZERO_FOR + 1, said, "something detached the loss from the model")

    def learn(self, whole: StepBlock) -> list[Finding]:
        if self.latch.up and self._zeros == 0:
            return self.latch.over(int(whole.step[-1]), "gradients are no longer zero")
        return []


class GradExploding(Rule):
    name = "grad_exploding"

    def __init__(self, attempt: Attempt, latch: Latch, factor: float) -> None:
        super().__init__(attempt, latch, factor)
        self._norms: deque[float] = deque(maxlen=10)
        self._usual = math.inf
        self._huge = 0
        self._calm = True  # no huge gradient in this block

    def look(self, part: StepBlock) -> list[Finding]:
        norms = part.grad_norm.astype(np.float64)
        run = _run_of((norms > EXPLODING * self.factor * self._usual) | np.isinf(norms), self._huge)
        self._huge = int(run[-1]) if len(run) else 0
        self._calm &= not len(run)
        if not len(run) or run.max() < EXPLODING_FOR:
            return []
        at = int(np.argmax(run >= EXPLODING_FOR))
        step = int(part.step[at])
        said = f"the gradient norm is {norms[at]:.3g}, the {EXPLODING_FOR}rd so large in a row"
        said += f"; usual is {self._usual:.3g}"
        return self.latch.say(WARNING, step, step - EXPLODING_FOR + 1, said, "lower the LR or clip gradients")

    def learn(self, whole: StepBlock) -> list[Finding]:
        """What is a usual norm from now on; and that it is one again."""
        changes: list[Finding] = []
        if self.latch.up and self._huge == 0:
            changes = self.latch.over(int(whole.step[-1]), "gradient norms are usual again")
        norms = whole.grad_norm
        finite = norms[np.isfinite(norms) & (norms > 0)] if self._calm else norms[:0]
        if len(finite):
            self._norms.append(quantile(np.sort(finite.astype(np.float64)), 0.5))
            self._usual = quantile(np.sort(np.array(self._norms)), 0.5)
        self._calm = True
        return changes
