"""A course set in an optimizer: before each step the rates of all groups, after it what the script had put there.

The script's own scheduler is never disturbed: it finds the rates that it left. A rate that is a tensor gets a tensor of
its own for the step (groups may share one), in the type and on the device of the script's. docs/your_own_script.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from eegwatch.steering.steered_schedule import SteeredSchedule


class SetRates:
    """A listener of StepHooks. `next_step()` says which step (counted from 1) the optimizer is about to take."""

    def __init__(self, next_step: Callable[[], int]) -> None:
        self.course: SteeredSchedule | None = None
        self.taken: dict[int, list[float]] = {}  # of the newest step that was taken under this course
        self.trouble: str | None = None  # why the rates cannot be set
        self.gate: Callable[[int], None] | None = None  # called before each step with its number: may change `course`
        self._next_step = next_step
        self._lent: list[tuple[dict[str, Any], str, Any, Any]] = []  # group, key, the script's value, ours
        self._set: tuple[int, list[float]] | None = None
        self._upcoming: tuple[int, SteeredSchedule | None] | None = None  # the step after which it holds

    def begin(self, course: SteeredSchedule) -> None:
        """Follow this course from the step after its `from_step` on; what held before holds until then."""
        self._upcoming = (course.from_step, course)
        self.taken, self.trouble = {}, None

    def release(self, from_step: int) -> None:
        """Hand the rates back to the script's own scheduler, from the step after `from_step` on."""
        self._upcoming = (from_step, None)

    def end(self) -> None:
        """Hand the rates back at once."""
        self.course = self._upcoming = None

    def before(self, optimizer: Any) -> None:
        if self.gate is not None:
            self.gate(self._next_step())
        if self._upcoming is not None and self._next_step() > self._upcoming[0]:
            self.course, self._upcoming = self._upcoming[1], None
        course = self.course
        if course is None:
            return
        if _compiling():
            self.trouble = "the optimizer's step is compiled: its rates are part of the compiled code"
            return
        step = self._next_step()
        groups = optimizer.param_groups
        rates = course.rates(step)
        if len(groups) != len(rates):
            # a group that was added since: it keeps what the script gave it
            rates = (rates + [None] * len(groups))[: len(groups)]
        for group, rate in zip(groups, rates, strict=True):
            if rate is not None:
                self._lend(group, "lr", _like(group["lr"], rate))
        for group, momentum in zip(groups, course.momentum(step)):
            if momentum is not None and "betas" in group:
                self._lend(group, "betas", (_like(group["betas"][0], momentum), *group["betas"][1:]))
            elif momentum is not None and "momentum" in group:
                self._lend(group, "momentum", _like(group["momentum"], momentum))
        self._set = (step, [float(group["lr"]) for group in groups])

    def after(self, optimizer: Any) -> None:
        if self._set is not None:
            step, rates = self._set
            self.taken, self._set = {step: rates}, None
        self._give_back()

    def abandoned(self, optimizer: Any) -> None:
        self._set = None
        self._give_back()

    def _lend(self, group: dict[str, Any], key: str, value: Any) -> None:
        self._lent.append((group, key, group[key], value))
        group[key] = value

    def _give_back(self) -> None:
        for group, key, theirs, ours in self._lent:
            if group.get(key) is ours:  # what the script put there meanwhile stays
                group[key] = theirs
        self._lent = []


def _like(value: Any, rate: float) -> Any:
    """The rate in the type of the value that stands there: a float, or a tensor of its type on its device."""
    if hasattr(value, "new_full"):
        return value.new_full(tuple(value.shape), rate)
    return float(rate)


def _compiling() -> bool:
    """Whether this call is part of a region that torch.compile traces."""
    torch = sys.modules.get("torch")
    return bool(torch is not None and torch.compiler.is_compiling())
