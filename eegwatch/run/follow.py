"""Follow a run's log as it grows: what is new, as items, read at the end of the file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from eegwatch.run import statefile
from eegwatch.run.folder import RUN_LOG
from eegwatch.run.history import History, Item
from eegwatch.run.items import ItemReader
from eegwatch.run.log import Tail, begins_anew, run_decoder
from eegwatch.run.parsing import Piece, pieces, second_processor
from eegwatch.run.ranks import RankLogs
from eegwatch.run.records import RunRecord
from eegwatch.run.sidefile import WORTH_IT_BYTES, Frame, SideFile
from eegwatch.wording import UserError

if TYPE_CHECKING:  # reading configurations is a fifth of the start
    from eegwatch.run.declaration.apply import Declaration
    from eegwatch.run.indexer import IndexerProcess

QUIET_AFTER_S = 10.0  # without news the log is polled once a second, unless an event comes
QUIET_EVERY_S = 1.0
FRAME_RECORDS, FRAMES_A_POLL = 4000, 16  # of the side file


class FollowedLog(Protocol):
    """A log that grows: of this project, or of a format in `eegwatch.formats`."""

    @property
    def bad(self) -> int: ...

    def read(self, most: int) -> tuple[list[RunRecord], str | None, bool]:
        """(new records, the reason if the file was read anew, whether more is known to follow)."""
        ...

    def close(self) -> None: ...


class FormatError(UserError):
    """A log that cannot be read: which, and what would help."""


@dataclass
class ForeignLog:
    """A log of another program: its path, its format, and how to follow it."""

    path: Path
    format: str
    follow: Callable[[], FollowedLog]
    unread: Callable[[], FormatError] | None = None  # what is wrong where nothing of it could be read

    @property
    def name(self) -> str:
        generic = ("metrics.csv", "trainer_state.json", "log.txt", "train.log")
        return self.path.resolve().parent.name if self.path.name in generic else self.path.name


class OwnLog:
    """run.jsonl, from its end on."""

    def __init__(self, folder: Path) -> None:
        self._tail, self._decoder = Tail(folder / RUN_LOG), run_decoder()
        self._bad_before = 0
        self.ranks = RankLogs(folder)

    @property
    def bad(self) -> int:
        return self._bad_before + self._decoder.bad + self._tail.overlong

    def read(self, most: int) -> tuple[list[RunRecord], str | None, bool]:
        chunk = self._tail.read(most)
        records = self._decoder.decode(chunk.data) if chunk.data else []
        return records, chunk.reset, len(chunk.data) > most // 2

    @property
    def offset(self) -> int:
        """Where the next record begins."""
        return self._tail.offset

    def go_on_at(self, offset: int, bad: int = 0) -> None:
        """Continue at this offset; everything before it is known, with its number of `bad` lines."""
        self._tail.offset, self._bad_before = offset, bad

    def descriptor(self) -> int | None:
        """The descriptor of the file; None if it is missing or was replaced. Raises OSError."""
        return self._tail.descriptor()

    def pieces(self, *, two: bool) -> Iterator[Piece]:
        """What lies beyond the offset now; `two`: parsed by two processes, of which the other begins at once.

        Raises OSError and ValueError.
        """
        fd = self.descriptor()
        return iter(()) if fd is None else self._counted(pieces(fd, self.offset, os.fstat(fd).st_size, two=two))

    def _counted(self, found: Iterator[Piece]) -> Iterator[Piece]:
        for piece in found:
            self.go_on_at(piece.end, self._bad_before + piece.bad)
            yield piece

    def close(self) -> None:
        self._tail.close()
        self.ranks.close()


class RunFollower:
    """Reads a log in bounded pieces. `reset` names what happened to the file when it was read anew."""

    def __init__(
        self,
        log: FollowedLog,
        declaration: Declaration | None = None,
        side: SideFile | None = None,
        indexer: IndexerProcess | None = None,
    ) -> None:
        """`side`: the side file of an OwnLog, which is read first and then written; `indexer`: who writes it now."""
        self.log, self.declaration = log, declaration
        self.reset: str | None = None
        self.behind = True  # more is known to be there than has been read
        self.waiting = False  # for the indexer: nothing to take yet
        self.records = 0
        self.reader = ItemReader()
        self._news_at = self._looked_at = 0.0
        declares = declaration is not None and declaration.declares
        self.side = None if declares else side
        self.recalling = self.side is not None  # does the next poll take from the side file?
        self.indexer = indexer
        self.saves = self.side is not None  # does what is read go into the side file?
        self._unsaved: list[Item] = []
        self._read = (0, 0)  # offset up to which `_unsaved` was read, and a CRC of what lies before it
        self._saved_records = self._recalled_to = self._frame_end = 0
        self._frames: dict[int, int] = {}  # offset of the log where one ends -> where the next begins

    @property
    def offset(self) -> int:
        """Where the next record of an OwnLog begins."""
        return cast(OwnLog, self.log).offset

    @property
    def bad_lines(self) -> int:
        return self.log.bad

    @property
    def began_anew(self) -> bool:
        """Whether another log has replaced the one that was read before the last poll."""
        return begins_anew(self.reset)

    @property
    def lively(self) -> bool:
        """Whether records came recently: then the log is read at every poll."""
        return time.monotonic() - self._news_at <= QUIET_AFTER_S

    def poll(self, most: int, woken: bool = True) -> list[Item]:
        """Items of the next `most` bytes at most; call it again at once while `behind`. Raises ConfigError."""
        if self.recalling:
            return self._recall()
        now = time.monotonic()
        quiet = not self.lively and now - self._looked_at < QUIET_EVERY_S
        if quiet and not woken and not self.behind:
            return []
        self._looked_at = now
        records, self.reset, self.behind = self.log.read(most)
        if records:
            self._news_at = now
            self.records += len(records)
        if self.reset:
            self.saves, self._unsaved = False, []
        if begins_anew(self.reset):
            self.reader = ItemReader()
        declaring = self.declaration is not None and self.declaration.declares
        items = list(self.reader.items(self.declaration.apply(records) if self.declaration and declaring else records))
        self._remember(items)
        return items + self._of_ranks()

    def read_on(self) -> Iterator[tuple[list[Item], bool]]:
        """(items, whether the side file has them now) of what the log holds beyond, in large pieces, by two processes.

        The other process begins at once, this one when it is asked for the first piece. Not for a log that is declared
        from outside. What stands in the way is left to `poll`, which says what it is.
        """
        log = cast(OwnLog, self.log)
        try:
            self.saves = self.saves and self.side is not None and self.side.is_of(log.descriptor()) and self.side.lock()
            return self._taken(log.pieces(two=second_processor()))
        except (OSError, ValueError):
            return iter(())

    def _taken(self, found: Iterator[Piece]) -> Iterator[tuple[list[Item], bool]]:
        with suppress(OSError, ValueError):
            for piece in found:
                items = list(self.reader.ordered(piece.items))
                self.records += piece.records
                self.saves = self.saves and self._saved(items)
                if self.saves:
                    self._recalled_to = self.offset
                yield items, self.saves

    def _saved(self, items: list[Item]) -> bool:
        """Add to the side file what was read since its last frame; False where it takes no more."""
        assert self.side is not None
        try:
            self.side.add(Frame(self.offset, self.records, self.bad_lines, items, self.reader))
        except OSError:  # no room for a cache: the log itself is what counts
            return False
        self._saved_records, self._frame_end = self.records, self.offset
        return True

    def _of_ranks(self) -> list[Item]:
        """What the other ranks wrote, once this log is read to its end: their records speak of its steps."""
        if not isinstance(self.log, OwnLog):
            return []
        if begins_anew(self.reset):
            self.log.ranks.restart()
        return [] if self.behind else list(self.log.ranks.read())

    def again(self, beyond: int = 0) -> Iterator[Item]:
        """What the side file gave, once more: held in memory, it would be as large as the history itself.

        `beyond`: what lies behind this offset alone, where a frame ends (`frame_ends_at`).
        """
        if self.side is not None and self._recalled_to > beyond:
            begin = self._frames[beyond] if beyond else 0
            for frame in self.side.frames(again_to=self._recalled_to, begin=begin):
                yield from frame.items

    def frame_ends_at(self, offset: int) -> bool:
        """Whether a frame of the side file ends at this offset of the log."""
        return offset in self._frames

    def keep_state(self, says: str, data: bytes) -> None:
        """Keep the state of who judged all that was read, for the next that opens this log (`run.statefile`)."""
        self._remember([], all=True)
        if self.side is not None and self.offset == self._frame_end:
            with suppress(OSError):  # no room for a cache
                statefile.write_state(self.side, self.offset, says, data)

    def _recall(self) -> list[Item]:
        """What the side file has; once it and its indexer have no more, the log is read on."""
        assert self.side is not None
        indexing = self.indexer is not None and self.indexer.running()
        items: list[Item] = []
        for frame in islice(self.side.frames(), FRAMES_A_POLL):
            items += frame.items
            self.records, self.reader = frame.records, frame.reader
            self._recalled_to, self._saved_records = frame.end, frame.records
            self._frame_end, self._frames[frame.end] = frame.end, self.side.position
            cast(OwnLog, self.log).go_on_at(frame.end, frame.bad)
        self.waiting = indexing and not items
        self.recalling = indexing or bool(items)
        return items

    def _remember(self, items: list[Item], *, all: bool = False) -> None:
        """What was read goes into the side file, a few thousand records a frame."""
        if self.side is None or not self.saves:
            return
        if self._unsaved and self.side.before(self._read[0]) != self._read[1]:
            self.saves, self._unsaved = False, []  # cut and written on between two looks: another log than was read
            return
        self._unsaved += items
        self._read = self.offset, self.side.before(self.offset)
        if not self._unsaved or (self.records - self._saved_records < FRAME_RECORDS and not all):
            return
        # another may write it: what this one reads is not kept then
        self.saves = self.side.lock() and self._saved(self._unsaved)
        self._unsaved = []

    def close(self) -> None:
        self._remember([], all=True)
        if self.side is not None:
            self.side.close()
        self.side, self.saves = None, False
        self.log.close()


def side_of(folder: Path) -> SideFile | None:
    """The side file of a run's log, where the log is long enough for one to be worth it, and one is to be had."""
    try:
        log = folder / RUN_LOG
        return SideFile(log) if log.stat().st_size >= WORTH_IT_BYTES else None
    except OSError:  # no cache folder, or another monitor holds it: it is only a cache
        return None


def history_of(folder: Path) -> History:
    """A run's log, read to its end in bounded pieces."""
    follower, history = RunFollower(OwnLog(folder)), History()
    while follower.behind:
        for item in follower.poll(1 << 22):
            history.append(item)
    follower.close()
    return history
