"""The update that SGD, Adam and AdamW make of a few elements, computed anew in float64, with a bound of its rounding.

What is computed is torch's own formula (torch/optim/sgd.py, adam.py: one formula for their plain, foreach and fused
forms). The bound covers the rounding of the parameter's type: 4 ulp of the parameter, the rounding of the averages
before they cancel, and 1e-4 of the step, which is what bias corrections in float32 may lose (1 - 0.999 in float32 is
off by 3e-5). An element whose difference is within the bound is not claimed to be wrong.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eegwatch.watching.tensors import torch_module

Floats = NDArray[np.float64]
STEP_SLACK = 1e-4  # of the step
ULPS = 8.0  # half units in the last place of the parameter: 4 ulp


@dataclass(frozen=True)
class Elements:
    """Sampled elements before a step, and the settings that hold for each; arrays of one length.

    `first`, `second`, `largest`: the optimizer's averages before the step (SGD's momentum is `first`), 0 where there
    are none yet. `count`: steps that the optimizer counted before this one; for SGD, whether a momentum was there.
    `unit`, `tiny`: the unit roundoff and the smallest normal number of the element's type.
    """

    weight: Floats
    gradient: Floats
    first: Floats
    second: Floats
    largest: Floats
    count: Floats
    lr: Floats
    beta1: Floats
    beta2: Floats
    eps: Floats
    decay: Floats
    decoupled: NDArray[np.bool_]
    maximize: NDArray[np.bool_]
    amsgrad: NDArray[np.bool_]
    dampening: Floats
    nesterov: NDArray[np.bool_]
    unit: Floats
    tiny: Floats

    def of(self, rows: NDArray[np.bool_]) -> Elements:
        """Only these elements."""
        return Elements(**{name: getattr(self, name)[rows] for name in self.__dataclass_fields__})


def kind_of(optimizer: Any) -> str | None:
    """ "sgd" or "adam" of an optimizer whose step is torch's own; None of any other: nothing is claimed of it."""
    optim = torch_module().optim
    step = inspect.unwrap(type(optimizer).step)
    for kind, names in (("adam", ("AdamW", "Adam")), ("sgd", ("SGD",))):
        if any(
            isinstance(optimizer, getattr(optim, n)) and step is inspect.unwrap(getattr(optim, n).step) for n in names
        ):
            return kind
    return None


def is_torchs(optimizer: Any) -> bool:
    """Is its step that of an optimizer of torch.optim? It then uses the gradients that lie in .grad."""
    return str(inspect.unwrap(type(optimizer).step).__module__).startswith("torch.optim")


def expected(kind: str, e: Elements) -> tuple[Floats, Floats]:
    """(the elements after the step, how far rounding may take them from it)."""
    with np.errstate(all="ignore"):
        return _sgd(e) if kind == "sgd" else _adam(e)


def _adam(e: Elements) -> tuple[Floats, Floats]:
    u = e.unit
    gradient = np.where(e.maximize, -e.gradient, e.gradient)
    coupled = np.where(e.decoupled, 0.0, e.decay * e.weight)
    error_g = np.where(coupled != 0, 2 * u * (np.abs(gradient) + np.abs(coupled)), 0.0) + e.tiny
    gradient = gradient + coupled
    weight = e.weight * (1 - np.where(e.decoupled, e.lr * e.decay, 0.0))
    count = e.count + 1
    first = e.beta1 * e.first + (1 - e.beta1) * gradient
    error_first = 4 * u * (np.abs(e.beta1 * e.first) + np.abs((1 - e.beta1) * gradient)) + error_g + e.tiny
    second = e.beta2 * e.second + (1 - e.beta2) * gradient**2
    error_second = 4 * u * second + 2 * (1 - e.beta2) * np.abs(gradient) * error_g + e.tiny
    held = np.where(e.amsgrad, np.maximum(e.largest, second), second)
    correction = 1 - e.beta2**count
    root = np.sqrt(held / correction)
    # the root of a number near 0 may be off by the root of its error
    error_root = np.minimum(
        error_second / (2 * np.sqrt(held * correction) + 1e-300), np.sqrt(error_second / correction)
    )
    below = root + e.eps
    rate = e.lr / (1 - e.beta1**count)
    step = rate * first / below
    error = rate * error_first / below + np.abs(step) * (error_root / below + 8 * u + STEP_SLACK)
    after = weight - step
    return after, error + ULPS * u * np.maximum(np.abs(e.weight), np.abs(after)) + e.tiny


def _sgd(e: Elements) -> tuple[Floats, Floats]:
    u = e.unit
    gradient = np.where(e.maximize, -e.gradient, e.gradient)
    decay = e.decay * e.weight
    error = 2 * u * (np.abs(gradient) + np.abs(decay)) + e.tiny
    gradient = gradient + decay
    begun = e.count > 0
    kept = e.beta1 * e.first
    buffer = np.where(begun, kept + (1 - e.dampening) * gradient, gradient)
    error = error + 4 * u * (np.abs(kept) + np.abs(gradient))
    moved = np.where(e.nesterov, gradient + e.beta1 * buffer, buffer)
    error = error + np.where(e.nesterov, e.beta1 * error + 2 * u * np.abs(e.beta1 * buffer), 0.0)
    moved, error = np.where(e.beta1 != 0, moved, gradient), error + 2 * u * np.abs(moved)
    step = e.lr * moved
    after = e.weight - step
    bound = e.lr * error + np.abs(step) * STEP_SLACK + ULPS * u * np.maximum(np.abs(e.weight), np.abs(after)) + e.tiny
    return after, bound


def explained(kind: str, e: Elements, after: Floats) -> str | None:
    """Of a step that is wrong: the one changed setting that gives what was seen, in words; None if none does."""
    trials = [
        ("without its weight decay", replace(e, decay=np.zeros_like(e.decay))),
        ("with momentum 0", replace(e, beta1=np.zeros_like(e.beta1))),
        ("with the sign of the gradient turned", replace(e, maximize=~e.maximize)),
    ]
    if kind == "adam":
        trials += [
            ("with its decay coupled to the gradient (Adam's), not decoupled (AdamW's)",
             replace(e, decoupled=np.zeros_like(e.decoupled))),
            ("with its decay decoupled (AdamW's), not coupled to the gradient (Adam's)",
             replace(e, decoupled=np.ones_like(e.decoupled))),
            ("as a first step, without the averages of the steps before",
             replace(e, first=e.first * 0, second=e.second * 0, largest=e.largest * 0, count=e.count * 0)),
        ]  # fmt: skip
    for words, trial in trials:
        if all(np.array_equal(getattr(trial, n), getattr(e, n)) for n in e.__dataclass_fields__):
            continue
        want, bound = expected(kind, trial)
        if (np.abs(after - want) <= bound).all():
            return words
    return _another_rate(kind, e, after)


def _another_rate(kind: str, e: Elements, after: Floats) -> str | None:
    """One factor on the rate that explains all elements."""
    want, _ = expected(kind, e)
    step, taken = want - e.weight, after - e.weight
    at = int(np.argmax(np.abs(step)))
    if not step[at] or not np.isfinite(taken[at]):
        return None
    factor = float(taken[at] / step[at])
    if factor == 0:
        return None
    with np.errstate(all="ignore"):
        again, bound = expected(kind, replace(e, lr=e.lr * factor))
    if (np.abs(after - again) <= bound).all():
        return f"at a rate of {float(e.lr[at]) * factor:.6g}, not {float(e.lr[at]):.6g}"
    return None
