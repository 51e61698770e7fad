"""The course of a steered run: for each parameter group the schedule that holds from a step on, and its rates ahead."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eegwatch.schedule import Schedule, ScheduleError, as_dict, declared_base, parse, peak_rate, rate_at, resumed

AHEAD = 256  # steps computed at once: one call of a closed form costs 20 µs, whatever its length


@dataclass
class SteeredSchedule:
    """`laws[g]`: the schedule of group g, or None for a group that keeps following the script's own scheduler.

    `held`: rates of groups that stand at a number of their own where no schedule is declared. `momenta[g]`: the course
    of group g's momentum or first beta, where the schedule moves it (OneCycleLR). Steps count from 1.
    """

    from_step: int
    laws: list[Schedule | None]
    held: list[float | None]
    steps_per_epoch: int | None = None
    total: int | None = None
    command: str | None = None
    words: str = ""
    momenta: list[Schedule | None] = field(default_factory=list)
    _first: int = 0
    _ahead: list[list[float] | None] = field(default_factory=list)
    _momenta_ahead: list[list[float] | None] = field(default_factory=list)

    def rates(self, step: int) -> list[float | None]:
        """The rate of each group at a step; None for a group that is left to the script."""
        at = self._at(step)
        return [held if ahead is None else ahead[at] for ahead, held in zip(self._ahead, self.held, strict=True)]

    def momentum(self, step: int) -> list[float | None]:
        """The momentum (first beta) of each group at a step; None where it is left alone. Empty if in all."""
        at = self._at(step)
        return [None if ahead is None else ahead[at] for ahead in self._momenta_ahead]

    def _at(self, step: int) -> int:
        """The place of a step in what is computed ahead."""
        if not self._ahead or not self._first <= step < self._first + AHEAD:
            self._first = step
            steps = np.arange(step, step + AHEAD)
            if self.total is not None:
                steps = np.minimum(steps, self.total)  # past its end a schedule holds its last rate
            self._ahead, self._momenta_ahead = self._computed(self.laws, steps), self._computed(self.momenta, steps)
        return step - self._first

    def _computed(self, laws: list[Schedule | None], steps: NDArray[np.int64]) -> list[list[float] | None]:
        """Python's floats: the optimizer is given one a step, and a numpy scalar costs it a conversion."""
        return [None if law is None else [float(r) for r in rate_at(law, steps, self.steps_per_epoch)] for law in laws]

    def as_dict(self) -> dict[str, Any]:
        """All of it, for the other processes of a job: `course_from` makes the same course of it."""

        def declared(laws: list[Schedule | None]) -> list[dict[str, Any] | None]:
            return [None if law is None else as_dict(law) for law in laws]

        plain = {name: getattr(self, name) for name in _PLAIN}
        return plain | {"laws": declared(self.laws), "momenta": declared(self.momenta)}

    def record(self) -> dict[str, Any]:
        """The fields of the `schedule` record that announces this course."""
        main = self.laws[0] if self.laws else None
        return {
            "step": self.from_step,
            "schedule": None if main is None else as_dict(main),
            "groups": [{"name": None, "schedule": None if law is None else as_dict(law)} for law in self.laws],
            "command": self.command,
        }


_PLAIN = ("from_step", "held", "steps_per_epoch", "total", "command", "words")


def course_from(values: dict[str, Any]) -> SteeredSchedule:
    """The inverse of `SteeredSchedule.as_dict`. Raises ScheduleError, KeyError."""
    laws, momenta = ([None if law is None else parse(law) for law in values[name]] for name in ("laws", "momenta"))
    return SteeredSchedule(laws=laws, momenta=momenta, **{name: values[name] for name in _PLAIN})


class Refused(Exception):
    """A command that this run cannot carry out; the message is the reason."""


def course_for(
    *,
    from_step: int,
    lr: float | None,
    then: str,
    force: bool,
    laws: list[Schedule | None],
    now: list[float],
    steps_per_epoch: int | None,
    total: int | None,
    momenta: list[Schedule | None] | None = None,
    command: str | None = None,
) -> SteeredSchedule:
    """The steered schedule after a `resume` of a live run, from the step after `from_step` on. Raises Refused.

    `laws`: the declared schedule of each group; `now`: the rate that each group has. Without `lr` each group rejoins
    its own declared schedule. An `lr` is that of group 0; the others keep their ratio to it: that of the declared
    peaks, or of the rates that they have where nothing is declared.
    """
    if lr is None:
        if all(law is None for law in laws):
            raise Refused("this run declares no schedule to rejoin; name a learning rate, or declare one to RunLog")
        left = [g for g, law in enumerate(laws) if law is None]
        words = "rejoins the declared schedule"
        if left:
            words += f"; group {', '.join(map(str, left))} has no declared schedule and follows the script's"
        bases = [None if law is None else declared_base(law) for law in laws]
        return SteeredSchedule(
            from_step, bases, [None] * len(laws), steps_per_epoch, total, command, words, momenta or []
        )
    if not math.isfinite(lr) or lr <= 0:
        raise Refused(f"the learning rate must be a finite number above 0, not {lr}")
    if laws and laws[0] is not None:
        return _by_law(from_step, lr, then, force, laws, now, steps_per_epoch, total, command)
    if then != "hold":
        raise Refused(f"{then} needs a declared schedule, and this run declares none: use hold")
    first = now[0]
    held: list[float | None] = [lr * (rate / first) if first else lr for rate in now]
    return SteeredSchedule(from_step, [None] * len(now), held, steps_per_epoch, total, command, f"held at {lr:g}")


def _by_law(
    from_step: int,
    lr: float,
    then: str,
    force: bool,
    laws: list[Schedule | None],
    now: list[float],
    steps_per_epoch: int | None,
    total: int | None,
    command: str | None,
) -> SteeredSchedule:
    main = laws[0]
    assert main is not None
    top = peak_rate(declared_base(main))
    new: list[Schedule | None] = []
    held: list[float | None] = []
    for law, rate in zip(laws, now, strict=True):
        if law is None:
            ratio = rate / now[0] if now[0] else 1.0
            new.append(None)
            held.append(lr * ratio)
            continue
        peak = peak_rate(declared_base(law))
        held.append(None)
        if peak == 0:
            new.append(law)  # a group that is frozen by its rate stays so
            continue
        try:
            new.append(
                resumed(
                    law,
                    from_step,
                    lr * (peak / top),
                    then,  # type: ignore[arg-type]
                    steps_per_epoch=steps_per_epoch,
                    force=force or (law is not main and lr <= top),  # a ratio of peaks may round above the peak
                )
            )
        except ScheduleError as error:
            raise Refused(str(error)) from None
    return SteeredSchedule(from_step, new, held, steps_per_epoch, total, command, f"{lr:g}, then {then}")


def course_of(record: Any, groups: int, steps_per_epoch: int | None, total: int | None) -> SteeredSchedule | None:
    """The course that a `schedule` record announced; None where it holds no schedule. Raises ScheduleError."""
    entries = record.groups or [{"schedule": record.schedule}]
    laws = [None if e.get("schedule") is None else parse(e["schedule"]) for e in entries][:groups]
    laws += [None] * (groups - len(laws))
    if all(law is None for law in laws):
        return None
    return SteeredSchedule(
        record.step, laws, [None] * groups, steps_per_epoch, total, record.command, "as before the resume"
    )
