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

from eegpt_daemon.supervisor.restarts import WORKING
from eegpt_daemon.supervisor.systemd import notify_state
from eegwatch.run.control import DAEMON_LOG, HEARTBEAT_S
from eegwatch.run.log import AppendLog, daemon_decoder, each_record
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

    def append(self, record: Record, *, keep: bool = True) -> bool:
        """Write what was kept, then this record; True once it is in the file."""
        if self._patiently(lambda: self._write(record)):
            return True
        if keep and len(self._kept) < MOST_KEPT:
            self._kept.append(record)
        return False

    def sync(self) -> bool:
        """True once what was written is on the disk. What is in the file and was not synced is not written again."""
        return self._patiently(self._log.sync)

    def settle(self) -> bool:
        """Write what was kept; True if nothing is left."""
        return not self._kept or self._patiently(self._write_kept)

    def _write(self, record: Record) -> None:
        self._write_kept()
        self._log.mend()
        self._log.append(record)

    def _write_kept(self) -> None:
        while self._kept:
            self._log.mend()
            self._log.append(self._kept[0])
            self._kept.popleft()

    def _patiently(self, what: Callable[[], None]) -> bool:
        try:
            what()
        except OSError as error:
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
        self.answered: dict[str, str] = {}  # by id, the newest status
        self.unfinished: dict[str, str | None] = {}  # id and command of what the daemon before accepted and left
        self.last_before: DaemonState | None = None  # of the daemon before this one
        for record in each_record(path, daemon_decoder()) if path.exists() else ():
            if isinstance(record, DaemonState):
                self.last_before = record
                continue
            self.answered[record.id] = record.status
            if record.status == "accepted":
                self.unfinished[record.id] = record.command
            else:
                self.unfinished.pop(record.id, None)
        self._log = PatientLog(path, say)
        self._say = say
        self.state, self.since = "", time.time()
        self.figures: Callable[[], dict[str, Any]] = dict  # what every state carries beside its name
        self._unconfirmed: set[str] = set()  # accepted, in the file, and the disk has not confirmed it
        self._unsynced = False
        self._alive = 0
        self._wrote_at = 0.0

    def enter(self, state: str, reason: str | None = None) -> None:
        """A change of state, or the same one for another reason."""
        if state == self.state and reason is None:
            return
        if state != self.state and not {state, self.state} <= set(WORKING):  # one state to whoever asks since when
            self.since = time.time()
        self.state = state
        self.note(reason)
        self._say(state + (f": {reason}" if reason else ""))

    def note(self, reason: str | None) -> None:
        """A line in the state that is. Without a reason it is a sign of life, not kept for a full disk."""
        notify_state(self.state, reason)
        self._log.append(
            DaemonState(
                time=time.time(),
                state=self.state,
                since=self.since,
                pid=os.getpid(),
                reason=reason,
                alive=self._alive,
                **self.figures(),
            ),
            keep=reason is not None,
        )
        self._wrote_at = time.monotonic()

    def heartbeat(self, reason: str | None) -> bool:
        """Count, and say so every few seconds: True then."""
        self._alive += 1
        due = time.monotonic() - self._wrote_at > HEARTBEAT_S
        if due:
            self.note(reason)
        return due

    def answer(self, command_id: str, name: str | None, status: str, **fields: Any) -> bool:
        """One answer. True once it is on the disk; one that begins nothing (rejected, expired) waits for `sync`.

        What is accepted only after that may be acted on.
        """
        again = command_id in self._unconfirmed
        if again and status in ("rejected", "expired"):
            status = "failed"  # its acceptance is in the file
        if not (again and status == "accepted"):
            answer = Answer(time=time.time(), id=command_id, command=name, status=status, **fields)
            if not self._log.append(answer, keep=status != "accepted"):
                if status != "accepted":
                    self.answered[command_id] = status
                return False
        if status in ("rejected", "expired"):
            self._unsynced = True
        elif not self._log.sync() and status == "accepted":
            self._unconfirmed.add(command_id)  # asked again, it is not written again
            return False
        self._unconfirmed.discard(command_id)
        self.answered[command_id] = status
        return True

    def sync(self) -> None:
        """Make durable what `answer` left to it."""
        if self._unsynced and self._log.sync():
            self._unsynced = False
