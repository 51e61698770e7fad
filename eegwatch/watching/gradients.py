"""What happens to gradients between two steps: hooks on some parameters, from one step to the next.

Each backward pass that adds to a parameter's gradient is seen before it adds: what lies there then, and that it came.
A gradient that the last step used and that is still there, bit by bit, when the first pass adds to it, and that nothing
has cleared until the next step, is part of that step too. The hooks read and return nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eegwatch.watching.backward_roots import BackwardRoots
from eegwatch.watching.gather import Gathered
from eegwatch.watching.optimizer_tensors import OptimizerTensor
from eegwatch.watching.tensors import compiling, eagerly, elements, torch_module

LATELY = 6  # steps: one of five of another optimizer lies between two of this one
TURNS = 256  # steps of several optimizers, and calls of backward(), that are remembered
MOST_PASSES = 16  # backward passes between two steps whose beginnings are kept
TABLES = ("_backward_hooks", "_post_accumulate_grad_hooks")  # torch's, on a tensor; None where it never had a hook
BY_HAND = -1  # in place of a number of passes
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


@dataclass
class Turns:
    """Which of several optimizers steps when, and which of them each call of backward() reaches."""

    taken: deque[int] = field(default_factory=lambda: deque(maxlen=TURNS))  # numbers of the optimizers that stepped
    count: int = 0  # of their steps
    reached: dict[int, set[int]] = field(default_factory=dict)  # call of backward() -> optimizers

    def step(self, number: int) -> None:
        """Optimizer `number` has stepped."""
        self.taken.append(number)
        self.count += 1

    def came(self, number: int) -> tuple[int, int]:
        """A gradient of this optimizer was made: (the call of backward() that made it, steps taken by then)."""
        call = graph_task()
        if call not in self.reached:
            while len(self.reached) >= TURNS:
                del self.reached[next(iter(self.reached))]
            self.reached[call] = set()
        self.reached[call].add(number)
        return call, self.count

    def between(self, begin: int, end: int) -> set[int]:
        """The optimizers that took the steps from `begin` to `end`; none where that is not remembered any more."""
        ago = self.count - begin
        return set(list(self.taken)[len(self.taken) - ago :][: end - begin]) if ago <= len(self.taken) else set()

    def lately(self) -> set[int]:
        """The optimizers that took one of the last few steps."""
        return set(list(self.taken)[-LATELY:])

    def of_others(self, number: int, marks: Sequence[tuple[int, int]], found: Sequence[bool]) -> bool:
        """Does the gradient of optimizer `number` hold what a pass for another optimizer left?

        `marks`: of its passes since its last step; `found`: did each find a gradient? So it is where a pass reached
        another optimizer too, that one stepped, and a later pass for this optimizer alone found the gradient there.
        """
        for (call, at), (later, then), lay in zip(marks, marks[1:], found[1:]):
            theirs = self.reached.get(call, set()) & (self.between(at, then) - {number})
            if lay and theirs and self.reached.get(later) == {number}:
                return True
        return False


def graph_task() -> int:
    """The number of the call of backward() that is under way; -1 where there is none, or torch does not tell."""
    told = getattr(torch_module()._C, "_current_graph_task_id", None)
    return -1 if told is None else int(told())


class GradientHook:
    """The hook on one parameter. `passes`: how many times a backward pass came; `before`: what it found each time."""

    def __init__(self, held: OptimizerTensor, turns: Turns | None, number: int) -> None:
        self.held, self.turns, self._number = held, turns, number
        self.roots: BackwardRoots | None = None
        self.marks: list[tuple[int, int]] = []  # of the passes, where several optimizers are watched
        self.versions: list[int] = []  # of the parameter at each pass: whatever writes to it counts it up
        self.left = reference(held.parameter.grad)
        self.passes = self._told = 0
        self.before: list[Any | None] = []
        self.made: list[Any | None] = []  # what each pass left
        self.tasks: list[int] = []  # the call of backward() that each pass was part of
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
                self.versions.append(int(parameter._version))
                self.tasks.append(graph_task())
                if self.roots is not None:
                    self.roots.came(self.tasks[-1])
                if self.turns is not None:
                    self.marks.append(self.turns.came(self._number))
            except Exception as error:
                self.failed = error

    @property
    def lately(self) -> int:
        """Passes since any of the optimizers stepped."""
        return sum(at == self.marks[-1][1] for _, at in self.marks) if self.marks else self.passes

    def for_this_alone(self, number: int) -> bool:
        """Was this pass made for this optimizer, so that another one's step did not use it before the next came?"""
        if self.turns is None:
            return True
        (call, at), (_, then) = self.marks[number], self.marks[number + 1]
        return at == then and self.turns.reached.get(call) == {self._number}

    def restart(self) -> None:
        """Count from now on; what lies there is not what a step has left."""
        self.passes = self._told = 0
        self.before, self.made, self.marks, self.versions, self.tasks = [], [], [], [], []
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
    others: list[str] = field(default_factory=list)  # whose gradient holds that of a pass for another optimizer
    passes: int = 0
    counted: int = 0
    least: int = 0  # passes of the tensor that has seen the fewest, of those that have seen one
    cleared: int = 0  # passes whose gradients were cleared before they were used; the step used the last one's as it is
    lately: int = 0  # passes since any of the watched optimizers stepped
    tasks: set[int] = field(default_factory=set)  # calls of backward() that were seen
    used: set[int] = field(default_factory=set)  # those of them whose gradients the step has used
    perhaps: set[int] = field(default_factory=set)  # those that added nothing to a tensor which the step has used
    thrown: set[int] = field(default_factory=set)  # those whose gradients of some tensor were cleared
    begins: int = 0  # of the passes of that tensor but the first, those that found nothing there
    shrunk: tuple[int, float] | None = None  # (pass, factor): what lay there was made smaller before it
    by_hand: bool = False  # of several passes, has the script made another gradient of what they left?
    factor: float | None = None  # from what the last pass left to what the step has used, the same for all tensors


class Gradients:
    """The traces between two steps of one optimizer."""

    def __init__(self, number: int = 0) -> None:
        """`number`: of the optimizer."""
        self._number = number
        self._turns: Turns | None = None
        self.roots: BackwardRoots | None = None  # what the calls of backward() begin with
        self._traces: list[GradientHook] = []
        self._left: dict[int, int] = {}  # id of Held -> number of the piece that the last step left as its gradient
        self._gathered = Gathered()
        self._handles: list[Any] = []
        self._bare: list[tuple[Any, str]] = []  # (parameter, table of hooks that it did not have)

    def of_several(self, turns: Turns) -> None:
        """Several optimizers are watched, whose passes and steps `turns` tells apart."""
        self._turns = turns
        for trace in self._traces:
            trace.turns = turns

    def arm(self, chosen: Sequence[OptimizerTensor], shared: set[int]) -> None:
        """Put hooks on these tensors; not on those that another watched optimizer holds too. Call it in no_grad."""
        self.disarm()
        for held in chosen:
            parameter = held.parameter
            if parameter.requires_grad and parameter.is_leaf and id(parameter) not in shared:
                trace = GradientHook(held, self._turns, self._number)
                trace.roots = self.roots
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

    def state(self) -> dict[int, tuple[int, int]]:
        """{id of Held: (passes so far, how often its tensor was written to)}."""
        return {id(trace.held): (trace.passes, int(trace.held.parameter._version)) for trace in self._traces}

    def steady(self, before: dict[int, tuple[int, int]]) -> set[int]:
        """Ids of the Held that one pass came to since `before`, and that nothing had written to until then."""
        return {
            id(trace.held)
            for trace in self._traces
            if trace.versions and (trace.passes - 1, trace.versions[-1]) == before.get(id(trace.held))
        }

    def renewed(self) -> bool | None:
        """Were gradients made on nothing since this was last asked? None: no backward pass has come since."""
        told = [trace.renewed() for trace in self._traces[:ASKED]]
        return None if all(one is None for one in told) else any(told)

    def read(
        self, frozen: Sequence[OptimizerTensor], *, factor: bool = False
    ) -> tuple[GradientReport, dict[int, list[float]]]:
        """(what the passes since the last step have done, {id of Held: what the last step left} of these frozen ones).

        Raises what a hook has raised. The hooks are taken off. `factor`: that of the report is to be found.
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
            fresh = _of_fresh(traces)
            fresh.factor = _used_as(traces) if factor else None
            return fresh, {}
        rows = [(trace, _numbered(trace, gathered)) for trace in traces]
        gathered.copy()
        values, starts = gathered.values()
        numbers = [values[begin:end].tolist() for begin, end in pairwise(starts)]

        def at(number: int | None) -> list[float] | None:
            return None if number is None else numbers[number]

        seen = GradientReport(factor=_used_as(traces) if factor else None)
        factors: list[dict[int, float]] = []
        used: list[int] = []
        for trace, (before, made, final) in rows:
            found, values_made = [at(one) for one in before], [at(one) for one in made]
            _judge(seen, trace, at(left.get(id(trace.held))), found, values_made, at(final))
            if trace.turns is not None and trace.turns.of_others(self._number, trace.marks, [*map(_lies, found)]):
                seen.others.append(trace.held.name)
            if len(made) > 1:
                factors.append(_factors(values_made, found))
                used.append(_cleared(trace, found, values_made, at(final)))
        seen.used |= seen.perhaps - seen.thrown
        if -1 not in seen.used:  # a call may reach some tensors alone (a mixture of experts): all are counted
            seen.counted = max(seen.counted, len(seen.used))
        seen.shrunk = _shrunk(factors)
        seen.lately = max((trace.lately for trace in traces), default=0)
        seen.least = min((trace.passes for trace in traces if trace.passes), default=0)
        seen.by_hand = BY_HAND in used
        seen.cleared = min(used) if len(used) == len(rows) and not seen.by_hand else 0
        having = [trace for trace in traces if trace.held.parameter.grad is not None]
        if having or not any(trace.passes for trace in traces):
            seen.dropped = []
        stale = [trace for trace in having if _lies(at(left.get(id(trace.held))))]
        if any(trace.passes for trace in traces) or len(seen.again) < len(stale):
            seen.again = []
        return seen, {id(held): numbers[left[id(held)]] for held in frozen if id(held) in left}


def _from_nothing(trace: GradientHook) -> bool:
    """Did every pass find no gradient, and is there one now?"""
    grad = trace.held.parameter.grad
    return trace.passes == 1 and trace.before[0] is None and grad is not None


def _of_fresh(traces: list[GradientHook]) -> GradientReport:
    """One pass onto nothing for each: no value is of interest."""
    tasks = {task for trace in traces for task in trace.tasks}
    if not traces:
        return GradientReport()
    return GradientReport(passes=1, counted=1, least=1, tasks=tasks, used=tasks)


def _used_as(traces: Sequence[GradientHook]) -> float | None:
    """The factor from what the last pass left to the gradient as it is now, of a few tensors; None if it is not one."""
    gathered, rows = Gathered(), []
    for trace in [one for one in traces if one.made and one.passes == len(one.made)][:ASKED]:
        made, final = trace.made[-1], sampled(trace.held, trace.held.parameter.grad)
        if made is not None and final is not None:
            rows.append((gathered.add(made, trace.held.count), gathered.add(final, trace.held.count)))
    gathered.copy()
    values, starts = gathered.values()
    ends = [*starts[1:], len(values)]
    pairs = [[values[starts[n] : ends[n]].tolist() for n in row] for row in rows]
    found = [one_factor(made, final) for made, final in pairs if _lies(made) and _lies(final)]
    first = found[0] if found else None
    if first is None or any(one is None or abs(one / first - 1) > ALIKE for one in found):
        return None
    return first


def _numbered(trace: GradientHook, gathered: Gathered) -> tuple[list[int | None], list[int | None], int | None]:
    """The numbers of the pieces: (what the passes found, what they left, the gradient as it is now)."""

    def kept(piece: Any | None) -> int | None:
        return None if piece is None else gathered.add(piece, trace.held.count)

    made = [kept(one) for one in trace.made]
    return [kept(one) for one in trace.before], made, kept(sampled(trace.held, trace.held.parameter.grad))


def _judge(
    seen: GradientReport,
    trace: GradientHook,
    stale: list[float] | None,
    before: list[list[float] | None],
    made: list[list[float] | None],
    final: list[float] | None,
) -> None:
    name = trace.held.name
    anew = [not _lies(one) for one in before]  # the passes onto nothing
    for number in range(1, min(len(anew), len(made))):
        if before[number] is not None and made[number - 1] is not None and not any(made[number - 1] or ()):
            anew[number] = False  # the pass before made zeros (a product with what begins at zero): nothing was cleared
    begun = max((i for i, one in enumerate(anew) if one), default=-1)  # the last pass onto nothing
    if any(map(_lies, made)):  # zeros do not tell whether they were cleared
        seen.tasks.update(trace.tasks)
        _used(seen, trace, before, made, max(begun, 0), _lies(final))
    if trace.passes >= seen.passes:
        counted, begins = trace.passes - max(begun, 0), sum(anew[1:])
        if trace.passes > seen.passes:
            seen.passes, seen.counted, seen.begins = trace.passes, counted, begins
        seen.counted, seen.begins = max(seen.counted, counted), min(seen.begins, begins)
    if trace.passes and trace.held.parameter.grad is None:
        seen.dropped.append(name)
    if stale is None or final is None or not _lies(stale) or not _lies(final):
        return
    if not trace.passes and stale == final and trace.left is not None:
        seen.again.append(name)
    if before and begun == -1 and before[0] == stale:
        seen.kept.append((name, max(stale, key=abs)))


def _used(
    seen: GradientReport,
    trace: GradientHook,
    before: list[list[float] | None],
    made: list[list[float] | None],
    begun: int,
    lies: bool,
) -> None:
    """Which calls of backward() this gradient holds, and which were cleared; one that added zeros is neither."""
    for number, (task, left) in enumerate(zip(trace.tasks, made)):
        if number >= begun and lies:
            adds = _lies(left) and left != before[number]
            (seen.used if adds else seen.perhaps).add(task)
        elif number < begun and _lies(left):
            seen.thrown.add(task)


def _cleared(
    trace: GradientHook, found: list[list[float] | None], made: list[list[float] | None], final: list[float] | None
) -> int:
    """How many passes made a gradient that was cleared, where the step uses the last one's, scaled at most.

    0 where the weight was written to between the passes (sharpness-aware minimisation), BY_HAND where the gradient that
    is used is another one (made of several passes by the script).
    """
    last = made[-1]
    if trace.passes != len(made) or len(set(trace.versions)) > 1 or not _lies(last) or not _lies(final):
        return 0
    if last != final and one_factor(last, final) is None:
        return BY_HAND
    pairs = enumerate(zip(made, found[1:]))
    return sum(_lies(before) and not _lies(now) and trace.for_this_alone(number) for number, (before, now) in pairs)


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
        factor = one_factor(before, now)
        if factor is not None and factor < 1 - ALIKE:
            factors[number] = factor
    return factors


def one_factor(before: list[float] | None, now: list[float] | None) -> float | None:
    """The positive factor that makes of the one gradient the other; None where it is not one for all elements."""
    left: NDArray[np.float64] = np.array(before)
    there: NDArray[np.float64] = np.array(now)
    rows = left != 0
    ratio = there[rows] / left[rows]
    factor = float(np.median(ratio))
    return factor if factor > 0 and bool((np.abs(ratio / factor - 1) <= ALIKE).all()) else None


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
