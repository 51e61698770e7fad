"""Calls listeners around each step of a torch optimizer: one pair of hooks, listeners in order; no import of torch.

Traps of torch 2.13 that this layer keeps from its listeners (docs/your_own_script.md):

- an optimizer class whose `step` calls `super().step()` fires the hooks twice for one step: only the outermost counts;
- the post hook is not called for a step that raised: the next step says so (`Listener.abandoned`);
- accelerate wraps an optimizer in an object without hooks: the wrapped one is used.
"""

from __future__ import annotations

import sys
import warnings
import weakref
from types import FrameType
from typing import Any, Protocol

HOOKS = "_optimizer_step_pre_hooks"  # the attribute that a torch optimizer's constructor makes for them
FRAMES_SEARCHED = 200  # an outer step() lies a few frames up; a deeper stack than this is a recursion


class Listener(Protocol):
    """A listener called around each optimizer step. One that raises is removed, with a warning."""

    def before(self, optimizer: Any) -> None:
        """The optimizer is about to step."""

    def after(self, optimizer: Any) -> None:
        """The optimizer has stepped."""

    def abandoned(self, optimizer: Any) -> None:
        """The last step raised, so `after` was not called for it. Called before the next step begins."""


def unwrapped(optimizer: Any) -> Any:
    """The torch optimizer inside a wrapper that holds it as `optimizer` (or else, without hooks), or the object itself.

    accelerate's wrapper is a torch Optimizer by its class, but its constructor makes no hooks.
    """
    seen = {id(optimizer)}
    while hasattr(inner := _inner(optimizer), "param_groups") and id(inner) not in seen:
        seen.add(id(inner))
        optimizer = inner
    return optimizer


def _inner(optimizer: Any) -> Any:
    """What it holds as `optimizer`; of one whose constructor made no hooks also the one that it holds as anything.

    An optimizer around another one of the same tensors (sharpness-aware minimisation, Lookahead) need not have its own
    step() called: it is the inner one that makes the update.
    """
    inner = getattr(optimizer, "optimizer", None)
    held = getattr(optimizer, "__dict__", {})
    if hasattr(inner, "param_groups"):
        return inner
    within = [one for one in held.values() if hasattr(one, "param_groups") and HOOKS in getattr(one, "__dict__", {})]
    if HOOKS in held:
        own = _tensors(optimizer)
        within = [one for one in within if _tensors(one) == own]
        return within[0] if len(within) == 1 else inner
    return next(iter(within), None)


def _tensors(optimizer: Any) -> set[int]:
    return {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}


class StepHooks:
    """One pair of hooks on one optimizer. Listeners are called in the order of `listeners`, before and after."""

    def __init__(self, optimizer: Any) -> None:
        """Attach to the optimizer, or to the one that it wraps. Raises TypeError for one without step hooks."""
        self._optimizer = weakref.ref(_with_hooks(optimizer))
        self.listeners: list[Listener] = []
        self._outer: FrameType | None = None  # the frame of the step() under way
        self._nested = 0
        self._handles: list[Any] = []
        self.closure = False  # was the step under way given a closure? Then its gradients come within it
        self.attach_last()

    @property
    def optimizer(self) -> Any:
        """The optimizer, or None once it is gone."""
        return self._optimizer()

    def attach_last(self) -> None:
        """Put the hooks next to the step: the pre-hook behind all others, the post-hook before them.

        What they read is what the step uses and makes, and what they set is not overwritten.
        """
        self._remove()
        optimizer = self._optimizer()
        if optimizer is not None:
            self._handles = [
                optimizer.register_step_pre_hook(self._before),
                optimizer.register_step_post_hook(self._after),
            ]
            _to_front(optimizer, self._handles[1])

    @property
    def enclose(self) -> bool:
        """Does nothing of the user's lie between these hooks and the step: no later pre-hook, no earlier post-hook?"""
        optimizer = self._optimizer()
        if optimizer is None or not self._handles:
            return False
        before, after = optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks
        return bool(next(reversed(before)) == self._handles[0].id and next(iter(after)) == self._handles[1].id)

    def remove(self) -> None:
        """Take the hooks off."""
        optimizer = self._optimizer()
        if self._outer is not None and optimizer is not None and not _on_stack(self._outer):
            self._tell("abandoned", optimizer)
        self._outer = None
        self._remove()

    def _remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _before(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if self._outer is not None:
            if _on_stack(self._outer):
                self._nested += 1
                return
            self._tell("abandoned", optimizer)
        self._outer, self._nested = sys._getframe(1), 0
        self.closure = (args[1] if len(args) > 1 else kwargs.get("closure")) is not None
        self._tell("before", optimizer)

    def _after(self, optimizer: Any, _args: Any, _kwargs: Any) -> None:
        if self._nested:
            self._nested -= 1
            return
        self._outer = None
        self._tell("after", optimizer)

    def _tell(self, event: str, optimizer: Any) -> None:
        for listener in tuple(self.listeners):
            try:
                getattr(listener, event)(optimizer)
            except Exception as error:  # whatever it is, it must not end the training that is watched
                self.listeners.remove(listener)
                name = type(listener).__name__
                warnings.warn(
                    f"eegwatch: {name} failed and is switched off: {type(error).__name__}: {error}", stacklevel=3
                )

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """A copy of what holds the hooks (a closure, a trainer) is not watched."""

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return (type(None), ())


def _with_hooks(optimizer: Any) -> Any:
    inner = unwrapped(optimizer)
    for name in ("register_step_pre_hook", "register_step_post_hook", "param_groups", HOOKS):
        if not hasattr(inner, name):
            raise TypeError(f"{type(optimizer).__name__} has no {name}: it is not a torch optimizer")
    return inner


def _to_front(optimizer: Any, handle: Any) -> None:
    """Put a post-hook before the others: torch keeps them in an ordered dict."""
    hooks = optimizer._optimizer_step_post_hooks
    if hasattr(hooks, "move_to_end"):
        hooks.move_to_end(handle.id, last=False)


def _on_stack(frame: FrameType) -> bool:
    """Is the call of this frame still under way in this thread?"""
    at: FrameType | None = sys._getframe(1)
    for _ in range(FRAMES_SEARCHED):
        if at is None:
            return False
        if at is frame:
            return True
        at = at.f_back
    return False
