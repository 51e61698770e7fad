"""Follow a run's log as it grows: what is new, as items; and a wake-up when the file system says something changed.

Correctness never depends on an event (NFS, WSL and Docker mounts send none): `poll` reads at the end of the file,
and watchdog only makes the next poll come sooner.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol, cast

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch

from eegwatch.run.declare import Declaration
from eegwatch.run.folder import RUN_LOG
from eegwatch.run.history import History, Item, Reader
from eegwatch.run.log import Tail, begins_anew, run_decoder
from eegwatch.run.records import RunRecord
from eegwatch.run.sidefile import WORTH_IT_BYTES, SideFile
from eegwatch.wording import UserError

QUIET_AFTER_S = 10.0  # without news the log is polled once a second, unless an event comes
QUIET_EVERY_S = 1.0
FRAME_RECORDS, FRAMES_A_POLL = 2000, 16  # of the side file
# not that a file was opened or closed: reading a folder does that, and would wake the reader again
CHANGES: list[type[FileSystemEvent]] = [
    FileCreatedEvent, FileDeletedEvent, FileModifiedEvent, FileMovedEvent, DirCreatedEvent, DirDeletedEvent,
    DirMovedEvent,
]  # fmt: skip


class Followed(Protocol):
    """A log that grows: ours, or one that `eegwatch.formats` understands."""

    @property
    def bad(self) -> int: ...

    def read(self, most: int) -> tuple[list[RunRecord], str | None, bool]:
        """(new records, what happened to the file if it was read anew, whether more is known to be there)."""
        ...

    def close(self) -> None: ...


class FormatError(UserError):
    """A log that cannot be read: which, and what would help."""


@dataclass
class Foreign:
    """A log of someone else's: where, in which format, and how to follow it."""

    path: Path
    format: str
    follow: Callable[[], Followed]
    unread: Callable[[], FormatError] | None = None  # what is wrong where nothing of it could be read

    @property
    def name(self) -> str:
        generic = ("metrics.csv", "trainer_state.json", "log.txt", "train.log")
        return self.path.parent.name if self.path.name in generic else self.path.name


class OwnLog:
    """run.jsonl, from its end on."""

    def __init__(self, folder: Path) -> None:
        self._tail, self._decoder = Tail(folder / RUN_LOG), run_decoder()

    @property
    def bad(self) -> int:
        return self._decoder.bad + self._tail.overlong

    def read(self, most: int) -> tuple[list[RunRecord], str | None, bool]:
        chunk = self._tail.read(most)
        records = self._decoder.decode(chunk.data) if chunk.data else []
        return records, chunk.reset, len(chunk.data) > most // 2

    @property
    def offset(self) -> int:
        """Where the next record begins."""
        return self._tail.offset

    def go_on_at(self, offset: int) -> None:
        """What lies before is known already."""
        self._tail.offset = offset

    def close(self) -> None:
        self._tail.close()


class RunFollower:
    """Reads a log in bounded pieces. `reset` names what happened to the file when it was read anew."""

    def __init__(self, log: Followed, declaration: Declaration | None = None, side: SideFile | None = None) -> None:
        """`side`: the side file of an OwnLog, which is read first and then written."""
        self.log, self.declaration = log, declaration
        self.reset: str | None = None
        self.behind = True  # more is known to be there than has been read
        self.records = 0
        self.reader = Reader()
        self._news_at = self._looked_at = 0.0
        declares = declaration is not None and declaration.declares
        self._side = None if declares else side
        self._recalled = self._side.frames() if self._side is not None else None
        self._unsaved: list[Item] = []
        self._saved_records = self._recalled_to = 0

    @property
    def bad_lines(self) -> int:
        return self.log.bad

    @property
    def began_anew(self) -> bool:
        """Is what was read before the last poll void: another log under the same name?"""
        return begins_anew(self.reset)

    @property
    def lively(self) -> bool:
        """Has anything come lately? Then it is read at every poll, woken or not."""
        return time.monotonic() - self._news_at <= QUIET_AFTER_S

    @property
    def recalling(self) -> bool:
        """Does the next poll take from the side file?"""
        return self._recalled is not None

    def poll(self, most: int, woken: bool = True) -> list[Item]:
        """Items of the next `most` bytes at most; call it again at once while `behind`. Raises ConfigError."""
        if self._recalled is not None:
            return self._recall(self._recalled)
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
            self._forget_side()
        if begins_anew(self.reset):
            self.reader = Reader()
        declaring = self.declaration is not None and self.declaration.declares
        items = list(self.reader.items(self.declaration.apply(records) if self.declaration and declaring else records))
        self._remember(items)
        return items

    def again(self) -> Iterator[Item]:
        """What the side file gave, once more: held in memory, it would be as large as the history itself."""
        if self._side is not None:
            for end, _, items, _ in self._side.frames():
                if end > self._recalled_to:
                    break
                yield from items

    def _recall(self, frames: Iterator[tuple[int, int, list[Item], Reader]]) -> list[Item]:
        items: list[Item] = []
        for end, self.records, some, self.reader in islice(frames, FRAMES_A_POLL):
            items += some
            self._recalled_to = end
            self._saved_records = self.records
            cast(OwnLog, self.log).go_on_at(end)
        if not items:
            self._recalled = None
        return items

    def _remember(self, items: list[Item], *, all: bool = False) -> None:
        """What was read goes into the side file, a few thousand records a frame."""
        if self._side is None:
            return
        self._unsaved += items
        if not self._unsaved or (self.records - self._saved_records < FRAME_RECORDS and not all):
            return
        try:
            self._side.add(cast(OwnLog, self.log).offset, self.records, self._unsaved, self.reader)
        except OSError:  # no room for a cache: the log itself is what counts
            self._forget_side()
            return
        self._unsaved, self._saved_records = [], self.records

    def _forget_side(self) -> None:
        if self._side is not None:
            self._side.close()
        self._side, self._unsaved = None, []

    def close(self) -> None:
        self._remember([], all=True)
        self._forget_side()
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


class Waker(FileSystemEventHandler):
    """Set by any change in a log root or in one of its runs; `take` reads and clears it.

    Without inotify it simply never wakes. The folders of other runs are not watched: ten thousand of them overflow the
    kernel's queue. While a log grows hundreds of times a second and is polled at every frame anyway, an event for each
    line would cost more than reading them: `rest` stops listening, `listen` begins again.
    """

    def __init__(self, folder: Path) -> None:
        self._changed = True
        self._folder = folder
        self._observer: BaseObserver | None = Observer()
        self._watches: dict[Path, ObservedWatch] = {}
        try:
            self._observer.start()
        except OSError:
            self._observer = None  # no inotify to be had here (limit, file system): polling does it all
        self.listen()

    def on_any_event(self, event: FileSystemEvent) -> None:
        self._changed = True

    def listen(self, run: Path | None = None) -> None:
        """Watch the log root and the folder of this run."""
        wanted = [self._folder] if run is None or run == self._folder else [self._folder, run]
        if self._observer is None or list(self._watches) == wanted:
            return
        try:
            for folder in [folder for folder in self._watches if folder not in wanted]:
                self._observer.unschedule(self._watches.pop(folder))
            for folder in wanted:
                if folder not in self._watches and folder.is_dir():
                    self._watches[folder] = self._observer.schedule(self, str(folder), event_filter=CHANGES)
                    self._changed = True
        except OSError:
            self._observer.stop()
            self._observer = None

    def rest(self) -> None:
        if self._observer is not None and self._watches:
            self._observer.unschedule_all()
            self._watches.clear()

    def take(self) -> bool:
        changed, self._changed = self._changed, False
        return changed

    def close(self) -> None:
        if self._observer is not None:
            self._observer.stop()
