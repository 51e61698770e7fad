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


# optimizer -> (run that ended with it, sums of the weights of each of its models then)
_stepped: WeakKeyDictionary[Any, tuple[str, list[str]]] = WeakKeyDictionary()


def leave_optimizers(optimizers: Sequence[Any], models: Sequence[Any], run: str) -> None:
    """A run ends that took steps with these optimizers. Call it in no_grad."""
    sums = [weights_of([bare(model)], trainable=True)["crc"] for model in models]
    for optimizer in optimizers:
        if optimizer is not None and optimizer.state and _is_key(optimizer):
            _stepped[optimizer] = run, sums


def carried(optimizer: Any, models: Sequence[Any]) -> str | None:
    """The run whose optimizer goes on here with its state, though the weights are not those that it left.

    Call it in no_grad, before the first step of a run that is no resume.
    """
    left = _stepped.get(optimizer) if _is_key(optimizer) and optimizer.state else None
    sums = [weights_of([bare(model)], trainable=True)["crc"] for model in models] if left is not None else []
    return left[0] if left is not None and not set(left[1]) & set(sums) else None


class Marks:
    """How often the first and the last trainable tensor of each model has been written to in place.

    A model that was made or loaded anew after its last step, while its log was still open, is not what the run left.
    """

    def __init__(self, models: Sequence[Any]) -> None:
        self._tensors: list[Any] = []
        for model in models:
            trainable = [p for p in model.parameters() if p.requires_grad]
            self._tensors += trainable[:1] + trainable[-1:]
        self.begun = self._sums(models)
        self._versions: list[int] | None = None

    def stepped(self) -> None:
        """A step was logged."""
        self._versions = [tensor._version for tensor in self._tensors]

    def stand(self, models: Sequence[Any]) -> bool:
        """Are the weights those of the last step, and others than those that the run began with?"""
        return self._versions == [tensor._version for tensor in self._tensors] and self._sums(models) != self.begun

    def _sums(self, models: Sequence[Any]) -> list[str]:
        return [weights_of([bare(model)], trainable=True)["crc"] for model in models]


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
