"""The losses that a step's gradient was made of, against the loss that log.step() is told and that gradient.

Of one step are known: the losses that backward() was called on (BackwardRoots), the factor between the gradient that
the last call left and the one that the step used, the scale of the declared gradient scaler, and the logged loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eegwatch.watching.backward_roots import (
    FACTORS,
    BackwardRoots,
    Root,
    Term,
    nodes_below,
    path_of,
    terms_of,
)
from eegwatch.watching.cadence import FIRST
from eegwatch.watching.tensors import torch_module

if TYPE_CHECKING:
    from eegwatch.watching.gradients import GradientReport
    from eegwatch.watching.optimizer_listener import OptimizerListener

NEAR = 1e-4  # relative: a factor between two losses in float32
EXACTLY = 1e-6  # relative: a power of two between two losses that no graph relates
TERMS = 8  # of a logged loss at most


@dataclass
class StepLosses:
    """What a step was made of. `used`: the factor from the gradients that backward() left to those of the step."""

    opt: int
    step: int
    roots: list[Root | None]
    used: float | None
    scale: float | None
    by_scaler: bool
    reads_grad: bool
    held: frozenset[int] | None  # ids of what the watched optimizers hold, at the first steps


class Losses:
    """The losses of the steps that are looked at, until they are logged."""

    def __init__(self) -> None:
        self.roots = BackwardRoots()
        self.waiting: dict[int, StepLosses] = {}  # by optimizer
        self._trained: set[tuple[str, int]] = set()  # the nodes of all terms that backward() was called on
        self._told: set[int] = set()  # optimizers of which something was written
        self._thrown: dict[int, set[int]] = {}  # call of backward() -> optimizers that cleared its gradient unused
        self._stray: dict[
            int, tuple[int, Term]
        ] = {}  # optimizer -> (call, a term of it that does not reach its tensors)

    def stepped(
        self, listener: OptimizerListener, seen: GradientReport, scaled: float, *, by_scaler: bool
    ) -> dict[str, Any]:
        """A step was looked at; `scaled`: what a fused step divides by; `by_scaler`: has the declared scaler called it?

        Returns what is to be written with the look.
        """
        roots = [self.roots.calls.get(task) for task in sorted(seen.used)]
        used = None if seen.factor is None else seen.factor / scaled
        listeners = listener.watcher.listeners
        first = all(one.taken <= FIRST for one in listeners)  # all of their passes are seen
        held = frozenset().union(*(one.table.ids for one in listeners)) if first else None
        self.waiting[listener.number] = StepLosses(
            listener.number, listener.step, roots, used, listener.scale(), by_scaler, listener.reads_grad, held
        )
        known = self.roots.calls
        if first:
            self._trained |= {term.node for root in known.values() if root is not None for term in root.terms}
        self._thrown = {task: numbers for task, numbers in self._thrown.items() if task in known}
        for task in seen.thrown:
            self._thrown.setdefault(task, set()).add(listener.number)
        return self._strayed(listener, seen) if self.roots.follows else {}

    def unlike(self, tasks: set[int]) -> bool:
        """Were these calls of backward() on losses of several kinds, as far as all are known?"""
        roots = [self.roots.calls.get(task) for task in tasks]
        return all(root is not None for root in roots) and len({root.kind for root in roots if root is not None}) > 1

    def _strayed(self, listener: OptimizerListener, seen: GradientReport) -> dict[str, Any]:
        """{"stray"}: a term of the last step's loss reached another optimizer alone, which cleared it unused."""
        before, values = self._stray.pop(listener.number, None), {}
        if before is not None and self._thrown.get(before[0], set()) - {listener.number}:
            values["stray"] = before[1].node[0].removesuffix("Backward0")
        held = listener.table.ids
        others = frozenset().union(*(one.table.ids for one in listener.watcher.listeners if one is not listener))
        for task in seen.used:
            root = self.roots.calls.get(task)
            terms = [] if root is None or len(root.terms) < 2 else root.terms
            known = [term for term in terms if term.leaves is not None]
            away = [term for term in known if not term.leaves & held and term.leaves & others]  # type: ignore[operator]
            through = any(term.leaves & held and term.leaves & others for term in known)  # type: ignore[operator]
            if away and len(away) < len(known) and not through:
                self._stray[listener.number] = task, away[0]
        return values

    def logged(
        self, loss: Any, value: float | None, *, world: int, by_micro: bool
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """log.step() was told this loss: (step, what is to be written) of each step since. Call it in no_grad.

        `world`: of copies whose gradients are averaged, else 1. `by_micro`: log.micro() weighs the losses.
        """
        waiting, self.waiting = self.waiting, {}
        for opt, of_step in waiting.items():
            values = self._compared(of_step, loss, value, world, by_micro)
            if values or opt in self._told:
                (self._told.add if values else self._told.discard)(opt)
                yield of_step.step, {"opt": opt, "passes": len(of_step.roots)} | values

    def _compared(
        self, of_step: StepLosses, loss: Any, value: float | None, world: int, by_micro: bool
    ) -> dict[str, Any]:
        roots = [root for root in of_step.roots if root is not None]
        values: dict[str, Any] = {}
        if not roots or len(roots) != len(of_step.roots):
            return values
        last, scale = roots[-1], of_step.scale
        if value is None and loss is not None:
            value = float(loss)
        factor, products = factor_between(last, loss, value)
        seeded = last.given
        if len(roots) == 1 and seeded != 1.0 and abs(last.value - 1.0) > NEAR and near(seeded, last.value):
            values["seeded"] = seeded
        before = {root.scale for root in roots}
        if scale is not None and before not in ({None}, {scale}) and len(before) == 1 and of_step.reads_grad:
            values["before"] = before.pop()
        scaled = scale is not None and factor is not None and near(factor, scale)
        plain = sum(root.is_mean(int(scaled)) for root in roots)
        if len(roots) > 1 and not by_micro and len({root.kind for root in roots}) == 1:
            values["plain"] = plain
        if scale is not None and of_step.reads_grad:
            values |= {"scale": scale, "unscaled_mean": all(root.is_mean(0) for root in roots)}
            if not of_step.by_scaler:
                values["apart"] = True
        if factor is not None and (not near(factor, 1.0) or scale is not None):
            values |= {"factor": factor} | ({} if products is None else {"products": products})
            if world > 1 and products == 1 and not _gathers(loss.grad_fn):
                values |= {"world": world, "own_mean": last.own_mean}
        if len({root.path[0] for root in roots}) < len(roots):
            values["twice"] = True
        if world > 1 and len(roots) == 1 and factor is not None and near(factor, 1.0) and products == 0:
            values |= {"gathered": world} if of_step.held is not None and _own_part(loss.grad_fn, world) else {}
        if values and of_step.used is not None:
            values["used"] = of_step.used
        untrained = self._untrained(loss, of_step.held)
        return values | ({"untrained": untrained} if untrained is not None else {})

    def _untrained(self, loss: Any, held: frozenset[int] | None) -> str | None:
        """A term of the logged loss that has held parameters below it, and that no call of backward() was for.

        All calls are seen at the first steps alone: a script may log the sum of its losses so far.
        """
        node = getattr(loss, "grad_fn", None)
        if node is None or held is None:
            return None
        terms = list(terms_of(node, follows=True))
        trained = [term.node in self._trained for term in terms]
        if not 1 < len(terms) <= TERMS or not any(trained) or all(trained):
            return None
        left = [
            term for term, done in zip(terms, trained) if not done and term.leaves is not None and term.leaves & held
        ]
        return left[0].node[0].removesuffix("Backward0") if left else None


def factor_between(root: Root, loss: Any, value: float | None) -> tuple[float | None, int | None]:
    """(the loss of backward() by the logged one; the products that lie between the two, where the one is made of the
    other by numbers alone). None where it is not known."""
    if value is None or not value or not math.isfinite(value) or not root.value or not math.isfinite(root.value):
        return None, None
    factor, node = root.value / value, getattr(loss, "grad_fn", None)
    path = path_of(node) if node is not None and isinstance(loss, torch_module().Tensor) else ()
    for above, below in ((root.path, path), (path, root.path)):
        if below and below[0] in above:
            between = above[: above.index(below[0])]
            return factor, sum(name in FACTORS for name, _ in between)
    if path and set(path) & set(root.path):
        return factor, None
    two = 2.0 ** round(math.log2(abs(factor)))
    return (factor if abs(factor / two - 1) <= EXACTLY else None), None


def _gathers(loss: Any) -> bool:
    """May what other ranks have computed be a part of this loss? Then it may be multiplied by their number."""
    nodes = nodes_below(loss)
    kinds = torch_module().autograd.function.BackwardCFunction
    joins = ("Cat", "Stack", "CopySlices", "IndexPut", "Gather", "Reduce")
    return nodes is None or any(isinstance(n, kinds) or n.name().startswith(joins) for n in nodes)


def _own_part(loss: Any, world: int) -> bool:
    """Is this loss made of what all ranks have computed, of which its own rank's part alone has a graph?

    Of two ranks two such tensors are asked for: a batch may be joined of two parts, one of which has no graph.
    """
    joined = [
        [below for below, _ in node.next_functions]
        for node in nodes_below(loss) or ()
        if node.name() in ("CatBackward0", "StackBackward0") and getattr(node, "_saved_dim", None) == 0
    ]
    found = sum(len(parts) == world and sum(one is not None for one in parts) == 1 for parts in joined)
    return found >= (2 if world == 2 else 1)


def near(one: float, other: float) -> bool:
    return abs(one - other) <= NEAR * abs(other)
