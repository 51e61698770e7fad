"""The writer of daemon.jsonl: states, and the answer to every command; heartbeats go to daemon.alive.

A full disk must not end the daemon: unwritten records are kept and written first once there is space. If the file was
deleted, rotated or replaced, the writer begins a new one with a note in it.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eegpt_daemon.supervisor.hang import WORKING
from eegpt_daemon.supervisor.systemd import notify_state
from eegwatch.run.control import DAEMON_LOG, HEARTBEAT_S
from eegwatch.run.heartbeat import HeartbeatFile
from eegwatch.run.log import AppendLog, daemon_decoder, each_record
from eegwatch.run.records import Answer, DaemonState, Record

MOST_KEPT = 10_000  # records, oldest first, while the disk is full


class PatientLog:
    """An AppendLog whose `append` returns False instead of raising, and keeps the record for later.

    `anew`: called with the reason after a new file of this name had to be begun.
    """

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        """Raises OSError if the file cannot be opened at all."""
        self.path, self._say = path, say
        self._log = AppendLog(path)
        self._kept: deque[Record] = deque()
        self.trouble: str | None = None
        self.anew: Callable[[str], None] = say

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
        """Write what was kept, into the file of this name; True if nothing is left."""
        return self._patiently(self._settle)

    def _settle(self) -> None:
        self._come_home()
        self._write_kept()

    def _write(self, record: Record) -> None:
        self._come_home()
        self._write_kept()
        self._log.mend()
        self._log.append(record)

    def _write_kept(self) -> None:
        while self._kept:
            self._log.mend()
            self._log.append(self._kept[0])
            self._kept.popleft()

    def _come_home(self) -> None:
        """Reopen the file of this name if it was deleted or rotated. Raises OSError."""
        if not self._log.displaced():
            return
        try:
            log = AppendLog(self.path)
        except FileNotFoundError:  # the folder is gone or renamed: the open file is what is left
            return
        self._log.close()
        self._log = log
        self.anew(f"{self.path.name} was deleted, rotated or replaced; a new one is begun")

    def _patiently(self, what: Callable[[], None]) -> bool:
        try:
            what()
        except OSError as error:
            if self.trouble is None:
                self._say(f"{self.path} cannot be written: {error.strerror}; its records are kept until it can be")
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
        self._log.anew = self._begun_anew
        self._alive_file = HeartbeatFile(logs)
        self._say = say
        self.state, self.since = "", time.time()
        self.figures: Callable[[], dict[str, Any]] = dict  # what every state carries beside its name
        self._unconfirmed: set[str] = set()  # accepted, in the file, and the disk has not confirmed it
        self._unsynced = False
        self._alive = 0
        self._signed_at = -math.inf
        self._no_sign: str | None = None  # why daemon.alive could not be written

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
        """A line in the state that is, and a sign of life."""
        self._alive += 1
        state = self._now(reason)
        self._log.append(state)
        self._give_sign(state)

    def _now(self, reason: str | None) -> DaemonState:
        return DaemonState(
            time=time.time(),
            state=self.state,
            since=self.since,
            pid=os.getpid(),
            reason=reason,
            alive=self._alive,
            **self.figures(),
        )

    def heartbeat(self, reason: str | None) -> bool:
        """Count, and give a sign of life every few seconds: True then."""
        self._alive += 1
        if time.monotonic() - self._signed_at <= HEARTBEAT_S:
            return False
        self._give_sign(self._now(reason))
        self._log.settle()
        return True

    def _give_sign(self, state: DaemonState) -> None:
        """Overwrite daemon.alive; where that cannot be, a heartbeat is a line of daemon.jsonl, as in version 0.1."""
        self._signed_at = time.monotonic()
        notify_state(state.state, state.reason)
        try:
            self._alive_file.write(state)
        except OSError as error:
            if self._no_sign is None:
                self._say(f"{self._alive_file.path} cannot be written: {error.strerror}")
            self._no_sign = error.strerror
            self._log.append(state, keep=False)
            return
        if self._no_sign is not None:
            self._say(f"{self._alive_file.path} can be written again")
            self._no_sign = None

    def _begun_anew(self, words: str) -> None:
        self._say(words)
        self._log.append(self._now(words))

    def answer(self, command_id: str, name: str | None, status: str, **fields: Any) -> bool:
        """Write one answer. True once it is on the disk; a rejected or expired command waits for `sync`.

        The supervisor carries out an accepted command only after True.
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
