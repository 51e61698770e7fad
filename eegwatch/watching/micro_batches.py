"""The weight of each item of a step's micro-batches: what backward() passes to a loss, and what the loss is made of.

The weight of a loss is the gradient that reaches it. Between that loss and the mean or sum that made it lie divisions
and products by numbers, which autograd's graph holds: they count too, so it does not matter whether log.micro() is
called before or after them. Where the graph is of another kind, the loss is taken as the mean of its items.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from eegwatch.watching.backward_roots import FACTORS, MEAN, PASSING, SUM, SUMS, made_from, reduction_of
from eegwatch.watching.gradients import GradientReport, graph_task
from eegwatch.watching.tensors import torch_module

MOST = 1024  # micro-batches of a step that are kept
DEEP = 24  # nodes of the graph between a loss and its means or sums
WHOLE = 1e-6  # relative: a weight of one in float32


class LossHook:
    """A hook on one loss. `value`: the gradient that reached it, None until backward() comes."""

    __torch_unserializable__ = True

    def __init__(self, loss: Any, items: float) -> None:
        self.items = items
        self.factor, self.reduction, self.of_several = made_of(loss, items)
        self.value: Any = None
        self.task: int | None = None  # the call of backward() that came to it

    def __call__(self, gradient: Any) -> None:
        self.value, self.task = gradient.detach(), graph_task()


class MicroBatches:
    """The micro-batches since the last step."""

    def __init__(self) -> None:
        self._seeds: list[LossHook] = []
        self._unit = 0.0
        self.used = False  # was log.micro() called?

    def add(self, loss: Any, items: float) -> None:
        """Put a hook on the loss of a micro-batch of `items` items."""
        torch, self.used = torch_module(), True
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
        came = [float(seed.value) for seed in seeds]
        if all(seed.reduction is None for seed in seeds) and all(value == came[0] for value in came):
            return None  # a loss of unknown make, used as it is: a mean or a share of one, nobody can tell
        weights = [
            value * seed.factor / (1.0 if seed.reduction == SUM else seed.items) for value, seed in zip(came, seeds)
        ]
        values: dict[str, Any] = {"items": [seed.items for seed in seeds], "weights": weights, "unit": self._unit}
        return values | ({"of_several": True} if any(seed.of_several for seed in seeds) else {})


def made_of(loss: Any, items: float) -> tuple[float, int | None, bool]:
    """(the product of the numbers between a loss and its mean or sum, MEAN or SUM or None, is it a sum of several?).

    None where it is not seen. A sum of losses is taken as the mean that log.micro() asks for where one of them has the
    weight of a mean at least: divided by the number of micro-batches, each would have less.
    """
    found = list(_terms(loss.grad_fn))
    if len(found) == 1:
        return *found[0], False
    weights = [abs(factor) * (items if reduction == SUM else 1.0) for factor, reduction in found]
    if any(reduction is None for _, reduction in found) or max(weights) < 1 - WHOLE or not _is_sum(loss.grad_fn):
        return 1.0, None, False
    return 1.0, MEAN, True


def _is_sum(node: Any) -> bool:
    """Is a loss a sum as it is, not a sum that was divided or multiplied as a whole?"""
    while node.name() in PASSING and len(made_from(node)) == 1:
        node = made_from(node)[0]
    return node.name() in SUMS


def _terms(loss: Any) -> Iterator[tuple[float, int | None]]:
    """(factor, reduction) of each term of a loss."""
    torch, waiting, seen = torch_module(), [(loss, 1.0)], 0
    while waiting:
        node, factor = waiting.pop()
        seen += 1
        name = "" if node is None or seen > DEEP else node.name()
        below = [] if node is None else made_from(node)
        if name in SUMS and below:
            sign = -1.0 if name.startswith("Sub") else 1.0
            weighed = factor * sign * float(getattr(node, "_saved_alpha", 1))
            waiting += [(one, factor if one is node.next_functions[0][0] else weighed) for one in below]
        elif name in FACTORS and len(below) == 1:
            first = node.next_functions[0][0] is not None
            other = node._saved_other if first else node._saved_self
            if not isinstance(other, torch.Tensor) or other.numel() != 1 or other.requires_grad:
                yield 1.0, None
            else:
                by = float(other)
                waiting.append((below[0], factor * by if name.startswith("Mul") else factor / by if by else factor))
        elif name in PASSING and len(below) == 1:
            waiting.append((below[0], -factor if name.startswith("Neg") else factor))
        else:
            reduction = None if not name else reduction_of(node, name)
            yield (1.0 if reduction is None else factor), reduction
