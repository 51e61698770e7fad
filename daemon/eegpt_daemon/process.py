"""The trainer process as the supervisor holds it: started detached, ordered through a pipe, stopped with escalation."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from eegpt_daemon.trainer.attempt import Attempt, Order, Phase
from eegwatch.run.folder import TRAINER_LOG

STOP_GRACE_S = 30.0  # for the step, an evaluation and a checkpoint; then SIGTERM, which asks the same
TERM_GRACE_S = 15.0  # then SIGKILL: the last checkpoint is what is left


class TrainerProcess:
    """One trainer process. `poll` reads what it says; `stop` asks, `escalate` insists."""

    def __init__(self, folder: Path, attempt: Attempt) -> None:
        self.folder, self.attempt = folder, attempt
        self.phase = Phase(state="starting", progress=0)
        self.stopping: str | None = None
        self._stop_asked: float | None = None
        self._signals: list[signal.Signals] = []
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(read_end, False)
        self._status, self._buffer = read_end, b""
        command = [sys.executable, "-m", "eegpt_daemon.trainer", str(folder), msgspec.json.encode(attempt).decode()]
        log = os.open(folder / TRAINER_LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._process = subprocess.Popen(
                [*command, str(write_end)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=[write_end],
                start_new_session=True,  # Ctrl-C and a closing terminal reach the supervisor alone
            )
        finally:
            os.close(log)
            os.close(write_end)

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
                self._process.send_signal(what)  # our own unreaped child: its pid cannot have been reused
                return what
        return None

    def ended(self) -> int | None:
        """The exit code, or None while it runs; negative for a signal."""
        return self._process.poll()

    def close(self) -> None:
        """Let go of the pipes of an ended process."""
        os.close(self._status)
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
