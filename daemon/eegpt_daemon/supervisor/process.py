"""The trainer process as the supervisor holds it: started detached, ordered through a pipe, stopped with escalation."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil

from eegpt_daemon.link import ORPHAN_PATIENCE_S, RUN_LOCK, Attempt, Order, Phase
from eegwatch.run import config as configuration
from eegwatch.run.config import Distributed
from eegwatch.run.control import daemon_pid, lock_holder
from eegwatch.run.folder import CONFIG, TRAINER_LOG, aside_of, last_bytes, left_behind, newest_run, open_output

RENDEZVOUS = "attempt.json"
PIPE_PREFIX = "eegpt-daemon-"
NO_SPACE = os.strerror(errno.ENOSPC)
FULL_BYTES = 1 << 16  # less is no room for a traceback
LAST_WORDS_BYTES = 4096  # of trainer.log, which may be gigabytes of warnings
# A stop that hangs: seconds after the order, and the signal. The first SIGTERM asks for what the order asked, the
# second to leave at once without a checkpoint; after SIGKILL the last checkpoint is what is left.
Escalation = tuple[tuple[float, signal.Signals], ...]
CALM: Escalation = ((30.0, signal.SIGTERM), (45.0, signal.SIGTERM), (52.0, signal.SIGKILL))
HURRY: Escalation = ((12.0, signal.SIGTERM), (18.0, signal.SIGTERM), (24.0, signal.SIGKILL))  # 30 s to live, by custom
HUNG: Escalation = ((5.0, signal.SIGTERM), (11.0, signal.SIGTERM), (13.0, signal.SIGKILL))


def launcher(distributed: Distributed, rendezvous: str, node_rank: int = 0) -> list[str]:
    """Python, or torch's own launcher (torchrun) where several processes train together."""
    if distributed.nproc_per_node * distributed.nnodes == 1:
        return [sys.executable]
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={distributed.nproc_per_node}"]
    if distributed.nnodes == 1:
        return [*command, "--standalone", "--max-restarts=0"]
    return [
        *command,
        f"--nnodes={distributed.nnodes}",
        f"--node-rank={node_rank}",  # the daemon's node is node 0: rank 0 must hear the supervisor
        "--rdzv-backend=static",
        f"--rdzv-endpoint={distributed.rdzv_endpoint}",
        f"--rdzv-id={rendezvous}",
        "--max-restarts=0",
    ]


def join_attempts(logs: Path, node_rank: int, say: Callable[[str], None]) -> int:
    """On another node: start its processes of every attempt that the daemon of `logs` begins, until that daemon ends.

    The log root lies on a file system that both nodes share. Returns 0; 1 if a launcher failed.
    """
    done: set[tuple[str, str]] = set()
    code = 0
    while daemon_pid(logs) is not None or not done:
        run = newest_run(logs)
        try:
            content = (run / RENDEZVOUS).read_text(encoding="utf-8") if run else ""
        except FileNotFoundError:
            content = ""
        if run is None or not content or (run.name, content) in done or daemon_pid(logs) is None:
            time.sleep(0.5)
            continue
        done.add((run.name, content))
        attempt = msgspec.json.decode(content, type=Attempt)
        distributed = configuration.load(run / CONFIG, expand=False).distributed
        say(f"joining attempt {attempt.attempt} of {run.name} as node {node_rank}")
        command = launcher(distributed, f"{run.name}-{attempt.attempt}", node_rank)
        code |= subprocess.run([*command, "-m", "eegpt_daemon.trainer", str(run), content, os.devnull]).returncode
    return int(code != 0)


def _phase(line: bytes) -> Phase | None:
    """The phase in a line of the pipe; None for other lines (another program of this user may write to the pipe)."""
    try:
        return msgspec.json.decode(line, type=Phase)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def folder_of_the_pipe() -> Path:
    """A folder of our own, named after this process, so that a later daemon knows that it is left behind."""
    suffix = aside_of(Path("x")).name.removeprefix(".x")
    return Path(tempfile.mkdtemp(prefix=PIPE_PREFIX, suffix=suffix))


def sweep() -> None:
    """Remove the folders that daemons of this user which are dead have left in the temporary folder."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PIPE_PREFIX}*.tmp"):
        if folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.geteuid() and left_behind(folder):
            shutil.rmtree(folder, ignore_errors=True)


class TrainerProcess:
    """One trainer process. `poll` reads what it says; `stop` asks, `escalate` insists."""

    def __init__(self, folder: Path, attempt: Attempt, distributed: Distributed) -> None:
        """Raises OSError when no process can be started."""
        self._prepare(folder, attempt)
        command = [*launcher(distributed, f"{folder.name}-{attempt.attempt}"), "-m", "eegpt_daemon.trainer"]
        encoded = msgspec.json.encode(attempt).decode()
        with open_output(folder / TRAINER_LOG) as log, contextlib.ExitStack() as unless_it_starts:
            self._pipe = folder_of_the_pipe() / "status"
            unless_it_starts.callback(shutil.rmtree, self._pipe.parent, ignore_errors=True)
            os.mkfifo(self._pipe, 0o600)
            self._status = os.open(self._pipe, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            unless_it_starts.callback(os.close, self._status)
            if distributed.nnodes > 1:  # for `eegpt-daemon join` on the other nodes
                (folder / RENDEZVOUS).write_text(encoded, encoding="utf-8")
            self._process = subprocess.Popen(
                [*command, str(folder), encoded, str(self._pipe)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C and a closing terminal reach the supervisor alone
            )
            unless_it_starts.pop_all()

    def _prepare(self, folder: Path, attempt: Attempt) -> None:
        self.folder, self.attempt = folder, attempt
        self.phase = Phase(state="starting", progress=0)
        self.stopping: str | None = None
        self.insisted: str | None = None
        self._stop_asked: float | None = None
        self._escalation: list[tuple[float, signal.Signals]] = []
        self._left_alone: float | None = None
        self._buffer = b""

    @property
    def pid(self) -> int:
        return self._process.pid

    def phases(self) -> list[Phase]:
        """The phases that the trainer sent since the last call, in order."""
        try:
            while data := os.read(self._status, 1 << 16):
                self._buffer += data
        except BlockingIOError:
            pass  # nothing more at present
        *lines, self._buffer = self._buffer.split(b"\n")
        phases = [phase for line in lines if (phase := _phase(line)) is not None]
        self.phase = phases[-1] if phases else self.phase
        return phases

    def order(self, order: Order) -> bool:
        """Send an order; False if the trainer has ended."""
        assert self._process.stdin is not None
        if self._process.stdin.closed:
            return False
        try:
            self._process.stdin.write(msgspec.json.encode(order) + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return False
        return True

    def stop(self, reason: str, escalation: Escalation = CALM) -> None:
        """Ask for a checkpoint at the next step boundary and an `end` record with this reason; later, insist."""
        if self.stopping is None:
            self.stopping = reason
            self._stop_asked = time.monotonic()
            self._escalation = list(escalation)
            self.order(Order(order="stop", reason=reason))
        elif self._stop_asked is not None and self._escalation:  # asked again, by somebody with less time
            waited = time.monotonic() - self._stop_asked
            sooner = [(waited + after, what) for after, what in escalation][-len(self._escalation) :]
            self._escalation = [min(pair) for pair in zip(self._escalation, sooner, strict=True)]

    def dump_stack(self) -> None:
        """Have the leading process write the stack of each of its threads to trainer.log (faulthandler, SIGUSR1)."""
        leader = lock_holder(self.folder / RUN_LOCK)
        if leader is not None and leader != os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(leader, signal.SIGUSR1)  # by the kernel's word it holds this run's lock now

    def escalate(self) -> bool:
        """If a stop hangs, send the next signal that is due; `insisted` says which."""
        if self._stop_asked is None or self._process.poll() is not None:
            return False
        waited = time.monotonic() - self._stop_asked
        if self._escalation:
            after, what = self._escalation[0]
            if waited > after:
                self._escalation.pop(0)
                workers = psutil.Process(self.pid).children(recursive=True) if what == signal.SIGKILL else []
                self._process.send_signal(what)  # our own unreaped child: its pid cannot have been reused
                for worker in workers:  # readers, or the processes of torch's launcher, which would outlive it
                    with contextlib.suppress(psutil.NoSuchProcess):
                        worker.kill()
                self.insisted = f"the trainer does not stop: {what.name} sent to pid {self.pid}"
                return True
        return False

    def ended(self) -> int | None:
        """The trainer's exit code, or None while it runs; negative for a signal.

        If only torch's launcher died, rank 0 lives until its supervisor's pipe closes.
        """
        code = self._process.poll()
        if code is None:
            return None
        self._close_orders()
        holder = lock_holder(self.folder / RUN_LOCK)
        if holder is not None and holder != os.getpid():
            self._left_alone = self._left_alone or time.monotonic()
            if time.monotonic() - self._left_alone < ORPHAN_PATIENCE_S:
                return None
            with contextlib.suppress(ProcessLookupError):
                os.kill(holder, signal.SIGKILL)  # by the kernel's word it holds this run's lock now
        return code if self.phase.code is None else self.phase.code

    def known_code(self) -> int | None:
        """The exit code of an ended process, None if it is unknown."""
        return self.ended()

    def close(self) -> None:
        """Let go of the pipes of an ended process."""
        os.close(self._status)
        shutil.rmtree(self._pipe.parent, ignore_errors=True)
        (self.folder / RENDEZVOUS).unlink(missing_ok=True)
        self._close_orders()

    def _close_orders(self) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass  # an order was still in the buffer of a trainer that died: it is answered as failed

    def last_words(self, lines: int = 3) -> str:
        """The end of trainer.log, on one line. A full disk cuts a traceback off before its last line: it is named."""
        try:
            text = last_bytes(self.folder / TRAINER_LOG, LAST_WORDS_BYTES).decode("utf-8", "replace")
            full = shutil.disk_usage(self.folder).free < FULL_BYTES
        except OSError:
            return ""
        written = text.splitlines()
        if full and NO_SPACE not in (written or [""])[-1]:
            written.append(NO_SPACE)
        return " | ".join(line.strip() for line in written[-lines:] if line.strip())
