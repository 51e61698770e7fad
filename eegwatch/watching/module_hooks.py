"""The base of hooks on watched modules: a copy or a pickle of the module has a hook without effect in their place."""

from __future__ import annotations

from typing import Any


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
