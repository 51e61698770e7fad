"""The control file of a log root as several live runs share it: which of them answers which line.

Without a daemon, a run answers the lines that name it, and those that name no run where it is the only live one. The
holder of `runs.lock` answers what no run can: lines that are not commands, or that name no live run. Where a daemon
lives it owns the control file; a run then reads `control.jsonl` in its own folder, to which the daemon relays.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from eegwatch.run.control import (
    CONTROL,
    LIVE_LOCK,
    Command,
    Locked,
    Unreadable,
    daemon_pid,
    lock_holder,
    parse_line,
    take_lock,
    unsafe_control,
)
from eegwatch.run.log import AppendLog, Tail

ROOT_LOCK = "runs.lock"
CHUNK = 1 << 20
PAST = "it was written before this attempt began, and never read; send it again if it is still wanted"
# POSIX locks belong to the process: asking for one that this process holds would drop it when the question is closed.
_own_locks: set[Path] = set()


@dataclass(frozen=True)
class Refusal:
    """A line that this process answers without obeying it: its status is `rejected` or `expired`."""

    id: str
    command: str | None
    status: str
    reason: str


class Inbox:
    """New lines for one live run: commands for it, and refusals that are this process's to say."""

    def __init__(self, logs: Path, folder: Path) -> None:
        """Takes the run's lock. Raises Locked where another process writes this run, OSError."""
        self.logs, self.run_id = logs, folder.name
        self._live_path, self._root_path = (folder / LIVE_LOCK).resolve(), (logs / ROOT_LOCK).resolve()
        self._live = _hold(self._live_path)
        self._root: int | None = None
        self._tail = Tail(logs / CONTROL, _size(logs / CONTROL))
        self._relay = Tail(folder / CONTROL)
        self.unsafe: str | None = None

    def read(self, answered: dict[str, str]) -> list[Command | Refusal]:
        """What came since the last look. Ids in `answered` are passed over: each is answered once."""
        commands: list[Command | Refusal] = []
        for tail in (self._relay, self._tail):
            self.unsafe = unsafe_control(tail.path) or (self.unsafe if tail is self._tail else None)
            if self.unsafe is None:
                commands += self._new(tail, answered)
        return commands

    def unread(self, answered: dict[str, str]) -> list[Refusal]:
        """Unanswered lines from before this process that name this run: they are expired now.

        Those that name no run are this process's to answer where it answers for the log root; a daemon's are its own.
        """
        if unsafe_control(self._tail.path) is not None or daemon_pid(self.logs) is not None:
            return []
        past, refusals = Tail(self._tail.path), dict[str, Refusal]()
        try:
            while past.offset < self._tail.offset and (chunk := past.read(CHUNK)).data:
                for offset, line in chunk.lines():
                    if offset >= self._tail.offset or not isinstance(parsed := parse_line(line, offset), Command):
                        continue
                    command_id = str(parsed.id)
                    addressed = parsed.run_id == self.run_id or (parsed.run_id is None and self._speaks())
                    if addressed and command_id not in answered:
                        refusals[command_id] = Refusal(command_id, parsed.command, "expired", PAST)
        finally:
            past.close()
        return list(refusals.values())

    def _new(self, tail: Tail, answered: dict[str, str]) -> list[Command | Refusal]:
        chunk = tail.read(CHUNK)
        if not chunk.data:
            return []
        shared = tail is self._tail
        if shared and daemon_pid(self.logs) is not None:
            return []  # the daemon reads it too, and relays what is for this run
        addressed: list[Command | Refusal] = []
        seen = set(answered)
        for offset, line in chunk.lines():
            parsed = parse_line(line, offset)
            if parsed is None:
                continue
            while str(parsed.id) in seen and str(parsed.id).startswith("line-"):
                parsed = msgspec.structs.replace(parsed, id=f"{parsed.id}.2")
            if str(parsed.id) in seen:
                continue
            decided = self._decide(parsed, shared)
            if decided is not None:
                seen.add(str(parsed.id))
                addressed.append(decided)
        return addressed

    def _decide(self, line: Command | Unreadable, shared: bool) -> Command | Refusal | None:
        """The command if it is for this run, a refusal if it is this process's to give, None if it is another's."""
        if isinstance(line, Unreadable):
            return self._refuse(line.id, line.command, line.reason) if self._speaks() or not shared else None
        name, command_id = line.command, str(line.id)
        if line.run_id is not None and line.run_id != self.run_id:
            if not shared:
                return self._refuse(command_id, name, f"it is for run {line.run_id}, and this is {self.run_id}")
            if self._lives(line.run_id) or not self._speaks():
                return None
            return self._refuse(command_id, name, f"run {line.run_id} is not live in {self.logs}")
        if line.run_id is None and shared:
            live = self.live_runs()
            if len(live) > 1:
                reason = f"{len(live)} runs are live here ({', '.join(live[:4])}): name one with run_id"
                return self._refuse(command_id, name, reason) if self._speaks() else None
        deadline = line.deadline
        if deadline is not None and time.time() > deadline:
            return Refusal(command_id, name, "expired", "it came later than its time allows")
        return line

    @staticmethod
    def _refuse(command_id: str, name: str | None, reason: str) -> Refusal:
        return Refusal(command_id, name, "rejected", reason)

    def _speaks(self) -> bool:
        """Whether this process answers the lines that no run can: it holds the lock of the log root."""
        if self._root is None and self._root_path not in _own_locks:
            try:
                self._root = _hold(self._root_path)
            except (Locked, OSError):
                return False
        return self._root is not None

    def _lives(self, run_id: str) -> bool:
        if not _a_name(run_id):
            return False
        path = (self.logs / run_id / LIVE_LOCK).resolve()
        return path in _own_locks or _locked(path)

    def live_runs(self) -> list[str]:
        """The runs of this log root whose process lives, this one included."""
        try:
            names = sorted(os.listdir(self.logs))
        except OSError:
            return [self.run_id]
        return [n for n in names if n == self.run_id or ((self.logs / n / LIVE_LOCK).exists() and self._lives(n))]

    def close(self) -> None:
        for fd, path in ((self._root, self._root_path), (self._live, self._live_path)):
            if fd is not None:
                os.close(fd)
                _own_locks.discard(path)
        self._root = None
        self._tail.close()
        self._relay.close()


def relay(logs: Path, command: Command) -> bool:
    """Hand a command to the live run that it names, by the control file in that run's folder. For a daemon.

    True where such a run is live and the line is durable; the run answers it. Raises OSError.
    """
    run_id = command.run_id
    if run_id is None or not _a_name(run_id):
        return False
    folder = logs / run_id
    if not _locked(folder / LIVE_LOCK):
        return False
    log = AppendLog(folder / CONTROL)
    try:
        log.write(msgspec.json.encode({k: v for k, v in msgspec.to_builtins(command).items() if v is not None}) + b"\n")
        log.sync()
    finally:
        log.close()
    return True


def _a_name(run_id: str) -> bool:
    return "/" not in run_id and "\0" not in run_id and run_id not in ("", ".", "..")


def is_held(path: Path) -> bool:
    """Whether this process holds this lock for one of its runs."""
    return path.resolve() in _own_locks


def _hold(path: Path) -> int:
    if path in _own_locks:
        raise Locked(os.getpid())
    fd = take_lock(path)
    _own_locks.add(path)
    return fd


def _locked(path: Path) -> bool:
    try:
        return lock_holder(path) is not None
    except OSError:  # a link loop, a name too long: no run of ours
        return False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
