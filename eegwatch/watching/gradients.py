"""What happens to gradients between two steps: hooks on some parameters, from one step to the next.

Each backward pass that adds to a parameter's gradient is seen before it adds: what lies there then, and that it came.
A gradient that the last step used and that is still there, bit by bit, when the first pass adds to it, and that nothing
has cleared until the next step, is part of that step too. The hooks read and return nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eegwatch.watching.held import Held
from eegwatch.watching.tensors import compiling, host, joined, torch_module

MOST_PASSES = 16  # backward passes between two steps whose beginnings are kept


def sampled(held: Held, gradient: Any) -> Any | None:
    """Elements of a gradient at the fixed places; None where there is none that can be read."""
    torch = torch_module()
    if gradient is None or gradient.layout is not torch.strided or gradient.numel() != held.parameter.numel():
        return None
    return torch.take(gradient.detach(), held.places)


class Trace:
    """The hook on one parameter. `passes`: how many times a backward pass came; `before`: what it found each time."""

    __torch_unserializable__ = True  # a tensor that is pickled loses it, and torch need not warn of that

    def __init__(self, held: Held) -> None:
        self.held = held
        self.stale = sampled(held, held.parameter.grad)  # what the last step left
        self.passes = 0
        self.before: list[Any | None] = []
        self._found: Any | None = None  # what lay there when a gradient came
        self.failed: Exception | None = None

    def __call__(self, gradient: Any) -> None:
        if compiling() or self.failed is not None:
            return
        try:
            self._found = sampled(self.held, self.held.parameter.grad)
        except Exception as error:  # it is told after the step; a backward pass must not die of it
            self.failed = error

    def added(self, parameter: Any) -> None:
        """The gradient was added: torch.autograd.grad() calls the hook above too, and adds nothing."""
        if not compiling():
            self.passes += 1
            if self.passes <= MOST_PASSES:
                self.before.append(self._found)
            self._found = None

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """A copy of a tensor is not watched."""

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return (type(None), ())


@dataclass
class Seen:
    """What the traces of one step say. `kept`: tensors whose last gradient became part of this step's, and one value.

    `again`: the step used the very gradient of the last one, with no backward pass between. `dropped`: backward passes
    came, and the step found no gradient at all. `passes`: the most passes that one tensor has seen; `counted`: those of
    them that this step's gradient holds.
    """

    kept: list[tuple[str, float]] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    passes: int = 0
    counted: int = 0


class Gradients:
    """The traces between two steps of one optimizer."""

    def __init__(self) -> None:
        self._traces: list[Trace] = []
        self._left: dict[int, Any] = {}  # what the last step left of those without a hook, by id of Held
        self._handles: list[Any] = []

    def arm(self, chosen: Sequence[Held], shared: set[int]) -> None:
        """Put hooks on these tensors; not on those that another watched optimizer holds too."""
        self.disarm()
        for held in chosen:
            parameter = held.parameter
            if parameter.requires_grad and parameter.is_leaf and id(parameter) not in shared:
                trace = Trace(held)
                self._traces.append(trace)
                self._handles.append(parameter.register_hook(trace))
                self._handles.append(parameter.register_post_accumulate_grad_hook(trace.added))
            elif parameter.grad is not None:
                self._left[id(held)] = sampled(held, parameter.grad)

    def disarm(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._traces, self._left = [], [], {}

    @property
    def calls(self) -> int:
        """How many times the hooks were called."""
        return sum(trace.passes for trace in self._traces)

    def stale(self, held: Held) -> Any | None:
        """What the last step left as this tensor's gradient."""
        found = next((trace.stale for trace in self._traces if trace.held is held), None)
        return self._left.get(id(held)) if found is None else found

    def read(self) -> Seen:
        """What the passes since the last step have done; raises what a hook has raised. The hooks are taken off."""
        traces = self._traces
        self.disarm()
        for trace in traces:
            if trace.failed is not None:
                raise trace.failed
        pieces: list[Any] = []
        rows: list[tuple[Trace, int | None, list[int | None], int | None]] = []

        def kept(piece: Any | None) -> int | None:
            if piece is None:
                return None
            pieces.append(piece)
            return len(pieces) - 1

        for trace in traces:
            final = sampled(trace.held, trace.held.parameter.grad)
            rows.append((trace, kept(trace.stale), [kept(one) for one in trace.before], kept(final)))
        values = _split(pieces)
        seen = Seen()
        for trace, stale, before, final in rows:
            self._judge(seen, trace, _at(values, stale), [_at(values, one) for one in before], _at(values, final))
        having = [trace for trace in traces if trace.held.parameter.grad is not None]
        if having or not any(trace.passes for trace in traces):
            seen.dropped = []
        if any(trace.passes for trace in traces) or len(seen.again) < len([t for t in having if t.stale is not None]):
            seen.again = []
        return seen

    def _judge(
        self,
        seen: Seen,
        trace: Trace,
        stale: NDArray[np.float64] | None,
        before: list[NDArray[np.float64] | None],
        final: NDArray[np.float64] | None,
    ) -> None:
        name = trace.held.name
        begun = max((i for i, one in enumerate(before) if not _lies(one)), default=-1)  # the last pass onto nothing
        if trace.passes > seen.passes:
            seen.passes, seen.counted = trace.passes, trace.passes - max(begun, 0)
        if trace.passes and trace.held.parameter.grad is None:
            seen.dropped.append(name)
        if stale is None or final is None or not _lies(stale) or not _lies(final):
            return
        if not trace.passes and np.array_equal(stale, final):
            seen.again.append(name)
        if before and begun == -1 and before[0] is not None and np.array_equal(before[0], stale):
            at = int(np.argmax(np.abs(stale)))
            seen.kept.append((name, float(stale[at])))


def _lies(values: NDArray[np.float64] | None) -> bool:
    """Is there a gradient, and not all zero?"""
    return values is not None and bool((values != 0).any()) and bool(np.isfinite(values).all())


def _at(values: list[NDArray[np.float64]], at: int | None) -> NDArray[np.float64] | None:
    return None if at is None else values[at]


def _split(pieces: list[Any]) -> list[NDArray[np.float64]]:
    if not pieces:
        return []
    ends = np.cumsum([int(piece.numel()) for piece in pieces])[:-1]
    return list(np.split(host(joined(pieces)), ends))
