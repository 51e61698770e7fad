"""The learning rate: observed over expected, drawn ahead to the end of the run."""

from __future__ import annotations

import numpy as np

from eegwatch.charts.deviation import declared_schedules
from eegwatch.charts.expected import expected_series, sampled
from eegwatch.charts.kinds.common import empty_chart, placed
from eegwatch.charts.kinds.steps import value_at_step
from eegwatch.charts.model import EXPECTED, MORE, OBSERVED, PAST, ChartData, ChartKind, ChartStyle, Series
from eegwatch.charts.view import on_axis
from eegwatch.run.history import History
from eegwatch.wording import rate


def lr_chart(history: History, style: ChartStyle) -> ChartData:
    """The learning rate: expected dotted to the run's end, observed as a line, what a resume did again faintly."""
    view = style.view
    chart = empty_chart(history, style, "lr", "no step yet: the expected curve comes with the run record")
    chart.rates = True
    left, right = view.window(history)
    series = expected_series(history, left, right)
    if style.law is not None and not series:
        steps = sampled(max(left, style.law.begin), right)
        series = [Series(steps, style.law.rate(steps), "dotted", EXPECTED)]
    series += [Series(o.history.step, o.history.lr, "line", c, o.label) for o, c in zip(style.overlays, MORE)]
    series += [Series(old.step, old.lr, "line", PAST) for old in history.superseded]
    series.append(Series(history.step, history.lr, "line", OBSERVED))
    chart.series = [placed(history, view, s) for s in series]
    laws = declared_schedules(history)
    schedule = laws[-1].schedule if laws else None
    if schedule is not None:
        scale = (laws[-1].steps_per_epoch or 1) if schedule.unit == "epoch" else 1
        bands = [(name, a * scale, b * scale) for name, a, b in schedule.phases()]
        ends = on_axis(history, view.axis, np.array([[a, b] for _, a, b in bands]).reshape(-1, 2))
        chart.bands = [(name, float(a), float(b)) for (name, _, _), (a, b) in zip(bands, ends, strict=True)]
    return chart


def _always(history: History) -> bool:
    return True


LEARNING_RATE = ChartKind("lr", "learning rate", "━ observed  ┄ expected", _always, lr_chart, value_at_step("lr", rate))
