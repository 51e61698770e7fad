"""Follow a run's log as it grows: what is new, as items; and a wake-up when the file system says something changed.

Correctness never depends on an event (NFS, WSL and Docker mounts send none): `poll` reads at the end of the file,
and watchdog only makes the next poll come sooner.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from eegwatch.run.declare import Declaration
from eegwatch.run.folder import RUN_LOG
from eegwatch.run.history import History, Item, Reader
from eegwatch.run.log import Tail, run_decoder
from eegwatch.run.records import RunRecord

QUIET_AFTER_S = 10.0  # without news the log is polled once a second, unless an event comes
QUIET_EVERY_S = 1.0


class Followed(Protocol):
    """A log that grows: ours, or one that `eegwatch.formats` understands."""

    @property
    def bad(self) -> int: ...

    def read(self, most: int) -> tuple[list[RunRecord], str | None, bool]:
        """(new records, what happened to the file if it was read anew, whether more is known to be there)."""
        ...

    def close(self) -> None: ...


class FormatError(ValueError):
    """A log that cannot be read: which, and what would help."""


@dataclass
class Foreign:
    """A log of someone else's: where, in which format, and how to follow it."""

    path: Path
    format: str
    follow: Callable[[], Followed]

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

    def close(self) -> None:
        self._tail.close()


class RunFollower:
    """Reads a log in bounded pieces. `reset` names what happened to the file when it was read anew."""

    def __init__(self, log: Followed, declaration: Declaration | None = None) -> None:
        self.log, self.declaration = log, declaration
        self.reset: str | None = None
        self.behind = True  # more is known to be there than has been read
        self.records = 0
        self.reader = Reader()
        self._news_at = self._looked_at = 0.0

    @property
    def bad_lines(self) -> int:
        return self.log.bad

    def poll(self, most: int, woken: bool = True) -> list[Item]:
        """Items of the next `most` bytes at most; call it again at once while `behind`. Raises ConfigError."""
        now = time.monotonic()
        quiet = now - self._news_at > QUIET_AFTER_S and now - self._looked_at < QUIET_EVERY_S
        if quiet and not woken and not self.behind:
            return []
        self._looked_at = now
        records, self.reset, self.behind = self.log.read(most)
        if records:
            self._news_at = now
            self.records += len(records)
        if self.reset:
            self.reader = Reader()
        declaring = self.declaration is not None and self.declaration.config is not None
        return list(self.reader.items(self.declaration.apply(records) if self.declaration and declaring else records))

    def close(self) -> None:
        self.log.close()


def history_of(folder: Path) -> History:
    """A run's log, read to its end in bounded pieces."""
    follower, history = RunFollower(OwnLog(folder)), History()
    while follower.behind:
        for item in follower.poll(1 << 22):
            history.append(item)
    follower.close()
    return history


class Waker(FileSystemEventHandler):
    """Set by any change below a folder; `take` reads and clears it. Without inotify it simply never wakes."""

    def __init__(self, folder: Path) -> None:
        self._changed = True
        self._observer: Observer | None = None  # type: ignore[valid-type]
        observer = Observer()
        try:
            observer.schedule(self, str(folder), recursive=True)
            observer.start()
            self._observer = observer
        except OSError:
            self._observer = None  # no inotify watch to be had here (limit, file system): polling does it all

    def on_any_event(self, event: FileSystemEvent) -> None:
        self._changed = True

    def take(self) -> bool:
        changed, self._changed = self._changed, False
        return changed

    def close(self) -> None:
        if self._observer is not None:
            self._observer.stop()
