"""Logs of other programs -> our records; `eegwatch.formats.kinds` lists the kinds, `docs/other_logs.md` describes them.

`find(path)` looks at what a file or folder holds; the source that it gives is followed like a run log of ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from eegwatch.formats.folders import ListedLog, best_in, kind_of, logs_in
from eegwatch.formats.patterns import PatternError, compile_patterns
from eegwatch.formats.unread_log import unread
from eegwatch.run.control import DAEMON_LOG
from eegwatch.run.folder import RUN_LOG, newest_run
from eegwatch.run.follow import ForeignLog, FormatError

__all__ = [
    "ForeignLog",
    "FormatError",
    "ListedLog",
    "PatternError",
    "compile_patterns",
    "find",
    "foreign_log",
    "logs_in",
    "unread",
]


def foreign_log(path: Path, patterns: Sequence[re.Pattern[str]] = ()) -> ForeignLog | None:
    """The foreign log that a PATH on the command line means; None for our own runs and log roots."""
    if path.is_dir() and ((path / RUN_LOG).exists() or newest_run(path) is not None or (path / DAEMON_LOG).exists()):
        return None
    return find(path, patterns) if path.exists() else None


def find(path: Path, patterns: Sequence[re.Pattern[str]] = ()) -> ForeignLog | None:
    """The foreign log at PATH (of a folder: the newest that holds steps), or None where there is none."""
    if path.is_dir():
        return best_in(path, patterns)
    if not path.is_file():  # a FIFO or a device: who opens it may wait for ever
        raise FormatError(f"{path}: not a regular file")
    kind = kind_of(path)
    if kind is None:
        return None
    where = path.parent if kind.folder else path
    return ForeignLog(where, kind.name, lambda: kind.follow(path, patterns), lambda: unread(path, patterns))
