"""The updates of the other optimizers of torch.optim, element by element.

torch/optim/rmsprop.py, adagrad.py, adadelta.py, adamax.py, nadam.py, radam.py, asgd.py, rprop.py of torch 2.6, 2.13
and 2.15: their plain, foreach, fused and capturable forms. Adafactor and Muon divide by norms of whole rows, columns or
matrices: no element of their update can be told from that element alone, and they have no formula here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from eegwatch.watching.formulas.elements import Elements, Floats
from eegwatch.watching.formulas.formula import (
    BETAS,
    DECAY,
    EPS,
    LR,
    MAXIMIZE,
    Formula,
    Setting,
    Trial,
    flag,
    part,
    value,
)
from eegwatch.watching.formulas.running_error import Bounded, less

SINGLE = 2.0**-24  # unit roundoff of float32, in which capturable forms keep their corrections
LEAST_LENGTH = 5.0  # of the average in RAdam, below which it does not divide by the root
CAPTURABLE = flag("capturable")


def gradient_of(e: Elements, decay: Any = None) -> Bounded:
    """The gradient that a step uses: its sign, and the decay that is coupled to it."""
    gradient = Bounded(e, np.where(e["maximize"] != 0, -e["gradient"], e["gradient"]))
    coupled = e["decay"] if decay is None else decay
    return gradient + Bounded(e, e["weight"]) * coupled if coupled.any() else gradient


def average(e: Elements, name: str, share: Floats, new: Bounded, begin: Any = 0.0) -> Bounded:
    """share · the average so far + (1 - share) · what is new."""
    return Bounded(e, e.begun(name, begin)) * share + new * (1 - share)


def correction(e: Elements, beta: Floats, count: Floats) -> Bounded:
    """1 - beta^count, exact but for a capturable form, which computes it in float32."""
    error = np.where(e["capturable"] != 0, 4 * SINGLE, 0.0)
    return Bounded(e, 1 - beta**count, error)


def decayed(e: Elements) -> Floats:
    """The weight after a decay that is decoupled from the gradient."""
    lost: Floats = np.where(e["decoupled"] != 0, e["lr"] * e["decay"], 0.0)
    return e["weight"] * (1 - lost)


def _rmsprop(e: Elements) -> tuple[Floats, Floats]:
    gradient, alpha = gradient_of(e), e["alpha"]
    square = average(e, "square", alpha, gradient * gradient)
    mean = average(e, "mean", alpha, gradient)
    held = (square - mean * mean).where(e["centered"] != 0, square)
    ratio = gradient / (held.sqrt() + e["eps"])
    buffer = Bounded(e, e.begun("buffer", 0.0)) * e["momentum"] + ratio
    return less(e, e["weight"], buffer.where(e["momentum"] > 0, ratio) * e["lr"])


def _adagrad(e: Elements) -> tuple[Floats, Floats]:
    gradient = gradient_of(e)
    total = Bounded(e, e.begun("total", e["initial"])) + gradient * gradient
    rate = e["lr"] / (1 + e["count"] * e["lr_decay"])
    return less(e, e["weight"], gradient * rate / (total.sqrt() + e["eps"]))


def _adadelta(e: Elements) -> tuple[Floats, Floats]:
    gradient = gradient_of(e)
    square = average(e, "square", e["rho"], gradient * gradient)
    deltas = Bounded(e, e.begun("deltas", 0.0)) + e["eps"]
    delta = deltas.sqrt() / (square + e["eps"]).sqrt() * gradient
    return less(e, e["weight"], delta * e["lr"])


def _adamax(e: Elements) -> tuple[Floats, Floats]:
    gradient = gradient_of(e)
    first = average(e, "first", e["beta1"], gradient)
    largest = (Bounded(e, e.begun("largest", 0.0)) * e["beta2"]).maximum(abs(gradient) + e["eps"])
    step = first / largest / correction(e, e["beta1"], e["count"] + 1) * e["lr"]
    return less(e, e["weight"], step)


def _nadam(e: Elements) -> tuple[Floats, Floats]:
    gradient = gradient_of(e, np.where(e["decoupled"] != 0, 0.0, e["decay"]))
    count = e["count"] + 1
    first = average(e, "first", e["beta1"], gradient)
    second = average(e, "second", e["beta2"], gradient * gradient)
    now, later = (e["beta1"] * (1 - 0.5 * 0.96 ** ((count + ahead) * e["momentum_decay"])) for ahead in (0, 1))
    product = e.begun("product", 1.0) * now
    below = (second / correction(e, e["beta2"], count)).sqrt() + e["eps"]
    # the product is kept in float32
    lost, lost_later = (Bounded(e, 1 - one, 4 * SINGLE) for one in (product, product * later))
    step = gradient * (1 - now) / lost / below + first * later / lost_later / below
    return less(e, decayed(e), step * e["lr"])


def _radam(e: Elements) -> tuple[Floats, Floats]:
    gradient = gradient_of(e, np.where(e["decoupled"] != 0, 0.0, e["decay"]))
    count, beta2 = e["count"] + 1, e["beta2"]
    first = average(e, "first", e["beta1"], gradient) / correction(e, e["beta1"], count)
    second = average(e, "second", beta2, gradient * gradient)
    rest = correction(e, beta2, count)
    longest = 2 / (1 - beta2) - 1
    lost = Bounded(e, 2 * count * beta2**count) / rest
    length = Bounded(e, longest - lost.value, np.where(e["capturable"] != 0, lost.error, 0.0))
    long = length.value > LEAST_LENGTH
    unsure = np.abs(length.value - LEAST_LENGTH) <= length.error
    kept = Bounded(e, np.where(long, length.value, LEAST_LENGTH + 1), length.error)
    share = (kept - 4.0) * (kept - 2.0) * longest / (kept * ((longest - 4) * (longest - 2)))
    divided = first * share.sqrt() * rest.sqrt() / (second.sqrt() + e["eps"])
    step = divided.where(long, first) * e["lr"]
    step.error = np.where(unsure, np.inf, step.error)
    return less(e, decayed(e), step)


def _asgd(e: Elements) -> tuple[Floats, Floats]:
    rate = e.begun("eta", e["lr"])  # in float32, of the settings that the step before had
    return less(e, e["weight"], (gradient_of(e) + Bounded(e, e["weight"]) * e["lambd"]) * rate)


def _rprop(e: Elements) -> tuple[Floats, Floats]:
    gradient = gradient_of(e, np.zeros_like(e["weight"]))
    turned = (gradient * e.begun("before", 0.0)).sign()
    factor = np.where(turned.value > 0, e["eta_plus"], np.where(turned.value < 0, e["eta_minus"], 1.0))
    size = (Bounded(e, e.begun("size", e["lr"])) * factor).clipped(e["least"], e["most"])
    step = size * np.where(turned.value < 0, 0.0, np.sign(gradient.value))
    step.error = np.where(np.isfinite(turned.error), step.error, np.inf)
    return less(e, e["weight"], step)


def _of_decay(e: Elements) -> Sequence[Trial]:
    return (
        ("with its decay coupled to the gradient, not decoupled", e.but(decoupled=0.0)),
        ("with its decay decoupled from the gradient, not coupled", e.but(decoupled=1.0)),
    )


DECOUPLED = flag("decoupled", "decoupled_weight_decay")
ADAPTIVE = (LR, *BETAS, EPS, DECAY, MAXIMIZE, CAPTURABLE)
MOMENTS = {"first": "exp_avg", "second": "exp_avg_sq"}

RMSPROP = Formula(
    "rmsprop",
    _rmsprop,
    (
        LR,
        value("alpha", "alpha", words="alpha", kind="share"),
        EPS,
        DECAY,
        value("momentum", "momentum", words="a momentum", kind="share"),
        flag("centered"),
        MAXIMIZE,
    ),
    {"square": "square_avg", "mean": "grad_avg", "buffer": "momentum_buffer"},
    trials=lambda e: [("as if it were not centered", e.but(centered=0.0)), ("as if centered", e.but(centered=1.0))],
)
ADAGRAD = Formula(
    "adagrad",
    _adagrad,
    (
        LR,
        value("lr_decay", "lr_decay", words="a decay of the rate", kind="factor"),
        EPS,
        DECAY,
        Setting("initial", lambda _, optimizer: float(optimizer.defaults.get("initial_accumulator_value", 0.0))),
        MAXIMIZE,
    ),
    {"total": "sum"},
)
ADADELTA = Formula(
    "adadelta",
    _adadelta,
    (LR, value("rho", "rho", words="rho", kind="share"), EPS, DECAY, MAXIMIZE),
    {"square": "square_avg", "deltas": "acc_delta"},
)
ADAMAX = Formula("adamax", _adamax, ADAPTIVE, {"first": "exp_avg", "largest": "exp_inf"})
NADAM = Formula(
    "nadam",
    _nadam,
    (*ADAPTIVE, value("momentum_decay", "momentum_decay", words="a decay of the momentum", kind="factor"), DECOUPLED),
    MOMENTS,
    {"product": "mu_product"},
    trials=_of_decay,
)
RADAM = Formula("radam", _radam, (*ADAPTIVE, DECOUPLED), MOMENTS, trials=_of_decay)
ASGD = Formula(
    "asgd",
    _asgd,
    (LR, value("lambd", "lambd", words="lambd", kind="factor"), DECAY, MAXIMIZE),
    scalars={"eta": "eta"},
)
RPROP = Formula(
    "rprop",
    _rprop,
    (
        LR,
        part("eta_minus", "etas", 0, "a first eta", "share"),
        part("eta_plus", "etas", 1, "a second eta", "factor"),
        part("least", "step_sizes", 0),
        part("most", "step_sizes", 1),
        MAXIMIZE,
    ),
    {"before": "prev", "size": "step_size"},
)
