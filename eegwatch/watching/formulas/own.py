"""What a step of an optimizer of the script's own comes to: a known formula that it coincides with, at some rate.

Nothing is said of a step that coincides with none of them in all elements that are read. Where it does, the formula
tells which settings of the group had a part in it: at another rate, without the decay, without the momentum.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eegwatch.watching.formulas.adam_and_sgd import ADAM, SGD
from eegwatch.watching.formulas.elements import Elements, Floats
from eegwatch.watching.formulas.formula import DECAY, LR, Formula, Setting, flag, value
from eegwatch.watching.formulas.running_error import STEP_SLACK, ULPS
from eegwatch.watching.optimizer_tensors import OptimizerTensor
from eegwatch.watching.tensors import torch_module

FEW = 8  # tensors whose state tells which averages there are
LEAST = 8  # elements that have to move by many units in their last place
CLEARLY = 50.0  # of those units, with half a unit each
ALIKE = 1e-3  # relative: two rates that are the same
UNCORRECTED = 1e9  # steps after which the averages of Adam are as good as not corrected
OF_ADAM = (("exp_avg", "exp_avg_sq"), ("m", "v"), ("mean", "square"), ("mean", "var"), ("first", "second"))
OF_MOMENTUM = ("momentum_buffer", "momentum", "velocity", "buffer", "buf")
CLIPS = re.compile(r"clip|max_(grad_)?norm|norm_limit|limit")
NO_CLIPS = re.compile(r"threshold|weight|trust|ratio|value_min")


def _beta(place: int, otherwise: float) -> Setting:
    def read(group: Mapping[str, Any], _: Any) -> float:
        betas = group.get("betas") or ()
        return float(betas[place]) if len(betas) > place else float(group.get(f"beta{place + 1}", otherwise))

    return Setting(f"beta{place + 1}", read)


OWN_ADAM = replace(
    ADAM,
    settings=(
        LR,
        _beta(0, 0.9),
        _beta(1, 0.999),
        value("eps", "eps", 1e-8),
        DECAY,
        Setting("decoupled", lambda *_: 1.0),
        flag("maximize"),
        flag("amsgrad"),
    ),
)
OWN_MOMENTUM = replace(
    SGD,
    settings=(
        LR,
        value("momentum", "momentum", 0.9),
        value("dampening", "dampening"),
        DECAY,
        flag("maximize"),
        flag("nesterov"),
    ),
)
PLAIN = replace(
    SGD,
    name="plain",
    settings=(
        LR,
        *(Setting(name, lambda *_: 0.0) for name in ("momentum", "dampening", "nesterov")),
        DECAY,
        flag("maximize"),
    ),
    averages={"buffer": ""},
)


def own_formula(optimizer: Any, held: Sequence[OptimizerTensor]) -> Formula | None:
    """The formula whose averages this optimizer keeps of its tensors; None where it keeps others, or has no rate."""
    if any("lr" not in group for group in optimizer.param_groups):
        return None
    keys: set[str] = set()
    for one in held[:FEW]:
        state = optimizer.state.get(one.parameter) or {}
        shape = one.parameter.shape
        keys |= {str(key) for key, kept in state.items() if getattr(kept, "shape", None) == shape and key != "step"}
    if not keys:
        return None if optimizer.state and not _counts_alone(optimizer, held) else PLAIN
    for first, second in OF_ADAM:
        if keys == {first, second}:
            return replace(OWN_ADAM, averages={"first": first, "second": second, "largest": ""})
    for name in OF_MOMENTUM:
        if keys == {name}:
            return replace(OWN_MOMENTUM, averages={"buffer": name}, count=name)
    return None


def _counts_alone(optimizer: Any, held: Sequence[OptimizerTensor]) -> bool:
    """Does the optimizer keep nothing of its tensors but numbers?"""
    tensor = torch_module().Tensor
    kept = [one for h in held[:FEW] for one in (optimizer.state.get(h.parameter) or {}).values()]
    return all(not isinstance(one, tensor) or one.numel() == 1 for one in kept)


def clip_of(group: Mapping[str, Any]) -> tuple[str, float] | None:
    """(name, value) of a setting that limits the gradients of a group, by its name."""
    for name, given in group.items():
        number = isinstance(given, int | float) and not isinstance(given, bool) and given > 0
        if number and CLIPS.search(name) and not NO_CLIPS.search(name):
            return name, float(given)
    return None


def fitted(formula: Formula, e: Elements, after: Floats, count: float) -> dict[str, Any] | None:
    """What the step of one group's elements is: {"rate", "lr", …}; None where it is nothing that is known.

    "without": the setting that had no part in it. "as_number": the decay is the same of every weight. "warm_up": the
    decay took the group's rate and the rest another one, as if warmed up over so many steps. `count`: steps that were
    taken before this one, for an optimizer that counts none of its own.
    """
    read = np.isfinite(e["gradient"]) & np.isfinite(after) & (e["gradient"] ** 2 < e["huge"])
    e, after = e.of(read), after[read]
    if not len(after):
        return None
    if formula.counts and not e["count"].any():
        e = e.but(count=count)
    taken = float(e["count"][0]) if formula.counts else count
    step = _Step(formula, e, after)
    if int((np.abs(step.moved) > CLEARLY * step.noise).sum()) < LEAST:
        return None
    lr, decay = float(e["lr"][0]), float(e["decay"][0])
    for direction in step.as_told():
        rate = step.rate(*direction)
        if rate is not None:
            return {"rate": rate, "lr": lr}
    if not decay or not lr:
        return None
    alone = list(step.without_decay())
    for direction in alone:
        rate = step.rate(*direction)
        if rate is not None:
            return {"rate": rate, "lr": lr, "without": "weight_decay", "value": decay}
    rate = step.rate(*alone[0], decayed=lr * decay)
    if rate is not None and abs(rate / lr - 1) <= ALIKE:
        return {"rate": rate, "lr": lr, "as_number": True, "value": decay}
    rate = step.rate(*alone[0], decayed=lr * decay * e["weight"])
    if rate is None or any(abs(rate / (lr * factor) - 1) <= 10 * ALIKE for factor in step.corrections()):
        return None
    return {"rate": rate, "lr": lr, "warm_up": (taken + 1) * lr / rate, "value": decay}


class _Step:
    """What one group's elements have moved by, held against directions of a formula."""

    def __init__(self, formula: Formula, e: Elements, after: Floats) -> None:
        self._formula, self._e = formula, e
        self.moved = e["weight"] - after
        self.noise = ULPS * e["unit"] * np.maximum(np.abs(e["weight"]), np.abs(after)) + e["tiny"]
        self._adam = "beta2" in e

    def _direction(self, **changed: Any) -> tuple[Floats, Floats]:
        """(the step at a rate of 1, how far rounding may take it)."""
        want, bound = self._formula.update(self._e.but(lr=1.0, **changed))
        return self._e["weight"] - want, bound

    def as_told(self) -> Iterator[tuple[Floats, Floats]]:
        """The directions in which the settings have it go: the decay coupled or not, the averages corrected or not."""
        for changed in self._counts():
            if self._adam:
                yield self._direction(**changed)
                yield self._direction(decoupled=0.0, **changed)
            else:
                step, error = self._direction(decay=0.0)
                yield self._direction()
                yield step + self._e["decay"] * self._e["weight"], error

    def without_decay(self) -> Iterator[tuple[Floats, Floats]]:
        """The directions without the decay of the group."""
        for changed in self._counts():
            yield self._direction(decay=0.0, **changed)

    def _counts(self) -> list[dict[str, float]]:
        return [{}, {"count": UNCORRECTED}] if self._adam else [{}]

    def corrections(self) -> list[float]:
        """Factors between rates that mean the same: an optimizer need not correct both averages."""
        if not self._adam:
            return [1.0]
        count = float(self._e["count"][0]) + 1
        first, second = 1 - float(self._e["beta1"][0]) ** count, (1 - float(self._e["beta2"][0]) ** count) ** 0.5
        return [1.0, first, 1 / first, second, 1 / second, first / second, second / first]

    def rate(self, direction: Floats, error: Floats, *, decayed: Any = 0.0) -> float | None:
        """The one rate at which this direction explains all elements; None if there is none."""
        moved = self.moved - decayed
        weight = 1 / (self.noise + STEP_SLACK * np.abs(moved)) ** 2
        below = float((direction**2 * weight).sum())
        if not below or not np.isfinite(below):
            return None
        rate = float((moved * direction * weight).sum()) / below
        off = np.abs(moved - rate * direction)
        return rate if rate > 0 and (off <= self.noise + rate * error).all() else None


def by_group(
    formula: Formula, e: Elements, after: Floats, groups: NDArray[np.int64], matrices: set[int], count: float
) -> list[dict[str, Any]]:
    """What the step of each group is, where it is known.

    `matrices`: groups with a tensor of two dimensions: an optimizer may leave the decay of vectors out on purpose.
    """
    found = []
    with np.errstate(all="ignore"):
        for group in np.unique(groups):
            one = fitted(formula, e.of(groups == group), after[groups == group], count)
            if one is not None and (int(group) in matrices or "value" not in one):
                found.append({"group": int(group)} | one)
    return found
