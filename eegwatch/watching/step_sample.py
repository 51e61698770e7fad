"""One look at one optimizer step: elements of the tensors before and after it, and what the step should have made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eegwatch.watching.gradients import sampled
from eegwatch.watching.held import Held
from eegwatch.watching.tensors import bit_sums, host, joined, place_of_largest, torch_module, why_unread
from eegwatch.watching.update import Elements, expected, explained

FEW = 8  # tensors that tell whether a step has moved anything
STATE = {"adam": ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"), "sgd": ("momentum_buffer", None, None)}


class StepSample:
    """What is read around one step. `kind`: whose formula the optimizer uses, None where no claim is made."""

    def __init__(self, optimizer: Any, kind: str | None, chosen: Sequence[Held], *, closure: bool) -> None:
        """Before the step. With a closure the gradients do not exist yet: they are read after it."""
        self.kind, self.closure = kind, closure
        self.norm: float | None = None
        self.norm_unit = 0.0
        self.still: bool | None = None  # after the step: has it moved nothing? Of an optimizer of another make alone
        groups = optimizer.param_groups
        self.scale, skipped = _scaling(optimizer)
        self.skipped = skipped
        state = optimizer.state
        self.frozen = [held for held in chosen if not held.parameter.requires_grad]
        self._frozen_sums = bit_sums(held.parameter for held in self.frozen)
        self._rows: list[Held] = []
        self._places: list[Any] = []
        self._count: list[float] = []
        self._settings: list[dict[str, float]] = []
        self._pieces: list[Any] = []
        self._order: list[tuple[str, int]] = []  # (what, row) of each piece
        self._some = [] if kind is not None else [h for h in chosen if h.parameter.requires_grad][:FEW]
        self._few = self._elements_of_some()
        if kind is None or skipped:
            return
        known = [settings_of(group, optimizer) for group in groups]
        for held in chosen:
            gradient = held.parameter.grad
            if not closure and (gradient is None or gradient.layout is not torch_module().strided):
                continue
            if int(held.parameter.numel()) <= int(held.places[-1]):
                continue  # it has become another tensor meanwhile
            self._read(held, state.get(held.parameter) or {}, known[held.group])

    def measure(self, held: Sequence[Held]) -> None:
        """The norm of all gradients as the step uses them, for who declared a clip."""
        torch = torch_module()
        gradients = [h.parameter.grad.detach() for h in held if h.parameter.grad is not None]
        if gradients and all(why_unread(gradient) is None for gradient in gradients):
            norms = [torch.linalg.vector_norm(gradient.float()).reshape(1) for gradient in gradients]
            self.norm = float(np.linalg.norm(host(joined(norms)))) / self.scale
            self.norm_unit = max(float(torch.finfo(gradient.dtype).eps) for gradient in gradients)

    def _elements_of_some(self) -> NDArray[np.float64]:
        torch = torch_module()
        return host(joined([torch.take(held.parameter.detach(), held.places) for held in self._some]))

    def _read(self, held: Held, state: dict[str, Any], settings: dict[str, float]) -> None:
        torch, row, parameter = torch_module(), len(self._rows), held.parameter
        at = held.places
        if not self.closure:
            at = torch.cat([at, place_of_largest(parameter.grad)])
        self._rows.append(held)
        self._places.append(at)
        self._settings.append(settings)
        self._keep("weight", row, torch.take(parameter.detach(), at))
        if not self.closure:
            self._keep("gradient", row, torch.take(parameter.grad.detach(), at))
        assert self.kind is not None
        for what, name in zip(("first", "second", "largest"), STATE[self.kind]):
            average = state.get(name) if name is not None else None
            if average is not None and average.numel() == parameter.numel():
                self._keep(what, row, torch.take(average.detach(), at))
        if self.kind == "adam":
            count = state.get("step", 0)
            self._count.append(float(count))
        else:
            self._count.append(float(state.get("momentum_buffer") is not None))

    def _keep(self, what: str, row: int, piece: Any) -> None:
        self._order.append((what, row))
        self._pieces.append(piece)

    # ---- after the step ----

    def finish(self, stale: dict[int, Any]) -> dict[str, Any]:
        """What the step did: {"moved": frozen tensors that it moved, "update": what differs from the formula}.

        `stale`: what the step before left as the gradients of the frozen ones. A frozen tensor that somebody gives new
        gradients by hand is meant to move.
        """
        found: dict[str, Any] = {}
        if self._some:
            self.still = bool(np.array_equal(self._few, self._elements_of_some()))
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
            update = self._compared()
            if update:
                found["update"] = update
        return found

    @property
    def count(self) -> int:
        """Tensors whose update was computed."""
        return len(self._rows)

    def _compared(self) -> dict[str, Any]:
        torch = torch_module()
        for row, (held, at) in enumerate(zip(self._rows, self._places)):
            self._keep("after", row, torch.take(held.parameter.detach(), at))
            gradient = held.parameter.grad
            if self.closure and gradient is not None and gradient.layout is torch.strided:
                self._keep("gradient", row, torch.take(gradient.detach(), at))
        elements, after, lengths = self._elements()
        assert self.kind is not None
        want, bound = expected(self.kind, elements)
        with np.errstate(all="ignore"):
            off = np.abs(after - want) > bound
        off &= np.isfinite(want) & np.isfinite(bound) & np.isfinite(elements.gradient)
        if not off.any():
            return {}
        return self._told(elements, after, want, bound, off, lengths)

    def _elements(self) -> tuple[Elements, NDArray[np.float64], NDArray[np.int64]]:
        lengths = np.array([int(at.numel()) for at in self._places])
        starts = np.concatenate([[0], np.cumsum(lengths)])
        columns = {what: np.zeros(int(starts[-1])) for what in ("weight", "first", "second", "largest", "after")}
        columns["gradient"] = np.full(int(starts[-1]), np.nan)  # where there is none nothing is claimed
        values, at = host(joined(self._pieces)), 0
        for what, row in self._order:
            n = int(lengths[row])
            columns[what][starts[row] : starts[row] + n] = values[at : at + n]
            at += n
        torch = torch_module()

        def spread(per_tensor: list[Any], kind: Any = np.float64) -> NDArray[Any]:
            return np.repeat(np.array(per_tensor, kind), lengths)

        def setting(name: str, kind: Any = np.float64) -> NDArray[Any]:
            return spread([settings[name] for settings in self._settings], kind)

        limits = [torch.finfo(held.parameter.dtype) for held in self._rows]
        elements = Elements(
            weight=columns["weight"],
            gradient=columns["gradient"] / self.scale,
            first=columns["first"],
            second=columns["second"],
            largest=columns["largest"],
            count=spread(self._count),
            lr=setting("lr"),
            beta1=setting("beta1"),
            beta2=setting("beta2"),
            eps=setting("eps"),
            decay=setting("weight_decay"),
            decoupled=setting("decoupled", np.bool_),
            maximize=setting("maximize", np.bool_),
            amsgrad=setting("amsgrad", np.bool_),
            dampening=setting("dampening"),
            nesterov=setting("nesterov", np.bool_),
            unit=spread([limit.eps / 2 for limit in limits]),
            tiny=spread([limit.smallest_normal for limit in limits]),
        )
        return elements, columns["after"], lengths

    def _told(
        self,
        elements: Elements,
        after: NDArray[np.float64],
        want: NDArray[np.float64],
        bound: NDArray[np.float64],
        off: NDArray[np.bool_],
        lengths: NDArray[np.int64],
    ) -> dict[str, Any]:
        """The element that differs most, how many tensors do, and how many of these did not move at all."""
        tensor = np.repeat(np.arange(len(lengths)), lengths)
        broken = np.unique(tensor[off])
        still = [int(t) for t in broken if np.array_equal(after[tensor == t], elements.weight[tensor == t])]
        worst = int(np.argmax(np.where(off, np.abs(after - want) / bound, -1.0)))
        held = self._rows[int(tensor[worst])]
        place = self._places[int(tensor[worst])][worst - int(np.flatnonzero(tensor == tensor[worst])[0])]
        rows = np.isin(tensor, broken)
        assert self.kind is not None
        why = None if len(still) == len(broken) else explained(self.kind, elements.of(rows), after[rows])
        told = {
            "broken": len(broken),
            "still": len(still),
            "name": held.name,
            "element": int(place),
            "group": held.group,
            "before": float(elements.weight[worst]),
            "gradient": float(elements.gradient[worst]),
            "got": float(after[worst]),
            "want": float(want[worst]),
            "bound": float(bound[worst]),
            "lr": float(elements.lr[worst]),
        }
        return told | ({"as_if": why} if why is not None else {})


def _old(held: Held, stale: Any | None) -> bool:
    """Has this tensor no gradient, one of zeros, or what the step before left?"""
    now = sampled(held, held.parameter.grad)
    if now is None:
        return held.parameter.grad is None
    return not bool(held.parameter.grad.detach().any()) or (stale is not None and bool((now == stale).all()))


def settings_of(group: dict[str, Any], optimizer: Any) -> dict[str, float]:
    """The settings of a group that the formulas use, under one name each; what is a tensor as a float."""
    betas = group.get("betas")
    decoupled = group.get("decoupled_weight_decay")
    if decoupled is None:
        decoupled = isinstance(optimizer, torch_module().optim.AdamW)
    return {
        "lr": float(group["lr"]),
        "beta1": float(betas[0]) if betas else float(group.get("momentum", 0.0)),
        "beta2": float(betas[1]) if betas else 0.0,
        "eps": float(group.get("eps", 0.0)),
        "weight_decay": float(group.get("weight_decay", 0.0)),
        "decoupled": bool(decoupled),
        "maximize": bool(group.get("maximize", False)),
        "amsgrad": bool(group.get("amsgrad", False)),
        "dampening": float(group.get("dampening", 0.0)),
        "nesterov": bool(group.get("nesterov", False)),
    }


def _scaling(optimizer: Any) -> tuple[float, bool]:
    """(the factor that a fused step divides gradients by, whether a gradient scaler has it skip this step)."""
    scale, found = getattr(optimizer, "grad_scale", None), getattr(optimizer, "found_inf", None)
    return (1.0 if scale is None else float(scale)), found is not None and float(found) > 0
