"""The kinds of logs that are understood, as a table: how each is recognised, and how it is followed.

A kind is a small file in `eegwatch.formats.kinds` and one row of KINDS; the first that fits a file is taken. The last
rows are the general readers: JSON rows, CSV, text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from eegwatch.run.follow import FollowedLog


@dataclass(frozen=True)
class FileHead:
    """What a file is recognised by: its path, its first bytes (decompressed, UTF-8)."""

    path: Path
    data: bytes

    @property
    def name(self) -> str:
        """The file's name in lower case, without .gz."""
        return self.path.name.lower().removesuffix(".gz")

    @property
    def first(self) -> bytes:
        """The first line that is not empty."""
        return next((line for line in self.data.split(b"\n") if line.strip()), b"")


@dataclass(frozen=True)
class LogKind:
    """A kind of log. `rank`: of several logs in a folder the higher is preferred (a framework's own file to a capture).

    `run_name`: what a run of this kind is called, given the file.
    """

    name: str
    files: str
    rank: int
    fits: Callable[[FileHead], bool]
    follow: Callable[[Path, Sequence[re.Pattern[str]]], FollowedLog]
    folder: bool = False  # the log is the folder that the file lies in
