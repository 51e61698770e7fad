"""Around an evaluation: the bits of the weights and batch norms before and after it, and the mode of what ran in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eegwatch.watching.eye import some
from eegwatch.watching.surroundings import WITH_MODES
from eegwatch.watching.tensors import bit_sums, plain_name, prefixed, torch_module, why_unread

STATISTICS = ("running_mean", "running_var")  # other buffers are counters and caches, which an evaluation may move


def _nothing(*given: Any) -> None:
    """What a copy of a watched module calls in place of the hook."""


class AtForward:
    """A hook on a module whose forward pass depends on its mode: notes that it ran in training mode."""

    def __init__(self, name: str, trained: dict[str, bool]) -> None:
        self._name, self._trained = name, trained

    def __call__(self, module: Any, given: Any) -> None:
        if module.training:
            self._trained[self._name] = True

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return _nothing

    def __reduce__(self) -> str | tuple[Any, ...]:
        return (_nothing_made, ())


def _nothing_made() -> Any:
    return _nothing


class Evaluation:
    """One evaluation of the watched models."""

    def __init__(self, models: Sequence[Any]) -> None:
        self._trained: dict[str, bool] = {}
        self._handles: list[Any] = []
        self._tensors: dict[str, Any] = {}
        self._modules = 0
        for number, model in enumerate(models):
            compiled = any(_is_compiled(module) for module in model.modules())
            for name, module in model.named_modules():
                at = prefixed(number, plain_name(name) or type(module).__name__)
                self._read(at, module)
                if not compiled and any(kind in type(module).__name__ for kind in WITH_MODES):
                    self._modules += 1
                    self._handles.append(module.register_forward_pre_hook(AtForward(at, self._trained)))
        with torch_module().no_grad():
            self._sums = bit_sums(self._tensors.values())

    def _read(self, at: str, module: Any) -> None:
        found = list(module.named_parameters(recurse=False))
        found += [(name, one) for name, one in module.named_buffers(recurse=False) if name in STATISTICS]
        self._tensors |= {f"{at}.{name}": one for name, one in found if why_unread(one) is None}

    def finish(self) -> dict[str, Any]:
        """{"modules": how many modes were watched, "train_mode", "changed": what ran so, and what is another now}."""
        self.close()
        with torch_module().no_grad():
            now = bit_sums(self._tensors.values())
        values: dict[str, Any] = {"modules": self._modules, "tensors": len(now)}
        changed = [name for name, a, b in zip(self._tensors, self._sums, now) if a != b]
        if changed:
            values["changed"] = some(changed)
        if self._trained:
            values["train_mode"] = some(list(self._trained))
        return values

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []


def _is_compiled(module: Any) -> bool:
    """Does torch.compile run this module? A hook on it would have it compiled again."""
    return type(module).__name__ == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None
