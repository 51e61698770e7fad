"""A braille canvas in numpy: series are reduced to min/max per dot column first, so a million points cost 1 ms.

A cell holds 2 x 4 dots. Layers are painted in order: dots add up, a cell takes the colour of the last layer in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eegwatch.wording import short_rate

Floats = NDArray[np.float64]
BLANK = -1
GAP_COLUMNS, GAP_TIMES = 3, 4  # so many empty dot columns, and so many times the usual distance, are a gap
FIRST_BRAILLE = 0x2800
# (row in the cell, column in the cell) -> dot bit, Unicode's numbering
_DOTS = {
    (0, 0): 0x01, (1, 0): 0x02, (2, 0): 0x04, (3, 0): 0x40,
    (0, 1): 0x08, (1, 1): 0x10, (2, 1): 0x20, (3, 1): 0x80,
}  # fmt: skip


@dataclass(frozen=True)
class Axis:
    """A linear or logarithmic range. `unit(v)` maps values to 0 … 1."""

    low: float
    high: float
    log: bool = False

    def unit(self, values: Floats) -> Floats:
        if not self.log:
            return np.asarray((values - self.low) / (self.high - self.low))
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray((np.log(values) - np.log(self.low)) / (np.log(self.high) - np.log(self.low)))


@dataclass
class Columns:
    """A series reduced to dot columns: least, most and mean value of each, nan where a column has no point.

    Column i holds the points from `edges[i]` up to `edges[i + 1]`.
    """

    least: Floats
    most: Floats
    mean: Floats
    edges: NDArray[np.int64]


def places(x: NDArray[np.generic], values: Floats) -> NDArray[np.int64]:
    """Where each value falls among points sorted by x: the first point not below it.

    Floats looked for among integers would have all of these converted, a millisecond a million.
    """
    if np.issubdtype(x.dtype, np.integer):
        return np.searchsorted(x, np.ceil(values).astype(np.int64), side="left")
    return np.searchsorted(x, values, side="left")


def reduce(x: NDArray[np.generic], y: NDArray[np.generic], left: float, right: float, columns: int) -> Columns:
    """Reduce points sorted by x to `columns` equal columns over [left, right): exact extrema, no sampling."""
    edges = places(x, left + (right - left) * np.arange(columns + 1) / columns)
    starts, ends = edges[:-1], edges[1:]
    filled = ends > starts
    empty = np.full(columns, np.nan)
    result = Columns(empty.copy(), empty.copy(), empty, edges)
    if not filled.any():
        return result
    piece = y[starts[filled][0] : ends[-1]]
    at = starts[filled] - starts[filled][0]
    with np.errstate(invalid="ignore"):
        sums = np.add.reduceat(piece, at, dtype=np.float64)
    if np.isfinite(sums).all():  # so is every value
        result.least[filled] = np.minimum.reduceat(piece, at)
        result.most[filled] = np.maximum.reduceat(piece, at)
        result.mean[filled] = sums / (ends - starts)[filled]
        return result
    finite = np.isfinite(piece)
    result.least[filled] = np.fmin.reduceat(piece, at)
    result.most[filled] = np.fmax.reduceat(piece, at)
    counts = np.add.reduceat(finite, at, dtype=np.float64)
    total = np.add.reduceat(np.where(finite, piece, 0), at, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        result.mean[filled] = np.where(counts > 0, total / counts, np.nan)
    return result


def bridged(values: Floats) -> Floats:
    """Empty columns between filled ones, by straight lines: a run of few steps is a line, not a row of dots.

    Except across a gap: empty columns in a row, several times as many as usual, are records that are missing.
    """
    known = np.flatnonzero(np.isfinite(values))
    if len(known) < 2:
        return values
    inside = np.arange(known[0], known[-1] + 1)
    out = values.copy()
    out[inside] = np.interp(inside, known, values[known])
    for first, last in gaps(values):
        out[first:last] = np.nan
    return out


def gaps(values: Floats) -> list[tuple[int, int]]:
    """(first, last + 1) of the empty columns where records are missing, judged by how far apart they usually are."""
    known = np.flatnonzero(np.isfinite(values))
    apart = np.diff(known)
    if len(apart) < 3:
        return []
    wide = np.flatnonzero(apart > max(GAP_COLUMNS, GAP_TIMES * float(np.median(apart))))
    return [(int(known[i]) + 1, int(known[i + 1])) for i in wide]


def smooth(values: Floats, width: float) -> Floats:
    """Gaussian-weighted mean over columns (standard deviation `width`), ignoring empty ones; nan stays nan."""
    if width <= 0 or not np.isfinite(values).any():
        return values
    reach = int(3 * width) + 1
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    known = np.isfinite(values)
    total = np.convolve(np.where(known, values, 0.0), kernel)[reach:-reach]
    weight = np.convolve(known.astype(float), kernel)[reach:-reach]
    return np.where(known, total / np.maximum(weight, 1e-300), np.nan)


def of_bulk(y: NDArray[np.generic], reduced: Columns, axis: Axis) -> Floats:
    """Mean of each column with what lies beyond the axis counted as its limit: one spike must not bend the line."""
    means, (first, last) = reduced.mean.copy(), (reduced.edges[0], reduced.edges[-1])
    seen = y[first:last]
    outside = np.flatnonzero((seen > axis.high) | (seen < axis.low))  # type: ignore[operator]
    values = np.asarray(seen[outside], np.float64)
    outside, values = outside[np.isfinite(values)] + first, values[np.isfinite(values)]
    column = np.searchsorted(reduced.edges, outside, side="right") - 1
    excess = np.bincount(column, np.clip(values, axis.low, axis.high) - values, len(means))
    return means + excess / np.maximum(np.diff(reduced.edges), 1)


class Canvas:
    """Dots and colours of `width` x `height` cells. Colours are indices that the widget gives a style to."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.dots = np.zeros((height * 4, width * 2), bool)
        self.colour = np.full((height, width), BLANK, np.int16)
        self.marks: dict[tuple[int, int], tuple[str, int]] = {}

    def _rows(self, unit: Floats) -> NDArray[np.int64]:
        """0 … 1 from the bottom to dot rows from the top, clipped into the canvas."""
        rows = np.round((1.0 - unit) * (self.height * 4 - 1))
        return np.clip(np.nan_to_num(rows, nan=-1), 0, self.height * 4 - 1).astype(np.int64)

    def _paint(self, layer: NDArray[np.bool_], colour: int) -> None:
        self.dots |= layer
        touched = layer.reshape(self.height, 4, self.width, 2).any(axis=(1, 3))
        self.colour[touched] = colour

    def span(self, least: Floats, most: Floats, axis: Axis, colour: int) -> None:
        """Fill each dot column from least to most."""
        known = np.isfinite(least) & np.isfinite(most)
        top, bottom = self._rows(axis.unit(most)), self._rows(axis.unit(least))
        rows = np.arange(self.height * 4)[:, None]
        self._paint((rows >= top) & (rows <= bottom) & known, colour)

    def line(self, values: Floats, axis: Axis, colour: int, *, every: int = 1) -> None:
        """A line through one value a dot column; `every` > 1 leaves gaps, a dotted line."""
        unit = axis.unit(values)
        known = np.isfinite(unit)
        rows = self._rows(unit)
        before = np.concatenate([rows[:1], rows[:-1]])
        joined = known & np.concatenate([[False], known[:-1]])
        before = np.where(joined, before, rows)
        # from just beyond the previous column's row to this one's: steps are joined, flat stretches stay one dot thick
        top = np.where(before < rows, np.minimum(before + 1, rows), rows)
        bottom = np.where(before > rows, np.maximum(before - 1, rows), rows)
        grid = np.arange(self.height * 4)[:, None]
        layer = (grid >= top) & (grid <= bottom) & known
        if every > 1:
            keep = np.arange(self.width * 2) % every == 0
            layer = layer & (keep | ((bottom - top > 1) & (grid % every == 0)))
        self._paint(layer, colour)

    def mark(self, column: int, unit: float, glyph: str, colour: int) -> None:
        """A glyph over the cell at a dot column and height 0 … 1."""
        row = int(self._rows(np.array([unit]))[0]) // 4
        if 0 <= column // 2 < self.width:
            self.marks[(row, column // 2)] = (glyph, colour)

    def rule(self, column: int, colour: int, label: str = "") -> None:
        """A vertical line through a dot column, behind everything else; a label at its top."""
        for i, character in enumerate(label):
            if 0 <= column // 2 + 1 + i < self.width:
                self.marks.setdefault((0, column // 2 + 1 + i), (character, colour))
        cells = np.asarray(self.dots.reshape(self.height, 4, self.width, 2).any(axis=(1, 3)))
        for row in range(self.height):
            if 0 <= column // 2 < self.width and not cells[row, column // 2]:
                self.marks.setdefault((row, column // 2), ("┊", colour))

    def rows(self) -> list[list[tuple[str, int]]]:
        """Each cell row as runs of one colour."""
        cells = self.dots.reshape(self.height, 4, self.width, 2)
        bits = np.zeros((self.height, self.width), np.uint16)
        for (row, column), bit in _DOTS.items():
            bits |= cells[:, row, :, column].astype(np.uint16) * bit
        colour = np.where(bits > 0, self.colour, BLANK).astype(np.int16)
        codes = np.where(bits > 0, FIRST_BRAILLE + bits, ord(" ")).astype("<u2")
        for (row, column), (glyph, index) in self.marks.items():
            codes[row, column], colour[row, column] = ord(glyph), index
        text = codes.tobytes().decode("utf-16-le")
        begins = np.ones(colour.shape, bool)
        begins[:, 1:] = colour[:, 1:] != colour[:, :-1]
        starts = np.flatnonzero(begins)
        rows: list[list[tuple[str, int]]] = [[] for _ in range(self.height)]
        colours = colour.ravel()[starts].tolist()
        for a, b, index in zip(starts.tolist(), [*starts[1:].tolist(), len(text)], colours, strict=True):
            rows[a // self.width].append((text[a:b], index))
        return rows


def ticks(axis: Axis, most: int) -> list[float]:
    """Values that a person would choose: 1, 2, 5 times a power of ten, or decades on a log axis."""
    if most < 1 or not axis.high > axis.low:
        return []
    if axis.log:
        decades = np.arange(np.floor(np.log10(axis.low)), np.ceil(np.log10(axis.high)) + 1)
        steps = np.array([1.0, 3.0]) if len(decades) * 2 <= most + 2 else np.array([1.0])
        values = (10.0 ** decades[:, None] * steps).ravel()
        values = values[(values >= axis.low * 0.999) & (values <= axis.high * 1.001)]
        if len(values) >= 2:
            stride = -(-len(values) // most)
            return [float(v) for v in values[::stride]]
        # zoomed in between two decades: round values, as on a linear axis
    raw = (axis.high - axis.low) / most
    power = 10.0 ** np.floor(np.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first = np.ceil(axis.low / step - 1e-9)
    last = np.floor(axis.high / step + 1e-9)
    return [float(n * step) + 0.0 for n in np.arange(first, last + 1)]  # never -0


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
