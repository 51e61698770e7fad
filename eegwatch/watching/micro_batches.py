"""The weight of each item of a step's micro-batches: what backward() passes to a loss, and what the loss is made of.

The weight of a loss is the gradient that reaches it. Between that loss and the mean or sum that made it lie divisions
and products by numbers, which autograd's graph holds: they count too, so it does not matter whether log.micro() is
called before or after them. Where the graph is of another kind, the loss is taken as the mean of its items.
"""

from __future__ import annotations

from typing import Any

from eegwatch.watching.gradients import GradientReport, graph_task
from eegwatch.watching.tensors import torch_module

MOST = 1024  # micro-batches of a step that are kept
DEEP = 12  # nodes of the graph between a loss and its mean or sum
MEAN, SUM = 1, 2  # torch's reductions


class LossHook:
    """A hook on one loss. `value`: the gradient that reached it, None until backward() comes."""

    __torch_unserializable__ = True

    def __init__(self, loss: Any, items: float) -> None:
        self.items = items
        self.factor, self.reduction = made_of(loss)
        self.value: Any = None
        self.task: int | None = None  # the call of backward() that came to it

    def __call__(self, gradient: Any) -> None:
        self.value, self.task = gradient.detach(), graph_task()


class MicroBatches:
    """The micro-batches since the last step."""

    def __init__(self) -> None:
        self._seeds: list[LossHook] = []
        self._unit = 0.0

    def add(self, loss: Any, items: float) -> None:
        """Put a hook on the loss of a micro-batch of `items` items."""
        torch = torch_module()
        if isinstance(loss, torch.Tensor) and loss.requires_grad and loss.numel() == 1 and len(self._seeds) < MOST:
            seed = LossHook(loss, float(items))
            loss.register_hook(seed)
            self._seeds.append(seed)
            self._unit = max(self._unit, float(torch.finfo(loss.dtype).eps))

    def forget(self) -> None:
        """The step of these micro-batches has failed."""
        self._seeds = []

    def take(self, seen: GradientReport, *, several: bool) -> dict[str, Any] | None:
        """{"items", "weights", "unit"} of the step just taken; None where a loss was not used, or nothing is known.

        `weights`: of one item of each micro-batch in the gradient. `seen`: the passes since the step before; one whose
        gradients were cleared is of a step that the script has left out. Of `several` optimizers, a micro-batch is
        that one's which has seen its pass.
        """
        seeds, self._seeds = self._seeds, []
        if several:
            self._seeds = [seed for seed in seeds if seed.task not in seen.tasks]
            seeds = [seed for seed in seeds if seed.task in seen.tasks]
        seeds = [seed for seed in seeds if seed.task not in seen.tasks or seed.task in seen.used]
        if not seeds or len(seeds) >= MOST or any(seed.value is None for seed in seeds):
            return None
        values = [float(seed.value) for seed in seeds]
        if all(seed.reduction is None for seed in seeds) and all(value == values[0] for value in values):
            return None  # a loss of unknown make, used as it is: a mean or a share of one, nobody can tell
        weights = [
            value * seed.factor / (1.0 if seed.reduction == SUM else seed.items) for value, seed in zip(values, seeds)
        ]
        return {"items": [seed.items for seed in seeds], "weights": weights, "unit": self._unit}


def made_of(loss: Any) -> tuple[float, int | None]:
    """(the product of the numbers between a loss and its mean or sum, MEAN or SUM; None where that is not seen)."""
    torch, factor, node = torch_module(), 1.0, loss.grad_fn
    for _ in range(DEEP):
        if node is None:
            break
        name = node.name()
        if name == "MeanBackward0":
            return factor, MEAN
        if name == "SumBackward0":
            return factor, SUM
        reduction = getattr(node, "_saved_reduction", None)
        if reduction is not None:
            return (factor, int(reduction)) if reduction in (MEAN, SUM) else (1.0, None)
        if name in ("DivBackward0", "MulBackward0"):
            other = node._saved_other
            if not isinstance(other, torch.Tensor) or other.numel() != 1 or other.requires_grad:
                break
            factor = factor / float(other) if name == "DivBackward0" else factor * float(other)
        elif name == "NegBackward0":
            factor = -factor
        elif name not in ("ToCopyBackward0", "CloneBackward0", "SqueezeBackward0", "ViewBackward0"):
            break
        node = node.next_functions[0][0]
    return 1.0, None
