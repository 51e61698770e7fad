"""The charts as the screen shows them, drawn by matplotlib: SVG or PNG for a paper, a report, a message.

The same charts as in the terminal: window, axes, smoothing, runs laid over, marks. Reduced to min and max per column,
so that a run of millions of steps is a file of some hundred kilobytes and no spike is lost.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

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
    legend,
    limits,
)
from eegwatch.charts.reduce import bridged, of_bulk, reduce, smooth
from eegwatch.run.history import History

COLUMNS = 1200
SMOOTHER = COLUMNS / 200  # smoothing is set in dot columns of a terminal of some hundred cells
# Okabe and Ito's colours: told apart with any colour vision
COLOURS = {
    OBSERVED: "#0072b2", EXPECTED: "#d55e00", BAND: "#b9d3e6", MARK: "#6b4c9a", PAST: "#999999", FIRST: "#009e73",
    SECOND: "#e69f00", THIRD: "#cc79a7",
}  # fmt: skip
STYLE = {"svg.hashsalt": "eegwatch", "font.size": 12, "axes.spines.top": False, "axes.spines.right": False}
GLYPHS = {"◆": "D"}


class FigureError(ValueError):
    """The picture cannot be made: what is missing, or what to write instead."""


def write(
    path: Path, history: History, chosen: Sequence[ChartKind], style: ChartStyle, size: tuple[int, int] | None = None
) -> None:
    """Write the charts below each other; `size` in pixels. Raises FigureError; never overwrites."""
    kind = path.suffix.removeprefix(".").lower()
    if kind not in ("svg", "png"):
        raise FigureError(f"{path}: write it as .svg or .png")
    data = draw(history, chosen, style, kind, size)
    try:
        with path.open("xb") as file:
            file.write(data)
    except FileExistsError:
        raise FigureError(f"{path} is there already; name another file") from None


def draw(
    history: History,
    chosen: Sequence[ChartKind],
    style: ChartStyle,
    format: str = "svg",
    size: tuple[int, int] | None = None,
) -> bytes:
    """The charts as SVG or PNG. Raises FigureError without matplotlib."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise FigureError("a chart is drawn by matplotlib: pip install 'eegwatch[report]'") from None
    width, height = size or (1000, 380 * len(chosen))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width / 100, height / 100), dpi=100, layout="constrained")
        for axes, kind in zip(np.atleast_1d(figure.subplots(len(chosen), sharex=True)), chosen, strict=True):
            _chart(axes, kind.draw(history, style), kind, style)
        axes.set_xlabel({"step": "optimizer step", "epoch": "", "time": "since the first record"}[style.view.axis])
        buffer = io.BytesIO()
        figure.savefig(buffer, format=format, metadata={"Date": None} if format == "svg" else None)
    return buffer.getvalue()


def _chart(axes: Any, p: ChartData, kind: ChartKind, style: ChartStyle) -> None:
    span = p.left, float(np.nextafter(p.right, np.inf))
    reduced = [reduce(s.x, s.y, *span, COLUMNS) for s in p.series]
    y = limits(p, reduced)
    x = p.left + (np.arange(COLUMNS) + 0.5) * (p.right - p.left) / COLUMNS
    for series, r in zip(p.series, reduced, strict=True):
        colour = COLOURS[series.colour]
        label = series.label or None
        if series.kind in ("noisy", "smooth") and y is not None:
            if series.kind == "noisy":
                axes.fill_between(x, r.least, r.most, color=COLOURS[BAND], linewidth=0)
            mean = smooth(bridged(of_bulk(series.y, r, y)), max(p.smoothing, 1.0) * SMOOTHER)
            axes.plot(x, mean, color=colour, linewidth=1.6, label=label)
        elif series.kind == "dotted":
            axes.plot(x, bridged(r.mean), color=colour, linewidth=1.4, linestyle=(0, (2, 2)))
        else:
            axes.fill_between(x, r.least, r.most, color=colour, linewidth=0.8, alpha=0.9)
            axes.plot(x, bridged(r.mean), color=colour, linewidth=1.6, label=label)
        if series.kind == "noisy" and y is not None and np.nanmax(r.most, initial=-np.inf) > y.high:
            at = int(np.nanargmax(r.most))
            axes.annotate(f"▲ {r.most[at]:.3g}", (x[at], 0.97), xycoords=("data", "axes fraction"), ha="center",
                          va="top", color=COLOURS[MARK])  # fmt: skip
    for place, value, glyph in p.marks:
        axes.plot(place, value, GLYPHS.get(glyph, "o"), color=COLOURS[MARK], markersize=5)
    for place, words in p.rules:
        axes.axvline(place, color=COLOURS[MARK], linewidth=1, linestyle=":")
        axes.annotate(words, (place, 0.02), xycoords=("data", "axes fraction"), color=COLOURS[MARK], rotation=90)
    if p.log:
        axes.set_yscale("log")
    if y is not None:
        axes.set_ylim(y.low, y.high)
    axes.set_xlim(p.left, p.right)
    if p.y_text is not None:
        axes.yaxis.set_major_formatter(lambda value, _: p.y_text(value))
    axes.xaxis.set_major_formatter(lambda value, _: p.x_text(value))
    axes.set_title(legend(kind, style), fontsize=11, loc="left", family=["DejaVu Sans"])
    if any(series.label for series in p.series):
        axes.legend(frameon=False)
