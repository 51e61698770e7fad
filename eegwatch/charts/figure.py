"""The charts as the screen shows them, drawn by matplotlib: SVG or PNG for a paper, a report, a message.

The same charts as in the terminal: window, axes, smoothing, runs laid over, marks. Reduced to min and max per column,
so that a run of millions of steps is a file of some hundred kilobytes and no spike is lost.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eegwatch.charts.axis import Axis, ticks
from eegwatch.charts.model import (
    BAND,
    EXPECTED,
    FIRST,
    MARK,
    OBSERVED,
    PAST,
    SECOND,
    THIRD,
    ChartData,
    ChartKind,
    ChartStyle,
    limits,
)
from eegwatch.charts.plot import decimals, x_ticks
from eegwatch.charts.reduce import Columns, bridged, of_bulk, reduce, smooth
from eegwatch.run.history import History
from eegwatch.wording import short_rate, significant

COLUMNS = 1200
SMOOTHER = COLUMNS / 200  # smoothing is set in dot columns of a terminal of some hundred cells
# Okabe and Ito's colours: told apart with any colour vision
COLOURS = {
    OBSERVED: "#0072b2", EXPECTED: "#d55e00", BAND: "#b9d3e6", MARK: "#6b4c9a", PAST: "#999999", FIRST: "#009e73",
    SECOND: "#e69f00", THIRD: "#cc79a7",
}  # fmt: skip
STYLE = {"svg.hashsalt": "eegwatch", "font.size": 12, "axes.spines.top": False, "axes.spines.right": False}
GLYPHS = {"◆": "D"}
X_TICKS, Y_TICKS = 8, 6


class FigureError(ValueError):
    """The picture cannot be made: what is missing, or what to write instead."""


@dataclass(frozen=True)
class Prepared:
    """One chart, reduced to columns: all that is drawn of it, independent of the history, which may grow meanwhile."""

    kind: ChartKind
    data: ChartData
    columns: list[Columns]
    means: list[Any]
    y: Axis | None


def prepare(history: History, chosen: Sequence[ChartKind], style: ChartStyle) -> list[Prepared]:
    """Reduce the charts to what a picture of them holds. Reads the history: call it where the history is written."""
    prepared = []
    for kind in chosen:
        data = kind.draw(history, style)
        span = data.left, float(np.nextafter(data.right, np.inf))
        columns = [reduce(s.x, s.y, *span, COLUMNS) for s in data.series]
        y = limits(data, columns)
        means = [_mean(s.kind, s.y, r, y, data.smoothing) for s, r in zip(data.series, columns, strict=True)]
        prepared.append(Prepared(kind, data, columns, means, y))
    return prepared


def _mean(kind: str, values: Any, columns: Columns, y: Axis | None, smoothing: float) -> Any:
    if kind in ("noisy", "smooth") and y is not None:
        return smooth(bridged(of_bulk(values, columns, y)), max(smoothing, 1.0) * SMOOTHER)
    return bridged(columns.mean)


def write(
    path: Path, name: str, charts: Sequence[Prepared], style: ChartStyle, size: tuple[int, int] | None = None
) -> None:
    """Write the charts of the run `name` below each other; `size` in pixels. Raises FigureError; never overwrites."""
    kind = path.suffix.removeprefix(".").lower()
    if kind not in ("svg", "png"):
        raise FigureError(f"{path}: write it as .svg or .png")
    data = draw(name, charts, style, kind, size)
    try:
        with path.open("xb") as file:
            file.write(data)
    except FileExistsError:
        raise FigureError(f"{path} is there already; name another file") from None


def draw(
    name: str,
    charts: Sequence[Prepared],
    style: ChartStyle,
    format: str = "svg",
    size: tuple[int, int] | None = None,
) -> bytes:
    """The charts as SVG or PNG, under the run's name. Raises FigureError without matplotlib."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise FigureError("a picture is drawn by matplotlib: pip install 'eegwatch[report]'") from None
    width, height = size or (1000, 380 * len(charts))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width / 100, height / 100), dpi=100, layout="constrained")
        if name:
            figure.suptitle(name, fontsize=13, x=0.01, ha="left")
        for axes, chart in zip(np.atleast_1d(figure.subplots(len(charts), sharex=True)), charts, strict=True):
            _chart(axes, chart, style)
        axes.set_xlabel({"step": "optimizer step", "epoch": "epoch", "time": "time"}[style.view.axis])
        buffer = io.BytesIO()
        figure.savefig(buffer, format=format, metadata={"Date": None} if format == "svg" else None)
    return buffer.getvalue()


def _chart(axes: Any, chart: Prepared, style: ChartStyle) -> None:
    p, y = chart.data, chart.y
    x = p.left + (np.arange(COLUMNS) + 0.5) * (p.right - p.left) / COLUMNS
    for series, r, mean in zip(p.series, chart.columns, chart.means, strict=True):
        colour = COLOURS[series.colour]
        if series.kind == "noisy":
            axes.fill_between(x, r.least, r.most, color=COLOURS[BAND], linewidth=0)
        elif series.kind == "line":
            axes.fill_between(x, r.least, r.most, color=colour, linewidth=0.8, alpha=0.9)
        axes.plot(x, mean, color=colour, linewidth=1.6, linestyle=(0, (2, 2)) if series.kind == "dotted" else "-")
        if series.kind == "noisy" and y is not None and np.nanmax(r.most, initial=-np.inf) > y.high:
            at = int(np.nanargmax(r.most))
            axes.annotate(f"▲ {significant(float(r.most[at]))}", (x[at], 0.97), xycoords=("data", "axes fraction"),
                          ha="center", va="top", color=COLOURS[MARK])  # fmt: skip
    for place, value, glyph in p.marks:
        axes.plot(place, value, GLYPHS.get(glyph, "o"), color=COLOURS[MARK], markersize=5)
    for place, words in p.rules:
        axes.axvline(place, color=COLOURS[MARK], linewidth=1, linestyle=":")
        axes.annotate(words, (place, 0.02), xycoords=("data", "axes fraction"), color=COLOURS[MARK], rotation=90)
    _scales(axes, p, y)
    axes.set_title(chart.kind.title, fontsize=11, loc="left")
    handles = _legend(chart, style)
    if handles:
        axes.legend(handles=handles, frameon=False, fontsize=9, ncols=len(handles), loc="lower right",
                    bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2)  # fmt: skip


def _scales(axes: Any, p: ChartData, y: Axis | None) -> None:
    """The same ticks as on the screen, and the same words for them."""
    if p.log:
        axes.set_yscale("log")
    if y is not None:
        axes.set_ylim(y.low, y.high)
        values = ticks(y, Y_TICKS)
        write = p.y_text or (short_rate if p.rates else decimals(values))
        axes.set_yticks(values, [write(value) for value in values])
        axes.yaxis.minorticks_off()
    axes.set_xlim(p.left, p.right)
    places = x_ticks(p, X_TICKS)
    axes.set_xticks([place for place, _ in places], [words for _, words in places])


def _legend(chart: Prepared, style: ChartStyle) -> list[Any]:
    """The words of the chart's legend, each with the colour and stroke that it has in the picture."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    observed = next((s.colour for s in chart.data.series if s.kind != "dotted" and s.colour != PAST), OBSERVED)
    handles: list[Any] = []
    for part in chart.kind.legend.split("  "):
        glyph, _, words = part.strip().partition(" ")
        if glyph == "░":
            handles.append(Patch(color=COLOURS[BAND], label=words))
        elif glyph == "┄":
            handles.append(Line2D([], [], color=COLOURS[EXPECTED], linestyle=(0, (2, 2)), label=words))
        elif glyph == "◆":
            handles.append(Line2D([], [], color=COLOURS[MARK], marker="D", linestyle="", label=words))
        elif glyph == "━":
            handles.append(Line2D([], [], color=COLOURS[observed], label=words))
    labels = {s.label: s.colour for s in chart.data.series if s.label}
    names = {overlay.label: f"{overlay.label} {overlay.name}" for overlay in style.overlays}
    handles += [Line2D([], [], color=COLOURS[c], label=names.get(label, label)) for label, c in labels.items()]
    return handles
