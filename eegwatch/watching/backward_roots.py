"""What each call of backward() began with: the value of its loss, what that is made of, the gradient it was given.

torch tells its hooks nothing of the tensor that backward() was called on. While they run, that call waits in a frame of
Python, in this thread on a CPU and in another one where a GPU takes part; its arguments are read, and not kept. The
graph behind the loss still has its nodes then, and no longer the numbers that it had saved.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

from eegwatch.watching.tensors import torch_module, why_unread

CALLS = 64  # calls of backward() that are remembered
NODES = 64  # nodes between a loss and what it is the mean or sum of
WALKED = 5000  # nodes below a loss that are looked at
WALKS = 6  # calls whose terms are followed to the parameters
MEAN, SUM = 1, 2  # torch's reductions
FACTORS = ("MulBackward0", "DivBackward0")
SUMS = ("AddBackward0", "SubBackward0")
PASSING = (
    "NegBackward0",
    "ToCopyBackward0",
    "CloneBackward0",
    "SqueezeBackward0",
    "ViewBackward0",
    "UnsqueezeBackward0",
)
Node = tuple[str, int]  # name and sequence number


@dataclass(frozen=True)
class Term:
    """A part of a loss that is a sum. `factors`: products and divisions by numbers above it, one of them at the top."""

    node: Node
    factors: int
    reduction: int | None
    leaves: frozenset[int] | None = None  # ids of the tensors that its gradient reaches, where they were looked for


@dataclass(frozen=True)
class Root:
    """One call of backward() on one number.

    `path`: the nodes from it down to where it is a sum of terms, or made of more than a number. `top`: is the first of
    them a product?
    """

    value: float
    given: float
    path: tuple[Node, ...]
    terms: tuple[Term, ...]
    scale: float | None = None  # of the declared gradient scaler at that time

    def is_mean(self, factors: int) -> bool:
        """Is a term of it the mean of its items, with so many products and divisions above it?"""
        return any(term.reduction == MEAN and term.factors == factors for term in self.terms)

    @property
    def own_mean(self) -> bool:
        """Is it the mean that one of torch's loss functions makes, times numbers?"""
        return len(self.terms) == 1 and self.terms[0].reduction == MEAN and self.terms[0].node[0] != "MeanBackward0"

    @property
    def kind(self) -> tuple[tuple[str, int, int | None], ...]:
        """What the loss is made of: the same for losses that the same lines compute."""
        return tuple((term.node[0], term.factors, term.reduction) for term in self.terms)


class BackwardRoots:
    """The newest calls of backward(), by their number (gradients.graph_task)."""

    def __init__(self) -> None:
        self.calls: dict[int, Root | None] = {}
        self.scale: Callable[[], float | None] = lambda: None  # of the declared gradient scaler
        self.follows = False  # are the terms to be followed to the parameters?
        self._walks = 0

    def came(self, task: int) -> None:
        """A gradient came in this call of backward(). Call it in a hook."""
        if task < 0 or task in self.calls:
            return
        while len(self.calls) >= CALLS:
            del self.calls[next(iter(self.calls))]
        self.calls[task] = self._read()

    def _read(self) -> Root | None:
        torch, frame = torch_module(), running_backward()
        if frame is None:
            return None
        told = frame.f_locals
        tensors, rest = told.get("t_outputs", ()), told.get("args", ())
        if len(tensors) != 1 or not rest or not isinstance(tensors[0], torch.Tensor):
            return None
        loss, given = tensors[0], rest[0][0]
        if loss.numel() != 1 or loss.grad_fn is None or why_unread(loss) is not None:
            return None
        follows = self.follows and self._walks < WALKS
        terms = tuple(terms_of(loss.grad_fn, follows))
        self._walks += follows and len(terms) > 1
        return Root(
            float(loss.detach()), 1.0 if given is None else float(given), path_of(loss.grad_fn), terms, self.scale()
        )


def running_backward() -> FrameType | None:
    """The frame of the call of backward() that a hook runs in; None where it is not one alone."""
    engine = getattr(torch_module().autograd.graph, "_engine_run_backward", None)
    code = getattr(engine, "__code__", None)
    own = _innermost(sys._getframe(1), code)
    if own is not None:
        return own
    waiting = [one for one in (_innermost(frame, code) for frame in sys._current_frames().values()) if one is not None]
    return waiting[0] if len(waiting) == 1 else None


def _innermost(frame: FrameType | None, code: Any) -> FrameType | None:
    """The last call of this function on the stack that ends with `frame`."""
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame


def made_from(node: Any) -> list[Any]:
    """The nodes whose results a node was computed from, numbers and tensors without a gradient left out."""
    return [one for one, _ in node.next_functions if one is not None]


def named(node: Any) -> Node:
    return str(node.name()), int(node._sequence_nr())


def path_of(node: Any) -> tuple[Node, ...]:
    """The nodes from a loss down, as long as each is a product with a number, a copy or a view of the next."""
    path = [named(node)]
    while path[-1][0] in (*FACTORS, *PASSING) and len(path) < NODES:
        below = made_from(node)
        if len(below) != 1:
            break
        node = below[0]
        path.append(named(node))
    return tuple(path)


def terms_of(loss: Any, follows: bool = False) -> Iterator[Term]:
    """The terms of a loss. `follows`: with the parameters below each."""
    waiting, seen = [(loss, 0)], 0
    while waiting and seen < NODES:
        node, factors = waiting.pop(0)
        seen += 1
        (name, _), below = named(node), made_from(node)
        if name in FACTORS and len(below) == 1:
            waiting.append((below[0], factors + 1))
        elif name in PASSING and len(below) == 1:
            waiting.append((below[0], factors))
        elif name in SUMS:
            weighed = getattr(node, "_saved_alpha", 1) != 1
            waiting += [(one, factors + (weighed and one is not below[0])) for one in below]
        elif name in ("SumBackward0", "MeanBackward0") and below and below[0].name() == "StackBackward0":
            waiting += [(one, factors + (name == "MeanBackward0")) for one in made_from(below[0])]
        else:
            yield Term(named(node), factors, reduction_of(node, name), leaves_below(node) if follows else None)


def reduction_of(node: Any, name: str) -> int | None:
    """MEAN or SUM where a node makes a number of many; None where that is not known."""
    if name == "MeanBackward0":
        return MEAN
    if name == "SumBackward0":
        return SUM
    told = getattr(node, "_saved_reduction", None)
    return int(told) if told in (MEAN, SUM) else None


def nodes_below(node: Any) -> set[Any] | None:
    """A node and all that it was computed from; None where there are too many."""
    waiting, seen = [node], {node}
    while waiting:
        following = set(made_from(waiting.pop())) - seen
        seen |= following
        waiting += following
        if len(seen) > WALKED:
            return None
    return seen


def leaves_below(node: Any) -> frozenset[int] | None:
    """The ids of the leaves below a node; None where there are too many nodes."""
    nodes = nodes_below(node)
    variables = [getattr(one, "variable", None) for one in nodes or ()]
    return None if nodes is None else frozenset(id(one) for one in variables if one is not None)
