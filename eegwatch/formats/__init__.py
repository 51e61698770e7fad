"""Other people's logs -> our records: plain text, JSON and CSV rows, Hugging Face's state, TensorBoard's events.

`find(path)` looks at what a file or folder holds; the source that it gives is followed like a run log of ours.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from eegwatch.formats.tables import CsvDecoder, JsonRowsDecoder
from eegwatch.formats.text import PatternError, TextDecoder, compile_patterns
from eegwatch.formats.whole import EventFiles, TrainerState
from eegwatch.run.control import DAEMON_LOG
from eegwatch.run.folder import RUN_LOG, newest_run
from eegwatch.run.follow import Foreign, FormatError
from eegwatch.run.log import Tail, begins_anew
from eegwatch.run.records import RunRecord

HEAD_BYTES = 1 << 16
OURS = {"run", "step", "eval", "checkpoint", "system", "finding", "progress", "end"}
TEXT_SUFFIXES = (".log", ".txt", ".out", ".err")
__all__ = ["Foreign", "FormatError", "PatternError", "compile_patterns", "find", "foreign_log"]


class LineDecoder(Protocol):
    bad: int

    def decode(self, data: bytes) -> list[RunRecord]: ...


class Lines:
    """A growing file of lines. A CSV whose header changes was rewritten, and is read anew."""

    def __init__(self, path: Path, make: Callable[[], LineDecoder]) -> None:
        self.path, self._make = path, make
        self._tail, self._decoder = Tail(path), make()
        self._head = self._first_line()

    @property
    def bad(self) -> int:
        return self._decoder.bad + self._tail.overlong

    def read(self, most: int) -> tuple[list[RunRecord], str | None, bool]:
        reset = None
        if isinstance(self._decoder, CsvDecoder) and self._decoder.header and self._first_line() != self._head:
            self._tail.close()
            self._tail, self._decoder, reset = Tail(self.path), self._make(), "rewritten with another header"
            self._head = self._first_line()
        chunk = self._tail.read(most)
        if begins_anew(chunk.reset):
            self._decoder = self._make()
        records = self._decoder.decode(chunk.data) if chunk.data else []
        if isinstance(self._decoder, CsvDecoder) and not chunk.data:
            records = self._decoder.reader.flush()  # nothing more came for the newest step
        return records, chunk.reset or reset, len(chunk.data) > most // 2

    def _first_line(self) -> bytes:
        try:
            with self.path.open("rb") as file:
                return file.readline(HEAD_BYTES)
        except OSError:
            return b""

    def close(self) -> None:
        self._tail.close()


def foreign_log(path: Path, patterns: Sequence[re.Pattern[str]] = ()) -> Foreign | None:
    """The foreign log that a PATH on the command line means; None for our own runs and log roots."""
    if path.is_dir() and ((path / RUN_LOG).exists() or newest_run(path) is not None or (path / DAEMON_LOG).exists()):
        return None
    return find(path, patterns) if path.exists() else None


def find(path: Path, patterns: Sequence[re.Pattern[str]] = ()) -> Foreign | None:
    """The foreign log at PATH (of a folder: the newest that is one), or None where there is none."""
    if path.is_dir():
        return _in_folder(path, patterns)
    if path.name == "trainer_state.json":
        return Foreign(path, "Hugging Face trainer state", lambda: TrainerState(path))
    if ".tfevents." in path.name:
        return Foreign(path.parent, "TensorBoard events", lambda: EventFiles(path.parent))
    head = _head(path)
    first = head.split(b"\n", 1)[0]

    def clock() -> float:
        try:
            return os.stat(path).st_mtime
        except OSError:
            return 0.0

    if first.lstrip().startswith(b"{"):
        if _is_ours(head):
            return None
        return Foreign(path, "JSON rows", lambda: Lines(path, lambda: JsonRowsDecoder(path.stem, clock)))
    if path.suffix.lower() == ".csv" and b"," in first:
        return Foreign(path, "CSV", lambda: Lines(path, lambda: CsvDecoder(path, clock)))
    return Foreign(path, "text", lambda: Lines(path, lambda: TextDecoder(path.stem, clock, patterns)))


def _in_folder(folder: Path, patterns: Sequence[re.Pattern[str]]) -> Foreign | None:
    """The newest log among what a folder holds, itself and one or two levels below."""
    found: list[tuple[int, float, Path]] = []
    for place in [folder, *folder.glob("*/"), *folder.glob("*/*/")]:
        for path in place.iterdir() if place.is_dir() else ():
            rank = (
                3 if path.name in ("metrics.csv", "trainer_state.json") or ".tfevents." in path.name
                else 2 if path.suffix in (".jsonl", ".csv")
                else 1 if path.suffix in TEXT_SUFFIXES
                else 0
            )  # fmt: skip
            if rank and path.is_file():
                found.append((rank, path.stat().st_mtime, path))
    for _, _, path in sorted(found, reverse=True):
        foreign = find(path, patterns)
        if foreign is not None:
            return foreign
    return None


def _is_ours(head: bytes) -> bool:
    """Whether any whole line of the head is a record of ours: a type that we know, and nothing is renamed."""
    for line in head.split(b"\n")[:20]:
        try:
            row = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        if isinstance(row, dict) and row.get("type") in OURS:
            return True
    return False


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)
