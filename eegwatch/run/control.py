"""The control file: append a command, follow its answer, and know whether a daemon is there to obey.

Every action of the CLI and of the screen goes through here, and `echo '{"command": "stop"}' >> control.jsonl`
does the same. A command is answered in daemon.jsonl: accepted, then done or failed; or rejected; or expired.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import struct
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from eegwatch.run.log import AppendLog, Tail, daemon_decoder
from eegwatch.run.records import TERMINAL, Answer, DaemonRecord, DaemonState

CONTROL, DAEMON_LOG, LOCK = "control.jsonl", "daemon.jsonl", "daemon.lock"
EXPIRES_AFTER = 600.0  # seconds after its `time` that an unread command stays valid (contract)
LONGEST_COMMAND = 1 << 16
HEARTBEAT_S = 2.0


class Command(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One line of control.jsonl. Which fields belong to which command is contract.md's table."""

    command: Literal["stop", "restart", "resume", "checkpoint", "evaluate", "release"]
    id: str | None = None
    time: float | None = None
    run_id: str | None = None
    by: str | None = None
    attempt: int | None = None
    expires: float | None = None
    exit: bool = False
    config: str | None = None
    lr: float | None = None
    then: Literal["anneal", "hold", "scale"] | None = None  # with an `lr` alone; anneal by default
    checkpoint: str | None = None
    force: bool = False

    @property
    def deadline(self) -> float | None:
        """When the command expires (seconds since the epoch), or None for one without any time."""
        if self.expires is not None:
            return self.expires
        return None if self.time is None else self.time + EXPIRES_AFTER


class Unreadable(msgspec.Struct, frozen=True):
    """A complete line of the control file that is no command: it is rejected under its id, with the reason."""

    id: str
    command: str | None
    reason: str


_decoder = msgspec.json.Decoder(Command)


def parse_line(line: bytes, offset: int) -> Command | Unreadable | None:
    """A control line as a command; a blank line is None. A missing id becomes `line-<byte offset>`."""
    if not line.strip():
        return None
    fallback = f"line-{offset}"
    if len(line) > LONGEST_COMMAND:
        return Unreadable(fallback, None, f"the line is {len(line):,} bytes; a command has at most {LONGEST_COMMAND:,}")
    try:
        command = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        command_id, name = _salvage(line)
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        return Unreadable(command_id or fallback, name, f"not a command: {reason}")
    command.id = command.id or fallback
    return command


def _salvage(line: bytes) -> tuple[str | None, str | None]:
    """The id and command name of a line that is an object but no valid command, so that its sender hears of it."""
    try:
        tree = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None, None
    if not isinstance(tree, dict):
        return None, None
    found = [tree.get(key) for key in ("id", "command")]
    command_id, name = (value if isinstance(value, str) and value else None for value in found)
    return command_id, name


def send(logs: Path, name: str, run_id: str | None, **fields: Any) -> str:
    """Append a command to the control file, durably, and return its id. Raises OSError."""
    command_id = str(uuid.uuid4())
    line = {"id": command_id, "time": time.time(), "command": name, "run_id": run_id}
    line |= {"by": f"eegwatch@{socket.gethostname()}"} | {k: v for k, v in fields.items() if v is not None}
    log = AppendLog(logs / CONTROL)
    try:
        log.write(msgspec.json.encode(line) + b"\n")
        log.sync()
    finally:
        log.close()
    return command_id


class AnswerWatch:
    """Follow daemon.jsonl from its end at construction: the answers to commands, and the daemon's state."""

    def __init__(self, logs: Path) -> None:
        path = logs / DAEMON_LOG
        self._tail = Tail(path, path.stat().st_size if path.exists() else 0)
        self._decoder = daemon_decoder()

    def poll(self) -> list[DaemonRecord]:
        records: list[DaemonRecord] = []
        while data := self._tail.read().data:
            records += self._decoder.decode(data)
        return records

    def answers(self, command_id: str, timeout: float, alive: Callable[[], bool]) -> Iterator[Answer]:
        """Each answer to one command as it comes, the terminal one last; ends silently at the timeout or a death."""
        end = time.monotonic() + timeout
        while True:
            living = alive()  # asked before reading: what a daemon wrote before it died is still delivered
            for record in self.poll():
                if isinstance(record, Answer) and record.id == command_id:
                    yield record
                    if record.status in TERMINAL:
                        return
            if time.monotonic() > end or not living:
                return
            time.sleep(0.05)


def latest_state(logs: Path) -> DaemonState | None:
    """The daemon's last word about itself, heartbeat included, read from the end of daemon.jsonl."""
    path = logs / DAEMON_LOG
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            reach = 1 << 14
            while True:
                start = max(0, size - reach)
                file.seek(start)
                lines = file.read(size - start).split(b"\n")
                whole = lines[:-1] if start == 0 else lines[1:-1]
                decoder = daemon_decoder()
                for line in reversed(whole):
                    for record in decoder.decode(line):
                        if isinstance(record, DaemonState):
                            return record
                if start == 0:
                    return None
                reach *= 4
    except FileNotFoundError:
        return None


# ---- the lock ------------------------------------------------------------------------------------------------------
# A POSIX record lock: free the moment its holder dies, whatever children it leaves. Any close of the file by its
# holder drops it, so the holder opens it exactly once, and everyone else asks with F_GETLK, which takes nothing.

_LINUX, _DARWIN = "hhqqi4x", "qqihh"  # struct flock on 64-bit Linux (type whence start len pid) and on macOS


class Locked(Exception):
    """Another process holds the lock; `args[0]` is its pid, or None where the system does not say."""


def take_lock(path: Path) -> int:
    """Hold the lock for the life of this process; returns the descriptor. Raises Locked, OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise Locked(lock_holder(path)) from None
        raise
    os.ftruncate(fd, 0)
    os.write(fd, f"{os.getpid()}\n".encode())
    return fd


def lock_holder(path: Path) -> int | None:
    """The pid that holds the lock, by the kernel's word; None if nobody does."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        if sys.platform == "darwin":
            query = struct.pack(_DARWIN, 0, 0, 0, fcntl.F_WRLCK, 0)
            _, _, pid, kind, _ = struct.unpack(_DARWIN, fcntl.fcntl(fd, fcntl.F_GETLK, query))
        else:
            query = struct.pack(_LINUX, fcntl.F_WRLCK, 0, 0, 0, 0)
            kind, _, _, _, pid = struct.unpack(_LINUX, fcntl.fcntl(fd, fcntl.F_GETLK, query))
    finally:
        os.close(fd)
    return None if kind == fcntl.F_UNLCK else int(pid)


def daemon_pid(logs: Path) -> int | None:
    """The pid of the daemon that lives on this log root, or None."""
    return lock_holder(logs / LOCK)


def same_file(fd: int, path: Path) -> bool:
    """Is the open file still the one of this name?"""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def exposed(logs: Path) -> str | None:
    """What others than its owner may do in this log root, in words, or None: worth a warning."""
    status = os.stat(logs)
    if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
        return f"others can rename and replace files in {logs} (mode {status.st_mode & 0o777:03o}); chmod 700 {logs}"
    return None


def unsafe_control(path: Path) -> str | None:
    """Why this control file must not be obeyed (others can write it, or put another in its place), or None."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return f"{path} is not a regular file"
    if status.st_uid != os.geteuid():
        return f"{path} belongs to uid {status.st_uid}, not to you; move it away"
    if status.st_mode & 0o022:
        return f"{path} can be written by others (mode {status.st_mode & 0o777:03o}); chmod 600 {path}"
    folder = os.stat(path.parent)
    if folder.st_mode & 0o002 and not folder.st_mode & stat.S_ISVTX:  # the group is only warned of: `exposed`
        return f"{path.parent} can be written by everybody (mode {folder.st_mode & 0o777:03o}); chmod 700 {path.parent}"
    return None


def log_root(given: str | None) -> Path:
    """--logs DIR, else $EEGWATCH_LOGS, else ./logs."""
    return Path(given or os.environ.get("EEGWATCH_LOGS") or "logs")
