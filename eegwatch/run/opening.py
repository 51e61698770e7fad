"""A run's log opened for the screen: all of it at once where that is quick, else its skeleton while it is read.

The first frame opens it before the framework of the screen is loaded, and the application goes on with what was read.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from eegwatch.run.folder import RUN_LOG
from eegwatch.run.follow import OwnLog, RunFollower, side_of
from eegwatch.run.history import History, Item
from eegwatch.run.indexer import IndexerProcess
from eegwatch.run.log import CHUNK_BYTES
from eegwatch.run.sidefile import WORTH_IT_BYTES
from eegwatch.run.skeleton import skeleton
from eegwatch.run.statefile import DetectorState, read_state

AT_ONCE_BYTES = 12 << 20  # parsed in a thirtieth of a second
AT_ONCE_SIDE_BYTES = 48 << 20  # of a side file, some two million steps: copied in a thirtieth of a second
SOON_BYTES = 640 << 20  # in a second by two processes: the first frame is drawn anew before the screen is
OWN_PROCESS_BYTES = 32 << 20  # parsed in a fifth: beyond, a process of its own reads while the screen is drawn
STEP_BYTES = 160  # of a step record, at least


@dataclass
class OpenedLog:
    """A log as far as it was read: `read` holds the items that the side file did not give.

    `sketch`: the skeleton of a log that will take a while; None where `complete`. `soon`: not long, by `read_on`.
    `state`: what the detectors knew at an offset that the side file reaches.
    """

    folder: Path
    follower: RunFollower
    history: History = field(default_factory=History)
    read: list[Item] = field(default_factory=list)
    sketch: History | None = None
    soon: bool = False
    state: DetectorState | None = None
    _coming: Iterator[tuple[list[Item], bool]] | None = None  # begun already

    @property
    def verdict(self) -> str:
        """Of the whole log, in a line; empty where it is not known yet."""
        known = self.state is not None and self.complete and self.state.end == self.follower.offset
        return self.state.says if known and self.state is not None else ""

    def take(self, items: list[Item]) -> None:
        for item in items:
            self.history.append(item)

    def recall(self) -> None:
        """All that the side file has, and the detectors' state."""
        follower = self.follower
        while follower.recalling:
            self.take(follower.poll(CHUNK_BYTES))
        state = None if follower.side is None else read_state(follower.side)
        self.state = state if state is not None and follower.frame_ends_at(state.end) else None

    @property
    def left(self) -> int:
        """Bytes of the log that are not read yet; 0 where it is gone."""
        try:
            return max(0, (self.folder / RUN_LOG).stat().st_size - self.follower.offset)
        except OSError:
            return 0

    def read_soon(self) -> None:
        """Leave the rest to `read_on`; where a second process helps, it begins meanwhile."""
        self.soon, self._coming = True, self.follower.read_on()

    def read_on(self) -> None:
        """To the end of the log that there is now. What the side file takes is not kept here too.

        Where the side file left more than that: no further, a process of its own reads the rest.
        """
        self.soon = False
        if self.follower.recalling:
            self.recall()
            if self.left > SOON_BYTES and self.by_a_process():
                return
        coming, self._coming = self._coming or self.follower.read_on(), None
        for items, saved in coming:
            self.take(items)
            if not saved:
                self.read += items
        self.read_the_rest()
        self.sketch = None

    def by_a_process(self) -> bool:
        """Let a process of its own read the log into the side file; False where there can be none."""
        if self.follower.side is None:
            return False
        with contextlib.suppress(OSError):  # no more processes: this one reads it
            self.follower.indexer = IndexerProcess(self.folder)
            self.follower.recalling = True
        return self.follower.recalling

    def read_the_rest(self) -> None:
        while self.follower.behind:
            items = self.follower.poll(CHUNK_BYTES)
            self.read += items
            self.take(items)

    @property
    def complete(self) -> bool:
        return not self.follower.behind


_kept: dict[str, OpenedLog] = {}  # by the first frame, for the application


def open_log(folder: Path, *, first_frame: bool = False) -> OpenedLog | None:
    """A run's log, its side file taken, and what lies beyond if that is short; None for a short or unreadable log.

    `first_frame`: more is left to `read_on`, so that a sketch is drawn first.
    """
    try:
        size = (folder / RUN_LOG).stat().st_size
    except OSError:
        return None
    if size < WORTH_IT_BYTES:
        return None
    side = side_of(folder)
    one = OpenedLog(folder, RunFollower(OwnLog(folder), None, side))
    one.history.reserve(size // STEP_BYTES)
    if first_frame and side is not None and side.size > AT_ONCE_SIDE_BYTES:
        one.soon = True
    else:
        one.recall()
        if one.left <= (WORTH_IT_BYTES if first_frame else AT_ONCE_BYTES):
            one.read_the_rest()
            return one
        if first_frame and one.left <= SOON_BYTES:
            one.read_soon()
        elif one.left > OWN_PROCESS_BYTES:
            one.by_a_process()
    one.sketch = skeleton(folder / RUN_LOG)
    return one


def keep(folder: Path) -> OpenedLog | None:
    """The same, for the first frame, kept for the application that comes after."""
    one = open_log(folder, first_frame=True)
    if one is not None:
        _kept[os.path.abspath(folder)] = one
    return one


def take(folder: Path) -> OpenedLog | None:
    """The opened log of a run that was kept, or the log opened now."""
    return _kept.pop(os.path.abspath(folder), None) or open_log(folder)
