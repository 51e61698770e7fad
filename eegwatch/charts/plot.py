"""A chart as rows of text: a braille canvas with its axes, phase bands and marks, at any size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from eegwatch.charts.axis import Axis, Floats, ticks, time_text, time_ticks
from eegwatch.charts.braille import BLANK, Canvas, cell_row
from eegwatch.charts.model import BAND, MARK, PAST, STYLES, ChartData, Series, limits
from eegwatch.charts.reduce import Columns, bridged, gaps, of_bulk, reduce, smooth
from eegwatch.wording import scientific, short_rate, significant

GUTTER = 8  # cells for the y labels and the axis line
LABEL = GUTTER - 1
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
        pieces = [(f"{label:>{LABEL}}{line}", AXIS)]
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
    """The position of x between left (0) and right (1)."""
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
    """Mark points above the axis at its top; the highest few with their values.

    A value stands whole beside its mark, to the right or to the left, or not at all: of two that ran into each other,
    and of one at the edge, a wrong number was read. The highest may cover the marks of lower ones.
    """
    outside: NDArray[np.int64] = np.flatnonzero(most > axis.high)
    cells = {int(column) // 2 for column in outside}
    for cell in cells:
        canvas.mark(2 * cell, 1.0, "▲", MARK)
    taken: set[int] = set()
    for rank, column in enumerate(outside[np.argsort(most[outside])][::-1][:VALUED_OUTLIERS]):
        words, cell = significant(float(most[column])), int(column) // 2
        blocked = (cells if rank else {cell}) | taken
        for begin in (cell + 1, cell - len(words)):
            place = range(begin, begin + len(words))
            apart = {begin - 1, begin + len(words)} - {cell}
            if begin >= 0 and place.stop <= canvas.width and not blocked & set(place) and not taken & apart:
                for at, character in zip(place, words, strict=True):
                    canvas.mark(2 * at, 1.0, character, MARK)
                taken |= {cell, *place}
                break


def _labels(data: ChartData, axis: Axis, height: int) -> dict[int, str]:
    """Row of cells -> label: each stands in the very row in which the canvas draws its value."""
    rows: dict[int, str] = {}
    for most in (max(2, height // 2), height, 2 * height):  # more values to choose from, until two fit
        values = ticks(axis, most)
        write = data.y_text or (short_rate if data.rates else decimals(values))
        rows = labelled_rows(axis, values, height, write)
        if len(rows) >= 2:
            break
    return rows


def labelled_rows(axis: Axis, values: list[float], height: int, write: Callable[[float], str]) -> dict[int, str]:
    """As many of the values as stand apart: where two would share a row, or touch in a tall chart, one is left out.

    So is one whose words do not fit, or name a number that would be drawn in another row.
    """
    apart = 2 if height >= 6 else 1
    rows: dict[int, str] = {}
    for value in values:
        unit = float(axis.unit(np.array([value]))[0])
        words = write(value)
        if not 0 <= unit <= 1 or len(words) > LABEL:
            continue
        row = cell_row(unit, height)
        if all(abs(row - taken) >= apart for taken in rows) and row == _row_of_words(words, axis, height, row):
            rows[row] = words
    return rows


def _row_of_words(words: str, axis: Axis, height: int, otherwise: int) -> int:
    """The row in which the number that a label names is drawn; `otherwise` for what is not a plain number (1.2 GB)."""
    try:
        value = float(words.replace(",", ""))
    except ValueError:
        return otherwise
    if axis.log and value <= 0:
        return -1
    return cell_row(float(axis.unit(np.array([value]))[0]), height)


def decimals(values: list[float]) -> Callable[[float], str]:
    """Format the ticks of one axis: all with the same number of decimals, enough to distinguish them.

    With commas, as every count on the screen, where those fit.
    """
    largest = max(map(abs, values), default=1.0)
    step = float(min(np.diff(values), default=largest))
    if step <= 0 or not np.isfinite(largest):
        return "{:.3g}".format
    if 1e-3 <= largest < 1e5:
        digits = max(0, int(np.ceil(-np.log10(step) - 1e-9)))
        comma = "," if len(f"{largest:,.{digits}f}") <= LABEL else ""
        return f"{{:{comma}.{digits}f}}".format
    digits = min(16, max(0, int(np.ceil(np.log10(largest / step) - 1e-9))))
    return lambda value: scientific(value, digits)


def _x_axis(data: ChartData, width: int, plot_width: int, missing: list[tuple[int, int]]) -> str:
    """The axis line with its ticks set into it, left to right without overlap; ╳ where records are missing."""
    line = [" "] * (GUTTER - 1) + ["└"] + ["─"] * plot_width
    for first, last in missing:
        line[GUTTER + first // 2 : GUTTER + -(-last // 2)] = ["╳"] * (-(-last // 2) - first // 2)
    end = 0
    for value, text in x_ticks(data, max(2, plot_width // 12)):
        at = GUTTER + _column(data, value, plot_width * 2) // 2
        begin = min(max(at - len(text) // 2, GUTTER), width - len(text))
        if begin > end:
            line[begin : begin + len(text)] = text
            end = begin + len(text)
    return "".join(line[:width])


def x_ticks(data: ChartData, most: int) -> list[tuple[float, str]]:
    """(place, words) of the ticks of the x axis: whole steps; epochs; round times, in the unit that they need."""
    axis = Axis(data.left, data.right)
    if data.x_kind == "time":
        seconds, step = time_ticks(Axis(data.left * 3600, data.right * 3600), most)
        return [(s / 3600, time_text(s, step)) for s in seconds]
    if data.x_kind == "epoch":
        values = ticks(axis, most)
        return [(value, f"epoch {value:g}") for value in values]
    return [(value, f"{value:,.0f}") for value in ticks(axis, most, whole=True)]


def _phases(data: ChartData, width: int) -> str:
    cells = [" "] * width
    for name, first, last in data.bands:
        a, b = max(0, round(_share(data, first) * width)), min(width, round(_share(data, last) * width))
        if b <= a:
            continue
        if a > 0:
            cells[a] = "│"
        inside = a + (1 if a > 0 else 0)  # beside the bar that begins the phase
        room = b - inside
        if len(name) <= room:  # a name that does not fit whole says nothing
            start = inside + (room - len(name)) // 2
            cells[start : start + len(name)] = name
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
    labels = labelled_rows(axis, ticks(axis, max(2, height // 2)), height, short_rate)
    return [
        f"{labels.get(row, ''):>8} {'┤' if row in labels else '│'}{''.join(text for text, _ in runs)}".rstrip()
        for row, runs in enumerate(canvas.rows())
    ]
