"""Writes the side file of a log: a writer's own, in a hundredth of its time; a long log's, in a process of its own.

python -m eegwatch.run.indexer RUN_FOLDER    reads the log to its end, and leaves its side file
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import time
from pathlib import Path

from eegwatch.run.folder import RUN_LOG
from eegwatch.run.follow import FRAME_RECORDS, OwnLog, RunFollower, side_of
from eegwatch.run.log import CHUNK_BYTES
from eegwatch.run.sidefile import CHECKED_BYTES, SideFile, beside

SHARE = 0.01  # of a writer's time, at most
RECORD_BYTES = 110  # of a step record, at least


class WriterIndex:
    """The side file that the writer of a log leaves beside it, in at most SHARE of the time that passes.

    It reads what was written, so that it holds what a reader would read, lines of other writers included. Nothing here
    raises: a side file that cannot be written is none. `due` is the earliest time of the next look, in seconds of
    `time.time()`, and costs the writer one comparison a record.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._follower: RunFollower | None = None
        self._over = False
        self.due = 0.0

    def look(self, now: float) -> None:
        """Take what has been written since the last look, where it makes a frame; then rest for 99 times as long."""
        began = time.perf_counter()
        with contextlib.suppress(OSError):
            self._advance(FRAME_RECORDS * RECORD_BYTES)
        spent = time.perf_counter() - began
        self.due = float("inf") if self._over else now + max(spent / SHARE, 0.1)

    def _advance(self, least: int) -> None:
        """One piece of the log, if `least` bytes of it wait."""
        if self._over:
            return
        if self._follower is None:
            log = self._folder / RUN_LOG
            if log.stat().st_size < CHECKED_BYTES + least:
                return
            self._follower = RunFollower(OwnLog(self._folder), None, SideFile(log, beside(log)))
        if self._follower.recalling:  # of an earlier attempt
            self._follower.poll(CHUNK_BYTES)
            return
        waiting = (self._folder / RUN_LOG).stat().st_size - self._follower.offset
        if waiting >= least:
            self._follower.poll(max(CHUNK_BYTES, least), woken=True)
            self._over = not self._follower.saves

    def close(self, lived_s: float) -> None:
        """The run has ended after so many seconds: the rest too, as far as SHARE of that allows."""
        end = time.perf_counter() + SHARE * lived_s
        with contextlib.suppress(OSError):
            while time.perf_counter() < end and not self._over:
                before = None if self._follower is None else (self._follower.offset, self._follower.recalling)
                self._advance(1)
                if self._follower is None or (self._follower.offset, self._follower.recalling) == before:
                    break
            if self._follower is not None:
                self._follower.close()
        self._follower, self._over, self.due = None, True, float("inf")


class IndexerProcess:
    """A process that writes the side file of one run's log."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError."""
        words = [sys.executable, "-m", "eegwatch.run.indexer", str(folder)]
        nothing = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
        self._pid = os.posix_spawn(sys.executable, words, os.environ, file_actions=nothing, setpgroup=0)

    def running(self) -> bool:
        if self._pid:
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(self._pid, os.WNOHANG)[0] == 0:
                    return True
            self._pid = 0
        return False


def main() -> int:
    """Until the end of the log that there is now, or of the process that asked."""
    gc.disable()  # a second's work, which leaves no cycles
    folder, asked = Path(sys.argv[1]), os.getppid()
    side = side_of(folder)
    if side is None:
        return 1
    follower = RunFollower(OwnLog(folder), None, side)
    while follower.behind and follower.saves and os.getppid() == asked:
        follower.poll(CHUNK_BYTES)
    follower.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
