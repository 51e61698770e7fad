"""Averages of the weights (EMA): a few elements before and after the update that lies between two optimizer steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eegwatch.watching.gather import Gathered
from eegwatch.watching.naming import first_names
from eegwatch.watching.tensors import elements, plain_name, spread, torch_module, why_unread

if TYPE_CHECKING:
    from eegwatch.watching.optimizer_listener import OptimizerListener

Floats = NDArray[np.float64]
UNKNOWN = (
    "log.ema: which weights this {} averages is not known (by name and shape those of no watched model, or of "
    "several): it is not compared; tell it with of=MODEL"
)

MOST = 64  # tensors of an average that are read
MOST_UPDATES = 16  # in one step that are told of
ULPS = 8.0  # half units in the last place
# where an average keeps its tensors: those of torch, timm, torch_ema, ema_pytorch, diffusers, Lightning and torchvision
PLACES = (
    "module",
    "ema",
    "model",
    "shadow",
    "ema_model",
    "shadow_params",
    "_average_model",
    "params",
    "averaged_model",
)
APART = 0.6  # of the sum of both squares: weights that were drawn apart are 1 apart, an average and its weights near 0


class WeightAverage:
    """One average of the watched weights. `number`: which of them it is."""

    def __init__(self, model: Any, decay: Any, models: Sequence[Any], number: int, of: Sequence[Any] = ()) -> None:
        """`decay`: a number, a function of the step (None where it rests), or None: only the aliases are looked for.

        `models`: the watched ones; `of`: those that it averages, where that was told.
        """
        self.decay, self.number = decay, number
        given = _tensors(model, of or models)
        own = averaged(given, of or models, told=bool(of))
        pairs = [(name, p, own.get(name)) for name, p in given]
        self.tensors = {name: average for name, average, _ in pairs}
        self.aliased = [name for name, a, w in pairs if w is not None and a.numel() and a.data_ptr() == w.data_ptr()]
        self._pairs = [
            (name, a, w, spread(int(a.numel())))
            for name, a, w in pairs
            if w is not None and why_unread(a) is None and why_unread(w) is None and a.shape == w.shape
        ][:MOST]
        self._before: tuple[int, Floats, Floats] | None = None
        self._mark: tuple[int, float | None] = (0, None)  # calls of log.step() and the scale at the step
        self.updates = 0

    def held_by(self, listener: OptimizerListener) -> bool:
        """Does this optimizer hold the weights that are averaged?"""
        held = {id(one.parameter) for one in listener.table.all}
        return any(id(weight) in held for _, _, weight, _ in self._pairs)

    def alias(self) -> dict[str, Any]:
        """What is written of an average that shares its memory with the weights."""
        return {"average": self.number, "n": 1, "what": "aliased", "aliased": first_names(self.aliased)}

    @property
    def unpaired(self) -> bool:
        """Is it to be compared, and is it not known with what?"""
        return self.decay is not None and not self._pairs

    @property
    def waits(self) -> bool:
        return self._before is not None

    def stepped(self, step: int, calls: int, scale: float | None) -> None:
        """The optimizer has made step `step`: what the average and the weights are now.

        `calls`: of log.step() so far; `scale`: of the gradient scaler that was declared.
        """
        if self.decay is not None and self._pairs:
            self._before = (step, self._read(1), self._read(2))
            self._mark = (calls, scale)

    def compared(self, calls: int, scale: float | None) -> dict[str, Any] | None:
        """Before the next step: what the average has become since. None where nothing can be told.

        A gradient scaler may have skipped steps in between, whose average was updated all the same: several calls of
        log.step(), or a smaller scale.
        """
        before, self._before = self._before, None
        then, at = self._mark
        if before is None or calls - then > 1 or (scale is not None and at is not None and scale < at):
            return None
        step, old, weight = before
        decay = self.decay(step) if callable(self.decay) else self.decay
        now, weight_now = self._read(1), self._read(2)
        if decay is None:
            return None  # it rests
        told: dict[str, Any] = {"average": self.number, "step": step}
        if np.array_equal(weight_now, weight):
            return told | self._judged(old, now, weight, float(decay))
        return self._swapped(told, old, now, weight, weight_now, float(decay))

    def _swapped(
        self,
        told: dict[str, Any],
        old: NDArray[np.float64],
        now: NDArray[np.float64],
        weight: NDArray[np.float64],
        weight_now: NDArray[np.float64],
        decay: float,
    ) -> dict[str, Any] | None:
        """What is told where the weights have moved since the step: None, or that they, not the average, were averaged.

        Something else may have set the weights. Where the average stands, and each weight is now decay times itself
        plus the rest of the average, the two have changed places.
        """
        want = decay * weight + (1 - decay) * old
        bound = self._bound(old, weight)
        if not np.array_equal(now, old) or (np.abs(weight_now - want) > bound).any():
            return None
        if not (np.abs(weight_now - weight) > bound).any():
            return None
        worst = int(np.argmax(np.abs(weight_now - weight)))
        told |= {"n": len(now), "decay": decay, "what": "swapped", "name": self._name_at(worst)}
        return told | {"got": float(weight_now[worst]), "want": float(weight[worst]), "old": float(old[worst])}

    def _judged(self, old: Floats, now: Floats, weight: Floats, decay: float) -> dict[str, Any]:
        values: dict[str, Any] = {"n": len(now), "decay": decay}
        want = decay * old + (1 - decay) * weight
        bound = self._bound(old, weight)
        with np.errstate(all="ignore"):
            off = np.abs(now - want) > bound
        copied = not self.updates and np.array_equal(now, weight)  # the first update of many averages is a copy
        self.updates += not np.array_equal(now, old)
        if not off.any() or copied:
            return values
        times = _times(old, now, weight, decay, bound)
        values["what"] = "still" if np.array_equal(now, old) else "other" if times is None else "twice"
        if times is not None:
            values["times"] = times
        made = _decay_of(old, now, weight, bound)
        if made is not None:
            values["as_if"] = made
        worst = int(np.argmax(np.where(off, np.abs(now - want) / bound, -1)))
        values["name"] = self._name_at(worst)
        return values | {"got": float(now[worst]), "want": float(want[worst]), "old": float(old[worst])}

    def _bound(self, old: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
        """What rounding in the tensors' types can make of one update."""
        unit = max(_unit(p) for _, a, w, _ in self._pairs for p in (a, w))
        return np.asarray(ULPS * unit * np.maximum(np.abs(old), np.abs(weight)) + 1e-38)

    def _name_at(self, element: int) -> str:
        """The name of the tensor that an element of all that are read belongs to."""
        sizes = np.cumsum([count for *_, (count, _) in self._pairs])
        return str(self._pairs[int(np.searchsorted(sizes, element, side="right"))][0])

    def _read(self, which: int) -> Floats:
        gathered = Gathered()
        with torch_module().no_grad():
            for pair in self._pairs:
                count, stride = pair[3]
                gathered.add(elements(pair[which], count, stride), count)
            gathered.copy()
        return gathered.values()[0]


def _tensors(model: Any, models: Sequence[Any]) -> list[tuple[str, Any]]:
    """The named tensors of an average, which keeps them itself or in one of PLACES: what first fits a model."""
    held = [list(_named(one, models)) for one in (model, *(getattr(model, place, None) for place in PLACES))]
    known = {(plain_name(name), p.shape) for one in models for name, p in one.named_parameters()}
    fitting = [one for one in held if any((name, tensor.shape) in known for name, tensor in one)]
    found = next(iter((*fitting, *(one for one in held if one))), None)
    if found is None:
        raise TypeError(f"log.ema: {type(model).__name__} is no module, no dict and no list of tensors")
    return found


def _named(held: Any, models: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """The named tensors of a module, of a dict, or of a list: one for each parameter of a model, or each trainable."""
    tensor = torch_module().Tensor
    if hasattr(held, "named_parameters"):
        yield from ((plain_name(name), p) for name, p in held.named_parameters())
    elif isinstance(held, dict):
        yield from ((plain_name(str(name)), one) for name, one in held.items() if isinstance(one, tensor))
    elif isinstance(held, list | tuple | torch_module().nn.ParameterList) and all(isinstance(p, tensor) for p in held):
        shapes = [one.shape for one in held]
        for model in models:
            whole = [(plain_name(name), p) for name, p in model.named_parameters()]
            for named in (whole, [(name, p) for name, p in whole if p.requires_grad]):
                if [p.shape for _, p in named] == shapes:
                    yield from zip((name for name, _ in named), held)
                    return


def averaged(given: Sequence[tuple[str, Any]], models: Sequence[Any], *, told: bool) -> dict[str, Any]:
    """The weights that are averaged, by name; `told`: these are the models of the average.

    Of several watched models with tensors of these names and shapes it is the one that the average is a copy of now; a
    single one is taken where the average lies near it. Where it is none of them, or more than one, it is not known.
    """
    named = [{plain_name(name): p for name, p in one.named_parameters()} for one in models]
    fitting = [own for own in named if all(name in own and own[name].shape == a.shape for name, a in given)]
    read = [(name, a) for name, a in given if why_unread(a) is None]
    itself = {id(a) for _, a in given}  # a teacher may be watched beside the student that it averages
    fitting = [own for own in fitting if not itself <= {id(p) for p in own.values()}] or fitting
    if len(fitting) > 1:
        with torch_module().no_grad():
            fitting = [own for own in fitting if all(torch_module().equal(a, own[name].to(a)) for name, a in read)]
        return fitting[0] if len(fitting) == 1 else {}
    whole = fitting[0] if fitting else {name: p for own in reversed(named) for name, p in own.items()}
    return whole if told or _near(read, whole) else {}


def _near(given: Sequence[tuple[str, Any]], own: dict[str, Any]) -> bool:
    """Is an average these weights, as far as an average may be: more alike than weights that were drawn apart?"""
    apart = size = 0.0
    with torch_module().no_grad():
        for name, a in given:
            w = own.get(name)
            if w is not None and w.shape == a.shape and why_unread(w) is None:
                one, other = a.detach().float(), w.detach().to(a.device).float()
                apart += float((one - other).square().sum())
                size += float(one.square().sum() + other.square().sum())
    return apart <= APART * size


def _times(old: Floats, now: Floats, weight: Floats, decay: float, bound: Floats) -> int | None:
    """How often in a row an update by this decay gives what the average has become; None for no such number."""
    for times in range(2, MOST_UPDATES + 1):
        want = decay**times * old + (1 - decay**times) * weight
        if (np.abs(now - want) <= times * bound).all():
            return times
    return None


def _decay_of(old: Floats, now: Floats, weight: Floats, bound: Floats) -> float | None:
    """The decay that explains what the average has become, if one does, with as few digits as do it."""
    at = int(np.argmax(np.abs(weight - old)))
    gap = weight[at] - old[at]
    if not np.isfinite(gap) or not gap or not np.isfinite(now[at]):
        return None
    decay = float(1 - (now[at] - old[at]) / gap)
    for digits in range(1, 8):
        shown = float(f"{decay:.{digits}g}")
        if (np.abs(now - shown * old - (1 - shown) * weight) <= bound).all():
            return shown
    return None


def _unit(tensor: Any) -> float:
    return float(torch_module().finfo(tensor.dtype).eps) / 2
