"""Shared by all readers: the error with the reason why nothing was read, and access to foreign objects."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

Law = dict[str, Any]
LawOf = Callable[[Any, int, int | None], Law]
Reader = Callable[[Any, int, int | None, LawOf], Law]

FACTOR_ONE = 1e-12


class NotRead(Exception):
    """No schedule can be claimed for this object: why, in words that follow "no schedule is read off it: "."""


def module_of(thing: Any) -> str:
    return str(type(thing).__module__ or "")


def float_of(value: Any) -> float:
    """A rate as a float; a tensor's is fetched."""
    return float(value)


def base_of(scheduler: Any, group: int) -> float:
    return float_of(scheduler.base_lrs[group])


def optimizer_of(scheduler: Any) -> Any:
    """The optimizer whose parameter groups this scheduler moves (accelerate wraps both)."""
    if hasattr(scheduler, "optimizer"):
        optimizer = scheduler.optimizer
    elif hasattr(scheduler, "scheduler"):  # accelerate's AcceleratedScheduler
        return optimizer_of(scheduler.scheduler)
    else:  # torch's ChainedScheduler before 2.4
        return optimizer_of(scheduler._schedulers[0])
    if isinstance(optimizer, list):  # ignite's ParamGroupScheduler
        optimizer = optimizer[0]
    return optimizer


def in_epochs(scheduler: Any) -> bool:
    """Whether the scheduler declares that it is stepped once an epoch; only timm's schedulers do."""
    return module_of(scheduler).startswith("timm.") and bool(getattr(scheduler, "t_in_epochs", False))


def whole(total: float) -> int:
    return max(1, math.ceil(total))


def known_total(total: int | None) -> int:
    if total is None:
        raise NotRead("the run's length is not known (give total_steps)")
    return max(1, total)


def decay(total: int | None, length: float) -> Law:
    """`total_steps`, and `decay_steps` where the decay is shorter than the run; one built for longer keeps its own."""
    if total is None or total <= length:
        return {"total_steps": whole(length)} | ({} if length == whole(length) else {"decay_steps": float(length)})
    return {"total_steps": total, "decay_steps": length}
