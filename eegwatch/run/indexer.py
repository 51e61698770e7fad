"""Writes the side file of a log: a writer's own, in a hundredth of its time; a long log's, in a process of its own.

python -m eegwatch.run.indexer RUN_FOLDER    reads the log to its end, and leaves its side file
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from eegwatch.run import statefile
from eegwatch.run.folder import RUN_LOG
from eegwatch.run.follow import FRAME_RECORDS, OwnLog, RunFollower
from eegwatch.run.history import Item
from eegwatch.run.items import ItemReader
from eegwatch.run.log import CHUNK_BYTES, open_regular
from eegwatch.run.parsing import pieces, second_processor
from eegwatch.run.sidefile import WORTH_IT_BYTES, Frame, SideFile, beside

SHARE = 0.008  # of a writer's time, at most: with its looks at the clock a hundredth
LOOK_RECORDS = 256  # between two looks of a writer at its clock
RECORD_BYTES = 110  # of a step record, at least
MOST_UNJUDGED = 256  # pieces that wait for the judge: a million steps, 40 MB; a writer so fast is judged by its reader
KEEP_EVERY = 64  # pieces between two states that are kept: a quarter of a million steps


class DetectorsKept(Protocol):
    """The interface of `diagnosis.saved_state.Judge`, since `run` does not import `diagnosis`."""

    def feed(self, item: Item) -> object: ...

    def kept(self) -> tuple[str, bytes] | None: ...


JudgeOf = Callable[[bytes | None], DetectorsKept | None]  # a new one, or the one that was kept


class WriterIndex:
    """The side file that the writer of a log leaves beside it, in at most SHARE of the time that passes.

    It reads what was written, so that it holds what a reader would read, lines of other writers included. Nothing here
    raises: a side file that cannot be written is none. A short log has none.
    """

    def __init__(self, folder: Path, judge_of: JudgeOf | None = None) -> None:
        """`judge_of`: with it the detectors' state is left too."""
        self._folder, self._judge_of = folder, judge_of
        self._follower: RunFollower | None = None
        self._judge: DetectorsKept | None = None
        self._earlier: Iterator[Item] = iter(())  # left by an earlier attempt, and not judged
        self._unjudged: deque[list[Item]] = deque()
        self._judged = 0  # pieces since a state was kept
        self._over = False
        self._began = time.perf_counter()
        self._due, self._records = 0.0, 0

    def wrote(self) -> None:
        """Called for each record that was written: costs a comparison, and a look at every LOOK_RECORDS-th."""
        self._records += 1
        if self._records >= LOOK_RECORDS:
            self._records = 0
            began = time.perf_counter()
            if began >= self._due:
                try:
                    self._advance(FRAME_RECORDS * RECORD_BYTES)
                except Exception:  # whatever it is: a cache is given up, and never ends a training
                    self._over = True
                self._due = began + (time.perf_counter() - began) / SHARE

    def _advance(self, least: int) -> bool:
        """Take one piece of the log, if `least` bytes of it wait; False where there is nothing to do."""
        if self._over:
            return False
        size = (self._folder / RUN_LOG).stat().st_size
        if self._follower is None:
            if size < WORTH_IT_BYTES:
                return False
            log = self._folder / RUN_LOG
            self._follower = RunFollower(OwnLog(self._folder), None, SideFile(log, beside(log)))
        if self._follower.recalling:  # what an earlier attempt left
            self._follower.poll(CHUNK_BYTES)
            if not self._follower.recalling:
                self._take_up_the_judge(self._follower)
        elif size - self._follower.offset >= least:
            self._unjudged.append(self._follower.poll(FRAME_RECORDS * RECORD_BYTES))
            if self._judge is None or len(self._unjudged) > MOST_UNJUDGED:
                self._judge = None
                self._unjudged.clear()
            self._over = not self._follower.saves
        else:
            return self._judge_on()
        return True

    def _take_up_the_judge(self, follower: RunFollower) -> None:
        if self._judge_of is None or follower.side is None:
            return
        state = statefile.read_state(follower.side)
        if state is not None and follower.frame_ends_at(state.end):
            self._judge = self._judge_of(state.data)
        begin = state.end if state is not None and self._judge is not None else 0
        self._judge = self._judge or self._judge_of(None)
        self._earlier = follower.again(begin)

    def _judge_on(self) -> bool:
        """Judge one piece; False where none waits."""
        if self._judge is None:
            return False
        item = next(self._earlier, None)
        items = [item] if item is not None else self._unjudged.popleft() if self._unjudged else None
        if items is None:
            return False
        for item in items:
            self._judge.feed(item)
        self._judged += 1
        if self._judged >= KEEP_EVERY and not self._unjudged:
            self._keep_the_state()
        return True

    def _keep_the_state(self) -> None:
        kept = self._judge.kept() if self._judge is not None else None
        if kept is not None and self._follower is not None:
            self._follower.keep_state(*kept)
        self._judged = 0

    def _advance_to_the_end(self) -> bool:
        """As `_advance`, with the judge not far behind: it is not given up where there is time."""
        behind = len(self._unjudged) > MOST_UNJUDGED // 2
        return (behind and self._judge_on()) or self._advance(1)

    def close(self) -> None:
        """The run has ended: the rest too, as far as SHARE of the time that it took allows."""
        now = time.perf_counter()
        end = now + SHARE * (now - self._began)
        try:
            while time.perf_counter() < end and self._advance_to_the_end():
                pass
            if self._follower is not None:
                if not self._unjudged and next(self._earlier, None) is None and self._judged:
                    self._keep_the_state()
                self._follower.close()
        except Exception:
            pass  # as above
        self._follower, self._over = None, True


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


def write_side_file(folder: Path, wanted: Callable[[], bool] = lambda: True) -> None:
    """Up to the end of the log that there is now, as long as it is `wanted`; nothing where another process writes it.

    Raises OSError where there is no log, or no room.
    """
    log = folder / RUN_LOG
    side, fd = SideFile(log), open_regular(log)
    try:
        at, records, bad, reader = 0, 0, 0, ItemReader()
        for frame in side.frames():
            at, records, bad, reader = frame.end, frame.records, frame.bad, frame.reader
        if not side.lock():
            return
        for piece in pieces(fd, at, os.fstat(fd).st_size, two=second_processor()):
            records, bad = records + piece.records, bad + piece.bad
            side.add(Frame(piece.end, records, bad, list(reader.ordered(piece.items)), reader))
            if not wanted():
                return
    except ValueError:
        return  # the log changes in other ways than by growing: who reads it reads it by itself
    finally:
        os.close(fd)
        side.close()


def main() -> int:
    """Until the end of the log that there is now, or of the process that asked."""
    gc.disable()  # a second's work, which leaves no cycles
    asked = os.getppid()
    try:
        write_side_file(Path(sys.argv[1]), lambda: os.getppid() == asked)
    except OSError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
