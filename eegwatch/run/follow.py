"""Follow a run's log as it grows: what is new, as items; and a wake-up when the file system says something changed.

Correctness never depends on an event (NFS, WSL and Docker mounts send none): `poll` reads at the end of the file,
and watchdog only makes the next poll come sooner.
"""

from __future__ import annotations

import time
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from eegwatch.run.folder import RUN_LOG
from eegwatch.run.history import Item, Reader
from eegwatch.run.log import Tail, run_decoder

QUIET_AFTER_S = 10.0  # without news the log is polled once a second, unless an event comes
QUIET_EVERY_S = 1.0


class RunFollower:
    """Reads run.jsonl in bounded pieces. `reset` names what happened to the file when it was read anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reset: str | None = None
        self.behind = True  # more is known to be there than has been read
        self._tail = Tail(folder / RUN_LOG)
        self._decoder = run_decoder()
        self._reader = Reader()
        self._news_at = self._looked_at = 0.0

    @property
    def bad_lines(self) -> int:
        return self._decoder.bad + self._tail.overlong

    def poll(self, most: int, woken: bool = True) -> list[Item]:
        """Items of the next `most` bytes at most; call it again at once while `behind`."""
        now = time.monotonic()
        quiet = now - self._news_at > QUIET_AFTER_S and now - self._looked_at < QUIET_EVERY_S
        if quiet and not woken and not self.behind:
            return []
        self._looked_at = now
        chunk = self._tail.read(most)
        self.reset = chunk.reset
        self.behind = len(chunk.data) > most // 2
        if chunk.data:
            self._news_at = now
        if chunk.reset:
            self._reader = Reader()
        return list(self._reader.items(self._decoder.decode(chunk.data))) if chunk.data else []

    def close(self) -> None:
        self._tail.close()


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
