"""How far the observed rates lie from the expected ones, step by step, in percent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eegwatch.run.history import History
from eegwatch.run.records import Run
from eegwatch.schedule import Schedule, ScheduleError, parse, rate_at


def schedule_of(run: Run | None) -> Schedule | None:
    """The declared schedule of an attempt, or None."""
    if run is None or run.schedule is None:
        return None
    try:
        return parse(run.schedule)
    except ScheduleError:
        return None  # the diagnosis says what is wrong with it; there is no curve to draw


class Deviation:
    """observed / expected - 1 of one history in percent: computed once a record, while the chart is looked at."""

    def __init__(self) -> None:
        self._attempts = 0
        self._values = np.empty(0, np.float32)
        self._length = 0

    def of(self, history: History) -> NDArray[np.float32]:
        if len(history.attempts) != self._attempts or history.length < self._length:
            self._attempts, self._length = len(history.attempts), 0
        if len(self._values) < history.length:
            grown = np.empty(max(1024, 2 * history.length), np.float32)
            grown[: self._length] = self._values[: self._length]
            self._values = grown
        step, lr = history.step[self._length :], history.lr[self._length :]
        fresh = self._values[self._length : history.length]
        fresh[:] = np.nan
        begins = [run.step for run in history.attempts]
        for run, begin, end in zip(history.attempts, begins, [*begins[1:], np.inf], strict=True):
            schedule = schedule_of(run)
            rows = slice(*np.searchsorted(step, [begin, min(end, 2**62)], side="right"))
            if schedule is not None and rows.stop > rows.start:
                with np.errstate(divide="ignore", invalid="ignore"):
                    fresh[rows] = (lr[rows] / rate_at(schedule, step[rows], run.steps_per_epoch) - 1) * 100
        self._length = history.length
        return self._values[: history.length]
