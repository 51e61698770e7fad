"""Plain text of any script, and of the frameworks that print lines: the last kind that is tried."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from eegwatch.formats.files import FollowedLines, clock_of_file
from eegwatch.formats.lines import LINE_KINDS
from eegwatch.formats.log_kind import FileHead, LogKind
from eegwatch.formats.row_reader import RowReader
from eegwatch.formats.text import TextDecoder

SUFFIXES = (".log", ".txt", ".out", ".err")  # called a log, a file is read as one, whatever bytes it holds


def follow(path: Path, patterns: Sequence[re.Pattern[str]]) -> FollowedLines:
    """A text log, its bars included, as it grows."""
    clock = clock_of_file(path)
    return FollowedLines(
        path,
        lambda: TextDecoder(RowReader(path.name.partition(".")[0]), clock, patterns, [make() for make in LINE_KINDS]),
        bars=True,
    )


def _fits(head: FileHead) -> bool:
    return head.name.endswith(SUFFIXES) or b"\0" not in head.data[:4096]


KIND = LogKind("text", "*.log *.txt *.out *.err", 1, _fits, follow)
