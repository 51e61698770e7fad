"""The weight of each micro-batch in its step: the gradient that reaches its loss, as backward() passes it on."""

from __future__ import annotations

from typing import Any

from eegwatch.watching.tensors import torch_module

MOST = 1024  # micro-batches of a step that are kept


class Seed:
    """A hook on one loss. `value`: the gradient that reached it, None until backward() comes."""

    __torch_unserializable__ = True

    def __init__(self, items: float) -> None:
        self.items = items
        self.value: Any = None

    def __call__(self, gradient: Any) -> None:
        self.value = gradient.detach()


class Micros:
    """The micro-batches since the last step."""

    def __init__(self) -> None:
        self._seeds: list[Seed] = []
        self._unit = 0.0

    def add(self, loss: Any, items: float) -> None:
        """Put a hook on the loss of a micro-batch of `items` items."""
        torch = torch_module()
        if isinstance(loss, torch.Tensor) and loss.requires_grad and loss.numel() == 1 and len(self._seeds) < MOST:
            seed = Seed(float(items))
            loss.register_hook(seed)
            self._seeds.append(seed)
            self._unit = max(self._unit, float(torch.finfo(loss.dtype).eps))

    def take(self) -> dict[str, Any] | None:
        """{"items", "seeds", "unit"} of the step just taken; None where no loss was told of, or one was not used."""
        seeds, self._seeds = self._seeds, []
        if not seeds or len(seeds) >= MOST or any(seed.value is None for seed in seeds):
            return None
        weights = [float(seed.value) for seed in seeds]
        return {"items": [seed.items for seed in seeds], "seeds": weights, "unit": self._unit}
