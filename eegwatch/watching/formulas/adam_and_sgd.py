"""The updates of torch's SGD, Adam and AdamW, each with a bound that was derived by hand: they are the most used.

torch/optim/sgd.py, adam.py: one formula for their plain, foreach and fused forms. The bound covers the rounding of the
parameter's type: 4 ulp of the parameter, the rounding of the averages before they cancel, and a part of the step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from eegwatch.watching.formulas.elements import Elements, Floats
from eegwatch.watching.formulas.formula import BETAS, DECAY, EPS, LR, MAXIMIZE, Formula, Setting, Trial, flag, value
from eegwatch.watching.formulas.running_error import STEP_SLACK, ULPS
from eegwatch.watching.tensors import torch_module


def _adam(e: Elements) -> tuple[Floats, Floats]:
    u, tiny, eps, lr = e["unit"], e["tiny"], e["eps"], e["lr"]
    beta1, beta2, decay, decoupled = e["beta1"], e["beta2"], e["decay"], e["decoupled"] != 0
    gradient = np.where(e["maximize"] != 0, -e["gradient"], e["gradient"])
    coupled = np.where(decoupled, 0.0, decay * e["weight"])
    error_g = np.where(coupled != 0, 2 * u * (np.abs(gradient) + np.abs(coupled)), 0.0) + tiny
    gradient = gradient + coupled
    weight = e["weight"] * (1 - np.where(decoupled, lr * decay, 0.0))
    count = e["count"] + 1
    first = beta1 * e["first"] + (1 - beta1) * gradient
    error_first = 4 * u * (np.abs(beta1 * e["first"]) + np.abs((1 - beta1) * gradient)) + error_g + tiny
    second = beta2 * e["second"] + (1 - beta2) * gradient**2
    error_second = 4 * u * second + 2 * (1 - beta2) * np.abs(gradient) * error_g + tiny
    held = np.where(e["amsgrad"] != 0, np.maximum(e["largest"], second), second)
    correction = 1 - beta2**count
    root = np.sqrt(held / correction)
    # the root of a number near 0 may be off by the root of its error
    error_root = np.minimum(
        error_second / (2 * np.sqrt(held * correction) + 1e-300), np.sqrt(error_second / correction)
    )
    below = root + eps
    rate = lr / (1 - beta1**count)
    step = rate * first / below
    error = rate * error_first / below + np.abs(step) * (error_root / below + 8 * u + STEP_SLACK)
    after = weight - step
    return after, error + ULPS * u * np.maximum(np.abs(e["weight"]), np.abs(after)) + tiny


def _sgd(e: Elements) -> tuple[Floats, Floats]:
    u, tiny, momentum, lr = e["unit"], e["tiny"], e["momentum"], e["lr"]
    nesterov = e["nesterov"] != 0
    gradient = np.where(e["maximize"] != 0, -e["gradient"], e["gradient"])
    decay = e["decay"] * e["weight"]
    error = 2 * u * (np.abs(gradient) + np.abs(decay)) + tiny
    gradient = gradient + decay
    kept = momentum * e["buffer"]
    buffer = np.where(e["count"] > 0, kept + (1 - e["dampening"]) * gradient, gradient)
    error = error + 4 * u * (np.abs(kept) + np.abs(gradient))
    moved = np.where(nesterov, gradient + momentum * buffer, buffer)
    error = error + np.where(nesterov, momentum * error + 2 * u * np.abs(momentum * buffer), 0.0)
    moved, error = np.where(momentum != 0, moved, gradient), error + 2 * u * np.abs(moved)
    step = lr * moved
    after = e["weight"] - step
    bound = lr * error + np.abs(step) * STEP_SLACK + ULPS * u * np.maximum(np.abs(e["weight"]), np.abs(after)) + tiny
    return after, bound


def _is_decoupled(group: Mapping[str, Any], optimizer: Any) -> float:
    given = group.get("decoupled_weight_decay")
    return float(isinstance(optimizer, torch_module().optim.AdamW) if given is None else bool(given))


def _of_adam(e: Elements) -> list[Trial]:
    return [
        ("with its decay coupled to the gradient (Adam's), not decoupled (AdamW's)", e.but(decoupled=0.0)),
        ("with its decay decoupled (AdamW's), not coupled to the gradient (Adam's)", e.but(decoupled=1.0)),
        (
            "as a first step, without the averages of the steps before",
            e.but(first=0.0, second=0.0, largest=0.0, count=0.0),
        ),
    ]


ADAM = Formula(
    "adam",
    _adam,
    (LR, *BETAS, EPS, DECAY, Setting("decoupled", _is_decoupled), MAXIMIZE, flag("amsgrad")),
    {"first": "exp_avg", "second": "exp_avg_sq", "largest": "max_exp_avg_sq"},
    missing=0.0,
    trials=_of_adam,
)
SGD = Formula(
    "sgd",
    _sgd,
    (
        LR,
        value("momentum", "momentum", words="a momentum", kind="share"),
        value("dampening", "dampening", words="a dampening", kind="share"),
        DECAY,
        MAXIMIZE,
        flag("nesterov"),
    ),
    {"buffer": "momentum_buffer"},
    missing=0.0,
    count="momentum_buffer",
    counts=False,
)
