"""Several processes that train one run: the rank of this process, and the folder for agreements on commands.

Rank 0 writes the run and obeys the control file. It announces a command for a step that is still ahead; each other rank
acknowledges it before that step; then one file decides. That file is made by a link, which succeeds once: whoever makes
it first decides for all, on a network file system too. No collective operation takes part: one of ours among those of
the training could wait for ever.

    LOGS/.ranks-<job>/leader      who leads, and in which sub-folder the files below are
    …/<token>/proposal            the newest command that rank 0 announced
    …/<token>/rank-<n>            what rank n says to it; there from the moment that rank n has found rank 0
    …/<token>/decision-<seq>      whether proposal <seq> holds
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import stat
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from eegwatch.run.control import LIVE_LOCK
from eegwatch.run.lock import lock_holder
from eegwatch.steering.inbox import is_held

PREFIX = ".ranks-"
LEADER, PROPOSAL = "leader", "proposal"
LOCAL = ("", "localhost", "127.0.0.1", "::1", "0.0.0.0")
_made: dict[str, int] = {}  # by name: how many RunLogs this process has made, so that a second one finds its own ranks
T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """`rank` of `world` processes; `key` is the same in all of them and in no other job of this file system."""

    rank: int = 0
    world: int = 1
    key: str | None = None


def job_of_this_process(name: str) -> Job:
    """The job that this process is part of, as torch.distributed or the environment of its launcher says.

    `name`: the run's. Called once for each RunLog.
    """
    rank, world = _place()
    if world <= 1 or not 0 <= rank < world:
        return Job()
    _made[name] = _made.get(name, 0) + 1
    return Job(rank, world, _key(name, _made[name]))


def rank_of_process() -> int:
    """The rank of this process in its job, 0 where it is alone."""
    return _place()[0]


def processes() -> int:
    """The number of processes that train together, as far as known now."""
    return max(_place()[1], _number("WORLD_SIZE", 1))


def _place() -> tuple[int, int]:
    torch = sys.modules.get("torch.distributed")
    if torch is not None and torch.is_available() and torch.is_initialized():
        return int(torch.get_rank()), int(torch.get_world_size())
    if "MASTER_ADDR" not in os.environ:  # what torch's `env://` needs: a RANK alone may be anybody's variable
        return 0, 1
    return _number("RANK", 0), _number("WORLD_SIZE", 1)


def _number(variable: str, default: int) -> int:
    try:
        return int(os.environ.get(variable, default))
    except ValueError:
        return default


def _key(name: str, count: int) -> str:
    """The common key of the ranks of a job: their rendezvous address, else the process that started them."""
    address, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    if address is None or port is None:
        met = f"{socket.gethostname()} {os.getppid()}"
    else:
        met = f"{socket.gethostname() if address in LOCAL else address}:{port}"
    launch = [os.environ.get(v, "") for v in ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")]
    return hashlib.sha256(repr((met, launch, name, count)).encode()).hexdigest()[:16]


class LeaderRecord(msgspec.Struct, frozen=True):
    """The leader: the run, its process, and the sub-folder for the messages of the ranks."""

    run: str
    pid: int
    host: str
    token: str


class Proposal(msgspec.Struct, frozen=True):
    """A command that rank 0 announces: it holds from the step `step` on, if all agree.

    `course`: Course.as_dict, None for a request (stop, checkpoint, evaluate) or a release. `at`: the step that rank 0
    had done when it announced it.
    """

    seq: int
    id: str
    command: str
    step: int
    course: dict[str, Any] | None = None
    at: int = 0


class RankReport(msgspec.Struct, frozen=True):
    """The report of a rank: the newest proposal that it has read, and its last completed step.

    `late`: it has done the announced step already. `refusal`: why it cannot do it. `looks`: whether its script asks for
    requests of this kind.
    """

    rank: int
    seq: int = 0
    step: int = 0
    late: bool = False
    refusal: str | None = None
    looks: bool = True


class Decision(msgspec.Struct, frozen=True):
    """Whether a proposal holds; `why` not."""

    holds: bool
    why: str | None = None


class JobFolder:
    """The files of one job, each written and read completely, in `folder`. Methods raise OSError."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def propose(self, proposal: Proposal) -> None:
        _write(self.folder / PROPOSAL, proposal)

    def proposal(self) -> Proposal | None:
        return _read(self.folder / PROPOSAL, Proposal)

    def say(self, voice: RankReport) -> None:
        _write(self.folder / f"rank-{voice.rank}", voice)

    def voice(self, rank: int) -> RankReport | None:
        return _read(self.folder / f"rank-{rank}", RankReport)

    def decide(self, seq: int, decision: Decision) -> Decision:
        """The valid decision: this one, unless another rank decided first."""
        path, aside = self.folder / f"decision-{seq}", self.folder / f".decision-{seq}.{os.getpid()}"
        _write(aside, decision)
        try:
            os.link(aside, path)
        except FileExistsError:
            pass
        finally:
            aside.unlink(missing_ok=True)
        stands = self.decision(seq)
        if stands is None:
            raise OSError(f"{path} cannot be read back")
        return stands

    def decision(self, seq: int) -> Decision | None:
        return _read(self.folder / f"decision-{seq}", Decision)


# ---- rank 0 ----


class Leader(JobFolder):
    """Rank 0's side: makes the folder, and takes it away at the end."""

    def __init__(self, logs: Path, run_id: str, job: Job) -> None:
        """Raises OSError."""
        assert job.key is not None
        self.job = job
        self._home = logs / f"{PREFIX}{job.key}"
        sweep(logs)
        self._home.mkdir(mode=0o700, exist_ok=True)
        token = f"{time.time_ns():x}-{os.getpid()}"
        super().__init__(self._home / token)
        self.folder.mkdir(mode=0o700)
        _write(self._home / LEADER, LeaderRecord(run_id, os.getpid(), socket.gethostname(), token))

    def absent(self) -> list[int]:
        """The ranks that have not found this run: they make no RunLog, or not in this log root."""
        return [rank for rank in range(1, self.job.world) if not (self.folder / f"rank-{rank}").exists()]

    def close(self) -> None:
        leads = _read(self._home / LEADER, LeaderRecord)
        own = leads is not None and leads.token == self.folder.name
        shutil.rmtree(self._home if own else self.folder, ignore_errors=True)


def sweep(logs: Path) -> None:
    """Remove what jobs whose rank 0 was killed on this host have left in the log root."""
    for home in logs.glob(f"{PREFIX}*"):
        leads = _read(home / LEADER, LeaderRecord)
        if _ours(home) and leads is not None and leads.host == socket.gethostname() and not lives(logs, leads):
            shutil.rmtree(home, ignore_errors=True)


# ---- the other ranks ----


def find(logs: Path, job: Job) -> tuple[JobFolder, LeaderRecord] | None:
    """The job folder that a live rank 0 of this job has opened below this log root; None if there is none (yet)."""
    home = logs / f"{PREFIX}{job.key}"
    leads = _read(home / LEADER, LeaderRecord)
    if leads is None or "/" in leads.run or "/" in leads.token or not _ours(home) or not lives(logs, leads):
        return None
    return JobFolder(home / leads.token), leads


def lives(logs: Path, leads: LeaderRecord) -> bool:
    """Whether the process of rank 0 holds its run's lock; on another host, whether any process holds it."""
    path = logs / leads.run / LIVE_LOCK
    if is_held(path):
        return True
    try:
        holder = lock_holder(path)
    except OSError:
        return False
    return holder is not None if leads.host != socket.gethostname() else holder == leads.pid


# ---- files ----


def _ours(folder: Path) -> bool:
    """Whether only this user can write to this folder."""
    try:
        status = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _write(path: Path, what: msgspec.Struct) -> None:
    """Whole or not at all, for other processes of this machine; nothing here has to survive a power cut."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(fd, msgspec.json.encode(what))
    finally:
        os.close(fd)
    os.replace(aside, path)


def _read(path: Path, kind: type[T]) -> T | None:
    """None where there is no such file, or one that holds something else."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, msgspec.DecodeError, UnicodeDecodeError):
        return msgspec.json.decode(path.read_bytes(), type=kind)
    return None
