"""The trainer process as the supervisor holds it: started detached, ordered through a pipe, stopped with escalation."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import psutil

from eegpt_daemon.trainer.attempt import Attempt, Order, Phase
from eegwatch.run.config import Distributed
from eegwatch.run.folder import TRAINER_LOG

STOP_GRACE_S = 30.0  # for the step, an evaluation and a checkpoint; then SIGTERM, which asks the same
TERM_GRACE_S = 15.0  # then SIGKILL: the last checkpoint is what is left


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


class TrainerProcess:
    """One trainer process. `poll` reads what it says; `stop` asks, `escalate` insists."""

    def __init__(self, folder: Path, attempt: Attempt, distributed: Distributed) -> None:
        """Raises OSError when no process can be started."""
        self.folder, self.attempt = folder, attempt
        self.phase = Phase(state="starting", progress=0)
        self.stopping: str | None = None
        self._stop_asked: float | None = None
        self._signals: list[signal.Signals] = []
        self._pipe = Path(tempfile.mkdtemp(prefix="eegpt-daemon-")) / "status"
        os.mkfifo(self._pipe, 0o600)
        self._status, self._buffer = os.open(self._pipe, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), b""
        command = [*launcher(distributed, f"{folder.name}-{attempt.attempt}"), "-m", "eegpt_daemon.trainer"]
        command += [str(folder), msgspec.json.encode(attempt).decode(), str(self._pipe)]
        log = os.open(folder / TRAINER_LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C and a closing terminal reach the supervisor alone
            )
        finally:
            os.close(log)

    @property
    def pid(self) -> int:
        return self._process.pid

    def phases(self) -> list[Phase]:
        """What the trainer said since the last call, in order."""
        try:
            while data := os.read(self._status, 1 << 16):
                self._buffer += data
        except BlockingIOError:
            pass  # nothing more at present
        *lines, self._buffer = self._buffer.split(b"\n")
        phases = [msgspec.json.decode(line, type=Phase) for line in lines]
        self.phase = phases[-1] if phases else self.phase
        return phases

    def order(self, order: Order) -> bool:
        """Send an order; False if the trainer is no longer there to hear it."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode(order) + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return False
        return True

    def stop(self, reason: str) -> None:
        """Ask for a checkpoint at the next step boundary and an `end` record with this reason."""
        if self.stopping is None:
            self.stopping = reason
            self._stop_asked = time.monotonic()
            self.order(Order(order="stop", reason=reason))

    def escalate(self) -> signal.Signals | None:
        """If a stop hangs, send the next signal and return it: SIGTERM after 30 s, SIGKILL 15 s later."""
        if self._stop_asked is None or self._process.poll() is not None:
            return None
        waited = time.monotonic() - self._stop_asked
        due = [(STOP_GRACE_S, signal.SIGTERM), (STOP_GRACE_S + TERM_GRACE_S, signal.SIGKILL)]
        for after, what in due:
            if waited > after and what not in self._signals:
                self._signals.append(what)
                workers = psutil.Process(self.pid).children(recursive=True) if what == signal.SIGKILL else []
                self._process.send_signal(what)  # our own unreaped child: its pid cannot have been reused
                for worker in workers:  # readers, or the processes of torch's launcher, which would outlive it
                    with contextlib.suppress(psutil.NoSuchProcess):
                        worker.kill()
                return what
        return None

    def ended(self) -> int | None:
        """The exit code that the trainer means, or None while it runs; negative for a signal."""
        code = self._process.poll()
        return self.phase.code if code is not None and self.phase.code is not None else code

    def close(self) -> None:
        """Let go of the pipes of an ended process."""
        os.close(self._status)
        shutil.rmtree(self._pipe.parent, ignore_errors=True)
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass  # an order was still in the buffer of a trainer that died: it is answered as failed

    def last_words(self, lines: int = 3) -> str:
        """The end of trainer.log, on one line."""
        try:
            text = (self.folder / TRAINER_LOG).read_bytes()[-4096:].decode("utf-8", "replace")
        except OSError:
            return ""
        return " | ".join(line.strip() for line in text.splitlines()[-lines:] if line.strip())


def how_it_ended(code: int) -> str:
    """An exit code in words."""
    if code < 0:
        name = signal.Signals(-code).name
        hint = " (the kernel's out-of-memory killer sends it too)" if name == "SIGKILL" else ""
        return f"killed by {name}{hint}"
    meaning = {75: "try again", 78: "wrong configuration"}.get(code)
    return f"exit code {code}" + (f" ({meaning})" if meaning else "")
