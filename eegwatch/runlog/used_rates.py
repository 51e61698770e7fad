"""The rates that each optimizer step used, paired with the step's record in any order of the script's calls.

A script calls `log.step()` after `optimizer.step()`, before or after `scheduler.step()`, or before `optimizer.step()`.
The optimizer's pre-step hook sees the rate that is really used, so a record is paired with the step that it speaks of:
in the first order the step has just been taken, in the second the record waits for it. Which order it is, the first two
records tell: a record without a step before it is one of the second order, or one of a step that a gradient scaler
skipped; in the second order a backward pass lies between the optimizer's step and the next record.

A skipped step used no rate; its record holds the one that it would have used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

from eegwatch.optimizer_hooks import StepHooks, unwrapped
from eegwatch.run.records import Step

MOST_WAITING = 20  # records: a scaler that halves 65,536 skips at most 16 steps in a row before its scale is 1
PRECISIONS = ("bfloat16", "float16", "float32", "float64")  # the coarsest first


class UsedRates(NamedTuple):
    """The rates of all parameter groups, group 0 first, and the scheduler's position that gave them."""

    rates: list[float]
    position: float | None


Write = Callable[[Step, UsedRates], None]


class Follower:
    """A listener on the optimizer (`optimizer_hooks`) that adds to each step record the rates that the step used."""

    def __init__(self, optimizer: Any, position: Callable[[], float | None], write: Write) -> None:
        """`optimizer`: anything with `param_groups`; without torch's step hooks the rates are read as they stand.

        `write` takes a record and what its step used.
        """
        self._groups: list[dict[str, Any]] = unwrapped(optimizer).param_groups
        self._optimizer = unwrapped(optimizer)
        self._position, self._write = position, write
        self.steps_taken = 0  # by this optimizer, since it is followed
        self._order: Literal["after", "before"] | None = None  # where log.step() lies to optimizer.step()
        self._taken: UsedRates | None = None  # the newest step that no record has spoken of
        self._first: UsedRates | None = None  # the first one since the waiting record
        self._waiting: list[tuple[Step, UsedRates]] = []  # records whose step is not known yet; the rates at their time
        self._gradient: tuple[Any, Any, int] | None = None  # (parameter, gradient, its version) after the last step
        self._stood = self.now()  # at the last record: what the next step uses, if the scheduler had moved by then
        self._scheduler_first = False  # is log.step() called after scheduler.step()?
        self._hooks: StepHooks | None
        try:
            self._hooks = StepHooks(optimizer)
            self._hooks.listeners.append(self)
        except TypeError:
            self._hooks, self._order = None, "after"

    @property
    def hooks(self) -> StepHooks | None:
        """The layer of hooks that this listens on: steering and watching add their listeners to it."""
        return self._hooks

    @property
    def waits(self) -> bool:
        """Whether a record waits for the optimizer's step because log.step() is called before it."""
        return bool(self._waiting)

    @property
    def logs_first(self) -> bool:
        """Whether log.step() is called before optimizer.step(), as far as known."""
        return self._order == "before" or (self._order is None and bool(self._waiting))

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The optimizer's parameter groups."""
        return list(self._optimizer.param_groups)

    def now(self) -> UsedRates:
        """The present rates and position."""
        self._groups = self._optimizer.param_groups  # load_state_dict puts a new list there
        return UsedRates([float(group["lr"]) for group in self._groups], self._position())

    def record(self, step: Step) -> None:
        """Take a record of one optimizer step; it is written now, or when its step is known."""
        taken, self._taken = self._taken, None
        if self._order == "after":
            self._write_after(step, taken)
            return
        if self._order is None and taken is not None:
            self._decide(taken)
            if self._order == "after":
                self._write_after(step, taken)
                return
        if self._order == "before":
            self._release()  # a step that was skipped
        elif len(self._waiting) >= MOST_WAITING:  # the hooks are not called (an optimizer that steps by other means)
            self._order = "after"
            self._release()
            self._write_after(step, None)
            return
        self._waiting.append((step, self.now()))
        self._first = None

    def _decide(self, taken: UsedRates) -> None:
        """Decide the order of the calls: at the second record, or at the first after steps that a scaler skipped."""
        waiting, self._waiting = self._waiting, []
        if waiting and self._backward_since():
            self._order = "before"
            self._write_all(waiting[:-1])
            self._write(waiting[-1][0], self._first or taken)
        else:
            self._order = "after"
            self._learn(taken)
            for step, stood in waiting:
                self._write(step, self._stood if self._scheduler_first else stood)
                self._stood = stood
        self._gradient = None

    def _release(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._write_all(waiting)

    def _write_all(self, waiting: list[tuple[Step, UsedRates]]) -> None:
        for step, stood in waiting:
            self._write(step, stood)

    def _write_after(self, step: Step, taken: UsedRates | None) -> None:
        if taken is None:  # the gradient scaler skipped it
            taken = self._stood if self._scheduler_first else self.now()
        else:
            self._learn(taken)
        self._write(step, taken)
        self._stood = self.now()

    def _learn(self, taken: UsedRates) -> None:
        """Whether the scheduler moved between a step and its record."""
        now = self.now()
        if now != taken:
            self._scheduler_first = True
        elif now.position is not None:
            self._scheduler_first = False

    def flush(self) -> None:
        """Write the records that wait: something else follows them in the log."""
        if self._waiting and self._first is not None:  # log.step(), optimizer.step(), and now an evaluation
            step, _ = self._waiting.pop()
            self._release()
            self._write(step, self._first)
            self._taken = self._first = None
        else:
            self._release()

    def close(self) -> None:
        """Write what waits and take the hooks off."""
        self.flush()
        self._gradient = None
        if self._hooks is not None:
            self._hooks.remove()

    # ---- the listener ----

    def before(self, optimizer: Any) -> None:
        used = self.now()
        self.steps_taken += 1
        if self._order == "before" and self._waiting:
            step, _ = self._waiting.pop()
            self._release()
            self._write(step, used)
            return
        self._taken = used
        if self._first is None:
            self._first = used

    def after(self, optimizer: Any) -> None:
        if self._order is None:
            self._gradient = next(self._gradients(), None)

    def abandoned(self, optimizer: Any) -> None:
        """A step that raised: its record, if there will be one, speaks of the rates all the same."""

    # ---- which order it is ----

    def _gradients(self) -> Iterator[tuple[Any, Any, int]]:
        for group in self._groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    yield parameter, parameter.grad, int(parameter.grad._version)

    def _backward_since(self) -> bool:
        """Whether a backward pass has run since the last step. Called once a run."""
        if self._gradient is None:
            return True
        parameter, gradient, version = self._gradient
        if parameter.grad is None:
            return False
        if parameter.grad is not gradient:
            return True
        if int(gradient._version) == version:
            return False
        return bool((gradient != 0).any())  # changed in place: set to zero, or set to zero and filled again


def precision_of(rates: list[Any]) -> str | None:
    """The floating-point type that these rates have: float64 for Python's, a tensor's or array's own; the coarsest."""
    names = {name_of_type(rate) for rate in rates}
    if not names <= set(PRECISIONS):
        return None
    return min((name for name in PRECISIONS if name in names), key=PRECISIONS.index, default=None)


def name_of_type(rate: Any) -> str | None:
    """`float64`, `float32`, `bfloat16`, … of a number, a tensor or a numpy scalar; None for what is none of them."""
    if isinstance(rate, float | int) and type(rate).__module__ == "builtins":
        return "float64"
    kind = getattr(rate, "dtype", None)
    return None if kind is None else str(kind).rpartition(".")[2]
