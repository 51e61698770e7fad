"""Runs of one process that train the same model one after the other: what the run before has trained it on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from eegwatch.watching.checkpoint_state import weights_of

Trained = tuple[str, dict[str, Any]]  # (run, its training splits by name)
KEPT = 8  # earlier runs of a model that are remembered

# model -> (sum of its weights when a run of it ended, what has trained it until then: (run, training splits by name))
_left: WeakKeyDictionary[Any, tuple[str, list[Trained]]] = WeakKeyDictionary()


def leave(models: Sequence[Any], run: str, trained: dict[str, Any], earlier: Sequence[Trained]) -> None:
    """A run ends that has trained these models on these splits, and `earlier` ones before. Call it in no_grad."""
    for model in map(bare, models):
        weights = weights_of([model], trainable=True)
        if weights["n"] and _is_key(model):
            _left[model] = weights["crc"], [*earlier, (run, trained)][-KEPT:]


def goes_on(models: Sequence[Any]) -> list[Trained]:
    """What runs of this process have trained a model on whose weights are those that the last one left.

    Call it in no_grad.
    """
    found: dict[str, dict[str, Any]] = {}
    for model in map(bare, models):
        left = _left.get(model) if _is_key(model) else None
        if left is not None and left[0] == weights_of([model], trainable=True)["crc"]:
            found |= dict(left[1])
    return list(found.items())


def bare(model: Any) -> Any:
    """The model inside what DistributedDataParallel and torch.compile put around it."""
    while hasattr(inner := getattr(model, "_orig_mod", None) or getattr(model, "module", None), "named_modules"):
        model = inner
    return model


def _is_key(model: Any) -> bool:
    return getattr(type(model), "__hash__", None) is object.__hash__
