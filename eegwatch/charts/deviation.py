"""The deviation of the observed rates from the expected ones, step by step, in percent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eegwatch.run.history import History
from eegwatch.run.records import Run
from eegwatch.schedule import Schedule, ScheduleError, parse, rate_at


def schedule_of(run: Run | None) -> Schedule | None:
    """The declared schedule of an attempt, or None."""
    return None if run is None else _drawable(run.schedule, run.steps_per_epoch)


def _drawable(declared: dict[str, Any] | None, steps_per_epoch: int | None) -> Schedule | None:
    """A schedule whose rates can be computed; the diagnosis says what is wrong with another."""
    if declared is None:
        return None
    try:
        schedule = parse(declared)
        rate_at(schedule, 1, steps_per_epoch)
    except ScheduleError:
        return None
    return schedule


@dataclass(frozen=True)
class Declared:
    """A declared schedule and the steps that it is of: after `begin`, up to `end`; None where it cannot be drawn."""

    begin: int
    end: int
    schedule: Schedule | None
    steps_per_epoch: int | None


NEVER = 2**62


def declared_schedules(history: History) -> list[Declared]:
    """The schedule of each attempt, and those to which a command has changed it within the newest one."""
    laws = [(run.step, run.schedule, run.steps_per_epoch) for run in history.attempts]
    per_epoch = laws[-1][2] if laws else None
    laws += [(change.step, change.schedule, per_epoch) for change in history.schedules]
    ends = [begin for begin, _, _ in laws[1:]] + [NEVER] * bool(laws)
    return [
        Declared(begin, max(begin, min(end, NEVER)), _drawable(declared, length), length)
        for (begin, declared, length), end in zip(laws, ends, strict=True)
    ]


def expected_rates(history: History, steps: NDArray[np.int64]) -> NDArray[np.float64]:
    """The rate that each step (ascending) should have used, by its attempt and the changes of schedule within it.

    NaN where no schedule is known.
    """
    rates = np.full(len(steps), np.nan)
    for law in declared_schedules(history):
        rows = slice(*np.searchsorted(steps, [law.begin, law.end], side="right"))
        if law.schedule is not None and rows.stop > rows.start:
            rates[rows] = rate_at(law.schedule, steps[rows], law.steps_per_epoch)
    return rates


def expected_at(history: History, step: int) -> float | None:
    """The rate that one step should have used; None where no schedule is known."""
    rate = float(expected_rates(history, np.array([step]))[0])
    return rate if np.isfinite(rate) else None


BLOCK = 1 << 16  # steps whose expected rates are held at once: of millions they would take as much as the history


class Deviation:
    """observed / expected - 1 of one history in percent: computed once a record, while the chart is looked at.

    `largest`: the largest of them so far, without its sign; those that are not known are left out.
    """

    def __init__(self) -> None:
        self.largest = 0.0
        self._attempts = 0
        self._values = np.empty(0, np.float32)
        self._length = 0

    def of(self, history: History) -> NDArray[np.float32]:
        if len(history.attempts) != self._attempts or history.length < self._length:
            self._attempts, self._length, self.largest = len(history.attempts), 0, 0.0
        if len(self._values) < history.length:
            grown = np.empty(max(1024, 2 * history.length), np.float32)
            grown[: self._length] = self._values[: self._length]
            self._values = grown
        for begin in range(self._length, history.length, BLOCK):
            rows = slice(begin, min(begin + BLOCK, history.length))
            fresh = self._values[rows]
            with np.errstate(divide="ignore", invalid="ignore"):
                fresh[:] = (history.lr[rows] / expected_rates(history, history.step[rows]) - 1) * 100
            self.largest = max(self.largest, float(np.max(np.abs(fresh), initial=0.0, where=~np.isnan(fresh))))
        self._length = history.length
        return self._values[: history.length]
