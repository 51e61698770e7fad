"""The loss of every step, smoothed, with validation losses and the range that batch noise explains."""

from __future__ import annotations

import numpy as np

from eegwatch.charts.kinds.common import empty_chart, placed
from eegwatch.charts.kinds.steps import value_at_step
from eegwatch.charts.model import EXPECTED, MORE, OBSERVED, PAST, ChartData, ChartKind, ChartStyle, Series
from eegwatch.charts.view import on_axis
from eegwatch.run.history import History
from eegwatch.run.records import number


def loss_chart(history: History, style: ChartStyle) -> ChartData:
    """Loss: every step's within a min-max band, a smoothed line, the validation losses, the range noise explains."""
    view = style.view
    chart = empty_chart(history, style, "loss", "no loss yet")
    left, right = view.window(history)
    band = None
    if history.evals:
        from eegwatch.diagnosis.checklist import loss_band, val_auroc  # 0.1 s, which the first frame does not need

        band = loss_band(history, val_auroc(history))
    series = [Series(np.array([left, right]), np.array([v, v]), "dotted", EXPECTED) for v in band or ()]
    series.append(Series(history.step, history.loss, "noisy", OBSERVED))
    series += [Series(old.step, old.loss, "smooth", PAST) for old in history.superseded]
    series += [Series(o.history.step, o.history.loss, "smooth", c, o.label) for o, c in zip(style.overlays, MORE)]
    chart.series = [placed(history, view, s) for s in series]
    evals = [e for e in history.evals if e.split == "val" and e.loss is not None]
    places = on_axis(history, view.axis, np.array([e.step for e in evals]))
    chart.marks = [(float(x), number(e.loss), "◆") for x, e in zip(places, evals, strict=True)]
    return chart


def _always(history: History) -> bool:
    return True


LOSS = ChartKind(
    "loss", "loss", "░ every step  ━ smoothed  ◆ validation  ┄ batch noise", _always, loss_chart,
    value_at_step("loss", "{:.4f}".format),
)  # fmt: skip
