"""The updates of optimizers of other packages, of the versions whose source was read and run.

lion-pytorch 0.0.7 to 0.2.5 (lion_pytorch/lion_pytorch.py), timm 0.9.16 to 1.0.31 (timm/optim/lion.py): one formula, but
for a Triton kernel, for timm's cautious form, which divides by a mean over the whole tensor, and for its decay that is
corrected by the largest rate.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eegwatch.watching.formulas.elements import Elements, Floats
from eegwatch.watching.formulas.formula import BETAS, LR, MAXIMIZE, Formula, Setting
from eegwatch.watching.formulas.of_torch import gradient_of
from eegwatch.watching.formulas.running_error import Bounded, less


@dataclass(frozen=True)
class Known:
    """An optimizer of a package: its formula, and the first and the last version that it was held against."""

    package: str
    first: tuple[int, ...]
    last: tuple[int, ...]
    formula: Formula


def _lion(e: Elements) -> tuple[Floats, Floats]:
    none = e["decay"] * 0
    gradient = gradient_of(e, none)
    turned = Bounded(e, e.begun("first", 0.0)) * e["beta1"] + gradient * (1 - e["beta1"])
    return less(e, e["weight"] * (1 - e["lr"] * e["decay"]), turned.sign() * e["lr"])


def _decay_of_lion(group: Mapping[str, Any], optimizer: Any) -> float:
    """lion-pytorch divides it by the rate that it was built with, where that is asked for."""
    decay = float(group.get("weight_decay", 0.0))
    return decay / float(optimizer._init_lr) if getattr(optimizer, "decoupled_wd", False) else decay


LION = Formula(
    "lion",
    _lion,
    (LR, *BETAS, Setting("decay", _decay_of_lion, "a weight decay", "factor"), MAXIMIZE),
    {"first": "exp_avg"},
    count="exp_avg",
    counts=False,
)
KNOWN = {  # (module, class) ->
    ("lion_pytorch.lion_pytorch", "Lion"): Known("lion-pytorch", (0, 0, 7), (0, 2, 5), LION),
    ("timm.optim.lion", "Lion"): Known("timm", (0, 9, 16), (1, 0, 31), LION),
}
OTHERWISE = ("caution", "corrected_weight_decay")  # switches of a group with which the formula is another one


def formula_of_package(optimizer: Any, step: Any) -> Formula | None:
    """The formula of an optimizer of a package whose step is that of its class; None of other versions and forms."""
    for kind in type(optimizer).__mro__:
        known = KNOWN.get((kind.__module__, kind.__qualname__))
        if known is None:
            continue
        kernel = getattr(optimizer, "update_fn", step)  # lion-pytorch's, which may be one in Triton
        own = step.__qualname__ == f"{kind.__qualname__}.step"
        own = own and step.__module__ == kernel.__module__ == kind.__module__
        plain = not any(group.get(name) for group in optimizer.param_groups for name in OTHERWISE)
        return known.formula if own and plain and known.first <= _version(known.package) <= known.last else None
    return None


def _version(package: str) -> tuple[int, ...]:
    """The first three numbers of the installed version; () where it is not installed as a package."""
    try:
        installed = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ()
    return tuple(int(one) for one in re.findall(r"\d+", installed)[:3])
