"""The base of hooks on watched modules: a copy or a pickle of the module has a hook without effect in their place."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

Guard = Callable[[], AbstractContextManager[None]]  # Watcher.guarded


def no_effect(*given: Any) -> None:
    """The hook of a copied module."""


def _made_no_effect() -> Any:
    return no_effect


class NotCopied:
    """A hook that belongs to the watched module only."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return no_effect

    def __reduce__(self) -> str | tuple[Any, ...]:
        return (_made_no_effect, ())


class AtPass(NotCopied):
    """A hook on a module. A copy of the module calls nothing."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __call__(self, module: Any, given: Any, made: Any = None) -> None:
        self._call(module, given, made)
