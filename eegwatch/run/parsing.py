"""A log parsed in pieces of whole lines, by a second process too where there are two processors.

Each takes the next piece from a queue when it is done with one, so that neither waits for a slower other.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import msgspec
import numpy as np

from eegwatch.run.history import COLUMNS, Item, StepBlock
from eegwatch.run.items import items
from eegwatch.run.log import LONGEST_LINE, run_decoder
from eegwatch.run.sidefile import Steps, packed, unpacked
from eegwatch.run.uniform_steps import NotUniformError, UniformStep, block_of_uniform, uniform_decoder

PIECE_BYTES = 1 << 20
PARSED_AT_ONCE = 1 << 17  # the records and numbers of 128 kB of it stay in the processor's cache
LONG_BYTES = 1 << 16  # a piece ends behind a line
SEARCH_BYTES = 1 << 12
AHEAD = 4  # pieces that one process keeps while it waits for the other's
SENT_AHEAD_BYTES = 1 << 20  # five pieces or so: with the 64 kB of a pipe the helper would wait within each
KEPT_AHEAD_BYTES = 32 << 20  # more of them, which the helper holds while the first frame is drawn: a million steps
RESTING = 8  # chunks: a log of no one layout costs a twelfth more time
MOST_QUEUED = 1 << 14  # numbers that a pipe holds: a log of 16 GB
HEAD, NUMBER = struct.Struct("<I"), struct.Struct("<I")  # length of what follows in the pipe; number of a piece


class Piece(NamedTuple):
    """The items of one piece of a log, not yet put in order, up to `end`; `bad`: its lines that are not records."""

    end: int
    records: int
    bad: int
    items: list[Item]


class _Sent(msgspec.Struct, array_like=True):
    """A Piece in the pipe."""

    end: int
    records: int
    bad: int
    items: list[Steps | bytes]


_encoder, _decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(_Sent)


class _Parser:
    """Whole lines of a file to items, through one buffer: a new one for each piece costs more than reading it."""

    def __init__(self, fd: int) -> None:
        self._fd, self._decoder, self._uniform = fd, run_decoder(), uniform_decoder()
        self._resting = 0  # chunks to be read the general way, after one that was not uniform
        self._buffer = bytearray(PIECE_BYTES + LONG_BYTES)

    def boundary(self, at: int, size: int) -> int:
        """Where the first line at or after this offset begins: the offset itself, or behind the next newline."""
        at = max(0, at - 1)
        while at < size:
            found = os.pread(self._fd, SEARCH_BYTES, at).find(b"\n")
            if found >= 0:
                return at + found + 1
            at += SEARCH_BYTES
        return size

    def piece(self, begin: int, end: int) -> Piece:
        """Raises ValueError for one that is no longer there, or whose line is longer than a record can be."""
        length = end - begin
        if length > LONGEST_LINE:
            raise ValueError("a line is too long")
        if length > len(self._buffer):
            self._buffer = bytearray(length)
        data = memoryview(self._buffer)[:length]
        if os.preadv(self._fd, [data], begin) != length:
            raise ValueError("the log has become shorter")
        before, count = self._decoder.bad, 0
        known: list[Item] = []
        for low, high in self._chunks(length):
            records, made = self._items(data[low:high])
            count += records
            known += made
        return Piece(end, count, self._decoder.bad - before, _joined(known))

    def _items(self, lines: memoryview) -> tuple[int, list[Item]]:
        """(number of the records, items) of whole lines."""
        if self._resting:
            self._resting -= 1
        else:
            try:
                uniform = self._uniform.decode_lines(lines)
                return len(uniform), list(items(uniform, UniformStep, block_of_uniform))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, NotUniformError):
                self._resting = RESTING
        records = self._decoder.decode(lines)
        return len(records), list(items(records))

    def _chunks(self, length: int) -> Iterator[tuple[int, int]]:
        """The bounds of whole lines of about PARSED_AT_ONCE bytes in the buffer."""
        low = 0
        while low < length:
            high = length
            if low + PARSED_AT_ONCE < length:
                found = self._buffer.rfind(b"\n", low, low + PARSED_AT_ONCE)
                found = self._buffer.find(b"\n", low, length) if found < 0 else found
                high = found + 1 if found >= 0 else length
            yield low, high
            low = high


def _joined(known: list[Item]) -> list[Item]:
    """The blocks of steps that follow each other as one: each costs some 0.1 ms wherever it comes."""
    if len(known) < 2 or not all(isinstance(item, StepBlock) and item.plain for item in known):
        return known
    blocks = cast(list[StepBlock], known)
    columns: dict[str, Any] = {name: np.concatenate([getattr(block, name) for block in blocks]) for name in COLUMNS}
    return [StepBlock(**columns)]


class _Bounds:
    """Which whole lines of the log, from a line's begin up to `size`, each piece has."""

    def __init__(self, parser: _Parser, log: int, begin: int, size: int) -> None:
        self._parser, self._begin, self._size = parser, begin, size
        self.first, self.last = begin // PIECE_BYTES, (size - 1) // PIECE_BYTES
        self._end_of_lines = _last_newline(log, begin, size)

    def of(self, k: int) -> tuple[int, int]:
        """(begin, end) of piece k; no more than nothing where a line is longer than the piece."""
        low = self._begin if k == self.first else self._parser.boundary(k * PIECE_BYTES, self._size)
        return low, min(self._end_of_lines, self._parser.boundary((k + 1) * PIECE_BYTES, self._size))


def pieces(log: int, begin: int, size: int, *, two: bool) -> Iterator[Piece]:
    """The whole lines of an open file from a line's begin up to `size`, in order; `two`: by two processes.

    The second process begins at once, this one when it is asked for the first piece. Raises OSError and ValueError (the
    log has changed meanwhile, or a line is too long to be a record).
    """
    parser = _Parser(log)
    bounds = _Bounds(parser, log, begin, size)
    count = bounds.last - bounds.first + 1
    if not two or count < 2 or count > MOST_QUEUED:
        return _alone(parser, bounds)
    queue = _Queue(bounds.first, bounds.last)
    return _both(parser, bounds, queue, _Helper(parser, bounds, queue))


def _alone(parser: _Parser, bounds: _Bounds) -> Iterator[Piece]:
    for k in range(bounds.first, bounds.last + 1):
        low, high = bounds.of(k)
        if high > low:
            yield parser.piece(low, high)


def _both(parser: _Parser, bounds: _Bounds, queue: _Queue, helper: _Helper) -> Iterator[Piece]:
    try:
        yield from _shared(parser, bounds, queue, helper)
    finally:
        queue.close()
        helper.close()


def second_processor() -> bool:
    """May this process use more than one processor? By its affinity where the system has one (Linux)."""
    return len(os.sched_getaffinity(0)) > 1 if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1) > 1


def _shared(parser: _Parser, bounds: _Bounds, queue: _Queue, helper: _Helper) -> Iterator[Piece]:
    """The pieces in order, each parsed by whoever of the two took it from the queue."""
    taken = bounds.first - 1  # the newest that this process took: all before it are taken
    own: dict[int, Piece | None] = {}
    for k in range(bounds.first, bounds.last + 1):
        while taken < k or (k not in own and len(own) < AHEAD and not helper.has_sent()):
            got = queue.take()
            if got is None:
                taken = bounds.last
                break
            taken, (low, high) = got, bounds.of(got)
            own[got] = parser.piece(low, high) if high > low else None
        low, high = bounds.of(k)
        if k in own:
            piece = own.pop(k)
        elif high > low:
            sent = helper.receive()
            piece = parser.piece(low, high) if sent is None or sent.end != high else sent
        else:
            piece = None
        if piece is not None:
            yield piece


class _Queue:
    """The numbers of the pieces that nobody has taken yet, in a pipe: a read of four bytes takes one."""

    def __init__(self, first: int, last: int) -> None:
        self._read, write = os.pipe()
        with os.fdopen(write, "wb") as file:
            file.write(b"".join(NUMBER.pack(k) for k in range(first, last + 1)))

    def take(self) -> int | None:
        """The next one; None where all are taken."""
        data = os.read(self._read, NUMBER.size)
        return int(NUMBER.unpack(data)[0]) if data else None

    def close(self) -> None:
        os.close(self._read)


def _last_newline(log: int, begin: int, size: int) -> int:
    """Behind the last whole line."""
    at = size
    while at > begin:
        low = max(begin, at - SEARCH_BYTES)
        found = os.pread(log, at - low, low).rfind(b"\n")
        if found >= 0:
            return low + found + 1
        at = low
    return begin


class _Helper:
    """A process that parses pieces from the queue, and sends them."""

    def __init__(self, parser: _Parser, bounds: _Bounds, queue: _Queue) -> None:
        read, write = os.pipe()
        if hasattr(fcntl, "F_SETPIPE_SZ"):  # Linux
            with contextlib.suppress(OSError):  # more than a user may have: then it waits for the reader more often
                fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, SENT_AHEAD_BYTES)
        self._pid = os.fork()
        if self._pid == 0:
            os.close(read)
            _send(parser, bounds, queue, write)
        os.close(write)
        self._file = os.fdopen(read, "rb")

    def has_sent(self) -> bool:
        """Does a piece of it, or its end, wait to be received?"""
        return bool(select.select([self._file], [], [], 0)[0])

    def receive(self) -> Piece | None:
        """Its next piece; None where it has ended."""
        head = self._file.read(HEAD.size)
        data = self._file.read(HEAD.unpack(head)[0]) if len(head) == HEAD.size else b""
        if not data or len(data) != HEAD.unpack(head)[0]:
            return None
        sent = _decoder.decode(data)
        return Piece(sent.end, sent.records, sent.bad, unpacked(sent.items))

    def close(self) -> None:
        self._file.close()  # which ends it where it still writes
        os.waitpid(self._pid, 0)


def _send(parser: _Parser, bounds: _Bounds, queue: _Queue, pipe: int) -> None:
    """The life of the helper. A log that changed, or a reader that is gone, ends it: the reader sees the pipe's end."""
    try:
        os.set_blocking(pipe, False)
        waiting = bytearray()
        while (k := queue.take()) is not None:
            low, high = bounds.of(k)
            if high > low:
                piece = parser.piece(low, high)
                data = _encoder.encode(_Sent(piece.end, piece.records, piece.bad, packed(piece.items)))
                waiting += HEAD.pack(len(data)) + data
                _write(pipe, waiting, KEPT_AHEAD_BYTES)
        _write(pipe, waiting, 0)
    except BaseException:  # a key's interrupt too: what the process was forked from is the reader's
        os._exit(1)
    os._exit(0)


def _write(pipe: int, waiting: bytearray, most: int) -> None:
    """What the pipe takes now, and until no more than `most` bytes wait. Raises OSError."""
    while waiting:
        try:
            del waiting[: os.write(pipe, waiting)]
        except BlockingIOError:
            if len(waiting) <= most:
                return
            select.select([], [pipe], [])
