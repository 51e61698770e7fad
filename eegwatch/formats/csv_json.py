"""Logs of one row a line: CSV under a header line, and JSON objects by other names than ours."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from eegwatch.formats.names import Role
from eegwatch.formats.numerals import clock_in, fraction, json_value, number
from eegwatch.formats.row_reader import RowReader
from eegwatch.formats.rows import Field, Row, RowMaker
from eegwatch.run.records import RunRecord

DEEPEST = 8  # levels of nested objects
Prepare = Callable[[dict[str, Any]], dict[str, Any] | None]  # a kind's own reading of a JSON row; None: it is not a row


def flat(row: Mapping[Any, Any], prefix: str = "", depth: int = 0) -> Iterator[Field]:
    """The numbers of an object, nested names joined by "/"; quoted numbers count, `3/200` is a counter with its end."""
    for name, value in row.items():
        key = prefix + str(name)
        if isinstance(value, bool) or value is None:
            continue
        if isinstance(value, int | float):
            try:
                yield key, float(value), None
            except OverflowError:
                continue
        elif isinstance(value, str):
            if (of := fraction(value)) is not None:
                yield key, of[0], of[1]
            elif (plain := number(value)) is not None:
                yield key, plain, None
            elif "-" in value[:8] and (clock := clock_in(value)) is not None:
                yield key, clock, None
        elif isinstance(value, dict) and depth < DEEPEST:
            yield from flat(value, key + "/", depth + 1)


def lists_of(row: Mapping[Any, Any]) -> dict[str, list[float]]:
    """Rates in a list, one per parameter group."""
    lists: dict[str, list[float]] = {}
    for name, value in row.items():
        if isinstance(value, list) and value and str(name).lower() in ("lr", "lrs", "learning_rate", "learning_rates"):
            numbers = [float(one) for one in value if isinstance(one, int | float) and not isinstance(one, bool)]
            if len(numbers) == len(value) <= 256:
                lists[str(name)] = numbers
    return lists


class RowsOfJson:
    """JSON objects with step, loss, lr … under any known names, one per line."""

    def __init__(
        self,
        reader: RowReader,
        clock: Callable[[], float],
        rename: Mapping[str, Role] | None = None,
        prepare: Prepare | None = None,
    ) -> None:
        self.reader, self.clock, self.bad = reader, clock, 0
        self.maker, self.prepare = RowMaker(rename), prepare

    def decode(self, data: bytes) -> list[RunRecord]:
        records: list[RunRecord] = []
        now = self.clock()
        for line in data.split(b"\n"):
            if not line.strip():
                continue
            try:
                value = json_value(line)
            except ValueError:
                self.bad += 1
                continue
            if not isinstance(value, dict):
                self.bad += 1
                continue
            row = self.row(value)
            if row is not None:
                records += self.reader.add(row, now)
        return records

    def drain(self) -> list[RunRecord]:
        return []

    def row(self, value: dict[str, Any]) -> Row | None:
        prepared = self.prepare(value) if self.prepare is not None else value
        if prepared is None:
            return None
        row = self.maker.row(flat(prepared), split_of(prepared), lists_of(prepared))
        if row.at.step is None and row.at.batch is None and row.at.epoch is None and "loss" not in row.train:
            row.train.clear()  # no counter and no loss: the header of a log, a summary
        return row


def split_of(row: Mapping[str, Any]) -> str | None:
    """The split of a row that names it as a value: {"mode": "val"}, {"split": "test"}, {"_type": "val_epoch"}."""
    for name in ("mode", "split", "phase", "_type", "stage", "kind", "type", "event", "set", "partition", "dataset"):
        value = row.get(name)
        if isinstance(value, str) and value:
            word = value.lower().replace("-", "_").split("_")[0]
            if word in ("val", "valid", "validation", "eval", "evaluation", "dev"):
                return "val"
            if word in ("test", "testing"):
                return "eval"
    return None


class RowsOfCsv:
    """Rows under a header line: commas, semicolons, tabs or aligned columns."""

    def __init__(
        self,
        reader: RowReader,
        clock: Callable[[], float],
        rename: Callable[[list[str]], Mapping[str, Role]] | None = None,
        comment: str = "#",
    ) -> None:
        """`rename`: given the header, the roles of columns that a kind of log uses in its own way."""
        self.reader, self.clock, self.bad = reader, clock, 0
        self.header: list[str] | None = None
        self._rename, self._comment = rename, comment
        self._maker = RowMaker()
        self._roles: list[Role] = []
        self._delimiter: str | None = ","

    def decode(self, data: bytes) -> list[RunRecord]:
        records: list[RunRecord] = []
        now = self.clock()
        for cells in self._cells(data.decode("utf-8", "replace").replace("\0", "")):
            if self.header is None:
                self._begin(cells)
                continue
            if len(cells) != len(self.header):
                self.bad += bool("".join(cells).strip())
                continue
            values = []
            for what, text in zip(self._roles, cells, strict=True):
                if (field := _cell(what, text)) is not None:
                    values.append(field)
            if values and cells != self.header:
                row = self._row(values)
                if not self._counted and "loss" not in row.train:
                    continue
                records += self.reader.add(row, now)
        return records

    def drain(self) -> list[RunRecord]:
        return []

    def _cells(self, text: str) -> Iterator[list[str]]:
        lines = re.split(r"[\r\n]+", text)
        if self.header is None:
            while lines and (not lines[0].strip() or lines[0].startswith(self._comment)):
                del lines[0]
            if not lines:
                return
            self._delimiter = delimiter_of(lines[0])
        if self._delimiter is None:
            yield from (line.split() for line in lines if line.strip())
            return
        try:
            for cells in csv.reader(io.StringIO("\n".join(lines)), delimiter=self._delimiter):
                if cells:
                    yield [cell.strip() for cell in cells]
        except csv.Error:
            self.bad += 1

    def _row(self, values: list[tuple[Role, float, int | None]]) -> Row:
        return self._maker.build(values)

    def _begin(self, cells: list[str]) -> None:
        self.header = cells
        lower = [name.lower() for name in cells]
        rename = dict(self._rename(cells)) if self._rename is not None else {}
        if "epochs" in lower and "epoch" not in lower:
            rename[cells[lower.index("epochs")]] = Role("epoch", None, "epochs")
        self._maker = RowMaker(rename)
        self._roles = [self._maker.role(name) for name in cells]
        self._counted = any(what.kind in ("step", "epoch", "batch") for what in self._roles)


def _cell(what: Role, text: str) -> tuple[Role, float, int | None] | None:
    if not text:
        return None
    try:
        return what, float(text), None
    except ValueError:
        pass
    if (of := fraction(text)) is not None:
        return what, of[0], of[1]
    value = number(text)
    if value is None and what.kind == "time":
        value = clock_in(text)
    return None if value is None else (what, value, None)


def delimiter_of(header: str) -> str | None:
    """The delimiter of a header line; None for columns that are aligned by blanks."""
    counts = {mark: header.count(mark) for mark in (",", "\t", ";", "|")}
    mark, most = max(counts.items(), key=lambda item: item[1])
    return mark if most else None
