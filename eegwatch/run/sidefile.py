"""A long log, read once: its items as columns beside the log, so that opening it again costs a copy, not a parse.

Only a cache, in ~/.cache/eegwatch/logs (or $EEGWATCH_CACHE): delete it at any time. It holds frames, each the items of
one piece of the log with the offset where that piece ends, in the order of the file; a torn or damaged frame ends what
is taken from it. It is believed only for the very file it was made from: device, inode, first 4 kB, and the 4 kB before
each frame's end are compared. 28 bytes a step where steps follow each other and positions are the usual ones.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from eegwatch.run.history import COLUMNS, Item, Reader, StepBlock
from eegwatch.run.log import run_decoder
from eegwatch.run.records import Record, encode

WORTH_IT_BYTES = 16 << 20  # a shorter log is parsed in a tenth of a second
KEPT_BYTES = 2 << 30  # of all side files together: the longest unused go first
CHECKED_BYTES = 4096
HEAD = struct.Struct("<4sII")  # magic, length, CRC-32 of the frame that follows
# another set of columns makes an old side file void, not wrong
LAYOUT = [*((name, np.dtype(kind).str) for name, kind in COLUMNS.items()), "lrs", "metrics"]
MAGIC = hashlib.sha256(repr(LAYOUT).encode()).digest()[:4]


class _Steps(msgspec.Struct, array_like=True):
    """A StepBlock: `count` steps; an empty column is the usual one (see `_usual`). `lrs`: empty for None."""

    count: int
    first: int
    columns: dict[str, bytes]
    lrs: bytes
    metrics: dict[str, tuple[bytes, bytes]]


class _Frame(msgspec.Struct, array_like=True):
    """The items of the log up to `end`, whose last 4 kB have the CRC `before`; the reader's counts there."""

    end: int
    before: int
    records: int
    counts: tuple[int, str | None, str | None, int]
    items: list[_Steps | bytes]


_encoder, _decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(_Frame)


def place_of(log: Path) -> Path:
    """Where the side file of a log lies."""
    root = Path(os.path.expanduser(os.environ.get("EEGWATCH_CACHE") or "~/.cache/eegwatch"))
    return root / "logs" / f"{hashlib.sha256(os.fsencode(log.resolve())).hexdigest()[:24]}.side"


class SideFile:
    """The side file of one log, held by a lock: `frames` gives what it knows, `add` appends what was read beyond it."""

    def __init__(self, log: Path) -> None:
        """Opens or makes it. Raises OSError where that is impossible, or another process writes it."""
        self._log = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
        self._fd = -1
        try:
            self._identity = self._identify()
            place = place_of(log)
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.pread(self._fd, len(self._identity), 0) != self._identity:
                self._forget(0)
                os.write(self._fd, self._identity)
                _tidy(place)
        except OSError:
            self.close()
            raise

    def _identify(self) -> bytes:
        stat = os.fstat(self._log)
        head = hashlib.sha256(os.pread(self._log, CHECKED_BYTES, 0)).digest()
        return struct.pack("<QQ32s", stat.st_dev, stat.st_ino, head)

    def _before(self, end: int) -> int:
        begin = max(0, end - CHECKED_BYTES)
        return zlib.crc32(os.pread(self._log, end - begin, begin))

    def _forget(self, size: int) -> None:
        """Keep the first `size` bytes."""
        os.ftruncate(self._fd, size)
        os.lseek(self._fd, size, os.SEEK_SET)

    def frames(self) -> Iterator[tuple[int, int, list[Item], Reader]]:
        """(offset in the log, records so far, items up to it, the reader's state there) of each frame that holds."""
        at, size = len(self._identity), os.fstat(self._log).st_size
        decoder = run_decoder()
        while True:
            head = os.pread(self._fd, HEAD.size, at)
            if len(head) < HEAD.size:
                break
            magic, length, crc = HEAD.unpack(head)
            data = os.pread(self._fd, length, at + HEAD.size) if magic == MAGIC else b""
            if len(data) != length or zlib.crc32(data) != crc:
                break
            frame = _decoder.decode(data)
            if frame.end > size or self._before(frame.end) != frame.before:
                break
            at += HEAD.size + length
            items = [_block(i) if isinstance(i, _Steps) else decoder.decode(i)[0] for i in frame.items]
            yield frame.end, frame.records, items, Reader.at(*frame.counts)  # type: ignore[misc]
        self._forget(at)

    def add(self, end: int, records: int, items: list[Item], reader: Reader) -> None:
        """What the log held up to offset `end`. Raises OSError (disk full): what was there stays good."""
        packed: list[_Steps | bytes] = [_steps(i) if isinstance(i, StepBlock) else _line(i) for i in items]
        counts = (reader.disorder, reader.first_disorder, reader.clock_back, reader.last)
        data = _encoder.encode(_Frame(end, self._before(end), records, counts, packed))
        os.write(self._fd, HEAD.pack(MAGIC, len(data), zlib.crc32(data)) + data)

    def close(self) -> None:
        for fd in (self._fd, self._log):
            if fd >= 0:
                os.close(fd)
        self._fd = self._log = -1


def _usual(name: str, first: int, count: int) -> Any:
    """What a column holds when there is nothing to say."""
    if name == "step":
        return np.arange(first, first + count, dtype=np.int64)
    if name == "position":
        return np.arange(first - 1, first - 1 + count, dtype=np.float64)
    return np.zeros(count, np.int32) if name == "skipped" else None


def _steps(block: StepBlock) -> _Steps:
    first, columns = int(block.step[0]), {}
    for name in COLUMNS:
        column, usual = getattr(block, name), _usual(name, first, len(block))
        columns[name] = b"" if usual is not None and np.array_equal(column, usual) else column.tobytes()
    metrics = {name: (rows.tobytes(), values.tobytes()) for name, (rows, values) in block.metrics.items()}
    return _Steps(len(block), first, columns, b"" if block.lrs is None else block.lrs.tobytes(), metrics)


def _block(steps: _Steps) -> StepBlock:
    columns: dict[str, Any] = {}
    for name, kind in COLUMNS.items():
        data = steps.columns[name]
        columns[name] = np.frombuffer(data, kind) if data else _usual(name, steps.first, steps.count)
    lrs = np.frombuffer(steps.lrs, np.float64).reshape(steps.count, -1) if steps.lrs else None
    metrics = {
        name: (np.frombuffer(rows, np.int32), np.frombuffer(values, np.float64))
        for name, (rows, values) in steps.metrics.items()
    }
    return StepBlock(**columns, lrs=lrs, metrics=metrics)


def _line(item: Item) -> bytes:
    assert isinstance(item, Record)
    return encode(item)


def _tidy(keep: Path) -> None:
    """Side files beyond KEPT_BYTES are deleted, the longest unused first."""
    found = []
    for path in keep.parent.glob("*.side"):
        with contextlib.suppress(FileNotFoundError):  # another monitor tidies too
            stat = path.stat()
            found.append((stat.st_mtime, stat.st_size, path))
    room = KEPT_BYTES
    for _, size, path in sorted(found, reverse=True):
        room -= size
        if room < 0 and path != keep:
            path.unlink(missing_ok=True)
