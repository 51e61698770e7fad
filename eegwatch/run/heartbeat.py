"""daemon.alive: the daemon's last sign of life, overwritten every two seconds; daemon.jsonl holds what changed.

One JSON object and a newline, padded with spaces to BLOCK bytes so that a shorter one leaves nothing of a longer. A
reader that catches it half overwritten sees `alive` at its beginning and `same` at its end differ, and reads again.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import msgspec

from eegwatch.run.records import DaemonState, encode

ALIVE = "daemon.alive"
BLOCK = 4096
LONGEST_REASON = 2000  # characters: with it the object is shorter than BLOCK
TRIES = 5


class _Sign(msgspec.Struct, kw_only=True):
    """The object of the file: the fields of a `daemon` record, and `alive` a second time."""

    alive: int
    time: float
    state: str
    since: float | None = None
    moved: float | None = None
    pid: int = 0
    run_id: str | None = None
    step: int | None = None
    reason: str | None = None
    progress: int | None = None
    same: int = -1


_decoder = msgspec.json.Decoder(_Sign)


class HeartbeatFile:
    """The writer of the heartbeat file."""

    def __init__(self, logs: Path) -> None:
        self.path = logs / ALIVE

    def write(self, state: DaemonState) -> None:
        """Overwrite the file, mode 0600, never through a link. Raises OSError."""
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "is not a regular file", str(self.path))
            os.pwrite(fd, _block(state), 0)
        finally:
            os.close(fd)


def _block(state: DaemonState) -> bytes:
    short = state.reason[:LONGEST_REASON] if state.reason else None
    line = encode(msgspec.structs.replace(state, reason=short))
    fields = msgspec.json.decode(line)
    fields.pop("type")
    alive = fields.pop("alive") or 0
    ordered = {"alive": alive} | {name: value for name, value in fields.items() if value is not None} | {"same": alive}
    whole = msgspec.json.encode(ordered)
    if len(whole) >= BLOCK:  # text that takes several bytes a character
        ordered.pop("reason", None)
        whole = msgspec.json.encode(ordered)
    return whole + b"\n" + b" " * (BLOCK - 2 - len(whole)) + b"\n"


def read(logs: Path) -> DaemonState | None:
    """The last heartbeat, or None if none can be read. Raises OSError except for a missing file."""
    for _ in range(TRIES):
        try:
            fd = os.open(logs / ALIVE, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return None
            line = os.pread(fd, BLOCK, 0).partition(b"\n")[0]
        finally:
            os.close(fd)
        try:
            sign = _decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        if sign.alive == sign.same:
            fields = {name: getattr(sign, name) for name in sign.__struct_fields__ if name != "same"}
            return DaemonState(**fields)
    return None
