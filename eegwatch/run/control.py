"""The control file: append a command, follow its answer, and know whether a daemon is there to obey.

Every action of the CLI and of the screen goes through here, and `echo '{"command": "stop"}' >> control.jsonl`
does the same. A command is answered in daemon.jsonl: accepted, then done or failed; or rejected; or expired.
"""

from __future__ import annotations

import os
import socket
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from eegwatch.run import heartbeat
from eegwatch.run.lock import Locked as Locked
from eegwatch.run.lock import lock_holder as lock_holder
from eegwatch.run.lock import same_file as same_file
from eegwatch.run.lock import take_lock as take_lock
from eegwatch.run.log import AppendLog, Tail, daemon_decoder
from eegwatch.run.records import TERMINAL, Answer, DaemonRecord, DaemonState, finite

LIVE_LOCK = "live.lock"  # in a run's folder: held by the script that writes it with RunLog, while it obeys commands
CONTROL, DAEMON_LOG, LOCK = "control.jsonl", "daemon.jsonl", "daemon.lock"
EXPIRES_AFTER = 600.0  # seconds after its `time` that an unread command stays valid (docs/control.md)
LONGEST_COMMAND = 1 << 16
HEARTBEAT_S = 2.0


class Command(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One line of control.jsonl. docs/control.md says which fields a command takes."""

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
    branch: str | None = msgspec.field(name="as", default=None)  # the name of the run that begins at a checkpoint
    force: bool = False

    @property
    def deadline(self) -> float | None:
        """When the command expires (seconds since the epoch), or None for one without any time."""
        if self.expires is not None:
            return self.expires
        return None if self.time is None else self.time + EXPIRES_AFTER


class Unreadable(msgspec.Struct, frozen=True):
    """A complete line of the control file that is not a command: it is rejected under its id, with the reason."""

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
    """The id and command name of a line that is an object but not a valid command, for the answer to its sender."""
    try:
        tree = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None, None
    if not isinstance(tree, dict):
        return None, None
    values = [tree.get(key) for key in ("id", "command")]
    command_id, name = (value if isinstance(value, str) and value else None for value in values)
    return command_id, name


def send(logs: Path, name: str, run_id: str | None, **fields: Any) -> str:
    """Append a command to the control file, durably, and return its id. Raises OSError.

    A number that is not finite is written as a string, as everywhere, so that the daemon refuses it: as the null that
    JSON has for it, it would read as "no rate given".
    """
    command_id = str(uuid.uuid4())
    line: dict[str, Any] = {"id": command_id, "time": time.time(), "command": name, "run_id": run_id}
    line |= {"by": f"eegwatch@{socket.gethostname()}"} | {k: v for k, v in fields.items() if v is not None}
    line = {k: finite(v) if isinstance(v, float) else v for k, v in line.items()}
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

    def close(self) -> None:
        self._tail.close()

    def poll(self) -> list[DaemonRecord]:
        """Records that came since. Raises OSError."""
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
    """The daemon's newest state: from its heartbeat, or from daemon.jsonl if that is newer.

    A daemon of 0.1 has no daemon.alive: it writes its heartbeats into daemon.jsonl. Raises OSError.
    """
    sign, logged = heartbeat.read(logs), _last_logged(logs / DAEMON_LOG)
    if sign is None or logged is None:
        return sign or logged
    if sign.pid == logged.pid:  # one daemon: its counter says which came later, whatever was done to the clock
        return logged if (logged.alive or 0) > (sign.alive or 0) else sign
    return sign if sign.time >= logged.time else logged


def _last_logged(path: Path) -> DaemonState | None:
    """The last state in daemon.jsonl, read from its end."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
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


# ---- who may be obeyed ---------------------------------------------------------------------------------------------


def daemon_pid(logs: Path) -> int | None:
    """The pid of the daemon that lives on this log root, or None."""
    return lock_holder(logs / LOCK)


def live_script(folder: Path) -> int | None:
    """The pid of the script that writes this run and obeys its commands by itself (RunLog), or None."""
    try:
        return lock_holder(folder / LIVE_LOCK)
    except OSError:  # not ours to ask
        return None


def exposed(logs: Path) -> str | None:
    """A warning about permissions of other users in this log root, or None."""
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
