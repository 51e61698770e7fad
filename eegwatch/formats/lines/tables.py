"""Tables that a loop prints: a row an epoch under a header, or one table of names and values a step.

    | Epoch | Train Loss | Val Loss | LR     |          | train/             |          |
    |-------|------------|----------|--------|          |    learning_rate   | 0.0003   |
    |     1 |     0.7043 |   0.6933 | 5.6e-4 |          |    loss            | 0.859    |
                                                        | time/              |          |
                                                        |    total_timesteps | 2048     |
                                                        ---------------------------------

The second is Stable-Baselines3's, OpenAI baselines' and guided-diffusion's. Read in stable_baselines3/common/logger.py.
"""

from __future__ import annotations

import re

from eegwatch.formats.lines.headered_rows import HeaderedRows
from eegwatch.formats.names import role
from eegwatch.formats.numerals import fraction, number
from eegwatch.formats.row_reader import RowReader
from eegwatch.formats.rows import Field, Row, RowMaker

MOST_CELLS = 40
_CELL_LINE = re.compile(r"^\s*[|│┃].*[|│┃]\s*$")
_RULE = re.compile(r"^[\s|+:\-=─━┼╇╪├┤└┘┌┐┴┬╰╯╭╮]{6,}$")


class HeaderTable(HeaderedRows):
    """Rows under a line of names that holds a counter and a loss, a rate or an evaluation."""

    name = "table"
    marks = ("|", "│")

    def take(self, line: str, reader: RowReader) -> list[Row] | None:
        if not self._names and ("|" not in line and "│" not in line):
            return None
        cells = cells_of(line)
        if not cells:
            return [] if self._names and _RULE.match(line) else None
        if self._is_header(cells):
            self._names, self._maker = cells, RowMaker()
            return []
        if len(cells) != len(self._names):
            return None
        fields: list[Field] = []
        for name, cell in zip(self._names, cells, strict=True):
            if (of := fraction(cell)) is not None:
                fields.append((name, of[0], of[1]))
            elif (value := number(cell.split(" ")[0])) is not None:
                fields.append((name, value, None))
        return [self._maker.row(fields)] if len(fields) > 1 else None

    @staticmethod
    def _is_header(cells: list[str]) -> bool:
        if any(number(cell) is not None for cell in cells):
            return False
        kinds = [role(cell).kind for cell in cells]
        return bool({"epoch", "step", "batch"} & set(kinds)) and bool({"loss", "lr"} & set(kinds))


class KeyValueTable:
    """`| name | value |` lines between two rules: one record."""

    name = "Stable-Baselines3 console"
    marks = ("|", "│", "┃")

    def __init__(self) -> None:
        self._fields: list[Field] = []
        self._group = ""
        self._maker = RowMaker()

    @property
    def active(self) -> bool:
        return bool(self._fields)

    def take(self, line: str, reader: RowReader) -> list[Row] | None:
        if self._fields and _RULE.match(line):
            fields, self._fields, self._group = self._fields, [], ""
            row = self._maker.row(field for field in fields if field[0] != "time/iterations")
            return [row] if row.at.step is not None or "loss" in row.train else []
        if "|" not in line:
            self._fields = []
            return None
        cells = cells_of(line)
        if len(cells) != 2 or not cells[0] or number(cells[0]) is not None:
            return None
        name, text = cells
        if not text and name.endswith("/"):
            self._group = name
            return []
        value = number(text)
        if value is None or len(self._fields) >= 200:
            return None
        indented = line.lstrip().removeprefix("|").startswith("  ")
        self._fields.append((self._group + name if self._group and indented else name, value, None))
        return []


def cells_of(line: str) -> list[str]:
    """The cells of a line of a table; [] for another line."""
    if not _CELL_LINE.match(line):
        return []
    cells = [cell.strip() for cell in re.split(r"[|│┃]", line.strip())[1:-1]]
    if len(cells) < 2 or len(cells) > MOST_CELLS or all(not cell.strip("-=: ─━") for cell in cells):
        return []
    return cells
