"""Calls of log.step() against steps of the optimizers: a step that is logged has been taken, or a scaler skipped it."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eegwatch.watching.cadence import FIRST
from eegwatch.watching.gather import Gathered
from eegwatch.watching.tensors import elements, torch_module, why_unread

if TYPE_CHECKING:
    from eegwatch.watching.optimizer_listener import OptimizerListener

READ = 8  # tensors of an optimizer that tell whether its weights move
RESTS = 8  # times the longest pause of an optimizer so far: a longer one is looked at
LOOKED = 4  # calls for which such a pause is looked at


class StepCalls:
    """Counts calls that found no step of any watched optimizer since the call before."""

    def __init__(self) -> None:
        self.calls = 0
        self._taken = 0  # steps of all watched optimizers at the last call
        self._usual = 0  # calls in a row without a step that a step came after: micro-batches are logged, say
        self._told = False
        self._idle = self._fresh = self._passes = 0
        self._weights: NDArray[np.float64] | None = None
        self._rests: dict[int, IdleOptimizer] = {}

    def counted(self, listeners: Sequence[OptimizerListener]) -> Iterable[dict[str, Any]]:
        """log.step() was called: what is to be written of it."""
        self.calls += 1
        if len(listeners) == 1 and not self._idle:  # this runs at every step: the usual case takes 0.3 µs and not 4
            taken = listeners[0].cadence.taken
            if taken not in (self._taken, listeners[0].taken_at_call):
                self._taken = taken
                return ()
        return self._counted(listeners)

    def _counted(self, listeners: Sequence[OptimizerListener]) -> Iterator[dict[str, Any]]:
        taken = sum(listener.taken for listener in listeners)
        if not listeners or any(
            is_patched(listener.hooks.optimizer) for listener in listeners if listener.taken == listener.taken_at_call
        ):
            return  # its steps are not seen
        if taken != self._taken:
            if self._told:
                yield {"taken": taken, "calls": self.calls}
            if not self._fresh:
                self._usual = max(self._usual, self._idle)
            self._taken, self._idle, self._fresh, self._passes, self._told = taken, 0, 0, 0, False
            self._weights = None
        else:
            yield from self._no_step(taken, listeners)
        if len(listeners) > 1:
            for listener in listeners:
                yield from self._rests.setdefault(listener.number, IdleOptimizer()).counted(listener, self.calls)

    def _no_step(self, taken: int, listeners: Sequence[OptimizerListener]) -> Iterator[dict[str, Any]]:
        """No step was taken since the last call.

        `finite`: such calls in a row whose gradients were made anew, and are finite or have moved the weights: no
        scaler skipped those, and nothing is accumulated. `passes`: calls in a row before which a backward pass came.
        """
        self._idle += 1
        if self._idle <= self._usual:
            return
        renewed = [listener.gradients.renewed() for listener in listeners if listener.armed]
        for listener in listeners:
            if not listener.armed:  # it rests longer than from one call to the next: its gradients are looked at
                listener.arm(between=True)
        before, self._weights = self._weights, weights(listeners)
        moved = before is not None and len(before) == len(self._weights) and not np.array_equal(before, self._weights)
        finite = _all_finite(listeners)
        self._fresh = self._fresh + 1 if any(renewed) and (finite or moved) else 0
        self._passes = self._passes + 1 if any(one is not None for one in renewed) else 0
        if self._idle < 2 or (self._idle & (self._idle - 1) and self._idle != 3):
            return  # told at 2, 3, 4, 8, 16, … calls
        self._told = True
        values = {"idle": self._idle, "finite": self._fresh, "taken": taken, "calls": self.calls, "moved": moved}
        yield values | {"passes": self._passes, "skipped": finite is False}


class IdleOptimizer:
    """How long one of several optimizers has not stepped, while backward passes reach its tensors."""

    def __init__(self) -> None:
        self._since = 0  # call at which it stepped last
        self._longest = 1
        self._told = False
        self._watched: int | None = None  # call since which it is looked at

    def counted(self, listener: OptimizerListener, call: int) -> Iterator[dict[str, Any]]:
        """log.step() was called for the `call`th time."""
        if listener.taken != listener.taken_at_call:
            self._longest = max(self._longest, call - self._since)
            if self._told:
                yield {"opt": listener.number, "taken": listener.taken, "calls": call}
            self._since, self._told, self._watched = call, False, None
            return
        idle = call - self._since
        if self._told or idle < max(FIRST - LOOKED, RESTS * self._longest):
            return
        if self._watched is None:
            self._watched = call
            listener.arm(between=True)
        elif call - self._watched >= LOOKED:
            if listener.gradients.passes >= LOOKED:
                self._told = True
                values = {"opt": listener.number, "rests": idle, "taken": listener.taken, "calls": call}
                yield values | {"passes": listener.gradients.passes}
            self._watched, self._longest = None, idle  # it is looked at again when it has rested longer


def is_patched(optimizer: Any) -> bool:
    """Is `step` of this optimizer another function than its class has? Its hooks are then not called."""
    step = getattr(optimizer, "__dict__", {}).get("step")
    return step is not None and inspect.unwrap(step) is not inspect.unwrap(type(optimizer).step)


def weights(listeners: Sequence[OptimizerListener]) -> NDArray[np.float64]:
    """A few elements of a few tensors of each optimizer."""
    gathered = Gathered()
    with torch_module().no_grad():
        for listener in listeners:
            for held in listener.table.readable[:READ]:
                if held.fits:
                    gathered.add(elements(held.parameter, held.count, held.stride), held.count)
        gathered.copy()
    return gathered.values()[0]


def _all_finite(listeners: Sequence[OptimizerListener]) -> bool | None:
    """Are all gradients finite? None where there are none."""
    torch, any_there = torch_module(), False
    for listener in listeners:
        for held in listener.table.all:  # the optimizer itself may be gone: one that is built anew takes its place
            gradient = held.parameter.grad
            if gradient is None or why_unread(gradient) is not None:
                continue
            any_there = True
            if not bool(torch.isfinite(gradient.detach()).all()):
                return False
    return True if any_there else None
