"""The log file that a script writes itself: finds it and reads its new records."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from eegpt_daemon.script.checkpoints import files_of
from eegwatch import formats
from eegwatch.run.config import Script
from eegwatch.run.follow import FollowedLog
from eegwatch.run.records import RunRecord

READ_BYTES = 1 << 20
LAST_BYTES = 1 << 14  # the end of a log, which holds the error that ended its script


class LogFile:
    """The newest log that matches `script.log`, else one of a known kind below the run folder."""

    def __init__(self, folder: Path, script: Script, patterns: Sequence[re.Pattern[str]]) -> None:
        self.folder, self._script, self._patterns = folder, script, patterns
        self._log: FollowedLog | None = None
        self._path: Path | None = None
        self._begun = 0  # bytes that an earlier attempt wrote

    def find(self, since: float) -> None:
        """Look for a log written after `since` (seconds since the epoch). Raises OSError, FormatError."""
        found = self._named() if self._script.log else self._below()
        if found is None or found.path == self._path or _written(found.path) < since:
            return
        if self._log is not None:
            self._log.close()
        self._begun = 0
        self._log, self._path = found.follow(), found.path

    def read(self) -> Iterable[RunRecord]:
        """The new records; none without a log. Raises OSError, FormatError."""
        return () if self._log is None else self._log.read(READ_BYTES)[0]

    def skip_earlier(self) -> None:
        """Read past everything that earlier attempts wrote. Raises OSError, FormatError."""
        self.find(since=0.0)
        while self._log is not None and self._log.read(READ_BYTES)[2]:
            pass
        if self._path is not None and self._path.is_file():
            self._begun = self._path.stat().st_size

    def last_lines(self) -> list[str]:
        """The last lines that this attempt wrote; empty without a plain file. Raises OSError."""
        if self._path is None or not self._path.is_file():
            return []
        with self._path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(self._begun, size - LAST_BYTES))
            return file.read(LAST_BYTES).decode("utf-8", "replace").splitlines()

    def _named(self) -> formats.ForeignLog | None:
        files = files_of(self.folder, self._script, self._script.log or "")
        return formats.find(files[0][1], self._patterns) if files else None

    def _below(self) -> formats.ForeignLog | None:
        below = [path for path in self.folder.iterdir() if path.is_dir() and path.name != "checkpoints"]
        return next((log for path in below if (log := formats.find(path, self._patterns)) is not None), None)


def _written(path: Path) -> float:
    """The time when a log was last written; for a folder, that of its newest file. Raises OSError."""
    if not path.is_dir():
        return path.stat().st_mtime
    return max((p.stat().st_mtime for p in path.iterdir() if p.is_file()), default=0.0)
