"""Append to, read and follow a JSONL log: complete lines only, also if the file is truncated, rotated or replaced."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar, cast, get_args

import msgspec

from eegwatch.run.folder import sync_folder
from eegwatch.run.lock import same_file
from eegwatch.run.records import DaemonRecord, Record, RunRecord, encode
from eegwatch.run.uniform_steps import step_of

CHUNK_BYTES = 1 << 18  # 256 kB: the fastest chunk for msgspec's decode_lines (measured: 1.7 M records/s)
LONGEST_LINE = 1 << 26  # a "line" beyond 64 MiB is garbage: it is counted as one bad line and passed over

T = TypeVar("T")


class AppendLog:
    """Append whole lines to a file, one `write` call a line, on an O_APPEND descriptor of mode 0600.

    A torn last line (a writer that crashed) is ended with a newline by the first write, so nothing of ours joins it.
    """

    def __init__(self, path: Path) -> None:
        """Open `path` for appending; never through a symbolic link. Raises OSError (missing, read-only, full)."""
        self.path = path
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        self._fd = os.open(path, flags, 0o600)
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            os.close(self._fd)
            raise OSError(errno.EINVAL, "is not a regular file", str(path))
        self._torn = False
        if not os.fstat(self._fd).st_size:
            sync_folder(path.parent)  # a file whose name is lost with the power is not a log
        self.mend()

    def mend(self) -> None:
        """Look whether another writer has left a torn line (a crash, a full disk): the next write ends it first."""
        size = os.fstat(self._fd).st_size
        self._torn = size > 0 and os.pread(self._fd, 1, size - 1) != b"\n"

    def append(self, record: Record) -> None:
        """Write one record as one line. Raises OSError when the disk is full."""
        self.write(encode(record))

    def write(self, line: bytes) -> None:
        """Write `line` (newline included). What a full disk tore is ended first, so that later lines stay whole."""
        if self._torn:
            line = b"\n" + line
        written = os.write(self._fd, line)
        self._torn = self._torn and not written
        if written != len(line):
            self._torn = True
            os.write(self._fd, line[written:])
            self._torn = False

    def displaced(self) -> bool:
        """Is the file no longer the one of its name (deleted, rotated, replaced)? Raises OSError if nobody can tell."""
        return not same_file(self._fd, self.path)

    def sync(self) -> None:
        """Make everything written so far durable."""
        os.fsync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


class Chunk(msgspec.Struct, frozen=True):
    """Whole lines read from a file. `offset` is where `data` begins; `reset` names why it was read anew."""

    offset: int
    data: bytes
    reset: str | None = None

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Each line without its newline, with its byte offset in the file."""
        offset = self.offset
        for line in self.data.split(b"\n")[:-1]:
            yield offset, line
            offset += len(line) + 1


def begins_anew(reset: str | None) -> bool:
    """Whether a change of the file invalidates the records already read. A deletion and a rotation do not."""
    return reset is not None and reset not in ("deleted", "rotated")


def open_regular(path: Path) -> int:
    """A descriptor to read a file from. Raises OSError, also for a FIFO or a device, whose reader may wait for ever."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return fd


class Tail:
    """Follow a growing file by reading at its end: no event is needed, so NFS and WSL mounts work too.

    Truncation, replacement (another inode under the name), rotation (the old one lives on under another name beside
    it) and deletion are noticed at the next `read`. A rotated file is read to its end before the new one is begun.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self.offset = offset
        self.overlong = 0
        self.missing = False
        self._fd: int | None = None

    def read(self, most: int = CHUNK_BYTES) -> Chunk:
        """The whole lines that came since the last call, at most about `most` bytes; empty data if none."""
        reset = self._settle()
        if self._fd is None:
            return Chunk(self.offset, b"", reset)
        while True:
            data = os.pread(self._fd, most, self.offset)
            end = data.rfind(b"\n") + 1
            if end:
                start = self.offset
                self.offset += end
                return Chunk(start, data[:end], reset)
            if len(data) < most:
                return Chunk(self.offset, b"", reset)
            if most >= LONGEST_LINE:
                self.offset += len(data)
                self.overlong += 1
            else:
                most *= 4

    def descriptor(self) -> int | None:
        """A descriptor of the file for reading at any offset; None if the file is missing or was replaced."""
        return None if self._settle() else self._fd

    def _settle(self) -> str | None:
        """Open or reopen the file as its name and size demand; say what happened to it."""
        try:
            named = os.stat(self.path)
        except FileNotFoundError:
            reset = None if self.missing or self._fd is None else "deleted"
            self.missing = True
            return reset  # an open descriptor is kept: what was written before the deletion can still be read
        self.missing = False
        reset = None
        if self._fd is not None:
            own = os.fstat(self._fd)
            if (own.st_ino, own.st_dev) != (named.st_ino, named.st_dev):
                reset = "rotated" if self._lives_on(own) else "replaced"
                if reset == "rotated" and self._holds_a_line(self._fd):
                    return None  # which comes first
            elif named.st_size < self.offset:
                reset = "truncated"
        if reset:
            self.close()
            self.offset = 0
        if self._fd is None:
            self._fd = open_regular(self.path)
            if os.fstat(self._fd).st_size < self.offset:
                self.offset, reset = 0, "truncated"
        return reset

    def _holds_a_line(self, fd: int) -> bool:
        """Whether a complete line has not been read yet."""
        at = self.offset
        while data := os.pread(fd, CHUNK_BYTES, at):
            if b"\n" in data:
                return True
            at += len(data)
        return False

    def _lives_on(self, old: os.stat_result) -> bool:
        """Whether the old file is beside the new one under a longer name (run.jsonl.1): a rotation."""
        for entry in os.scandir(self.path.parent):
            if entry.name.startswith(self.path.name) and entry.inode() == old.st_ino:
                return os.path.samestat(entry.stat(follow_symlinks=False), old)
        return False

    def restart(self) -> None:
        """Read the file from its beginning again at the next `read`."""
        self.close()
        self.offset = 0

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class _Typed(msgspec.Struct):
    """The common fields of each line, in every version."""

    type: str


class Decoder(Generic[T]):
    """Lines to records. A line that does not parse is counted in `bad`, never fatal.

    A record of a type that a later version added is read past. `decode_lines` fails a whole chunk for one bad line,
    so only then is the chunk taken line by line.
    """

    def __init__(self, union: Any) -> None:
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(union)
        self._typed = msgspec.json.Decoder(_Typed)
        self._types = {record.__struct_config__.tag for record in get_args(union)}
        self.bad = 0

    def decode(self, data: bytes | memoryview) -> list[T]:
        try:
            return cast(list[T], self._decoder.decode_lines(data))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            records: list[T] = []
            for line in bytes(data).split(b"\n"):
                if not line.strip():
                    continue
                try:
                    records.append(self._decoder.decode(line))
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    rescued = self._otherwise(line)
                    records += [] if rescued is None else [rescued]
                    self.bad += rescued is None and not self._of_later_version(line)
            return records

    def _otherwise(self, line: bytes) -> T | None:
        """The record in a line that does not parse, where it can be told."""
        return None

    def _of_later_version(self, line: bytes) -> bool:
        """Whether this is a record of a type that this version does not know."""
        try:
            return self._typed.decode(line).type not in self._types
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False


class _RunDecoder(Decoder[RunRecord]):
    def _otherwise(self, line: bytes) -> RunRecord | None:
        return step_of(line)


def run_decoder() -> Decoder[RunRecord]:
    """A decoder for run.jsonl."""
    return _RunDecoder(RunRecord)


def daemon_decoder() -> Decoder[DaemonRecord]:
    """A decoder for daemon.jsonl."""
    return Decoder(DaemonRecord)


def read_all(path: Path, decoder: Decoder[T]) -> list[T]:
    """Every whole record of the file. Raises OSError if it cannot be read."""
    return list(each_record(path, decoder))


def each_record(path: Path, decoder: Decoder[T]) -> Iterator[T]:
    """Every whole record of the file, a megabyte of them in memory at a time. Raises OSError if it cannot be read."""
    tail = Tail(path)
    try:
        while chunk := tail.read(1 << 20).data:
            yield from decoder.decode(chunk)
    finally:
        tail.close()
    if tail.missing:
        raise FileNotFoundError(f"{path}: no such file")
