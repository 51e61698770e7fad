"""The checkpoints of a running script as they appear: the new complete ones, each with its step."""

from __future__ import annotations

import re
import time
from bisect import bisect_right
from collections import deque
from itertools import islice
from pathlib import Path

from eegpt_daemon.script import checkpoints as saved
from eegwatch.run.config import Script

REMEMBERED_STEPS = 4096  # (time, step) pairs: at one look in two seconds, a write is looked for among the last of them
READ_LATE_S = 2.0  # on a busy machine the line of a step is read after the file was written that follows it
WRITING_S = 3.0  # a file that is not whole and was written within these seconds is being written


class StepTimes:
    """When which step was seen: a file written at a time belongs to the newest step before it.

    A step that is read a moment later, and whose number is in the file's name, was printed before it all the same.
    """

    def __init__(self, first: int) -> None:
        self.newest = first
        self._first = first
        self._times: deque[float] = deque(maxlen=REMEMBERED_STEPS)
        self._steps: deque[int] = deque(maxlen=REMEMBERED_STEPS)

    def add(self, when: float, step: int) -> None:
        if self._times and when < self._times[-1]:
            when = self._times[-1]  # a clock that was set back
        self._times.append(when)
        self._steps.append(step)
        self.newest = step

    def at(self, when: float, name: str = "") -> int:
        """The step of a file that was written then, by its name `step25.pt`, else the newest that was seen by then."""
        place = bisect_right(self._times, when)
        later = set(islice(self._steps, place, bisect_right(self._times, when + READ_LATE_S)))
        named = later & {int(digits) for digits in re.findall(r"\d{1,18}", Path(name).name)}
        if named:
            return max(named)
        if place:
            return self._steps[place - 1]
        return self._first if len(self._steps) < REMEMBERED_STEPS else self._steps[0]


class CheckpointFiles:
    """The files that match a script's pattern, checked repeatedly."""

    def __init__(self, folder: Path, script: Script, *, resumed: bool) -> None:
        """`resumed`: existing files belong to an earlier attempt."""
        self.folder, self.script = folder, script
        self._known = {self._key(*candidate) for candidate in saved.candidates(folder, script)} if resumed else set()

    def new(self, *, ended: bool) -> list[saved.WholeCheckpoint]:
        """Files written since the last call and complete now, oldest first. `ended`: the script has ended."""
        new: list[saved.WholeCheckpoint] = []
        for written, path in saved.candidates(self.folder, self.script):
            key = self._key(written, path)
            if key in self._known:
                continue
            how = saved.whole(path, written, written + saved.SETTLED_S if ended else time.time())
            if how is not None:
                self._known.add(key)
                new.append(saved.WholeCheckpoint(key[0], written, how))
        return new[::-1]

    def being_written(self) -> str | None:
        """The name of a checkpoint that the script is writing now."""
        now = time.time()
        for written, path in saved.candidates(self.folder, self.script):
            if now - written > WRITING_S:
                return None
            if saved.whole(path, written, now) is None:
                return saved.name_of(self.folder, path)
        return None

    def _key(self, written: float, path: Path) -> tuple[str, float]:
        """A file as it was written at a time: written again, it is another checkpoint."""
        return saved.name_of(self.folder, path), written
