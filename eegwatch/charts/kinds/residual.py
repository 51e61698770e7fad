"""The deviation of the observed learning rate from the expected one, in percent."""

from __future__ import annotations

import numpy as np

from eegwatch.charts.deviation import expected_at, schedule_of
from eegwatch.charts.kinds.common import empty_chart, placed
from eegwatch.charts.model import EXPECTED, OBSERVED, ChartData, ChartKind, ChartStyle, Series
from eegwatch.run.history import History

NOISE_PERCENT = 1e-7  # a deviation below is the last bits of float64: on schedule


def residual_chart(history: History, style: ChartStyle) -> ChartData:
    """The deviation of the observed rate from the expected one, in percent; zero is on schedule."""
    chart = empty_chart(history, style, "residual", "no expected rate to compare with")
    left, right = style.view.window(history)
    values = style.deviation.of(history)
    zero = Series(np.array([left, right]), np.zeros(2), "dotted", EXPECTED)
    flat = style.deviation.largest < NOISE_PERCENT
    shown = np.broadcast_to(np.float32(0), len(values)) if flat else values
    series = [zero, Series(history.step, shown, "line", OBSERVED)]
    chart.series = [placed(history, style.view, s) for s in series]
    return chart


def _at_residual(history: History, step: int) -> str:
    i = int(np.searchsorted(history.step, step))
    if i >= history.length or history.step[i] != step:
        return ""
    expected = expected_at(history, step)
    return f"{(history.lr[i] / expected - 1) * 100:+.3g} %" if expected else ""


def _has_schedule(history: History) -> bool:
    return schedule_of(history.run) is not None


RESIDUAL = ChartKind("residual", "LR against expected, %", "┄ on schedule", _has_schedule, residual_chart, _at_residual)
