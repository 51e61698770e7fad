"""Numbers that are no longer finite: the loss, the gradient norm, the learning rate, each named at its step.

A loss that is NaN or infinite is an error at once. A gradient norm is one only where it stays so: under fp16 the loss
scaler skips a step whose gradients overflow, in a burst at the start of a run and now and then later.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eegwatch.diagnosis.findings import ERROR, INFO, WARNING, Finding
from eegwatch.run.history import StepBlock, logged, logged_nan

# Records of a gradient norm that is not finite, one after the other. A scaler that starts at 65536 and halves needs at
# most 16 skips to reach 1; after its start it grows by one doubling each 2,000 steps, so that one skip mends it.
BURST, WARN_AT, ERROR_AT = 16, 2, 3
BEGINNING = 100  # steps of an attempt in which the scaler looks for its scale
LOWER_LR = "resume from the last checkpoint before it with a lower LR"


class NumberWatch:
    """Follows one attempt's losses, gradient norms and rates. `present` is the engine's table of findings."""

    RULES = ("loss_nonfinite", "grad_nonfinite", "lr_nonfinite")

    def __init__(self, present: dict[str, Finding], start: int) -> None:
        """`start`: optimizer steps done before this attempt."""
        self._present, self._start = present, start
        self._norms = _Norms(present, start)

    def feed(self, block: StepBlock) -> list[Finding]:
        loss = block.loss[logged(block.loss)]
        changes = self._turns("loss_nonfinite", block.step[logged(block.loss)], loss, "loss", LOWER_LR)
        known = ~np.isnan(block.lr) | logged_nan(block.lr)
        remedy = "set the learning rate of the optimizer to a finite number"
        changes += self._turns("lr_nonfinite", block.step[known], block.lr[known], "learning rate", remedy)
        return changes + self._norms.feed(block)

    def _turns(
        self, rule: str, steps: NDArray[np.int64], values: NDArray[np.floating], what: str, remedy: str
    ) -> list[Finding]:
        """An error at the first value that is not finite; it resolves at the next that is."""
        broken = ~np.isfinite(values)
        if not len(values) or (not broken.any() and rule not in self._present):
            return []
        changes: list[Finding] = []
        for i in np.flatnonzero(np.diff(broken, prepend=rule in self._present)):
            step = int(steps[i])
            if broken[i]:
                if what == "loss":
                    message = f"the loss is {float(values[i])} since step {step:,}"
                else:
                    message = f"the {what} is not finite since step {step:,}: it is {float(values[i])}"
                finding = Finding(rule, ERROR, step, step, message, headline=message, remedy=remedy)
                self._present[rule] = finding
                changes.append(finding)
            else:
                old = self._present.pop(rule)
                changes.append(old.resolved(step, f"the {what} is finite again since step {step:,}"))
        return changes


@dataclass
class _Norms:
    """`grad_nonfinite`: the gradient norm is NaN or infinite, and no loss scaler explains it."""

    present: dict[str, Finding]
    start: int
    rule: str = "grad_nonfinite"
    streak: int = 0
    since: int = 0
    seen_finite: bool = False
    skipped: int = 0  # as last logged
    counts_skips: bool = False

    def feed(self, block: StepBlock) -> list[Finding]:
        norms = block.grad_norm
        known = logged_nan(norms) | ~np.isnan(norms)
        self.counts_skips |= bool((block.skipped > 0).any())
        broken = known & ~np.isfinite(norms)
        if not broken.any() and not self.streak:
            self.seen_finite |= bool(known.any())
            self.skipped = int(block.skipped[-1])
            return []
        changes: list[Finding] = []
        for i in np.flatnonzero(known):
            step, skipped = int(block.step[i]), int(block.skipped[i])
            if not broken[i]:
                self.streak, self.seen_finite = 0, True
                old = self.present.pop(self.rule, None)
                if old is not None:
                    changes.append(old.resolved(step, f"the gradient norm is finite again since step {step:,}"))
            else:
                self.since = self.since if self.streak else step
                self.streak += 1
                changes += self._judge(step, float(norms[i]), scaler_skipped=skipped > self.skipped)
            self.skipped = skipped
        return changes

    def _judge(self, step: int, norm: float, *, scaler_skipped: bool) -> list[Finding]:
        searching = not self.seen_finite or self.since <= self.start + BEGINNING
        if scaler_skipped or (searching and self.streak <= BURST and step <= self.start + BEGINNING):
            return []
        severity = ERROR if self.streak >= ERROR_AT else WARNING if self.streak >= WARN_AT else INFO
        old = self.present.get(self.rule)
        if old is not None and old.severity == severity:
            return []
        message = f"the gradient norm is {norm} since step {self.since:,}"
        if severity == INFO:
            message = (
                f"the gradient norm is {norm} at step {step:,}: a loss scaler skips such a step; the next will tell"
            )
        finding = Finding(self.rule, severity, step, self.since, message, headline=message, remedy=LOWER_LR)
        self.present[self.rule] = finding
        return [finding]
