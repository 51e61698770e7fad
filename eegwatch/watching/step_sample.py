"""One look at one optimizer step: elements of the tensors before and after it, and what the step should have made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eegwatch.watching.formulas.elements import Elements
from eegwatch.watching.formulas.explanation import explained
from eegwatch.watching.formulas.formula import Formula
from eegwatch.watching.formulas.own import by_group, clip_of, own_formula
from eegwatch.watching.gather import Gathered
from eegwatch.watching.gradients import sampled
from eegwatch.watching.optimizer_tensors import OptimizerTensor
from eegwatch.watching.tensors import bit_sums, elements, host, joined, place_of_largest, torch_module, why_unread

COARSE = 1e-4  # unit roundoff: bfloat16 and float16
NEARLY = 0.9  # of the elements that should move
FEW = 8  # tensors that tell whether a step has moved anything


class StepSample:
    """What is read around one step. `formula`: that of the optimizer, None where no claim is made."""

    def __init__(
        self,
        optimizer: Any,
        formula: Formula | None,
        chosen: Sequence[OptimizerTensor],
        searched: set[int],
        *,
        closure: bool,
        taken: int | None = None,
    ) -> None:
        """Before the step. With a closure the gradients do not exist yet: they are read after it.

        `searched`: ids of those of `chosen` whose largest gradient's element is read too. `taken`: steps before it,
        where an optimizer of the script's own (no `formula`) is to be held against the formula whose averages it keeps.
        Call it in no_grad.
        """
        self.claimed, self.closure = formula is not None, closure
        self.formula = formula
        if formula is None and taken is not None:
            self.formula = own_formula(optimizer, chosen)
        self._taken = taken or 0
        self._momenta: list[float] = []  # momentum of each group
        self._clips: list[tuple[str, float, float] | None] = []  # of each group: name, limit, largest norm of a tensor
        self.norm: float | None = None
        self.norm_unit = 0.0
        self.stands = False  # after the step: has it moved tensors, and not its own count of steps?
        self.stood = False  # has it counted a step, and moved nothing that has a gradient?
        self.still: bool | None = None  # after the step: has it moved nothing? Of an optimizer of another make alone
        groups = optimizer.param_groups
        self.scale, skipped = _scaling(optimizer)
        self.skipped = skipped
        state = optimizer.state
        self.frozen = [held for held in chosen if not held.parameter.requires_grad]
        self._frozen_sums = bit_sums(held.parameter for held in self.frozen)
        self._rows: list[OptimizerTensor] = []
        self._largest: dict[int, Any] = {}  # row -> place of the largest gradient
        self._counts: list[float] = []
        self._scalars: list[list[float]] = []  # numbers that the optimizer keeps of each tensor: of each kind, by row
        self._known: list[tuple[float, ...]] = []  # settings of each group
        self._gathered = Gathered()
        self._pieces: dict[str, dict[int, int]] = {}  # what -> row -> number of the piece
        self._some = [] if self.claimed else [h for h in chosen if h.parameter.requires_grad][:FEW]
        self._few = self._elements_of_some()
        self._steps = self._steps_of_some(optimizer)
        if self.formula is None or skipped:
            return
        self._known = [tuple(one.read(group, optimizer) for one in self.formula.settings) for group in groups]
        if not self.claimed:
            self._clips = [clip_norm(group) for group in groups]
            self._momenta = [float(group.get("momentum", 0.0) or 0.0) for group in groups]
        for held in chosen:
            gradient = held.parameter.grad
            if not closure and (gradient is None or gradient.layout is not torch_module().strided):
                continue
            if not held.fits:
                continue
            if gradient is not None and not closure and id(held) in searched:
                self._largest[len(self._rows)] = place_of_largest(gradient)
            self._rows.append(held)
        self._read(state)

    def sums_of_frozen(self) -> Iterator[tuple[int, int]]:
        """(id of the parameter, sum of its bits before the step) of the tensors that are frozen."""
        for held, total in zip(self.frozen, self._frozen_sums):
            yield id(held.parameter), total

    def measure(self, held: Sequence[OptimizerTensor]) -> None:
        """The norm of all gradients as the step uses them, for who declared a clip."""
        torch = torch_module()
        gradients = [h.parameter.grad.detach() for h in held if h.parameter.grad is not None]
        if gradients and all(why_unread(gradient) is None for gradient in gradients):
            norms = [torch.linalg.vector_norm(gradient.float()).reshape(1) for gradient in gradients]
            self.norm = float(np.linalg.norm(host(joined(norms)))) / self.scale
            self.norm_unit = max(float(torch.finfo(gradient.dtype).eps) for gradient in gradients)

    def _elements_of_some(self) -> NDArray[np.float64]:
        gathered = Gathered()
        for held in self._some:
            gathered.add(elements(held.parameter, held.count, held.stride), held.count)
        gathered.copy()
        return gathered.values()[0]

    def _meant_to_move(self, optimizer: Any) -> bool:
        """Has an optimizer of another make a rate and gradients, and weights that hold a small step?"""
        rates = all(float(group.get("lr", 0.0) or 0.0) > 0 for group in optimizer.param_groups)
        single = all(limits(held.parameter.dtype)[0] < COARSE for held in self._some)
        read = [sampled(held, held.parameter.grad) for held in self._some]
        return rates and single and any(one is not None and bool(one.any()) for one in read)

    def _steps_of_some(self, optimizer: Any) -> list[float]:
        """What an optimizer of another make has counted as "step" for each of the tensors; none where it does not."""
        counts = [(optimizer.state.get(held.parameter) or {}).get("step") for held in self._some]
        known = [float(one) for one in counts if one is not None]
        return known if len(known) == len(counts) else []

    @property
    def counts(self) -> dict[int, float]:
        """Id of the parameter -> steps that were counted of it before this one (SGD: has it a momentum?)."""
        if not self.claimed:
            return {}
        return {id(held.parameter): count for held, count in zip(self._rows, self._counts)}

    def _read(self, state: Any) -> None:
        formula = self.formula
        assert formula is not None
        states = [state.get(held.parameter) or {} for held in self._rows]
        for row, held in enumerate(self._rows):
            self._keep("weight", row, held.parameter)
        if not self.closure:
            for row, held in enumerate(self._rows):
                self._keep("gradient", row, held.parameter.grad)
        for what, name in formula.averages.items():
            for row, (held, own) in enumerate(zip(self._rows, states)):
                average = own.get(name)
                if average is not None and average.numel() == held.parameter.numel():
                    self._keep(what, row, average)
        if formula.counts:
            self._counts = _numbers([own.get(formula.count, 0) for own in states])
        else:
            self._counts = [float(own.get(formula.count) is not None) for own in states]
        self._scalars = [_numbers([own.get(key, np.nan) for own in states]) for key in formula.scalars.values()]
        self._gathered.copy()

    def _keep(self, what: str, row: int, tensor: Any) -> None:
        """Read a tensor at the places of a row."""
        held, largest = self._rows[row], self._largest.get(row)
        piece, count = elements(tensor, held.count, held.stride), held.count
        if largest is not None:
            piece, count = torch_module().cat((piece, torch_module().take(tensor, largest))), count + 1
        self._pieces.setdefault(what, {})[row] = self._gathered.add(piece, count)

    # ---- after the step ----

    def finish(self, optimizer: Any, stale: dict[int, list[float]], steady: set[int]) -> dict[str, Any]:
        """What the step did: {"moved": frozen tensors that it moved, "update": what differs from the formula}.

        "rounded": elements that the formula moves by less than their type can hold, where they are nearly all.

        `stale`: what the step before left as the gradients of the frozen ones. A frozen tensor that somebody gives new
        gradients by hand is meant to move. `steady`: with a closure, ids of those that it has not written to (one that
        moves the weights and puts them back may leave them elsewhere by a rounding). Call it in no_grad.
        """
        found: dict[str, Any] = {}
        if self._some:
            self.still = bool(np.array_equal(self._few, self._elements_of_some()))
            counts = self._steps_of_some(optimizer)
            self.stands = not self.still and bool(self._steps) and self._steps == counts
            self.stood = self.still and bool(counts) and counts != self._steps and self._meant_to_move(optimizer)
        moved = [
            held
            for held, before, after in zip(
                self.frozen, self._frozen_sums, bit_sums(held.parameter for held in self.frozen)
            )
            if before != after and _old(held, stale.get(id(held)))
        ]
        if moved:
            found["moved"] = {"n": len(moved), "names": [held.name for held in moved[:5]]}
        if self._rows:
            found |= self._compared(steady)
        return found

    @property
    def count(self) -> int:
        """Tensors whose update was computed."""
        return len(self._rows) if self.claimed else 0

    def _compared(self, steady: set[int]) -> dict[str, Any]:
        strided = torch_module().strided
        for row, held in enumerate(self._rows):
            self._keep("after", row, held.parameter)
        if self.closure:
            for row, held in enumerate(self._rows):
                gradient = held.parameter.grad
                if gradient is not None and gradient.layout is strided and id(held) in steady:
                    self._keep("gradient", row, gradient)
        self._gathered.copy()
        read, after, lengths = self._elements()
        assert self.formula is not None
        if not self.claimed:
            return self._of_own(read, after, lengths)
        with np.errstate(all="ignore"):
            want, bound = self.formula.update(read)
            off = np.abs(after - want) > bound
            # a larger gradient has no square in its type; where there is none it is NaN
            off &= read["gradient"] ** 2 < read["huge"]
        off &= np.isfinite(want) & np.isfinite(bound) & np.isfinite(after)
        told = {"update": self._told(read, after, want, bound, off, lengths)} if off.any() else {}
        return told | _rounded(read, after, want)

    def _of_own(self, read: Elements, after: NDArray[np.float64], lengths: NDArray[np.int64]) -> dict[str, Any]:
        """{"own": what the step of each group is, where it is known} of an optimizer of the script's own."""
        assert self.formula is not None
        groups = np.repeat([held.group for held in self._rows], lengths)
        matrices = {held.group for held in self._rows if held.parameter.ndim > 1}
        found = by_group(self.formula, read, after, groups, matrices, self._taken)
        for one in found:
            group = one["group"]
            if self.formula.name == "plain" and self._momenta[group]:
                one["momentum"] = self._momenta[group]
            clip = self._clips[group]
            if clip is not None and self.formula.name != "adam":
                largest = float(np.nanmax(np.abs(read["gradient"][groups == group])))
                one["clip"] = {"name": clip[0], "limit": clip[1], "norm": clip[2], "largest": largest}
        return {"own": {"formula": self.formula.name, "groups": found}} if found else {}

    def _elements(self) -> tuple[Elements, NDArray[np.float64], NDArray[np.int64]]:
        lengths = np.array([held.count + (row in self._largest) for row, held in enumerate(self._rows)])
        values, starts = self._gathered.values()
        ends = np.concatenate([[0], np.cumsum(lengths)])

        def column(what: str, missing: float = 0.0) -> NDArray[np.float64]:
            pieces = self._pieces.get(what, {})
            if len(pieces) == len(self._rows):  # all lie together, in the order of the rows
                begin = int(starts[pieces[0]])
                return values[begin : begin + int(ends[-1])]
            found = np.full(int(ends[-1]), missing)
            for row, number in pieces.items():
                found[ends[row] : ends[row + 1]] = values[starts[number] : starts[number] + lengths[row]]
            return found

        formula = self.formula
        assert formula is not None
        rows = [
            (count, *scalars, *self._known[held.group], *limits(held.parameter.dtype))
            for held, count, *scalars in zip(self._rows, self._counts, *self._scalars)
        ]
        names = ("count", *formula.scalars, *(one.column for one in formula.settings), "unit", "tiny", "huge")
        columns = dict(zip(names, np.repeat(np.array(rows, np.float64).T, lengths, axis=1)))
        columns |= {what: column(what, formula.missing) for what in formula.averages}
        columns["weight"] = column("weight")
        columns["gradient"] = column("gradient", np.nan) / self.scale  # where there is none nothing is claimed
        read = Elements(columns)
        return read, column("after"), lengths

    def _told(
        self,
        read: Elements,
        after: NDArray[np.float64],
        want: NDArray[np.float64],
        bound: NDArray[np.float64],
        off: NDArray[np.bool_],
        lengths: NDArray[np.int64],
    ) -> dict[str, Any]:
        """The element that differs most, how many tensors do, and how many of these did not move at all."""
        tensor = np.repeat(np.arange(len(lengths)), lengths)
        broken = np.unique(tensor[off])
        still = [int(t) for t in broken if np.array_equal(after[tensor == t], read["weight"][tensor == t])]
        worst = int(np.argmax(np.where(off, np.abs(after - want) / bound, -1.0)))
        held = self._rows[int(tensor[worst])]
        nth = worst - int(np.flatnonzero(tensor == tensor[worst])[0])
        place = int(self._largest[int(tensor[worst])]) if nth == held.count else nth * held.stride
        rows = np.isin(tensor, broken)
        assert self.formula is not None
        why = None if len(still) == len(broken) else explained(self.formula, read.of(rows), after[rows])
        told = {
            "broken": len(broken),
            "still": len(still),
            "name": held.name,
            "element": place,
            "group": held.group,
            "before": float(read["weight"][worst]),
            "gradient": float(read["gradient"][worst]),
            "got": float(after[worst]),
            "want": float(want[worst]),
            "bound": float(bound[worst]),
            "lr": float(read["lr"][worst]),
        }
        return told | ({"as_if": why} if why is not None else {})


def _rounded(read: Elements, after: NDArray[np.float64], want: NDArray[np.float64]) -> dict[str, Any]:
    """{"rounded": …} where nearly all elements of a coarse type stay that should move, by less than it can hold."""
    weight = read["weight"]
    meant = (want != weight) & np.isfinite(want) & (read["gradient"] != 0) & (read["unit"] > COARSE)
    lost = int((meant & (after == weight)).sum())
    return {"rounded": {"n": lost, "of": int(meant.sum())}} if lost >= max(FEW, NEARLY * meant.sum()) else {}


def _old(held: OptimizerTensor, stale: list[float] | None) -> bool:
    """Has this tensor no gradient, one of zeros, or what the step before left?"""
    now = sampled(held, held.parameter.grad)
    if now is None:
        return held.parameter.grad is None
    return not bool(held.parameter.grad.detach().any()) or (stale is not None and host(now).tolist() == stale)


def clip_norm(group: dict[str, Any]) -> tuple[str, float, float] | None:
    """(name, limit, largest norm of a tensor's gradient) of a group that names a limit of its gradients."""
    clip = clip_of(group)
    gradients = [p.grad for p in group["params"] if p.grad is not None and why_unread(p.grad) is None]
    if clip is None or not gradients:
        return None
    norms = [torch_module().linalg.vector_norm(one.detach().float()).reshape(1) for one in gradients]
    return (*clip, float(host(joined(norms)).max()))


def _numbers(found: list[Any]) -> list[float]:
    """One number of each tensor's state; those in tensors that are not on the CPU are fetched together."""
    tensor = torch_module().Tensor
    far = [row for row, one in enumerate(found) if isinstance(one, tensor) and one.device.type != "cpu"]
    if far:
        numbers = Gathered()
        for row in far:
            numbers.add(found[row].reshape(1), 1)
        numbers.copy()
        for row, value in zip(far, numbers.values()[0]):
            found[row] = value
    return [float(one) for one in found]


@lru_cache
def limits(kind: Any) -> tuple[float, float, float]:
    """(unit roundoff, smallest normal number, half the largest number) of a floating-point type."""
    of_kind = torch_module().finfo(kind)
    return float(of_kind.eps) / 2, float(of_kind.smallest_normal), float(of_kind.max) / 2


def _scaling(optimizer: Any) -> tuple[float, bool]:
    """(the factor that a fused step divides gradients by, whether a gradient scaler has it skip this step)."""
    scale, found = getattr(optimizer, "grad_scale", None), getattr(optimizer, "found_inf", None)
    return (1.0 if scale is None else float(scale)), found is not None and float(found) > 0
