"""Where the watcher's records go: into the run's own log, or on a rank above 0 into a file beside the run of rank 0."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eegwatch.run.records import Watch
from eegwatch.watching.declarations import WatchedLog
from eegwatch.watching.ranks import RankFile, RunLocation, store_of_job


class RecordOutput:
    """Writes the records of one watcher. `put` writes one into the log of this process."""

    def __init__(self, log: WatchedLog, put: Callable[[Watch], None]) -> None:
        self._log, self._put = log, put
        self._file: RankFile | None = None
        self._meeting: RunLocation | None = None

    def meet(self, rank: int, world: int) -> None:
        """Of several ranks, rank 0 says where its run lies, and the others write beside it."""
        store = store_of_job() if world > 1 and self._meeting is None else None
        if store is None:
            return
        self._meeting = RunLocation(store, self._log.name)
        if rank:
            self._file = RankFile(self._meeting, rank)
        else:
            self._meeting.tell(self._log.folder, self._log.attempt)

    def folder_of_rank_0(self) -> Path | None:
        """Where rank 0's run lies; None on rank 0 itself, and while it is not known."""
        told = self._meeting.told() if self._file is not None and self._meeting is not None else None
        return None if told is None else told[0]

    def emit(self, look: str, values: dict[str, Any], step: int | None) -> None:
        """Write one record; without `step` at the last step that was logged."""
        record = Watch(time=time.time(), step=self._log.step_done if step is None else step, look=look, values=values)
        if self._file is not None:
            self._file.put(record)
        else:
            self._put(record)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
