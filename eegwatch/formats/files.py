"""Files followed while they are written: what the readers of every kind have in common.

`FollowedLines` reads whole lines at the end of a growing file, plain or .gz, in UTF-8 or UTF-16; it takes an unfinished
last line once nobody has written to the file for a while. `FollowedDocument` reads a whole file again when it changes.
"""

from __future__ import annotations

import codecs
import gzip
import os
import re
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from eegwatch.formats.numerals import json_value
from eegwatch.formats.row_reader import RowReader
from eegwatch.run.log import CHUNK_BYTES, Chunk, Tail, begins_anew
from eegwatch.run.records import RunRecord

LEFT_ALONE_S = 2.0  # a file that has not grown for so long is finished, for all that can be known
ANEW = "read again: values of one step are in several lines"
READ_MOST = 1 << 24  # a chunk larger than this only makes memory grow


class Decoder(Protocol):
    """Lines of one file -> records."""

    reader: RowReader
    bad: int

    def decode(self, data: bytes) -> list[RunRecord]:
        """Records of complete lines; a step that is still being collected stays in `reader`."""
        ...

    def drain(self) -> list[RunRecord]:
        """At the end of the file: records of what the decoder itself holds back."""
        ...


class Source(Protocol):
    """The source of the bytes: a growing file or a compressed one."""

    overlong: int

    def read(self, most: int) -> Chunk: ...

    def rest(self) -> bytes: ...

    def close(self) -> None: ...


class PlainFile(Tail):
    """A growing file, with the line at its end that has no newline yet.

    `bars`: a carriage return ends a line too, since a progress bar writes no newline for hours.
    """

    def __init__(self, path: Path, bars: bool = False) -> None:
        super().__init__(path)
        self._bars = bars

    def read(self, most: int = CHUNK_BYTES) -> Chunk:
        if not self._bars:
            return super().read(most)
        reset = self._settle()
        data = os.pread(self._fd, most, self.offset) if self._fd is not None else b""
        end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if not end and len(data) == most:
            chunk = super().read(most)
            return Chunk(chunk.offset, chunk.data, reset or chunk.reset)
        self.offset += end
        return Chunk(self.offset - end, data[:end], reset)

    def rest(self) -> bytes:
        if self._fd is None:
            return b""
        return os.pread(self._fd, 1 << 20, self.offset)


class GzippedFile:
    """A .gz of lines: read on while it grows, from its beginning when it was replaced."""

    def __init__(self, path: Path, bars: bool = False) -> None:
        """`bars`: as Plain."""
        self.path, self._bars, self.overlong, self.broken = path, bars, 0, False
        self._file: gzip.GzipFile | None = None
        self._stamp: tuple[int, int, int] | None = None
        self._rest = b""

    def read(self, most: int) -> Chunk:
        """As Tail.read: whole lines."""
        reset = None
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return Chunk(0, b"", None)
        stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        if stamp != self._stamp:
            reset = "rewritten" if self._stamp is not None else None
            self.close()
            self._file, self._stamp, self._rest, self.broken = gzip.open(self.path, "rb"), stamp, b"", False
        if self._file is None or self.broken:
            return Chunk(0, b"", reset)
        data, self.broken = unpacked(self._file, most)
        self.overlong += self.broken
        data = self._rest + data
        end = max(data.rfind(b"\n"), data.rfind(b"\r") if self._bars else -1) + 1
        self._rest = data[end:]
        return Chunk(0, data[:end], reset)

    def rest(self) -> bytes:
        return self._rest

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def unpacked(file: gzip.GzipFile, most: int) -> tuple[bytes, bool]:
    """(the next bytes of a packed file, whether it is torn behind them or no gzip at all)."""
    pieces: list[bytes] = []
    size = 0
    while size < most:
        try:
            piece = file.read1(min(most - size, 1 << 16))
        except (EOFError, OSError, zlib.error):
            return b"".join(pieces), True
        if not piece:
            break
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces), False


def is_gzip(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def beginning(path: Path, most: int = 1 << 16) -> bytes:
    """The first bytes of a file, decompressed, in UTF-8. Raises OSError."""
    if is_gzip(path):
        with gzip.open(path, "rb") as packed:
            data, _ = unpacked(packed, most)
    else:
        with path.open("rb") as file:
            data = file.read(most)
    if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return data.decode("utf-16", "ignore").encode()
    return data.removeprefix(codecs.BOM_UTF8)


def clock_of_file(path: Path) -> Callable[[], float]:
    """The time of lines that name none: when the file was last written."""

    def clock() -> float:
        try:
            return os.stat(path).st_mtime
        except OSError:
            return 0.0

    return clock


class FollowedLines:
    """A file of lines, followed. A CSV whose header changes was rewritten, and is read anew.

    The newest step is passed on at the end of the file at once. Where a later line has more of a step that was passed
    on, the log is read anew, and from then on a step waits until the file is left alone or the next step begins: the
    records are the same however the file grew.
    """

    def __init__(self, path: Path, make: Callable[[], Decoder], *, header: bool = False, bars: bool = False) -> None:
        """`header`: the first line names the columns. `bars`: a carriage return ends a line."""
        self.path, self._make, self._header, self._bars = path, make, header, bars
        self._patience = 0
        self._left_alone_s = LEFT_ALONE_S
        self._open()

    def _open(self) -> None:
        self._source: Source = (
            GzippedFile(self.path, self._bars) if is_gzip(self.path) else PlainFile(self.path, self._bars)
        )
        self._decoder = self._make()
        self._head = self._first_line() if self._header else b""
        self._wide: codecs.IncrementalDecoder | None = None
        self._started = self._little = self._ended = False
        self._carry = b""
        self._took_rest = False

    @property
    def bad(self) -> int:
        return self._decoder.bad + self._source.overlong + self._decoder.reader.counter.left_out

    def read(self, most: int) -> tuple[list[RunRecord], str | None, bool]:
        """As Followed."""
        reset = None
        if self._header and self._started and self._first_line() != self._head:
            reset = self._anew("rewritten with another header")
        chunk = self._source.read(min(most, READ_MOST))
        if begins_anew(chunk.reset):
            self._decoder, self._wide, self._started, self._carry = self._make(), None, False, b""
            self._took_rest = False
            self._head = self._first_line() if self._header else b""
        elif chunk.data and self._took_rest:  # the line that looked finished went on
            self._left_alone_s *= 10  # a slow writer: it is not read anew every two seconds
            return [], self._anew("read again: its last line was continued"), True
        reset = chunk.reset or reset
        records = self._decode(chunk.data) if chunk.data else []
        behind = len(chunk.data) > most // 2
        if not behind:
            records += self._end()
        if self._decoder.reader.late and self._patience < 2:
            self._patience += 1
            return [], self._anew(ANEW), True
        return records, reset, behind

    def _decode(self, data: bytes) -> list[RunRecord]:
        if not self._started:
            self._started = True
            if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
                self._wide = codecs.getincrementaldecoder("utf-16")("replace")
                self._little = data[:2] == codecs.BOM_UTF16_LE
            data = data.removeprefix(codecs.BOM_UTF8)
        if self._wide is not None:
            if self._ended and data[:1] == b"\0":
                data = data[1:]
            self._ended = self._little and data[-1:] in (b"\n", b"\r")
            if self._ended:
                data += b"\0"  # the second byte of the character that ends the line
            text = self._carry + self._wide.decode(data).encode()
            whole, newline, self._carry = text.rpartition(b"\n")
            data = whole + newline
        return self._decoder.decode(data)

    def _end(self) -> list[RunRecord]:
        """At the end of the file: the newest step, and an unfinished line that is no longer being written."""
        reader = self._decoder.reader
        records: list[RunRecord] = []
        alone = self._left_alone()
        if alone and not self._took_rest:
            rest = self._source.rest()
            if rest.strip(b"\0\r\n\t "):
                self._took_rest = True
                records = self._decode(rest + (b"\n\0" if self._wide is not None else b"\n"))
        if alone or self._patience == 0:
            records += self._decoder.drain()
            if reader.waiting:
                records += reader.flush()
        return records

    def _left_alone(self) -> bool:
        try:
            return time.time() - os.stat(self.path).st_mtime > self._left_alone_s
        except OSError:
            return True

    def _anew(self, why: str) -> str:
        self._source.close()
        self._open()
        return why

    def _first_line(self) -> bytes:
        try:
            return re.split(rb"[\r\n]", beginning(self.path), maxsplit=1)[0]
        except OSError:
            return b""

    def close(self) -> None:
        self._source.close()


class FollowedDocument:
    """A log that is read completely whenever it changes; no file stays open between two reads."""

    bad = 0

    def close(self) -> None: ...


class FollowedJson(FollowedDocument):
    """One JSON document whose records are all made again when it was written again."""

    written_again = "written anew"
    most_bytes = 1 << 28

    def __init__(self, path: Path, patterns: Sequence[re.Pattern[str]] = ()) -> None:
        self.path, self.patterns = path, patterns
        self._stamp: tuple[int, int] = (0, 0)

    def records_of(self, document: Any, written: float) -> list[RunRecord]:
        """All records of the document; `written`: seconds since 1970, the time of rows that have none."""
        raise NotImplementedError

    def read(self, most: int) -> tuple[list[RunRecord], str | None, bool]:
        """As Followed: the whole document whenever it has changed and parses."""
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return [], None, False
        stamp = (status.st_mtime_ns, status.st_size)
        if stamp == self._stamp:
            return [], None, False
        try:
            document = json_value(beginning(self.path, self.most_bytes))
        except ValueError:
            return [], None, False  # it is being written: the next look finds it whole
        reset = self.written_again if self._stamp != (0, 0) else None
        self._stamp = stamp
        return self.records_of(document, status.st_mtime), reset, False
