"""What happens to gradients between two steps: hooks on some parameters, from one step to the next.

Each backward pass that adds to a parameter's gradient is seen before it adds: what lies there then, and that it came.
A gradient that the last step used and that is still there, bit by bit, when the first pass adds to it, and that nothing
has cleared until the next step, is part of that step too. The hooks read and return nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eegwatch.watching.gather import Gathered
from eegwatch.watching.optimizer_tensors import OptimizerTensor
from eegwatch.watching.tensors import compiling, eagerly, elements, torch_module

MOST_PASSES = 16  # backward passes between two steps whose beginnings are kept
TABLES = ("_backward_hooks", "_post_accumulate_grad_hooks")  # torch's, on a tensor; None where it never had a hook
ASKED = 8  # traces that are asked whether a gradient was made on nothing
NOTHING = 0.0  # the factor of a gradient that is zero
ALIKE = 1e-3  # relative: elements of a gradient that were multiplied by one factor, whatever their type


def sampled(held: OptimizerTensor, gradient: Any) -> Any | None:
    """Elements of a gradient at the fixed places, perhaps as a view of it; None where none can be read."""
    torch = torch_module()
    if gradient is None or gradient.layout is not torch.strided or gradient.numel() != held.parameter.numel():
        return None
    return elements(gradient.detach(), held.count, held.stride)


def _copied(held: OptimizerTensor) -> Any | None:
    """Elements of a tensor's gradient as they are now."""
    gradient = held.parameter.grad
    found = None if gradient is None else sampled(held, gradient)
    return None if found is None else found.clone()


class GradientHook:
    """The hook on one parameter. `passes`: how many times a backward pass came; `before`: what it found each time."""

    def __init__(self, held: OptimizerTensor) -> None:
        self.held = held
        self.left = reference(held.parameter.grad)
        self.passes = self._told = 0
        self.before: list[Any | None] = []
        self.made: list[Any | None] = []  # what each pass left
        self.last: Any | None = None  # what the newest pass found
        self._found: Any | None = None  # what lay there when a gradient came
        self.failed: Exception | None = None

    def came(self, gradient: Any) -> None:
        """A gradient came; it is not added yet."""
        if compiling() or self.failed is not None:
            return
        try:
            self._found = _copied(self.held)
        except Exception as error:  # it is told after the step; a backward pass must not die of it
            self.failed = error

    def added(self, parameter: Any) -> None:
        """The gradient was added: torch.autograd.grad() calls the hook above too, and adds nothing."""
        if compiling() or self.failed is not None:
            return
        self.passes += 1
        self.last, self._found = self._found, None
        if self.passes <= MOST_PASSES:
            try:
                self.before.append(self.last)
                self.made.append(_copied(self.held))
            except Exception as error:
                self.failed = error

    def restart(self) -> None:
        """Count from now on; what lies there is not what a step has left."""
        self.passes = self._told = 0
        self.before, self.made = [], []
        self.left = None

    def renewed(self) -> bool | None:
        """Was a gradient made on nothing since this was last asked? None: no pass has come since."""
        if self.passes == self._told:
            return None
        self._told = self.passes
        return self.last is None or not bool((self.last != 0).any())

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """A copy of a tensor is not watched."""

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return (type(None), ())


@dataclass
class GradientReport:
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
    begins: int = 0  # of the passes of that tensor but the first, those that found nothing there
    shrunk: tuple[int, float] | None = None  # (pass, factor): what lay there was made smaller before it


class Gradients:
    """The traces between two steps of one optimizer."""

    def __init__(self) -> None:
        self._traces: list[GradientHook] = []
        self._left: dict[int, int] = {}  # id of Held -> number of the piece that the last step left as its gradient
        self._gathered = Gathered()
        self._handles: list[Any] = []
        self._bare: list[tuple[Any, str]] = []  # (parameter, table of hooks that it did not have)

    def arm(self, chosen: Sequence[OptimizerTensor], shared: set[int]) -> None:
        """Put hooks on these tensors; not on those that another watched optimizer holds too. Call it in no_grad."""
        self.disarm()
        for held in chosen:
            parameter = held.parameter
            if parameter.requires_grad and parameter.is_leaf and id(parameter) not in shared:
                trace = GradientHook(held)
                self._traces.append(trace)
                self._bare += [(parameter, name) for name in TABLES if getattr(parameter, name, None) is None]
                self._handles.append(parameter.register_hook(eagerly(trace.came)))
                self._handles.append(parameter.register_post_accumulate_grad_hook(eagerly(trace.added)))
            left = sampled(held, parameter.grad)
            if left is not None:
                self._left[id(held)] = self._gathered.add(left, held.count)
        self._gathered.copy()

    def disarm(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        for parameter, name in self._bare:
            if not getattr(parameter, name):  # an empty table would be asked in every backward pass: 0.7 µs a tensor
                setattr(parameter, name, None)
        self._handles, self._traces, self._left, self._gathered, self._bare = [], [], {}, Gathered(), []

    def restart(self) -> None:
        """Count backward passes from now on, between two steps: nothing that lies there is the last step's."""
        self._left, self._gathered = {}, Gathered()
        for trace in self._traces:
            trace.restart()

    @property
    def passes(self) -> int:
        """The most backward passes that one tensor has seen since the last step."""
        return max((trace.passes for trace in self._traces), default=0)

    def renewed(self) -> bool | None:
        """Were gradients made on nothing since this was last asked? None: no backward pass has come since."""
        told = [trace.renewed() for trace in self._traces[:ASKED]]
        return None if all(one is None for one in told) else any(told)

    def read(self, frozen: Sequence[OptimizerTensor]) -> tuple[GradientReport, dict[int, list[float]]]:
        """(what the passes since the last step have done, {id of Held: what the last step left} of these frozen ones).

        Raises what a hook has raised. The hooks are taken off.
        """
        traces, left, gathered = self._traces, self._left, self._gathered
        for trace in traces:
            if trace.left is not None and trace.left() is not trace.held.parameter.grad:
                trace.left = None  # another tensor, that somebody put there: not the gradient of the last step
        self.disarm()
        for trace in traces:
            if trace.failed is not None:
                raise trace.failed
        if not any(id(held) in left for held in frozen) and all(_from_nothing(trace) for trace in traces):
            return _of_fresh(traces), {}
        rows = [(trace, _numbered(trace, gathered)) for trace in traces]
        gathered.copy()
        values, starts = gathered.values()
        numbers = [values[begin:end].tolist() for begin, end in pairwise(starts)]

        def at(number: int | None) -> list[float] | None:
            return None if number is None else numbers[number]

        seen = GradientReport()
        factors: list[dict[int, float]] = []
        for trace, (before, made, final) in rows:
            found = [at(one) for one in before]
            _judge(seen, trace, at(left.get(id(trace.held))), found, at(final))
            if made:
                factors.append(_factors([at(one) for one in made], found))
        seen.shrunk = _shrunk(factors)
        having = [trace for trace in traces if trace.held.parameter.grad is not None]
        if having or not any(trace.passes for trace in traces):
            seen.dropped = []
        stale = [trace for trace in having if id(trace.held) in left]
        if any(trace.passes for trace in traces) or len(seen.again) < len(stale):
            seen.again = []
        return seen, {id(held): numbers[left[id(held)]] for held in frozen if id(held) in left}


def _from_nothing(trace: GradientHook) -> bool:
    """Did every pass find no gradient, and is there one now?"""
    grad = trace.held.parameter.grad
    return trace.passes == 1 and trace.before[0] is None and grad is not None


def _of_fresh(traces: list[GradientHook]) -> GradientReport:
    """One pass onto nothing for each: no value is of interest."""
    return GradientReport(passes=1, counted=1) if traces else GradientReport()


def _numbered(trace: GradientHook, gathered: Gathered) -> tuple[list[int | None], list[int | None], int | None]:
    """The numbers of the pieces: (what the passes found, what they left, the gradient as it is now)."""

    def kept(piece: Any | None) -> int | None:
        return None if piece is None else gathered.add(piece, trace.held.count)

    made = [kept(one) for one in trace.made] if len(trace.made) > 1 else []
    return [kept(one) for one in trace.before], made, kept(sampled(trace.held, trace.held.parameter.grad))


def _judge(
    seen: GradientReport,
    trace: GradientHook,
    stale: list[float] | None,
    before: list[list[float] | None],
    final: list[float] | None,
) -> None:
    name = trace.held.name
    begun = max((i for i, one in enumerate(before) if not _lies(one)), default=-1)  # the last pass onto nothing
    if trace.passes > seen.passes:
        seen.passes, seen.counted = trace.passes, trace.passes - max(begun, 0)
        seen.begins = sum(not _lies(one) for one in before[1:])
    if trace.passes and trace.held.parameter.grad is None:
        seen.dropped.append(name)
    if stale is None or final is None or not _lies(stale) or not _lies(final):
        return
    if not trace.passes and stale == final and trace.left is not None:
        seen.again.append(name)
    if before and begun == -1 and before[0] == stale:
        seen.kept.append((name, max(stale, key=abs)))


def reference(tensor: Any) -> Any | None:
    """A weak reference to a tensor: whether it is still the very one; None of nothing."""
    weak = getattr(getattr(torch_module().utils, "weak", None), "TensorWeakRef", None)
    return None if tensor is None or weak is None else weak(tensor)


def _factors(made: list[list[float] | None], found: list[list[float] | None]) -> dict[int, float]:
    """{pass: the factor between what the pass before left and what it found}, where it is one factor below 1."""
    factors = {}
    for number in range(1, min(len(made), len(found))):
        before, now = made[number - 1], found[number]
        if not _lies(before) or not _lies(now):
            factors[number] = NOTHING
            continue
        left: NDArray[np.float64] = np.array(before)
        there: NDArray[np.float64] = np.array(now)
        rows = left != 0
        ratio = there[rows] / left[rows]
        factor = float(np.median(ratio))
        if 0 < factor < 1 - ALIKE and bool((np.abs(ratio / factor - 1) <= ALIKE).all()):
            factors[number] = factor
    return factors


def _shrunk(factors: list[dict[int, float]]) -> tuple[int, float] | None:
    """The first pass before which all tensors were made smaller by one factor; n / (n + 1) keeps a running mean."""
    for number in sorted(factors[0]) if factors else []:
        values = [one.get(number) for one in factors if one.get(number) != NOTHING]
        first = values[0] if values else None
        if first is None or any(one is None or abs(one / first - 1) > ALIKE for one in values):
            continue
        if abs(first - number / (number + 1)) > ALIKE:
            return number, first
    return None


def _lies(values: list[float] | None) -> bool:
    """Is there a gradient, and not all zero?"""
    return values is not None and any(values) and all(map(isfinite, values))
