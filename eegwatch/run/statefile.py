"""The detectors' state at one offset of a log, stored beside its side file: only later records are judged again.

Only a cache, like the side file: delete it at any time. It is believed for the very file it was made from, up to an
offset where a frame of the side file ends, and by the very rules that made it: the sources of the detectors are part of
its key, so a change of a rule or of a threshold makes it void. It is read only where it is this user's own.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import stat
import sys
import zlib
from pathlib import Path

import msgspec
import numpy as np

from eegwatch.run.folder import aside_of
from eegwatch.run.sidefile import SideFile

SUFFIX = ".verdict"
DETECTORS = ("diagnosis", "schedule", "run/records.py", "run/history.py", "run/items.py", "run/columns.py")
LARGEST_BYTES = 64 << 20


class DetectorState(msgspec.Struct, frozen=True, array_like=True):
    """`data`: the detectors (`diagnosis.saved_state`) when the log ended at `end`; `says`: their verdict.

    `key`: of the log's identity, its 4 kB before `end`, and the rules; `crc`: of `data`.
    """

    key: bytes
    end: int
    says: str
    crc: int
    data: bytes


_encoder, _decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(DetectorState)


@functools.cache
def rules_hash() -> bytes:
    """SHA-256 of the sources of all detectors, and of the versions that a kept state depends on."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256(f"{sys.version_info} {np.__version__} {msgspec.__version__}".encode())
    for name in DETECTORS:
        place = package / name
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.digest()


def place_of(side: SideFile) -> Path:
    """The path of the state, beside the side file."""
    return side.place.with_suffix(SUFFIX)


def write_state(side: SideFile, end: int, says: str, data: bytes) -> None:
    """Replace what was kept by the state at this offset of the log, where a frame of the side file ends.

    Raises OSError: what was kept before is still there.
    """
    place = place_of(side)
    aside, content = aside_of(place), _encoder.encode(DetectorState(_key(side, end), end, says, zlib.crc32(data), data))
    aside.unlink(missing_ok=True)  # of a process of this pid that was killed
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        whole = os.write(fd, content) == len(content)
    finally:
        os.close(fd)
    if not whole:
        aside.unlink()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place))
    os.replace(aside, place)  # not synced: after a power cut the check sum tells


def read_state(side: SideFile) -> DetectorState | None:
    """The state, if one is kept that was made from this log by these rules."""
    try:
        fd = os.open(place_of(side), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        about = os.fstat(fd)
        others_write = about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid() or others_write:
            return None
        if about.st_size > LARGEST_BYTES:
            return None
        state = _decoder.decode(os.pread(fd, about.st_size, 0))
        sound = zlib.crc32(state.data) == state.crc and state.key == _key(side, state.end)
    except (OSError, msgspec.MsgspecError, OverflowError, ValueError):  # nothing that we wrote
        return None
    finally:
        os.close(fd)
    return state if sound else None


def _key(side: SideFile, end: int) -> bytes:
    return hashlib.sha256(side.identity + f"{end} {side.before(end)} ".encode() + rules_hash()).digest()
