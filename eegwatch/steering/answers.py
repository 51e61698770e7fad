"""The answers of a live run, appended to daemon.jsonl as a daemon's are: accepted, then done or failed; or rejected."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import Any

from eegwatch.run.control import DAEMON_LOG
from eegwatch.run.log import AppendLog, daemon_decoder, each_record
from eegwatch.run.records import TERMINAL, Answer


class Answers:
    """Writes answers and remembers them by id. A disk that is full delays an answer; nothing is begun before it."""

    def __init__(self, logs: Path, run_id: str) -> None:
        """Reads what was answered before; the file is made with the first answer. Raises OSError."""
        path = logs / DAEMON_LOG
        self.run_id = run_id
        self.status: dict[str, str] = {}
        self.unfinished: dict[str, str | None] = {}  # id -> command: accepted for this run, without a last word
        for record in each_record(path, daemon_decoder()) if path.exists() else ():
            if isinstance(record, Answer):
                self.status[record.id] = record.status
                if record.status in TERMINAL:
                    self.unfinished.pop(record.id, None)
                elif record.run_id == run_id:
                    self.unfinished[record.id] = record.command
        self._path = path
        self._log: AppendLog | None = None
        self._late: deque[Answer] = deque()

    def accept(self, command_id: str, name: str, **fields: Any) -> bool:
        """True once `accepted` is durable: only then may the command be acted on."""
        answer = self._made(command_id, name, "accepted", fields)
        if not self._settle() or not self._append(answer):
            return False
        self.status[command_id] = "accepted"
        self.unfinished[command_id] = name
        return True

    def last_word(self, command_id: str, name: str | None, status: str, **fields: Any) -> None:
        """done, failed, rejected or expired; kept and written later where the disk is full."""
        answer = self._made(command_id, name, status, fields)
        self.status[command_id] = status
        self.unfinished.pop(command_id, None)
        self._late.append(answer)
        self._settle()

    def _made(self, command_id: str, name: str | None, status: str, fields: dict[str, Any]) -> Answer:
        return Answer(time=time.time(), id=command_id, command=name, status=status, run_id=self.run_id, **fields)

    def _settle(self) -> bool:
        while self._late:
            if not self._append(self._late[0]):
                return False
            self._late.popleft()
        return True

    def _append(self, answer: Answer) -> bool:
        try:
            self._log = self._log or AppendLog(self._path)
            self._log.mend()
            self._log.append(answer)
            self._log.sync()
        except OSError:  # full or gone: what waits is tried again at the next look
            return False
        return True

    def look(self) -> None:
        """Write what a full disk has delayed."""
        self._settle()

    def close(self) -> None:
        self._settle()
        if self._log is not None:
            self._log.close()
