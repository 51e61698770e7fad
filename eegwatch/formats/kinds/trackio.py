"""A project of trackio: an SQLite database PROJECT.db, whose table metrics has a row a step.

Columns: run_name, step, timestamp, metrics (JSON), as trackio.sqlite_storage writes them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from eegwatch.formats.csv_json import flat
from eegwatch.formats.kinds.metric_series import SeriesStore, Value
from eegwatch.formats.log_kind import FileHead, LogKind
from eegwatch.formats.numerals import clock_in, json_value
from eegwatch.run.follow import FormatError

SQLITE = b"SQLite format 3\0"


class TrackioRuns(SeriesStore):
    """A project of trackio: the newest of its runs."""

    def __init__(self, path: Path) -> None:
        self._run: str | None = None
        super().__init__(path, path.stem)

    def _begin(self) -> None:
        super()._begin()
        self._last = 0

    def look(self) -> tuple[object, float, bool]:
        """As SeriesStore. What was written last may stand in the file beside it (-wal)."""
        stats = [path.stat() for path in (self.path, Path(f"{self.path}-wal")) if path.exists()]
        rows = self._query("SELECT run_name FROM metrics ORDER BY id DESC LIMIT 1")
        newest = str(rows[0][0]) if rows else None
        replaced = self._run is not None and newest != self._run
        self._run = newest
        written = max((status.st_mtime for status in stats), default=0.0)
        return tuple((status.st_size, status.st_mtime_ns) for status in stats), written, replaced

    def new(self) -> Iterator[Value]:
        """As SeriesStore."""
        query = "SELECT id, step, timestamp, metrics FROM metrics WHERE run_name = ? AND id > ? ORDER BY id"
        for row, step, when, text in self._query(query, self._run, self._last):
            self._last = int(row)
            try:
                values = json_value(text)
            except (ValueError, TypeError):
                self.bad += 1
                continue
            clock = clock_in(str(when)) or 0.0
            if isinstance(values, dict) and isinstance(step, int):
                yield from ((name, step, clock, value) for name, value, _ in flat(values))

    def _query(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows, [] while another process holds the database."""
        try:
            connection = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=1.0)
            try:
                return connection.execute(query, values).fetchall()
            finally:
                connection.close()
        except sqlite3.OperationalError:
            return []  # locked, or its tables are not there yet: the next look finds them
        except sqlite3.DatabaseError as error:
            raise FormatError(f"{self.path}: {error}") from None


def _trackio(head: FileHead) -> bool:
    if not head.data.startswith(SQLITE):
        return False
    tables = "SELECT name FROM sqlite_master WHERE name = 'metrics' AND sql LIKE '%run_name%'"
    try:
        return bool(TrackioRuns(head.path)._query(tables))
    except FormatError:
        return False  # the first bytes of a database, and no database after them


def _follow_trackio(path: Path, patterns: Sequence[object]) -> TrackioRuns:
    return TrackioRuns(path)


KIND = LogKind("trackio", "*.db", 4, _trackio, _follow_trackio)
