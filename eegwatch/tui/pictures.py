"""From a run's history to the charts' pictures: observed over expected, drawn ahead to the end of the run."""

from __future__ import annotations

import numpy as np

from eegwatch.run.history import History
from eegwatch.run.records import Run, number
from eegwatch.schedule import Manual, Schedule, ScheduleError, parse, position_at, rate_at
from eegwatch.tui.widgets.chart import EXPECTED, OBSERVED, PAST, Picture, Series

SAMPLES = 2048  # points of the expected curve: more than any terminal has dot columns


def lr_picture(history: History, *, log: bool) -> Picture:
    """The learning rate: expected dotted to the run's end, observed as a line, what a resume did again faintly."""
    left, right = _range(history)
    picture = Picture(
        left, right, log=log, rates=True, empty="no step yet: the expected curve comes with the run record"
    )
    picture.series += expected_series(history, right)
    for old in history.superseded:
        picture.series.append(Series(old.step, old.lr, "line", PAST))
    picture.series.append(Series(history.step, history.lr, "line", OBSERVED))
    run = history.run
    schedule = _schedule(run)
    if schedule is not None:
        scale = (run.steps_per_epoch or 1) if run and schedule.unit == "epoch" else 1
        picture.bands = [(name, a * scale, b * scale) for name, a, b in schedule.phases()]
    return picture


def loss_picture(history: History, *, log: bool) -> Picture:
    """Loss: every step's within a min-max band, a smoothed line, and the validation losses as marks."""
    left, right = _range(history)
    picture = Picture(left, right, log=log, empty="no loss yet")
    picture.series.append(Series(history.step, history.loss, "noisy", OBSERVED))
    for e in history.evals:
        if e.split == "val" and e.loss is not None:
            picture.marks.append((float(e.step), number(e.loss), "◆"))
    return picture


def expected_series(history: History, right: float) -> list[Series]:
    """Each attempt's declared curve over the steps that it stands for, the newest one's to the end."""
    series: list[Series] = []
    attempts = history.attempts
    for i, run in enumerate(attempts):
        schedule = _schedule(run)
        if schedule is None:
            continue
        begin = run.step + 1
        end = attempts[i + 1].step if i + 1 < len(attempts) else right
        if end >= begin:
            series.append(curve(schedule, begin, end, run.steps_per_epoch))
    return series


def curve(schedule: Schedule, first: float, last: float, steps_per_epoch: int | None, colour: int = EXPECTED) -> Series:
    """A schedule's rates over steps first … last, sampled."""
    steps = np.unique(np.linspace(first, last, SAMPLES).round()).astype(np.int64)
    return Series(steps, rate_at(schedule, steps, steps_per_epoch), "dotted", colour)


def resume_picture(history: History, schedule: Schedule, at: int, *, log: bool) -> Picture:
    """What a resume at step `at` would lead to: the run so far, and from there the new expected curve."""
    run = history.run
    per_epoch = run.steps_per_epoch if run else None
    total = schedule.total_steps if isinstance(schedule, Manual) else (run.total_steps if run else None)
    right = float(total or schedule.total_steps)
    picture = Picture(0, right, log=log, rates=True)
    upto = int(np.searchsorted(history.step, at, side="right"))
    picture.series.append(curve(schedule, at + 1, right, per_epoch))
    picture.series.append(Series(history.step[:upto], history.lr[:upto], "line", OBSERVED))
    position = float(position_at(schedule, at + 1, per_epoch))
    picture.marks.append((float(at + 1), float(schedule.rate(position)), "◆"))
    return picture


def _range(history: History) -> tuple[float, float]:
    total = history.run.total_steps if history.run else None
    return 0.0, float(max(total or 0, history.step_done, 1))


def _schedule(run: Run | None) -> Schedule | None:
    if run is None or run.schedule is None:
        return None
    try:
        return parse(run.schedule)
    except ScheduleError:
        return None  # the diagnosis says what is wrong with it; there is no curve to draw
