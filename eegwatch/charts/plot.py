"""A chart as rows of text: a braille canvas with its axes, phase bands and marks, at any size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eegwatch.charts.axis import Axis, Floats, ticks
from eegwatch.charts.braille import BLANK, Canvas
from eegwatch.charts.model import BAND, MARK, PAST, STYLES, ChartData, Series, limits
from eegwatch.charts.reduce import Columns, bridged, gaps, of_bulk, reduce, smooth
from eegwatch.wording import short_rate

GUTTER = 8  # cells for the y labels and the axis line
DOTTED = 3  # the expected curve has a dot in every third column: told from the observed one without colour
VALUED_OUTLIERS = 3
AXIS, PHASE, GROUND = "axis", "phase", "ground"  # styles beside those of the series

Row = list[tuple[str, str]]  # pieces of text, each with the name of its style


def plot(data: ChartData, width: int, height: int) -> list[Row]:
    """`height` rows of `width` cells each; blank where there is no room for a chart."""
    if width < GUTTER + 4 or height < 3:
        return [[(" " * max(width, 0), GROUND)] for _ in range(height)]
    plot_width, plot_height = width - GUTTER, height - 1 - (1 if data.bands else 0)
    span, columns = (data.left, np.nextafter(data.right, np.inf)), plot_width * 2
    reduced = [reduce(s.x, s.y, *span, columns) for s in data.series]
    axis = limits(data, reduced)
    if axis is None or plot_height < 2:
        blank: list[Row] = [[(" " * width, AXIS)] for _ in range(height)]
        blank[height // 2] = [(data.empty.center(width)[:width], AXIS)]
        return blank
    canvas = Canvas(plot_width, plot_height)
    _paint(data, canvas, axis, reduced)
    labels = _labels(data, axis, plot_height)
    rows: list[Row] = []
    for row, runs in enumerate(canvas.rows()):
        label, line = labels.get(row, ""), "┤" if row in labels else "│"
        pieces = [(f"{label:>{GUTTER - 2}} {line}"[:GUTTER], AXIS)]
        rows.append(pieces + [(text, GROUND if index == BLANK else STYLES[index]) for text, index in runs])
    if data.bands:
        rows.append([(" " * (GUTTER - 1) + "│", AXIS), (_phases(data, plot_width), PHASE)])
    missing = gaps(reduced[-1].mean) if reduced else []
    rows.append([(_x_axis(data, width, plot_width, missing), AXIS)])
    return rows


def _paint(data: ChartData, canvas: Canvas, axis: Axis, reduced: list[Columns]) -> None:
    columns = canvas.width * 2
    for s, r in zip(data.series, reduced, strict=True):
        if s.kind == "noisy":
            canvas.span(r.least, r.most, axis, BAND)
            canvas.line(smooth(bridged(of_bulk(s.y, r, axis)), data.smoothing), axis, s.colour)
            _mark_outliers(canvas, r.most, axis)
        elif s.kind == "smooth":
            canvas.line(smooth(bridged(of_bulk(s.y, r, axis)), max(data.smoothing, 1.0)), axis, s.colour)
        elif s.aside:
            values = bridged(r.mean)
            canvas.line(np.where((values >= axis.low) & (values <= axis.high), values, np.nan), axis, s.colour)
        elif s.kind == "dotted":
            canvas.line(bridged(r.mean), axis, s.colour, every=DOTTED)
        else:
            canvas.span(r.least, r.most, axis, s.colour)
            canvas.line(bridged(r.mean), axis, s.colour)
        if s.label:
            _name_series(canvas, axis, s, r)
    for x, label in data.rules:
        if data.left < x <= data.right:
            canvas.rule(_column(data, x, columns), PAST, label)
    if data.cursor is not None and data.left <= data.cursor <= data.right:
        canvas.rule(_column(data, data.cursor, columns), MARK)
    for x, y, glyph in data.marks:
        if data.left <= x <= data.right:
            height = float(np.clip(axis.unit(np.array([y]))[0], 0, 1))
            canvas.mark(_column(data, x, columns), height, glyph, MARK)


def _share(data: ChartData, x: float) -> float:
    """Where x lies between left (0) and right (1)."""
    return (x - data.left) / max(data.right - data.left, 1e-12)


def _column(data: ChartData, x: float, columns: int) -> int:
    return int(_share(data, x) * (columns - 1))


def _name_series(canvas: Canvas, axis: Axis, series: Series, reduced: Columns) -> None:
    """The label at its last point in sight."""
    with np.errstate(invalid="ignore"):
        unit = axis.unit(reduced.mean)
    seen = np.flatnonzero(np.isfinite(unit) & (unit >= 0) & (unit <= 1))
    if len(seen):
        for i, character in enumerate(reversed(series.label)):
            canvas.mark(int(seen[-1]) - 2 * i, float(unit[seen[-1]]), character, series.colour)


def _mark_outliers(canvas: Canvas, most: Floats, axis: Axis) -> None:
    """What lies above the axis is marked at its top; the highest few with their values."""
    outside: NDArray[np.int64] = np.flatnonzero(most > axis.high)
    for column in outside:
        canvas.mark(int(column), 1.0, "▲", MARK)
    for column in outside[np.argsort(most[outside])][-VALUED_OUTLIERS:]:
        for i, character in enumerate(f"{most[column]:.3g}"):
            canvas.mark(int(column) + 2 * (i + 1), 1.0, character, MARK)


def _labels(data: ChartData, axis: Axis, height: int) -> dict[int, str]:
    labels: dict[int, str] = {}
    for value in ticks(axis, max(2, height // 2)):
        row = round((1 - float(axis.unit(np.array([value]))[0])) * (height - 1))
        if 0 <= row < height:
            labels.setdefault(row, _y_text(data, value))
    return labels


def _y_text(data: ChartData, value: float) -> str:
    if data.y_text is not None:
        return data.y_text(value)
    return short_rate(value) if data.rates else f"{value:.3g}"


def _x_axis(data: ChartData, width: int, plot_width: int, missing: list[tuple[int, int]]) -> str:
    """The axis line with step numbers set into it, left to right without overlap; ╳ where records are missing."""
    line = [" "] * (GUTTER - 1) + ["└"] + ["─"] * plot_width
    for first, last in missing:
        line[GUTTER + first // 2 : GUTTER + -(-last // 2)] = ["╳"] * (-(-last // 2) - first // 2)
    end = 0
    for value in ticks(Axis(data.left, data.right), max(2, plot_width // 12)):
        at = GUTTER + round(_share(data, value) * (plot_width - 1))
        text = data.x_text(value)
        begin = min(max(at - len(text) // 2, GUTTER), width - len(text))
        if begin > end:
            line[begin : begin + len(text)] = text
            end = begin + len(text)
    return "".join(line[:width])


def _phases(data: ChartData, width: int) -> str:
    cells = [" "] * width
    for name, first, last in data.bands:
        a, b = max(0, round(_share(data, first) * width)), min(width, round(_share(data, last) * width))
        if b <= a:
            continue
        if a > 0:
            cells[a] = "│"
        room = b - a - 1
        if room >= 4:
            text = name if len(name) <= room else name[: room - 1] + "…"
            start = a + 1 + (room - len(text)) // 2
            cells[start : start + len(text)] = text
    return "".join(cells[:width])


def sketch(x: NDArray[np.generic], y: NDArray[np.generic], width: int, height: int, *, log: bool) -> list[str]:
    """A curve as plain text with labelled ticks, for a shell: `height` lines of about `width` characters."""
    values = np.asarray(y, np.float64)
    shown = values[np.isfinite(values) & ((values > 0) | (not log))]
    if not len(shown):
        return []
    low, high = float(shown.min()), float(shown.max())
    axis = Axis(low / 1.1, high * 1.1, True) if log else Axis(low, high + (high - low or abs(high) or 1.0) * 0.05)
    canvas = Canvas(max(8, width - 10), height)
    columns = canvas.width * 2
    reduced = reduce(x, values, float(x[0]), float(x[-1]) + 1e-9, columns)
    canvas.span(reduced.least, reduced.most, axis, 0)
    canvas.line(bridged(reduced.mean), axis, 0)
    labels: dict[int, str] = {}
    for value in ticks(axis, max(2, height // 2)):
        row = round((1 - float(axis.unit(np.array([value]))[0])) * (height - 1))
        labels.setdefault(row, short_rate(value))
    return [
        f"{labels.get(row, ''):>8} {'┤' if row in labels else '│'}{''.join(text for text, _ in runs)}".rstrip()
        for row, runs in enumerate(canvas.rows())
    ]
