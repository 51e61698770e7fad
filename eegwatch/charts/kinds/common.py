"""Shared by the kinds of charts: an empty chart over the view, and series placed on its x axis."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from eegwatch.charts.model import ChartData, ChartStyle, Series
from eegwatch.charts.view import SMOOTHINGS, View, on_axis
from eegwatch.run.history import History


def empty_chart(history: History, style: ChartStyle, name: str, empty: str) -> ChartData:
    """An empty chart over the view's window, with its axis, its cursor and the attempts."""
    view = style.view
    left, right = on_axis(history, view.axis, np.array(view.window(history)))
    chart = ChartData(float(left), float(right), log=name in style.log, empty=empty)
    chart.smoothing = SMOOTHINGS[view.smoothing]
    if view.cursor is not None:
        chart.cursor = float(on_axis(history, view.axis, np.array([view.cursor]))[0])
    later = history.begun[1:]
    places = on_axis(history, view.axis, np.array([run.step for run in later]))
    chart.rules = [(float(x), f"{run.attempt}") for x, run in zip(places, later, strict=True)]
    chart.x_kind = view.axis
    return chart


def placed(history: History, view: View, series: Series) -> Series:
    return series if view.axis == "step" else replace(series, x=on_axis(history, view.axis, series.x))
