"""Logs of one row a line: CSV (PyTorch Lightning's metrics.csv), and JSON objects by other names than ours."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from eegwatch.formats.rows import RowReader
from eegwatch.run.records import RunRecord


class JsonRowsDecoder:
    """JSON objects with step, loss, lr … by whatever names; nested ones are read as `outer/inner`."""

    def __init__(self, run_id: str, clock: Callable[[], float]) -> None:
        self.reader, self.clock, self.bad = RowReader(run_id), clock, 0
        self._decoder = msgspec.json.Decoder()

    def decode(self, data: bytes) -> list[RunRecord]:
        records: list[RunRecord] = []
        for line in data.split(b"\n"):
            if not line.strip():
                continue
            try:
                row = self._decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                self.bad += 1
                continue
            if not isinstance(row, dict):
                self.bad += 1
                continue
            records += self.reader.row(numbers(row), self.clock())
        return records + self.reader.flush()


def numbers(row: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a row, nested names joined; "nan" and "inf" count, other text does not."""
    found: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, bool) or value is None:
            continue
        if isinstance(value, dict):
            found |= numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float | str):
            try:
                found[prefix + str(name)] = float(value)
            except ValueError:
                continue
    return found


class CsvDecoder:
    """Rows under a header line. Lightning counts steps from 0, and writes one step's rate and loss in two rows."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        name = path.parent.name if path.name == "metrics.csv" else path.stem
        self.reader, self.clock, self.bad = RowReader(name, zero_based=True), clock, 0
        self.header: list[str] | None = None

    def decode(self, data: bytes) -> list[RunRecord]:
        records: list[RunRecord] = []
        for cells in csv.reader(io.StringIO(data.decode("utf-8", "replace"))):
            if self.header is None:
                self.header = cells
                self.reader.zero_based = "step" in cells  # Lightning's name for its batches that stepped
                continue
            row: dict[str, float] = {}
            for name, text in zip(self.header, cells, strict=False):
                if not text.strip():
                    continue
                try:
                    row[name] = float(text)
                except ValueError:
                    continue
            if len(cells) != len(self.header):
                self.bad += 1
            elif row:
                records += self.reader.row(row, self.clock())
        return records
