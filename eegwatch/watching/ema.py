"""Averages of the weights (EMA): a few elements before and after the update that lies between two optimizer steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eegwatch.watching.gather import Gathered
from eegwatch.watching.naming import first_names
from eegwatch.watching.tensors import elements, plain_name, spread, torch_module, why_unread

if TYPE_CHECKING:
    from eegwatch.watching.optimizer_listener import OptimizerListener

MOST = 64  # tensors of an average that are read
ULPS = 8.0  # half units in the last place


class WeightAverage:
    """One average of the watched weights. `number`: which of them it is."""

    def __init__(self, model: Any, decay: Any, models: Sequence[Any], number: int) -> None:
        """`decay`: a number, a function of the step (None where it rests), or None: only the aliases are looked for."""
        self.decay, self.number = decay, number
        given = [(plain_name(name), p) for name, p in _parameters(model)]
        own = _averaged(given, models)
        pairs = [(name, p, own.get(name)) for name, p in given]
        self.tensors = {name: average for name, average, _ in pairs}
        self.aliased = [name for name, a, w in pairs if w is not None and a.numel() and a.data_ptr() == w.data_ptr()]
        self._pairs = [
            (name, a, w, spread(int(a.numel())))
            for name, a, w in pairs
            if w is not None and why_unread(a) is None and why_unread(w) is None and a.shape == w.shape
        ][:MOST]
        self._before: tuple[int, NDArray[np.float64], NDArray[np.float64]] | None = None
        self._mark: tuple[int, float | None] = (0, None)  # calls of log.step() and the scale at the step
        self.updates = 0

    def held_by(self, eye: OptimizerListener) -> bool:
        """Does this optimizer hold the weights that are averaged?"""
        held = {id(one.parameter) for one in eye.table.all}
        return any(id(weight) in held for _, _, weight, _ in self._pairs)

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
        now = self._read(1)
        if decay is None or not np.array_equal(self._read(2), weight):
            return None  # it rests, or something else has set the weights meanwhile
        return {"average": self.number, "step": step} | self._judged(old, now, weight, float(decay))

    def _judged(
        self, old: NDArray[np.float64], now: NDArray[np.float64], weight: NDArray[np.float64], decay: float
    ) -> dict[str, Any]:
        values: dict[str, Any] = {"n": len(now), "decay": decay}
        want = decay * old + (1 - decay) * weight
        unit = max(_unit(p) for _, a, w, _ in self._pairs for p in (a, w))
        bound = ULPS * unit * np.maximum(np.abs(old), np.abs(weight)) + 1e-38
        with np.errstate(all="ignore"):
            off = np.abs(now - want) > bound
        copied = not self.updates and np.array_equal(now, weight)  # the first update of many averages is a copy
        self.updates += not np.array_equal(now, old)
        if not off.any() or copied:
            return values
        again = decay * want + (1 - decay) * weight
        values["what"] = (
            "still" if np.array_equal(now, old) else "twice" if (np.abs(now - again) <= 2 * bound).all() else "other"
        )
        worst = int(np.argmax(np.where(off, np.abs(now - want) / bound, -1)))
        sizes = np.cumsum([count for *_, (count, _) in self._pairs])
        name = self._pairs[int(np.searchsorted(sizes, worst, side="right"))][0]
        return values | {"name": name, "got": float(now[worst]), "want": float(want[worst]), "old": float(old[worst])}

    def _read(self, which: int) -> NDArray[np.float64]:
        gathered = Gathered()
        with torch_module().no_grad():
            for pair in self._pairs:
                count, stride = pair[3]
                gathered.add(elements(pair[which], count, stride), count)
            gathered.copy()
        return gathered.values()[0]


def _parameters(model: Any) -> list[tuple[str, Any]]:
    """The named tensors of an average: a module, a dict, or an object that keeps either as `module` or `shadow`."""
    for name in ("", "module", "ema", "model", "shadow", "ema_model"):
        inner: Any = getattr(model, name, None) if name else model
        if hasattr(inner, "named_parameters"):
            return list(inner.named_parameters())
        if isinstance(inner, dict):
            return [(str(key), value) for key, value in inner.items() if hasattr(value, "data_ptr")]
    raise TypeError(f"log.ema: {type(model).__name__} is no module and no dict of tensors")


def _averaged(given: list[tuple[str, Any]], models: Sequence[Any]) -> dict[str, Any]:
    """The weights that are averaged, by name.

    Of several watched models with tensors of these names and shapes it is the one that the average is a copy of now;
    where that is none of them, or more than one, it is not known.
    """
    named = [{plain_name(name): p for name, p in one.named_parameters()} for one in models]
    fitting = [own for own in named if all(name in own and own[name].shape == a.shape for name, a in given)]
    if len(fitting) > 1:
        torch = torch_module()
        read = [(name, a) for name, a in given if why_unread(a) is None]
        with torch.no_grad():
            fitting = [own for own in fitting if all(torch.equal(a, own[name].to(a)) for name, a in read)]
        return fitting[0] if len(fitting) == 1 else {}
    return {name: p for own in reversed(named) for name, p in own.items()}


def _unit(tensor: Any) -> float:
    unit = float(torch_module().finfo(tensor.dtype).eps) / 2
    return unit if math.isfinite(unit) else 1.0


def aliased(average: WeightAverage) -> dict[str, Any] | None:
    """What is written of an average that shares its memory with the weights."""
    if not average.aliased:
        return None
    return {"average": average.number, "n": 1, "what": "aliased", "aliased": first_names(average.aliased)}
