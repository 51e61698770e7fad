"""A long log, read once: its items as columns beside the log, so that opening it again costs a copy, not a parse.

Whoever writes a log leaves them in its folder (`run.side`); a monitor that finds none makes them in
~/.cache/eegwatch/logs (or $EEGWATCH_CACHE). Only a cache: delete it at any time. It holds frames, each the items of one
piece of the log with the offset where that piece ends, in the order of the file; a torn or damaged frame ends what is
taken from it. It is believed only for the very file it was made from: device, inode, first 4 kB, and the 4 kB before
each frame's end are compared. 28 bytes a step where steps follow each other and positions are the usual ones.

One process writes it, held by a lock; any number read it meanwhile, as far as it goes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
import numpy as np

from eegwatch.run.history import COLUMNS, Item, StepBlock
from eegwatch.run.items import ItemReader
from eegwatch.run.records import Record, RunRecord, encode

WORTH_IT_BYTES = 4 << 20  # a shorter log is parsed in a fiftieth of a second
KEPT_BYTES = 2 << 30  # of all side files together: the longest unused go first
CHECKED_BYTES = 4096
HEAD = struct.Struct("<4sII")  # magic, length, CRC-32 of the frame that follows
# another set of columns makes an old side file void, not wrong
LAYOUT = [*((name, np.dtype(kind).str) for name, kind in COLUMNS.items()), "lrs", "metrics", "bad", "clock"]
MAGIC = hashlib.sha256(repr(LAYOUT).encode()).digest()[:4]


class Steps(msgspec.Struct, array_like=True):
    """A StepBlock: `count` steps; an empty column is the usual one (see `_usual`). `lrs`: empty for None."""

    count: int
    first: int
    columns: dict[str, bytes]
    lrs: bytes
    metrics: dict[str, tuple[bytes, bytes]]


class _Frame(msgspec.Struct, array_like=True):
    """The items of the log up to `end`, whose last 4 kB have the CRC `before`; the reader's counts there.

    `bad`: lines so far that are not records.
    """

    end: int
    before: int
    records: int
    bad: int
    counts: tuple[int, str | None, str | None, int, float]
    items: list[Steps | bytes]


_encoder, _decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(_Frame)
_records: msgspec.json.Decoder[RunRecord] = msgspec.json.Decoder(RunRecord)


class Frame(NamedTuple):
    """The items of one piece of a log, and what is known at its end: offset, records and bad lines so far, reader."""

    end: int
    records: int
    bad: int
    items: list[Item]
    reader: ItemReader


def beside(log: Path) -> Path:
    """The path of the side file that a log's writer makes."""
    return log.with_suffix(".side")


def place_of(log: Path) -> Path:
    """The path of a log's side file: beside the log if its writer made one, else in the cache."""
    if beside(log).is_file():
        return beside(log)
    root = Path(os.path.expanduser(os.environ.get("EEGWATCH_CACHE") or "~/.cache/eegwatch"))
    return root / "logs" / f"{hashlib.sha256(os.fsencode(log.resolve())).hexdigest()[:24]}.side"


class SideFile:
    """The side file of one log: `frames` gives what it knows beyond what it gave; `add` appends, once `lock` held."""

    def __init__(self, log: Path, place: Path | None = None) -> None:
        """Open or make it at `place` (default: `place_of`). Raises OSError."""
        self._log = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
        self._fd, self.writes = -1, False
        try:
            self.identity = self._identify()
            self.place = place_of(log) if place is None else place
            self._fd = self._open()
            self._at = len(self.identity)
        except OSError:
            self.close()
            raise

    def _open(self) -> int:
        flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            self.place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(self.place, os.O_RDWR | os.O_CREAT | flags, 0o600)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EROFS, errno.EPERM):
                raise
            return os.open(self.place, os.O_RDONLY | flags)  # another user's: it can be read all the same

    def lock(self) -> bool:
        """Become its writer, after the last frame that `frames` returned; a torn frame is removed.

        False where another process writes it, or has written on meanwhile, or nobody can.
        """
        if self.writes:
            return True
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not self._is_of_this_log():
                os.ftruncate(self._fd, 0)
                os.pwrite(self._fd, self.identity, 0)
                self._at = len(self.identity)
                _tidy(self.place)
            if self._frame(self._at) is None:
                os.ftruncate(self._fd, self._at)
                self.writes = True
            else:
                fcntl.flock(self._fd, fcntl.LOCK_UN)
        except OSError:
            return False
        return self.writes

    def _is_of_this_log(self) -> bool:
        return os.pread(self._fd, len(self.identity), 0) == self.identity

    def is_of(self, log: int | None) -> bool:
        """Whether this open file is the log of this side file."""
        return log is not None and os.path.sameopenfile(log, self._log)

    def _identify(self) -> bytes:
        stat = os.fstat(self._log)
        if stat.st_size < CHECKED_BYTES:
            raise OSError(errno.EINVAL, "too short for a side file")  # its first 4 kB will be others
        head = hashlib.sha256(os.pread(self._log, CHECKED_BYTES, 0)).digest()
        return struct.pack("<QQ32s", stat.st_dev, stat.st_ino, head)

    def before(self, end: int) -> int:
        """CRC-32 of the 4 kB of the log before this offset."""
        begin = max(0, end - CHECKED_BYTES)
        return zlib.crc32(os.pread(self._log, end - begin, begin))

    @property
    def size(self) -> int:
        """Bytes of the side file."""
        return os.fstat(self._fd).st_size

    @property
    def position(self) -> int:
        """Behind the newest frame that was given or added, in the side file itself."""
        return self._at

    def frames(self, again_to: int | None = None, begin: int = 0) -> Iterator[Frame]:
        """Each frame that holds, beyond those that were given; with `again_to` once more from the first on, or from
        the `position` `begin`, up to the frame that ends at that offset of the log."""
        if not self._is_of_this_log():
            return
        at = self._at if again_to is None else begin or len(self.identity)
        while (found := self._frame(at)) is not None:
            frame, at = found
            if again_to is None:
                self._at = at
            elif frame.end > again_to:
                return
            yield frame

    def _frame(self, at: int) -> tuple[Frame, int] | None:
        """The frame at this offset of the side file, and the offset of the next; None where none holds there."""
        head = os.pread(self._fd, HEAD.size, at)
        if len(head) < HEAD.size:
            return None
        magic, length, crc = HEAD.unpack(head)
        data = os.pread(self._fd, length, at + HEAD.size) if magic == MAGIC else b""
        if not data or len(data) != length or zlib.crc32(data) != crc:
            return None
        try:
            frame = _decoder.decode(data)
            if frame.end > os.fstat(self._log).st_size or self.before(frame.end) != frame.before:
                return None
            items = unpacked(frame.items)
        except (msgspec.MsgspecError, ValueError, KeyError, OverflowError):  # nothing that we wrote
            return None
        reader = ItemReader.at(*frame.counts)
        return Frame(frame.end, frame.records, frame.bad, items, reader), at + HEAD.size + length

    def add(self, frame: Frame) -> None:
        """Add the records between the last frame and this one's end. Raises OSError; earlier frames stay valid."""
        reader = frame.reader
        counts = (reader.disorder, reader.first_disorder, reader.clock_back, reader.last, reader.clock)
        before = self.before(frame.end)
        data = _encoder.encode(_Frame(frame.end, before, frame.records, frame.bad, counts, packed(frame.items)))
        whole = HEAD.pack(MAGIC, len(data), zlib.crc32(data)) + data
        end = os.lseek(self._fd, 0, os.SEEK_END)
        if os.write(self._fd, whole) != len(whole):
            os.ftruncate(self._fd, end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.place))
        self._at = end + len(whole)

    def close(self) -> None:
        for fd in (self._fd, self._log):
            if fd >= 0:
                os.close(fd)
        self._fd = self._log = -1


def packed(items: list[Item]) -> list[Steps | bytes]:
    """Items as msgpack takes them."""
    return [_steps(item) if isinstance(item, StepBlock) else _line(item) for item in items]


def unpacked(items: list[Steps | bytes]) -> list[Item]:
    """The same items. Raises ValueError, KeyError, OverflowError or msgspec's errors for what `packed` did not make."""
    return [_block(item) if isinstance(item, Steps) else cast(Item, _records.decode(item)) for item in items]


def _usual(name: str, first: int, count: int) -> Any:
    """The default content of a column."""
    if name == "step":
        return np.arange(first, first + count, dtype=np.int64)
    if name == "position":
        return np.arange(first - 1, first - 1 + count, dtype=np.float64)
    return np.zeros(count, np.int32) if name == "skipped" else None


def _steps(block: StepBlock) -> Steps:
    first, columns = int(block.step[0]), {}
    for name in COLUMNS:
        column, usual = getattr(block, name), _usual(name, first, len(block))
        columns[name] = b"" if usual is not None and np.array_equal(column, usual) else column.tobytes()
    metrics = {name: (rows.tobytes(), values.tobytes()) for name, (rows, values) in block.metrics.items()}
    return Steps(len(block), first, columns, b"" if block.lrs is None else block.lrs.tobytes(), metrics)


def _block(steps: Steps) -> StepBlock:
    columns: dict[str, Any] = {}
    for name, kind in COLUMNS.items():
        data = steps.columns[name]
        columns[name] = np.frombuffer(data, kind) if data else _usual(name, steps.first, steps.count)
        if len(columns[name]) != steps.count:
            raise ValueError(f"{name}: {len(columns[name])} values of {steps.count} steps")
    lrs = np.frombuffer(steps.lrs, np.float64).reshape(steps.count, -1) if steps.lrs else None
    metrics = {
        name: (np.frombuffer(rows, np.int32), np.frombuffer(values, np.float64))
        for name, (rows, values) in steps.metrics.items()
    }
    for name, (rows, values) in metrics.items():
        if len(rows) != len(values) or not ((rows >= 0) & (rows < steps.count)).all():
            raise ValueError(f"{name}: values of steps that the file does not hold")
    return StepBlock(**columns, lrs=lrs, metrics=metrics)


def _line(item: Item) -> bytes:
    assert isinstance(item, Record)
    return encode(item)


def _tidy(keep: Path) -> None:
    """Side files beyond KEPT_BYTES are deleted, the longest unused first."""
    found = []
    for path in [*keep.parent.glob("*.side"), *keep.parent.glob("*.verdict")]:
        with contextlib.suppress(FileNotFoundError):  # another monitor tidies too
            stat = path.stat()
            found.append((stat.st_mtime, stat.st_size, path))
    room = KEPT_BYTES
    for _, size, path in sorted(found, reverse=True):
        room -= size
        if room < 0 and path != keep:
            path.unlink(missing_ok=True)
