"""Stores that keep the values of a run in a form of their own: MLflow's files, trackio's SQLite, W&B's transaction log.

    MLflow     RUN/meta.yaml and RUN/metrics/NAME, lines of `time step`'s value: `1700000000000 0.5 10`
    trackio    PROJECT.db, table metrics: run_name, step, timestamp, metrics (JSON)
    W&B        run-ID.wandb, records in LevelDB's log format, decoded by wandb itself

Read in mlflow.store.tracking.file_store, trackio.sqlite_storage, wandb/core/internal/transactionlog and LevelDB's
doc/log_format.md.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from eegwatch.formats.kinds.series import SeriesStore, Value
from eegwatch.formats.numerals import clock_in, json_value
from eegwatch.formats.table import Head, LogKind
from eegwatch.formats.tables import flat
from eegwatch.run.follow import FormatError

SQLITE = b"SQLite format 3\0"
WANDB = b":W&B"
BLOCK, HEADER = 32768, 7  # of LevelDB's log format


class MlflowRun(SeriesStore):
    """A run folder of MLflow's file store: one file a metric, only ever appended to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, folder.resolve().name)

    def _begin(self) -> None:
        super()._begin()
        self._offsets: dict[Path, int] = {}
        self._replaced = False

    def _files(self) -> list[Path]:
        return sorted(path for path in (self.path / "metrics").rglob("*") if path.is_file())

    def look(self) -> tuple[object, float, bool]:
        """As SeriesStore."""
        stats = {path: path.stat() for path in self._files()}
        replaced = any(path not in stats or stats[path].st_size < size for path, size in self._offsets.items())
        written = max((status.st_mtime for status in stats.values()), default=0.0)
        return tuple((path, status.st_size) for path, status in stats.items()), written, replaced

    def new(self) -> Iterator[Value]:
        """As SeriesStore."""
        for path in self._files():
            name = path.relative_to(self.path / "metrics").as_posix()
            if name.startswith("system/"):
                continue  # the load of the machine
            with path.open("rb") as file:
                file.seek(self._offsets.get(path, 0))
                data = file.read()
            end = data.rfind(b"\n") + 1
            self._offsets[path] = self._offsets.get(path, 0) + end
            for line in data[:end].split(b"\n"):
                parts = line.split()
                try:
                    when, value, step = float(parts[0]), float(parts[1]), int(parts[2]) if len(parts) > 2 else 0
                except (ValueError, IndexError):
                    self.bad += bool(line.strip())
                    continue
                yield name, step, when / 1000, value


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


class WandbRun(SeriesStore):
    """A run's .wandb file: records of wandb's protocol, which wandb's own classes decode."""

    def __init__(self, path: Path) -> None:
        """Raises FormatError where wandb is not installed."""
        try:
            from wandb.proto.wandb_internal_pb2 import Record
        except ImportError:
            raise FormatError(f"{path}: .wandb files are read by wandb: pip install wandb") from None
        self._record = Record
        super().__init__(path, path.stem)

    def _begin(self) -> None:
        super()._begin()
        self._seen = 0

    def look(self) -> tuple[object, float, bool]:
        """As SeriesStore."""
        status = os.stat(self.path)
        return (status.st_size, status.st_mtime_ns), status.st_mtime, False

    def new(self) -> Iterator[Value]:
        """As SeriesStore."""
        count = 0
        for data in transactions(self.path.read_bytes()):
            count += 1
            if count <= self._seen:
                continue
            record = self._record()
            try:
                record.ParseFromString(data)
            except Exception as error:  # protobuf's own DecodeError, which has no public name
                if type(error).__name__ != "DecodeError":
                    raise
                self.bad += 1
                continue
            if record.WhichOneof("record_type") == "history":
                yield from self._history(record.history)
        self._seen = max(self._seen, count)

    @staticmethod
    def _history(history: Any) -> Iterator[Value]:
        values: dict[str, Any] = {}
        for item in history.item:
            try:
                values[item.key or "/".join(item.nested_key)] = json_value(item.value_json)
            except ValueError:
                continue
        step = values.pop("_step", history.step.num)
        when = values.pop("_timestamp", 0.0)
        values.pop("_runtime", None)
        if isinstance(step, int):
            for name, value, _ in flat(values):
                yield name, step, float(when) if isinstance(when, int | float) else 0.0, value


def transactions(data: bytes) -> Iterator[bytes]:
    """Records of LevelDB's log format: blocks of 32 kB, each record's parts behind crc (4), length (2) and type (1).

    Types: 1 whole, 2 first, 3 middle, 4 last. The file begins with 7 bytes of W&B's own. A torn end is left out.
    """
    at = HEADER
    parts: list[bytes] = []
    while at + HEADER <= len(data):
        room = BLOCK - at % BLOCK
        if room < HEADER:
            at += room
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        part = data[at + HEADER : at + HEADER + length]
        if len(part) < length or kind not in (1, 2, 3, 4):
            return
        at += HEADER + length
        parts = [part] if kind in (1, 2) else [*parts, part]
        if kind in (1, 4):
            yield b"".join(parts)
            parts = []


def _mlflow(head: Head) -> bool:
    return head.name == "meta.yaml" and b"run_id" in head.data and (head.path.parent / "metrics").is_dir()


def _trackio(head: Head) -> bool:
    if not head.data.startswith(SQLITE):
        return False
    tables = "SELECT name FROM sqlite_master WHERE name = 'metrics' AND sql LIKE '%run_name%'"
    try:
        return bool(TrackioRuns(head.path)._query(tables))
    except FormatError:
        return False  # the first bytes of a database, and no database after them


def _wandb(head: Head) -> bool:
    return head.name.endswith(".wandb") or head.data[:4] == WANDB


def _follow_mlflow(path: Path, patterns: Sequence[object]) -> MlflowRun:
    return MlflowRun(path if path.is_dir() else path.parent)


def _follow_trackio(path: Path, patterns: Sequence[object]) -> TrackioRuns:
    return TrackioRuns(path)


def _follow_wandb(path: Path, patterns: Sequence[object]) -> WandbRun:
    return WandbRun(path)


KINDS = (
    LogKind("MLflow", "meta.yaml metrics/*", 4, _mlflow, _follow_mlflow, folder=True),
    LogKind("trackio", "*.db", 4, _trackio, _follow_trackio),
    LogKind("W&B run", "*.wandb", 4, _wandb, _follow_wandb),
)
