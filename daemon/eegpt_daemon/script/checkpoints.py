"""The checkpoints of a script: finds the files and tells whether one is complete. torch is not imported.

A pattern lies below the run folder, below the script's own folder (`{cwd}/…`), or is absolute; of the last two only
files that were written since the run began are the run's.

A checkpoint is a file or a folder. A file of torch.save is a zip archive whose members have check sums; a safetensors
file says its own length. Of any other file it is only known that its size has not changed for a while; the answer says
so.
"""

from __future__ import annotations

import json
import os
import re
import stat as stat_kinds
import struct
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from eegwatch.run.config import Script
from eegwatch.run.folder import CHECKPOINTS, begun_at

CWD = "{cwd}/"
SETTLED_S = 2.0  # a file that was written within these seconds may still grow
MOST_FILES = 10_000


@dataclass(frozen=True)
class WholeCheckpoint:
    """A complete checkpoint of the script: its path, time of writing, and the evidence that it is complete."""

    path: str
    written: float
    how: str


def name_of(run: Path, path: Path) -> str:
    """The name of a file in the run log: its path below the run folder, or the absolute path."""
    return str(path.relative_to(run)) if path.is_relative_to(run) else str(path)


def candidates(run: Path, script: Script) -> list[tuple[float, Path]]:
    """(time of writing, path) of what `script.checkpoints` matches, the newest first."""
    return files_of(run, script, script.checkpoints) if script.checkpoints else []


def files_of(run: Path, script: Script, pattern: str) -> list[tuple[float, Path]]:
    """(time of writing, path) of the run's files and folders that a pattern matches, the newest first."""
    matches: list[tuple[float, Path]] = []
    base, pattern, since = _place(run, script, pattern)
    for path in _matches(base, pattern):
        try:
            written = _written(path)
        except OSError:
            continue  # pruned by the script meanwhile
        if written is not None and written >= since:
            matches.append((written, path))
        if len(matches) >= MOST_FILES:
            break
    return sorted(matches, reverse=True)


def _written(path: Path) -> float | None:
    """When a file was written, of a folder the newest file in it; None for an empty one. Raises OSError."""
    stat = path.lstat()
    if stat_kinds.S_ISREG(stat.st_mode):
        return stat.st_mtime if stat.st_size else None
    if stat_kinds.S_ISDIR(stat.st_mode):
        return max((file.lstat().st_mtime for file in _files(path)), default=None)
    return None


def _files(folder: Path) -> list[Path]:
    """The regular files of a checkpoint that is a folder, as transformers and accelerate write it."""
    return [Path(where) / name for where, _, names in os.walk(folder) for name in names][:MOST_FILES]


def _place(run: Path, script: Script, pattern: str) -> tuple[Path, str, float]:
    """(folder, pattern below it, time before which a file is another run's)."""
    if pattern.startswith(CWD):
        return Path(script.cwd), pattern.removeprefix(CWD), _started_at(run)
    if pattern.startswith("/"):
        return Path("/"), pattern.lstrip("/"), _started_at(run)
    return run, pattern, 0.0


def _started_at(run: Path) -> float:
    """When the run began: its name holds the second, its empty folder of checkpoints the fraction."""
    second = begun_at(run)
    try:
        exactly = (run / CHECKPOINTS).stat().st_mtime
    except OSError:
        return second
    return exactly if second <= exactly < second + 2.0 else second


def _matches(base: Path, pattern: str) -> Iterator[Path]:
    try:
        yield from base.glob(pattern)
    except (OSError, ValueError):  # a folder that goes while it is walked
        return


def newest_whole(
    run: Path, script: Script, *, now: float | None = None, without: Mapping[str, float] | None = None
) -> tuple[WholeCheckpoint | None, list[str]]:
    """The newest complete checkpoint, and the problems of newer files as sentences.

    `without`: names that are passed over, each where it was not written after this time.
    """
    problems: list[str] = []
    for written, path in candidates(run, script):
        name = name_of(run, path)
        if without and written <= without.get(name, -1.0):
            continue
        how = whole(path, written, time.time() if now is None else now)
        if how is not None:
            return WholeCheckpoint(name, written, how), problems
        problems.append(f"{name} is incomplete")
    return None, problems


def whole(path: Path, written: float, now: float) -> str | None:
    """The evidence that a checkpoint is complete, as text; None if it is not complete."""
    if path.is_dir():
        return _folder(path, written, now)
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


def _folder(path: Path, written: float, now: float) -> str | None:
    """A folder is whole if each of its files is, and if it has all files of the sibling before it, `checkpoint-500`."""
    try:
        files = _files(path)
        if not files or now - written < SETTLED_S:
            return None
        if any(file.stat().st_size and whole(file, file.stat().st_mtime, now) is None for file in files):
            return None
        before = [p for p in path.parent.iterdir() if p != path and p.is_dir() and _kind(p.name) == _kind(path.name)]
        older = [(at, p) for p in before if (at := _written(p)) is not None and at < written]
        names = {_kind(str(file.relative_to(path))) for file in files}
        if older and {_kind(str(f.relative_to(max(older)[1]))) for f in _files(max(older)[1])} - names:
            return None
    except OSError:
        return None  # pruned meanwhile
    return "its files are whole" + (", and it has those of the one before" if older else "")


def _kind(name: str) -> str:
    """A name without its numbers: what `checkpoint-500` and `checkpoint-1000` have in common."""
    return re.sub(r"\d+", "#", name)


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
