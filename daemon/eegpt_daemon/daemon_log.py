"""daemon.jsonl as its writer holds it: states, heartbeats, and the answer to every command.

A disk that is full must not end the daemon: what could not be written is kept and written first once there is room.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eegwatch.run.control import DAEMON_LOG
from eegwatch.run.log import AppendLog, daemon_decoder, read_all
from eegwatch.run.records import Answer, DaemonState, Record

MOST_KEPT = 10_000  # records, oldest first, while the disk is full


class PatientLog:
    """An AppendLog whose `append` returns False instead of raising, and keeps the record for later."""

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        """Raises OSError if the file cannot be opened at all."""
        self.path, self._say = path, say
        self._log = AppendLog(path)
        self._kept: deque[Record] = deque()
        self.trouble: str | None = None

    def append(self, record: Record, *, durable: bool = False, keep: bool = True) -> bool:
        """Write what was kept, then this record; True once it is in the file (on disk, if `durable`)."""
        try:
            while self._kept:
                self._log.append(self._kept[0])
                self._kept.popleft()
            self._log.append(record)
            if durable:
                self._log.sync()
        except OSError as error:
            if keep and len(self._kept) < MOST_KEPT:
                self._kept.append(record)
            if self.trouble is None:
                self._say(
                    f"{self.path} cannot be written: {error.strerror}; what it would hold is kept until it can be"
                )
            self.trouble = error.strerror or str(error)
            return False
        if self.trouble is not None:
            self._say(f"{self.path} can be written again")
            self.trouble = None
        return True

    def close(self) -> None:
        self._log.close()


class DaemonLog:
    """Says what the daemon does, and remembers what it has answered."""

    def __init__(self, logs: Path, say: Callable[[str], None]) -> None:
        path = logs / DAEMON_LOG
        before = read_all(path, daemon_decoder()) if path.exists() else []
        self.answered = {r.id: r.status for r in before if isinstance(r, Answer)}
        states = [r for r in before if isinstance(r, DaemonState)]
        self.last_before: DaemonState | None = states[-1] if states else None  # of the daemon before this one
        self._log = PatientLog(path, say)
        self.wrote_at = 0.0

    def state(self, state: str, *, keep: bool = True, **fields: Any) -> None:
        """A change of state, or (not kept for a full disk) a heartbeat."""
        self._log.append(DaemonState(time=time.time(), state=state, pid=os.getpid(), **fields), keep=keep)
        self.wrote_at = time.monotonic()

    def answer(self, command_id: str, name: str | None, status: str, **fields: Any) -> bool:
        """One answer, durable when this returns True. What is accepted only after that may be acted on."""
        written = self._log.append(
            Answer(time=time.time(), id=command_id, command=name, status=status, **fields),
            durable=True,
            keep=status != "accepted",
        )
        if written or status != "accepted":
            self.answered[command_id] = status
        return written
