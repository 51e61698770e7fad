"""A canvas of braille characters in numpy: a cell holds 2 x 4 dots.

Layers are painted in order: dots add up, a cell takes the colour of the last layer in it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eegwatch.charts.axis import Axis, Floats

BLANK = -1
FIRST_BRAILLE = 0x2800
# (row in the cell, column in the cell) -> dot bit, Unicode's numbering
_DOTS = {
    (0, 0): 0x01, (1, 0): 0x02, (2, 0): 0x04, (3, 0): 0x40,
    (0, 1): 0x08, (1, 1): 0x10, (2, 1): 0x20, (3, 1): 0x80,
}  # fmt: skip


def dot_rows(unit: Floats, height: int) -> NDArray[np.int64]:
    """0 … 1 from the bottom to dot rows from the top of `height` cells, clipped into them; nan is the lowest."""
    rows = np.round((1.0 - unit) * (height * 4 - 1))
    return np.clip(np.nan_to_num(rows, nan=height * 4 - 1), 0, height * 4 - 1).astype(np.int64)


def cell_row(unit: float, height: int) -> int:
    """The row of cells, from the top, in which the canvas draws a value at height 0 … 1: a label belongs there."""
    return int(dot_rows(np.array([unit]), height)[0]) // 4


class Canvas:
    """Dots and colours of `width` x `height` cells. Colours are indices that the widget gives a style to."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.dots = np.zeros((height * 4, width * 2), bool)
        self.colour = np.full((height, width), BLANK, np.int16)
        self.marks: dict[tuple[int, int], tuple[str, int]] = {}

    def _rows(self, unit: Floats) -> NDArray[np.int64]:
        return dot_rows(unit, self.height)

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
        row = cell_row(unit, self.height)
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
