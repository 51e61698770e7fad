"""Running statistics of an average of the weights: do they stand while the model's move, and are they used?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from eegwatch.watching.module_hooks import AtPass
from eegwatch.watching.tensors import bit_sums, compiling, is_compiled, plain_name, torch_module

PLACES = ("", "module", "ema", "model", "ema_model", "_average_model")  # where an average keeps its module
FEW = 8  # tensors of its weights that tell whether an average was updated


class AverageStatistics:
    """Looks on when a batch norm of an average runs in evaluation mode. What stands is written by `emit`, once."""

    def __init__(
        self, average: Any, models: Sequence[Any], number: int, guarded: Any, emit: Callable[..., None]
    ) -> None:
        self._number, self._guarded, self._emit = number, guarded, emit
        self._handle: Any = None
        self._pairs: list[tuple[Any, Any]] = []
        self._weights: list[Any] = []
        places = (getattr(average, name, None) if name else average for name in PLACES)
        module = next((one for one in places if hasattr(one, "named_modules")), None)
        if module is None or any(is_compiled(one) for one in module.modules()):
            return
        own = {plain_name(name): one for model in models for name, one in model.named_modules()}
        pairs = [(one, own.get(plain_name(name))) for name, one in module.named_modules()]
        self._pairs = [(a, w) for a, w in pairs if _has_statistics(a) and _has_statistics(w) and a is not w]
        if self._pairs:
            self._weights = list(module.parameters())[:FEW]
            with torch_module().no_grad():
                self._before = self._read(0), self._read(1), bit_sums(self._weights)
            self._handle = self._pairs[0][0].register_forward_pre_hook(AtPass(self._passed))

    def _read(self, which: int) -> list[int]:
        """The sums of the running means: of the average (0), of the model (1)."""
        return bit_sums(pair[which].running_mean for pair in self._pairs)

    def _passed(self, module: Any, *_: Any) -> None:
        if module.training or compiling():
            return
        with self._guarded(), torch_module().no_grad():
            if self._read(0) != self._before[0]:
                self.close()  # they follow, or have been set
            elif bit_sums(self._weights) == self._before[2]:
                return  # it has not been updated yet, and its statistics may be with it
            elif all(now != then for now, then in zip(self._read(1), self._before[1])):
                self._emit("ema", {"average": self._number, "n": 1, "what": "statistics", "norms": len(self._pairs)})
                self.close()

    def close(self) -> None:
        """Take the hook off."""
        if self._handle is not None:
            self._handle.remove()
            self._handle, self._pairs, self._weights = None, [], []


def _has_statistics(module: Any) -> bool:
    mean = getattr(module, "running_mean", None)
    return isinstance(mean, torch_module().Tensor) and bool(mean.numel())
