"""A scheduler object of torch or a framework, read as declared schedules, one a parameter group; nothing is guessed.

docs/schedules.md lists the objects that are understood, and how. Nothing here imports torch or a framework: an
object is known by the class that computes its rates, so that a subclass with a formula of its own is not taken for
its parent.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from eegwatch.schedule.base import ScheduleError
from eegwatch.schedule.readers.common import Law, NotRead, float_of, in_epochs, module_of, optimizer_of
from eegwatch.schedule.readers.framework_schedulers import IGNITE, TIMM, accelerated, is_accelerated
from eegwatch.schedule.readers.torch_schedulers import TORCH, torch_class
from eegwatch.schedule.spec import parse

START_DIFFERS = 1e-6  # relative: a float32 rate differs by 6e-8 from the float64 that it was set from


class Reading(NamedTuple):
    """The law of each parameter group (None: not known), the unit of its positions, and why a law is None."""

    groups: list[Law | None]
    unit: str
    why: str | None


def read(scheduler: Any, total_steps: int | None = None) -> Law | None:
    """The schedule of parameter group 0, in positions of the scheduler (its own steps); None if it is not understood.

    `total_steps`: the run's length in scheduler steps, for schedulers that have none of their own.
    """
    groups = read_groups(scheduler, total_steps)
    return groups[0] if groups else None


def read_groups(scheduler: Any, total_steps: int | None = None) -> list[Law | None]:
    """The schedule of every parameter group, group 0 first; an empty list where there is no optimizer to be found."""
    return reading_of(scheduler, total_steps).groups


def reading_of(scheduler: Any, total: int | None = None, *, fresh: bool = True) -> Reading:
    """As `read_groups`, with the unit and, where no law is known, the reason in words. Never raises.

    `fresh`: the run begins here, so that the optimizer must stand at the rate with which the schedule begins. If it
    does not, something else moves it too, and no law is claimed.
    """
    unit = "epoch" if in_epochs(scheduler) else "step"
    try:
        optimizer = optimizer_of(scheduler)
        count = len(optimizer.param_groups)
    except Exception:  # an object of any kind was given
        return Reading([], unit, f"this {type(scheduler).__name__} holds no optimizer")
    groups: list[Law | None] = []
    why: str | None = None if count else "its optimizer has no parameter group"
    for group in range(count):
        try:
            law = law_of(scheduler, group, total)
            parse(law)
            if fresh:
                _stands_at_its_start(scheduler, optimizer, group, law)
            groups.append(law)
        except (NotRead, ScheduleError) as error:
            groups.append(None)
            why = why or str(error)
        except (
            Exception
        ) as error:  # a version of the framework with other attributes: its rates are logged all the same
            groups.append(None)
            why = why or f"its attributes are not those of a version known here ({type(error).__name__}: {error})"
    return Reading(groups, unit, why)


def law_of(scheduler: Any, group: int, total: int | None) -> Law:
    """The law of one parameter group. Raises NotRead with the reason."""
    if is_accelerated(scheduler):
        return accelerated(scheduler, group, total, law_of)
    module, name = module_of(scheduler), type(scheduler).__name__
    for root, readers in (("timm.scheduler", TIMM), ("ignite.handlers", IGNITE)):
        if module.startswith(root):
            if name not in readers:
                raise NotRead(f"{root.partition('.')[0]}'s {name} is not known")
            return readers[name](scheduler, group, total, law_of)
    known = torch_class(scheduler)
    if known is None or known not in TORCH:
        raise NotRead("it computes its rates by another formula")
    return TORCH[known](scheduler, group, total, law_of)


def _stands_at_its_start(scheduler: Any, optimizer: Any, group: int, law: Law) -> None:
    position = getattr(scheduler, "last_epoch", None)
    if position != 0:
        return
    now, begins = float_of(optimizer.param_groups[group]["lr"]), float(parse(law).rate(0))
    if abs(now - begins) > START_DIFFERS * max(abs(begins), abs(now)):
        raise NotRead(
            f"it begins at {begins:.6g} and the optimizer stands at {now:.6g}: something else changes the rate too"
        )
