"""A run's log opened for the screen: all of it at once where that is quick, else its skeleton while it is read.

The first frame opens it before the framework of the screen is loaded, and the application goes on with what was read.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from eegwatch.run.folder import RUN_LOG
from eegwatch.run.follow import OwnLog, RunFollower, side_of
from eegwatch.run.history import History, Item
from eegwatch.run.indexer import IndexerProcess
from eegwatch.run.log import CHUNK_BYTES
from eegwatch.run.sidefile import WORTH_IT_BYTES
from eegwatch.run.skeleton import skeleton

AT_ONCE_BYTES = 12 << 20  # parsed in a twentieth of a second
OWN_PROCESS_BYTES = 32 << 20  # parsed in a fifth: beyond, a process of its own reads while the screen is drawn
STEP_BYTES = 160  # of a step record, at least


@dataclass
class Opened:
    """A log as far as it was read: `read` holds the items that the side file did not give.

    `sketch`: the skeleton of a log that will take a while; None where `complete`.
    """

    follower: RunFollower
    history: History = field(default_factory=History)
    read: list[Item] = field(default_factory=list)
    sketch: History | None = None

    def take(self, items: list[Item]) -> None:
        for item in items:
            self.history.append(item)

    @property
    def complete(self) -> bool:
        return not self.follower.behind


_kept: dict[str, Opened] = {}  # by the first frame, for the application


def opened(folder: Path) -> Opened | None:
    """A run's log, its side file taken, and what lies beyond if that is short; None for a short or unreadable log."""
    try:
        size = (folder / RUN_LOG).stat().st_size
    except OSError:
        return None
    if size < WORTH_IT_BYTES:
        return None
    side = side_of(folder)
    one = Opened(RunFollower(OwnLog(folder), None, side))
    one.history.reserve(size // STEP_BYTES)
    follower = one.follower
    while follower.recalling:
        one.take(follower.poll(CHUNK_BYTES))
    left = size - follower.offset
    if left <= AT_ONCE_BYTES:
        while follower.behind:
            items = follower.poll(CHUNK_BYTES)
            one.read += items
            one.take(items)
        return one
    if side is not None and left > OWN_PROCESS_BYTES:
        with contextlib.suppress(OSError):  # no more processes: this one reads it
            follower.indexer = IndexerProcess(folder)
            follower.recalling = True
    one.sketch = skeleton(folder / RUN_LOG)
    return one


def keep(folder: Path) -> Opened | None:
    """The same, kept for the application that comes after."""
    one = opened(folder)
    if one is not None:
        _kept[os.path.abspath(folder)] = one
    return one


def take(folder: Path) -> Opened | None:
    """What was kept of a run, or the run opened now."""
    return _kept.pop(os.path.abspath(folder), None) or opened(folder)
