"""The expected learning rate as series: each declared curve over its steps, and the curve after a resume."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eegwatch.charts.deviation import declared_schedules
from eegwatch.charts.model import EXPECTED, OBSERVED, ChartData, Series
from eegwatch.run.history import History
from eegwatch.schedule import Manual, Schedule, position_at, rate_at

SAMPLES = 2048  # points of the expected curve: more than any terminal has dot columns


def expected_series(history: History, left: float, right: float) -> list[Series]:
    """Each declared curve over the steps in sight that it stands for, the newest one's to the end."""
    series: list[Series] = []
    for law in declared_schedules(history):
        begin, end = max(law.begin + 1, left), min(law.end, right)
        if law.schedule is not None and end >= begin:
            series.append(curve(law.schedule, begin, end, law.steps_per_epoch))
    return series


def curve(schedule: Schedule, first: float, last: float, steps_per_epoch: int | None, colour: int = EXPECTED) -> Series:
    """A schedule's rates over steps first … last, sampled."""
    steps = sampled(first, last)
    return Series(steps, rate_at(schedule, steps, steps_per_epoch), "dotted", colour)


def sampled(first: float, last: float) -> NDArray[np.int64]:
    """Steps evenly over first … last, each once."""
    steps = np.linspace(max(first, 1), max(last, 1), SAMPLES).round().astype(np.int64)
    return steps[np.diff(steps, prepend=steps[0] - 1) > 0]  # np.unique would import numpy.ma, 12 ms of the start


def resume_chart(history: History, schedule: Schedule, at: int, *, log: bool) -> ChartData:
    """The chart of a resume at step `at`: the run so far, and from there the new expected curve."""
    run = history.run
    per_epoch = run.steps_per_epoch if run else None
    total = schedule.total_steps if isinstance(schedule, Manual) else (run.total_steps if run else None)
    right = float(total or schedule.total_steps)
    chart = ChartData(0, right, log=log, rates=True)
    upto = int(np.searchsorted(history.step, at, side="right"))
    chart.series.append(curve(schedule, at + 1, right, per_epoch))
    chart.series.append(Series(history.step[:upto], history.lr[:upto], "line", OBSERVED))
    position = float(position_at(schedule, at + 1, per_epoch))
    chart.marks.append((float(at + 1), float(schedule.rate(position)), "◆"))
    return chart
