"""A file of a run's folder that a command of `eegpt-daemon` writes when the training is over, and that all may read."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from eegwatch.run.folder import write_whole

MOST_BYTES = 1 << 20
T = TypeVar("T", bound=msgspec.Struct)


def write_result(target: Path, result: msgspec.Struct) -> Path:
    """Replace the file whole; returns its path. Raises OSError."""
    write_whole(target, msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    return target


def read_result(path: Path, kind: type[T]) -> T | None:
    """The content of the file; None if it is missing or invalid."""
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(MOST_BYTES), type=kind)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
