"""The data of one chart: its series, marks and axes; and the style in which charts are drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eegwatch.charts.axis import Axis, Floats
from eegwatch.charts.deviation import Deviation
from eegwatch.charts.reduce import Columns
from eegwatch.charts.view import View, XAxis
from eegwatch.run.history import History
from eegwatch.wording import fitting

if TYPE_CHECKING:
    from eegwatch.schedule.inference import Law

OBSERVED, EXPECTED, BAND, MARK, PAST, FIRST, SECOND, THIRD = range(8)
STYLES = ("observed", "expected", "band", "mark", "past", "first", "second", "third")
MORE = (FIRST, SECOND, THIRD)  # other runs, or what causes predict
SMOOTH_COLUMNS = 3.0
SAMPLED = 20_000  # values that the bulk of a noisy series is taken from


@dataclass
class Series:
    """Points sorted by x. `kind`: line, dotted, smooth, or noisy (a min-max band with a smooth line over it).

    `label` stands at its last point in sight: lines are told apart without colour. `aside`: no say in the y range.
    """

    x: NDArray[np.generic]
    y: NDArray[np.generic]
    kind: str
    colour: int
    label: str = ""
    aside: bool = False


@dataclass
class ChartData:
    """The content of a chart: series over [left, right], phase bands, marks, and labelled vertical rules (attempts)."""

    left: float = 0.0
    right: float = 1.0
    series: list[Series] = field(default_factory=list)
    bands: list[tuple[str, float, float]] = field(default_factory=list)
    marks: list[tuple[float, float, str]] = field(default_factory=list)
    rules: list[tuple[float, str]] = field(default_factory=list)
    log: bool = False
    rates: bool = False
    empty: str = "no step yet"
    cursor: float | None = None
    x_kind: XAxis = "step"
    smoothing: float = SMOOTH_COLUMNS
    y_text: Callable[[float], str] | None = None


@dataclass(frozen=True)
class Overlay:
    """Another run, drawn over the one on the screen; `label` names its lines."""

    label: str
    name: str
    history: History


@dataclass(frozen=True)
class ChartStyle:
    """How charts are drawn: the visible part, the logarithmic y axes, the overlaid runs.

    `law`: the schedule found in the rates of a log that declares none.
    """

    view: View = field(default_factory=View)
    log: frozenset[str] = frozenset({"lr"})
    overlays: tuple[Overlay, ...] = ()
    deviation: Deviation = field(default_factory=Deviation)
    law: Law | None = None


@dataclass(frozen=True)
class ChartKind:
    """One chart: `name` for keys and patterns, `legend` after its title.

    `available(history)`: is there anything to draw? `draw(history, style)` makes its data. `value_at(history, step)` is
    what the cursor reads out at a step.
    """

    name: str
    title: str
    legend: str
    available: Callable[[History], bool]
    draw: Callable[[History, ChartStyle], ChartData]
    value_at: Callable[[History, int], str]


def _drawn(glyph: str, data: ChartData) -> bool:
    """Is there anything in a chart that this glyph of its legend stands for?"""
    kinds = {series.kind for series in data.series if len(series.x)}
    if glyph == "◆":
        return bool(data.marks)
    return (glyph != "┄" or "dotted" in kinds) and (glyph != "░" or "noisy" in kinds) and bool(kinds)


def legend(kind: ChartKind, style: ChartStyle, data: ChartData, width: int) -> str:
    """A chart's title line: what it shows, on which axis, which part, which runs are drawn over it, its marks.

    Of the marks those that are drawn; whole parts alone, as many as fit into `width` cells.
    """
    axis = "log" if kind.name in style.log else "linear"
    view = style.view
    part = "" if view.width is None else ", following" if view.follow else ", zoomed"
    marks = [mark for mark in kind.legend.split("  ") if mark and _drawn(mark[0], data)]
    if kind.name == "lr" and style.law is not None:
        marks = [f"┄ found in the log: {style.law.name}" if mark == "┄ expected" else mark for mark in marks]
    overlays = [f"{o.label} {o.name}" for o in style.overlays]
    return fitting([f"{kind.title} ({axis}{part})", *overlays, *marks], width)


def _bulk_range(values: Floats, *, log: bool) -> tuple[float, float]:
    """The range of ordinary noise: 99.6 % of the values, and a third as much again on either side.

    As np.quantile, which imports numpy.ma, 12 ms of the start.
    """
    ordered = np.sort(np.log(values) if log else values)
    low, high = np.interp(np.array([0.002, 0.998]) * (len(ordered) - 1), np.arange(len(ordered)), ordered)
    room = (high - low) / 3
    low, high = low - room, high + room
    return (float(np.exp(low)), float(np.exp(high))) if log else (float(low), float(high))


def _extent(columns: Columns, *, log: bool) -> tuple[float, float]:
    """Least and most of what can be drawn; infinite where there is nothing."""
    least, most = (np.where(v > 0, v, np.nan) if log else v for v in (columns.least, columns.most))
    least, most = least[np.isfinite(least)], most[np.isfinite(most)]
    return (float(least.min()), float(most.max())) if len(least) and len(most) else (np.inf, -np.inf)


def limits(data: ChartData, reduced: list[Columns]) -> Axis | None:
    """The y range: all of a line, the bulk of what is noisy (one spike must not flatten the rest)."""
    lows, highs = [], []
    log = data.log
    for series, columns in zip(data.series, reduced, strict=True):
        if series.aside:
            continue
        low, high = _extent(columns, log=log)
        first, last = columns.edges[0], columns.edges[-1]
        if series.kind in ("noisy", "smooth") and last - first > 200:
            y = np.asarray(series.y[first : last : max(1, (last - first) // SAMPLED)], np.float64)
            y = y[np.isfinite(y) & (y > 0 if log else True)]
            if len(y):
                calm, wild = _bulk_range(y, log=log)
                low, high = max(low, calm), min(high, wild)
        if np.isfinite(low) and np.isfinite(high):
            lows.append(low)
            highs.append(high)
    if not lows:
        return None
    low, high = min(lows), max(highs)
    if log:
        return Axis(low / 1.15, high * 1.15, True)
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return Axis(low - room, high + room)
