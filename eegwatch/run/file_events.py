"""A wake-up when the file system says that a log root or one of its runs changed.

Correctness never depends on an event (NFS, WSL and Docker mounts send none): an event only makes the next poll sooner.
"""

from __future__ import annotations

from pathlib import Path

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

# not that a file was opened or closed: reading a folder does that, and would wake the reader again
CHANGES: list[type[FileSystemEvent]] = [
    FileCreatedEvent, FileDeletedEvent, FileModifiedEvent, FileMovedEvent, DirCreatedEvent, DirDeletedEvent,
    DirMovedEvent,
]  # fmt: skip


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
