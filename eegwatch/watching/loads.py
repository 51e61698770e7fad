"""Calls of load_state_dict on the watched models that restore nothing: no name fits, or the tensors are their own."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from eegwatch.watching.folds import bare
from eegwatch.watching.module_hooks import NotCopied
from eegwatch.watching.tensors import why_unread


class AtLoad(NotCopied):
    """A hook on a module's load_state_dict. A copy of the module calls nothing."""

    def __init__(self, call: Callable[..., None]) -> None:
        self._call = call

    def __call__(self, *given: Any) -> None:
        self._call(*given)


class Loads:
    """What the watched models are given to load. `tell` takes how many tensors were the model's own."""

    def __init__(self, guarded: Any, tell: Callable[[dict[str, Any]], None]) -> None:
        self._guarded, self._tell = guarded, tell
        self._known: list[Any] = []
        self._handles: list[Any] = []
        self._told = False

    def of(self, models: Sequence[Any]) -> None:
        """Watch these models too."""
        for model in map(bare, models):
            if all(model is not known for known in self._known):
                self._known.append(model)
                hook = AtLoad(partial(self._loaded, weakref.ref(model)))
                self._handles.append(model._register_load_state_dict_pre_hook(hook))
                after = AtLoad(partial(self._fitted, weakref.ref(model)))
                self._handles.append(model.register_load_state_dict_post_hook(after))

    def _fitted(self, model: Any, module: Any, fits: Any) -> None:
        """The names that were missing and those that nothing has: with strict=False nobody hears of them."""
        with self._guarded():
            own = [name for name, _ in model().named_parameters()]
            missing = set(fits.missing_keys)
            if own and len(fits.unexpected_keys) and all(name in missing for name in own):
                given = list(fits.unexpected_keys)
                self._tell({"tensors": len(own), "unfit": len(given), "names": [given[0], own[0]]})

    def _loaded(self, model: Any, state_dict: Mapping[str, Any], prefix: str, *_: Any) -> None:
        with self._guarded():
            own = {f"{prefix}{name}": p for name, p in model().named_parameters() if why_unread(p) is None}
            same = sum(_is_in_its_memory(state_dict.get(name), p) for name, p in own.items())
            alone = bool(own) and same == len(own)
            if alone or self._told:
                self._told = alone
                self._tell({"tensors": len(own), "own": same})

    def close(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._known = [], []


def _is_in_its_memory(given: Any, parameter: Any) -> bool:
    return hasattr(given, "data_ptr") and given.shape == parameter.shape and given.data_ptr() == parameter.data_ptr()
