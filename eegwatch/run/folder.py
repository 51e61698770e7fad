"""The log root and its runs: names, paths, which run is newest, and what kind of thing a PATH is."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from io import BufferedWriter
from itertools import groupby
from pathlib import Path

from eegwatch.wording import UserError

OLD_S = 7 * 86400.0
_ASIDE = re.compile(r"\.([0-9a-f]{8})-(\d{1,9})\.tmp$")
RUN_LOG, CONFIG, TRAINER_LOG, CHECKPOINTS = "run.jsonl", "config.yaml", "trainer.log", "checkpoints"


class NotARun(UserError):
    """A PATH that holds no run: where, and what would."""


def new_run_id(name: str, when: float | None = None) -> str:
    """`20261124-141500-name`, local time; the name reduced to what a folder may be called anywhere."""
    slug = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("._") or "run"
    return f"{time.strftime('%Y%m%d-%H%M%S', time.localtime(when))}-{slug[:80]}"


def make_run_folder(logs: Path, name: str) -> Path:
    """Create the folder of a new run, whose name sorts after every other, also where the clock was set back.

    Two runs begun in one second get different names.
    """
    when, newest = time.time(), newest_run(logs)
    if newest is not None and begun_at(newest) >= when:
        when = begun_at(newest) + 1
    run_id = new_run_id(name, when)
    for suffix in ("", *(f".{n}" for n in range(2, 1000))):
        folder = logs / f"{run_id}{suffix}"
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            continue
        (folder / CHECKPOINTS).mkdir(mode=0o700)
        return folder
    raise OSError(f"{logs}: a thousand runs named {run_id}")


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: of files created or renamed."""
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def aside_of(path: Path) -> Path:
    """The temporary path of a file before its rename: `.NAME.<place>-<pid>.tmp`, unique to this process.

    Two containers have one pid twice, and two hosts one file system: `place` names the host and its table of processes.
    """
    return path.with_name(f".{path.name}.{_place()}-{os.getpid()}.tmp")


def left_behind(aside: Path) -> bool:
    """Was this aside left by a process that is gone? One of another host or container is, after OLD_S unwritten."""
    match = _ASIDE.search(aside.name)
    if match is not None and match[1] == _place():
        import psutil

        return not psutil.pid_exists(int(match[2]))
    try:
        return time.time() - aside.stat().st_mtime > OLD_S
    except FileNotFoundError:
        return False


@functools.cache
def _place() -> str:
    """This host and pid namespace, in eight characters."""
    try:
        processes = os.readlink("/proc/self/ns/pid")
    except OSError:
        processes = ""
    return hashlib.sha256(f"{socket.gethostname()} {processes}".encode()).hexdigest()[:8]


def write_whole(path: Path, content: bytes, reached: Callable[[str], None] = lambda _: None) -> None:
    """Replace a file; a power cut leaves the old or the new content: write aside, fsync, rename, fsync the folder.

    Mode 0600. `reached` is called at each boundary. Raises OSError, and never leaves a partial file under the name.
    """
    aside = aside_of(path)
    aside.unlink(missing_ok=True)  # a process of this pid that was killed
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        reached("after_write")
        os.fsync(fd)
        reached("after_fsync")
    finally:
        os.close(fd)
    os.replace(aside, path)
    reached("after_rename")
    sync_folder(path.parent)
    reached("after_folder_fsync")


@contextlib.contextmanager
def private_files() -> Iterator[None]:
    """Files made meanwhile are for this user alone (0600, folders 0700), whatever the shell's umask says."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def last_bytes(path: Path, most: int) -> bytes:
    """The end of a file that may be gigabytes. Raises OSError."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - most))
        return file.read(most)


def file_hash(path: Path) -> str:
    """SHA-256 of a file, read in parts: a checkpoint may be larger than this process should be. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class HeldFolder:
    """A folder held by its descriptor: `path` is its present path, also after a rename of it or of a parent."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self._named = path
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    @property
    def in_place(self) -> bool:
        """Whether its name still leads to this folder."""
        try:
            return os.path.samestat(os.fstat(self._fd), os.stat(self._named))
        except OSError:
            return False

    @property
    def path(self) -> Path:
        """Its present path; the original path if the system does not provide it."""
        if self.in_place:
            return self._named
        try:
            now = Path(os.readlink(f"/proc/self/fd/{self._fd}"))  # Linux; elsewhere the old name must do
            moved = os.path.samestat(os.fstat(self._fd), os.stat(now))
        except OSError:
            return self._named
        return now if moved else self._named


def runs(logs: Path) -> list[Path]:
    """Every run folder of the log root, oldest first (by the time in its name, then by the file's).

    One whose log is a link that leads nowhere is among them: it is not left out in silence.
    """
    try:
        with os.scandir(logs) as listed:
            entries = [Path(entry.path) for entry in listed if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    folders = [folder for folder in entries if os.path.lexists(folder / RUN_LOG)]
    return sorted(folders, key=lambda folder: (folder.name[:15], _mtime(folder / RUN_LOG), folder.name))


def begun_at(folder: Path) -> float:
    """The time in a run's name, seconds since the epoch; 0 where it holds none."""
    try:
        return time.mktime(time.strptime(folder.name[:15], "%Y%m%d-%H%M%S"))
    except (ValueError, OverflowError):
        return 0.0


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def newest_run(logs: Path) -> Path | None:
    """The last of `runs`, found by the names alone: ten thousand runs cost one reading of the folder, not of each."""
    try:
        with os.scandir(logs) as entries:
            names = sorted((entry.name for entry in entries), reverse=True)
    except FileNotFoundError:
        return None
    for _, alike in groupby(names, key=lambda name: name[:15]):
        folders = [logs / name for name in alike if _holds_a_run(f"{logs}/{name}")]
        if folders:
            return max(folders, key=lambda folder: (_mtime(folder / RUN_LOG), folder.name))
    return None


def _holds_a_run(folder: str) -> bool:
    return os.path.exists(f"{folder}/{RUN_LOG}") and not os.path.islink(folder)


def resolve(path: Path) -> tuple[Path, Path | None]:
    """(log root, run folder or None for "the newest") of a PATH: a log root, a run folder or a run.jsonl.

    Raises NotARun for any other path.
    """
    if path.is_file():
        return path.parent.parent, path.parent
    if (path / RUN_LOG).exists():
        return path.parent, path
    if path.is_dir():
        return path, None
    raise NotARun(f"{path}: no such file or folder; give a log root, a run folder or a run.jsonl")


def run_at(path: Path) -> Path:
    """The run folder that a PATH means; of a log root the newest. Raises NotARun."""
    logs, folder = resolve(path)
    folder = folder or newest_run(logs)
    if folder is None:
        raise NotARun(f"{path}: holds no run; give a run folder or a log root")
    return folder


def open_output(path: Path) -> BufferedWriter:
    """The file for what a child prints: appended to, private to this user, not through a link. Raises OSError."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.fdopen(os.open(path, flags, 0o600), "ab")
