"""A log parsed in pieces of whole lines, every other one by a process of its own where there are two processors."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from eegwatch.run.history import Item
from eegwatch.run.items import items
from eegwatch.run.log import LONGEST_LINE, run_decoder
from eegwatch.run.sidefile import Steps, packed, unpacked

PIECE_BYTES = 1 << 20
SEARCH_BYTES = 1 << 16
HEAD = struct.Struct("<I")  # length of what follows in the pipe


class Piece(NamedTuple):
    """The items of one piece of a log, not yet put in order, up to `end`; `bad`: its lines that are no records."""

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
        self._fd, self._decoder = fd, run_decoder()
        self._buffer = bytearray(2 * PIECE_BYTES)

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
            raise ValueError("a line too long")
        if length > len(self._buffer):
            self._buffer = bytearray(length)
        data = memoryview(self._buffer)[:length]
        if os.preadv(self._fd, [data], begin) != length:
            raise ValueError("the log has become shorter")
        before = self._decoder.bad
        records = self._decoder.decode(data)
        return Piece(end, len(records), self._decoder.bad - before, list(items(records)))


def pieces(log: int, begin: int, size: int, *, two: bool) -> Iterator[Piece]:
    """The whole lines of an open file from a line's begin up to `size`, in order; `two`: by two processes.

    Raises OSError and ValueError (the log has changed meanwhile, or a line is too long to be a record).
    """
    parser = _Parser(log)
    first = begin // PIECE_BYTES
    last = (size - 1) // PIECE_BYTES
    end_of_lines = _last_newline(log, begin, size)

    def bounds(k: int) -> tuple[int, int]:
        low = begin if k == first else parser.boundary(k * PIECE_BYTES, size)
        return low, min(end_of_lines, parser.boundary((k + 1) * PIECE_BYTES, size))

    helper = _Helper(parser, [bounds(k) for k in range(first + 1, last + 1, 2)]) if two and last > first else None
    try:
        for k in range(first, last + 1):
            low, high = bounds(k)
            if high <= low:
                continue
            sent = helper.receive() if helper is not None and (k - first) % 2 else None
            yield parser.piece(low, high) if sent is None or sent.end != high else sent
    finally:
        if helper is not None:
            helper.close()


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
    """A process that parses the pieces within these bounds."""

    def __init__(self, parser: _Parser, bounds: list[tuple[int, int]]) -> None:
        read, write = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(read)
            _send(parser, bounds, write)
        os.close(write)
        self._file = os.fdopen(read, "rb")

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


def _send(parser: _Parser, bounds: list[tuple[int, int]], pipe: int) -> None:
    """The life of the helper. A log that changed, or a reader that is gone, ends it: the reader sees the pipe's end."""
    try:
        with os.fdopen(pipe, "wb") as file:
            for low, high in bounds:
                if high > low:
                    piece = parser.piece(low, high)
                    data = _encoder.encode(_Sent(piece.end, piece.records, piece.bad, packed(piece.items)))
                    file.write(HEAD.pack(len(data)) + data)
    except (OSError, ValueError):
        os._exit(1)
    os._exit(0)
