"""From a run's history to the charts' pictures: observed over expected, drawn ahead to the end of the run."""

from __future__ import annotations

import numpy as np

from eegwatch.run.history import History
from eegwatch.run.records import Run, number
from eegwatch.schedule import Manual, Schedule, ScheduleError, parse, position_at, rate_at
from eegwatch.tui.view import SMOOTHINGS, View, on_axis
from eegwatch.tui.widgets.chart import EXPECTED, OBSERVED, PAST, Picture, Series

SAMPLES = 2048  # points of the expected curve: more than any terminal has dot columns


def lr_picture(history: History, *, log: bool, view: View | None = None, other: History | None = None) -> Picture:
    """The learning rate: expected dotted to the run's end, observed as a line, what a resume did again faintly.

    `other`: another run laid over it, aligned by step.
    """
    view = view or View()
    picture = _picture(history, view, log=log, empty="no step yet: the expected curve comes with the run record")
    picture.rates = True
    left, right = view.window(history)
    series = expected_series(history, left, right)
    if other is not None:
        series.append(Series(other.step, other.lr, "line", PAST))
    for old in history.superseded:
        series.append(Series(old.step, old.lr, "line", PAST))
    series.append(Series(history.step, history.lr, "line", OBSERVED))
    picture.series = [_placed(history, view, s) for s in series]
    run = history.run
    schedule = schedule_of(run)
    if schedule is not None:
        scale = (run.steps_per_epoch or 1) if run and schedule.unit == "epoch" else 1
        bands = [(name, a * scale, b * scale) for name, a, b in schedule.phases()]
        ends = on_axis(history, view.axis, np.array([[a, b] for _, a, b in bands]).reshape(-1, 2))
        picture.bands = [(name, float(a), float(b)) for (name, _, _), (a, b) in zip(bands, ends, strict=True)]
    return picture


def loss_picture(history: History, *, log: bool, view: View | None = None, other: History | None = None) -> Picture:
    """Loss: every step's within a min-max band, a smoothed line, and the validation losses as marks."""
    view = view or View()
    picture = _picture(history, view, log=log, empty="no loss yet")
    picture.smoothing = SMOOTHINGS[view.smoothing]
    picture.series.append(_placed(history, view, Series(history.step, history.loss, "noisy", OBSERVED)))
    if other is not None:
        picture.series.append(_placed(history, view, Series(other.step, other.loss, "smooth", PAST)))
    evals = [e for e in history.evals if e.split == "val" and e.loss is not None]
    places = on_axis(history, view.axis, np.array([e.step for e in evals]))
    picture.marks = [(float(x), number(e.loss), "◆") for x, e in zip(places, evals, strict=True)]
    return picture


def _picture(history: History, view: View, *, log: bool, empty: str) -> Picture:
    """An empty one over the view's window, with its axis and cursor."""
    left, right = on_axis(history, view.axis, np.array(view.window(history)))
    picture = Picture(float(left), float(right), log=log, empty=empty)
    if view.cursor is not None:
        picture.cursor = float(on_axis(history, view.axis, np.array([view.cursor]))[0])
    if view.axis == "epoch":
        picture.x_text = lambda epoch: f"epoch {epoch:g}"
    elif view.axis == "time":
        picture.x_text = lambda hours: f"{hours:g} h"
    return picture


def _placed(history: History, view: View, series: Series) -> Series:
    if view.axis == "step":
        return series
    return Series(on_axis(history, view.axis, series.x), series.y, series.kind, series.colour)


def expected_series(history: History, left: float, right: float) -> list[Series]:
    """Each attempt's declared curve over the steps in sight that it stands for, the newest one's to the end."""
    series: list[Series] = []
    attempts = history.attempts
    for i, run in enumerate(attempts):
        schedule = schedule_of(run)
        if schedule is None:
            continue
        begin = max(run.step + 1, left)
        end = min(attempts[i + 1].step, right) if i + 1 < len(attempts) else right
        if end >= begin:
            series.append(curve(schedule, begin, end, run.steps_per_epoch))
    return series


def curve(schedule: Schedule, first: float, last: float, steps_per_epoch: int | None, colour: int = EXPECTED) -> Series:
    """A schedule's rates over steps first … last, sampled."""
    steps = np.linspace(first, last, SAMPLES).round().astype(np.int64)
    steps = steps[np.diff(steps, prepend=steps[0] - 1) > 0]  # np.unique would import numpy.ma, 12 ms of the start
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


def schedule_of(run: Run | None) -> Schedule | None:
    """The declared schedule of an attempt, or None."""
    if run is None or run.schedule is None:
        return None
    try:
        return parse(run.schedule)
    except ScheduleError:
        return None  # the diagnosis says what is wrong with it; there is no curve to draw
