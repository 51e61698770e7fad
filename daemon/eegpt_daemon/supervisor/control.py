"""Reads new lines of the control file: each once, `stop` first, none that another user could have written."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from eegwatch.run.control import Command, Unreadable, parse_line, unsafe_control
from eegwatch.run.log import Tail

TAINTED = "written while the file could be written by others; send it again if it was you"
ENDS = 1024  # bytes at either end of what was read by which a file that was written anew is known


class ControlReader:
    """New lines of the control file. A file that others can write is not read: `unsafe` says why.

    `answered`: ids that had an answer before; by them a line without an id of its own gets one that never was, also
    where the file was deleted and begun anew meanwhile.
    """

    def __init__(self, path: Path, answered: Iterable[str] = ()) -> None:
        """Raises OSError."""
        self.path = path
        self.unsafe: str | None = None
        self.more = False  # is there more to read at once?
        self._tail = Tail(path)
        self._tainted = False  # it was unsafe: what is in it now may be anybody's
        self._seen = _Seen()
        size = path.stat().st_size if path.exists() else 0
        newest = max((place for place in map(_place, answered) if place is not None), default=(1, -1))
        self._file = newest[0] + (size <= newest[1])  # which control file this is, counted from 1

    def read(self, before: int | None = None) -> list[Command | Unreadable]:
        """At most about a megabyte of lines, `stop` first; of those only that begin `before` this byte, if given.

        Of several lines with one id the first alone is returned. Raises OSError.
        """
        self.unsafe, self.more = unsafe_control(self.path), False
        if self.unsafe is not None:
            self._tainted = True
            return []
        if before is None and self._seen.rewritten(self.path, self._tail.offset):
            self._tail.restart()
            self._file += 1
        most = 1 << 20 if before is None else min(1 << 20, before - self._tail.offset)
        if most <= 0:
            return []
        chunk = self._tail.read(most)
        self._file += chunk.reset is not None
        self.more = bool(chunk.data)
        self._seen.look(self.path, self._tail.offset)
        commands = [
            self._named(parsed, at) for at, line in chunk.lines() if (parsed := parse_line(line, at)) is not None
        ]
        if self._tainted:
            commands = [Unreadable(str(c.id), c.command, TAINTED) for c in commands]
            self._tainted = self.more
        first: dict[str, Command | Unreadable] = {}
        for line in commands:
            first.setdefault(str(line.id), line)  # before the sort: a later line of an id is nothing, a `stop` too
        return sorted(first.values(), key=lambda c: c.command != "stop")

    def _named(self, line: Command | Unreadable, offset: int) -> Command | Unreadable:
        if self._file == 1 or line.id != f"line-{offset}":
            return line
        return msgspec.structs.replace(line, id=f"line-{offset}.{self._file}")


class _Seen:
    """What a control file looked like when it was last read to its end: `>` in place of `>>` leaves inode and name.

    A longer or another text is known by its ends. The same single line written again is known by the file's time of
    change; of several lines nobody writes the same again by hand, so there a new time alone (`touch`) does not count.
    """

    def __init__(self) -> None:
        self._mtime: int | None = None  # ns; None: not read to the end yet
        self._inode: int | None = None
        self._ends: tuple[bytes, bytes] | None = None

    def look(self, path: Path, offset: int) -> None:
        """Remember the file, of which `offset` bytes were read."""
        ends = _ends(path, offset)
        if ends is None:
            self._mtime = self._ends = None
            return
        content, status = ends
        self._ends, self._inode = content, status.st_ino
        self._mtime = status.st_mtime_ns if status.st_size == offset else None

    def rewritten(self, path: Path, offset: int) -> bool:
        """Whether the file was rewritten with the same or a greater length."""
        if self._ends is None or not offset:
            return False
        ends = _ends(path, offset)
        if ends is None or ends[1].st_size < offset or ends[1].st_ino != self._inode:
            return False  # deleted, truncated, replaced or rotated: the Tail sees that
        if ends[0] != self._ends:
            return True
        same_length = ends[1].st_size == offset and self._mtime not in (None, ends[1].st_mtime_ns)
        single = ends[0][0].count(b"\n") == 1 and offset <= ENDS
        if same_length and not single:
            self._mtime = ends[1].st_mtime_ns
        return same_length and single


def _ends(path: Path, offset: int) -> tuple[tuple[bytes, bytes], os.stat_result] | None:
    """The first and the last bytes before `offset`, and the file's status; None where there is no file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        last = max(0, offset - ENDS)
        return (os.pread(fd, min(ENDS, offset), 0), os.pread(fd, offset - last, last)), os.fstat(fd)
    finally:
        os.close(fd)


def _place(command_id: str) -> tuple[int, int] | None:
    """(which file, byte offset) of an id that a line got from its place: `line-<offset>`, `line-<offset>.<file>`."""
    match = re.fullmatch(r"line-(\d{1,18})(?:\.(\d{1,9}))?", command_id)
    return (int(match[2] or 1), int(match[1])) if match else None
