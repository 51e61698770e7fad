"""The checkpoints that a script writes: which files they are, and whether one is whole. torch is not imported.

A file of torch.save is a zip archive whose members have check sums; a safetensors file says its own length. Of any
other file only that its size has not changed for a while is known, and that is said.
"""

from __future__ import annotations

import json
import os
import struct
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SETTLED_S = 2.0  # a file that was written within these seconds may still grow
MOST_FILES = 10_000


@dataclass(frozen=True)
class Found:
    """A checkpoint of the script: its path relative to the run, when it was written, how it is known to be whole."""

    path: str
    written: float
    how: str


def candidates(run: Path, pattern: str) -> list[tuple[float, Path]]:
    """(time of writing, path) of regular files that the pattern matches below the run, the newest first."""
    found: list[tuple[float, Path]] = []
    for path in _matches(run, pattern):
        try:
            stat = path.lstat()
        except OSError:
            continue  # pruned by the script meanwhile
        if os.path.stat.S_ISREG(stat.st_mode) and stat.st_size:  # type: ignore[attr-defined]
            found.append((stat.st_mtime, path))
        if len(found) >= MOST_FILES:
            break
    return sorted(found, reverse=True)


def _matches(run: Path, pattern: str) -> Iterator[Path]:
    try:
        yield from run.glob(pattern)
    except (OSError, ValueError):  # a folder that goes while it is walked
        return


def newest_whole(run: Path, pattern: str, *, now: float | None = None) -> tuple[Found | None, list[str]]:
    """The newest checkpoint that is whole, and what was wrong with newer files, in words."""
    problems: list[str] = []
    for written, path in candidates(run, pattern):
        name = str(path.relative_to(run))
        how = whole(path, written, time.time() if now is None else now)
        if how is not None:
            return Found(name, written, how), problems
        problems.append(f"{name} is not whole")
    return None, problems


def whole(path: Path, written: float, now: float) -> str | None:
    """How a file is known to be whole, in words; None if it is not."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
            size = os.fstat(file.fileno()).st_size
            if head[:4] == b"PK\x03\x04":
                return _archive(path)
            if len(head) == 16 and head[8:9] == b"{":
                return _safetensors(head, size, file.seek(0) or file.read)
    except (OSError, ValueError):
        return None
    return "its size has not changed" if now - written >= SETTLED_S else None


def _archive(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()  # reads every member, and compares its CRC
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError, NotImplementedError):
        return None
    return "the sums of its archive agree" if broken is None else None


def _safetensors(head: bytes, size: int, read: object) -> str | None:
    (length,) = struct.unpack("<Q", head[:8])
    if length > min(size, 1 << 28):
        return None
    assert callable(read)
    tensors = json.loads(read(8 + length)[8:])
    ends = [entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__"]
    return "it has the length that its header says" if size == 8 + length + max(ends, default=0) else None
