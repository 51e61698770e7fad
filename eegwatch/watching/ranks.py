"""Where the watcher of a rank above 0 writes: beside rank 0's run, once it is known where that lies.

Rank 0 puts its run's folder into the store of torch.distributed, which every process group has; the others look there
whether it is known. No collective operation takes part, and nobody waits: until then records are kept.
"""

from __future__ import annotations

import sys
from collections import Counter, deque
from pathlib import Path
from typing import Any

from eegwatch.run.log import AppendLog
from eegwatch.run.ranks import rank_log

KEPT = 1000  # records kept until rank 0's run is known
_made: Counter[str] = Counter()  # watched logs of each name in this process, so that a second one finds its own


class RunLocation:
    """The place where rank 0 of a watched run says where it lies."""

    def __init__(self, store: Any, name: str) -> None:
        _made[name] += 1
        self._store, self._key = store, f"eegwatch/watched/{name}/{_made[name]}"

    def tell(self, folder: Path, attempt: int) -> None:
        """Rank 0: the run lies here."""
        self._store.set(self._key, f"{attempt} {folder.resolve()}")

    def told(self) -> tuple[Path, int] | None:
        """The others: (rank 0's run, its attempt), None while it is not known."""
        if not self._store.check([self._key]):
            return None
        attempt, _, folder = self._store.get(self._key).decode().partition(" ")
        return Path(folder), int(attempt)


def store_of_job() -> Any | None:
    """The store of torch.distributed in this process; None where no process group is up."""
    dist = sys.modules.get("torch.distributed")
    if dist is None or not dist.is_available() or not dist.is_initialized():
        return None
    return sys.modules["torch.distributed.distributed_c10d"]._get_default_store()


class RankFile:
    """The records of a rank above 0."""

    def __init__(self, meeting: RunLocation, rank: int) -> None:
        self._meeting, self._rank = meeting, rank
        self._log: AppendLog | None = None
        self._waiting: deque[Any] = deque(maxlen=KEPT)
        self._attempt = 1

    def put(self, record: Any) -> None:
        """Write a record, or keep it until it is known where. Raises OSError."""
        self._waiting.append(record)
        self.flush()

    def flush(self) -> None:
        if self._log is None:
            told = self._meeting.told()
            if told is None:
                return
            folder, self._attempt = told
            self._log = AppendLog(rank_log(folder, self._rank))
        while self._waiting:
            record = self._waiting.popleft()
            record.values.update(rank=self._rank, attempt=self._attempt)
            self._log.append(record)

    def close(self) -> None:
        self.flush()
        if self._log is not None:
            self._log.close()
            self._log = None
