"""Which optimizers have a formula: by their class, where the step that runs is that of the class itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from eegwatch.watching.formulas import of_torch
from eegwatch.watching.formulas.adam_and_sgd import ADAM, SGD
from eegwatch.watching.formulas.formula import Formula
from eegwatch.watching.formulas.of_packages import formula_of_package
from eegwatch.watching.tensors import torch_module

OF_TORCH = {
    "SGD": SGD,
    "AdamW": ADAM,
    "Adam": ADAM,
    "RMSprop": of_torch.RMSPROP,
    "Adagrad": of_torch.ADAGRAD,
    "Adadelta": of_torch.ADADELTA,
    "Adamax": of_torch.ADAMAX,
    "NAdam": of_torch.NADAM,
    "RAdam": of_torch.RADAM,
    "ASGD": of_torch.ASGD,
    "Rprop": of_torch.RPROP,
}


def formula_of(optimizer: Any) -> Formula | None:
    """The formula of an optimizer whose step is the known one; None of any other: nothing is claimed of it."""
    optim, step = torch_module().optim, step_of(optimizer)
    for name, formula in OF_TORCH.items():
        known = getattr(optim, name)
        if isinstance(optimizer, known) and step is inspect.unwrap(known.step):
            return formula
    return formula_of_package(optimizer, step)


def step_of(optimizer: Any) -> Callable[..., Any]:
    """The function that is its step, without what hooks, gradients' modes and profilers put around it."""
    step: Callable[..., Any] = inspect.unwrap(type(optimizer).step)
    return step


def is_torchs(optimizer: Any) -> bool:
    """Is its step that of an optimizer of torch.optim? It then uses the gradients that lie in .grad."""
    return str(step_of(optimizer).__module__).startswith("torch.optim")
