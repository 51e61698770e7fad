"""The test session's end of the zygote (tests/e2e/zygote.py): starts one at first use, and holds what it forks."""

from __future__ import annotations

import array
import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any

from tests.patience import PATIENCE_S

ROOT = Path(__file__).parents[2]
ADOPTS = "EEGWATCH_ADOPTS"  # set: the zygote adopts what it forked when its parent has ended, so that it is counted


class Zygote:
    """One a session. It computes nothing, so that what it forks is as good as new."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="zygote-")
        self._socket = Path(self._folder.name) / "socket"
        command = [sys.executable, "-m", "tests.e2e.zygote", str(self._socket)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, start_new_session=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    @property
    def pid(self) -> int:
        return self._process.pid

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self._socket))
        return connection

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=PATIENCE_S)
        self._folder.cleanup()


_zygote: Zygote | None = None


def zygote() -> Zygote:
    global _zygote
    if _zygote is None:
        _zygote = Zygote()
        atexit.register(_zygote.close)
    return _zygote


def zygote_pid() -> int | None:
    """None where no test of this session has needed it yet."""
    return _zygote.pid if _zygote is not None else None


class Forked:
    """A process that the zygote forked: the part of subprocess.Popen that tests use."""

    def __init__(self, command: list[str], streams: tuple[int, int, int], session: bool) -> None:
        self.args = command
        self.returncode: int | None = None
        self._connection = zygote().connect()
        self._heard = b""
        request = {"command": command, "env": dict(os.environ), "cwd": os.getcwd(), "session": session}
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", streams).tobytes())
        line = json.dumps(request).encode() + b"\n"
        self._connection.sendall(line[self._connection.sendmsg([line], [rights]) :])
        word, number = self._line().split()
        assert word == "pid"
        self.pid = int(number)

    def _line(self) -> str:
        while b"\n" not in self._heard:
            data = self._connection.recv(1 << 10)
            if not data:
                raise EOFError("the zygote is gone")
            self._heard += data
        line, self._heard = self._heard.split(b"\n", 1)
        return line.decode()

    def poll(self) -> int | None:
        try:
            return self.wait(timeout=0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, negative for a signal; raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            self._connection.settimeout(None if timeout is None else max(timeout, 1e-6))
            try:
                self.returncode = int(self._line().removeprefix("exit "))
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0) from None
            self._connection.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def cold() -> bool:
    """As a user starts them, each with its imports, two to six seconds a process: on the nights with the long forms."""
    return bool(os.environ.get("EEGWATCH_COLD") or os.environ.get("EEGWATCH_FULL"))


def start(
    command: list[str], stdin: IO[Any] | int, stdout: IO[Any], stderr: IO[Any], *, session: bool = False
) -> subprocess.Popen[bytes] | Forked:
    """One of `python -m eegpt_daemon…`, in this environment and folder."""
    if cold():
        return subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=session)
    return Forked(
        command, (stdin if isinstance(stdin, int) else stdin.fileno(), stdout.fileno(), stderr.fileno()), session
    )


def run(command: list[str], timeout: float) -> subprocess.CompletedProcess[str]:
    """As subprocess.run with its output captured; what takes longer is killed and raises subprocess.TimeoutExpired."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors, open(os.devnull) as nothing:
        process = start(command, nothing, out, errors)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        out.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(command, process.wait(), out.read().decode(), errors.read().decode())


def train(folder: Path, attempt: str, kill_after: float | None) -> int:
    """One attempt of a trainer alone; killed after so many seconds, or left to end. Returns its exit code."""
    command = [sys.executable, "-m", "eegpt_daemon.trainer", str(folder), attempt]
    orders, held = os.pipe()  # open while the trainer lives: a standard input that ends is a supervisor that is gone
    with tempfile.TemporaryDirectory() as parent, (folder / "trainer.log").open("ab") as log:
        pipe = Path(parent) / "status"
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDWR)
        try:
            process = start([*command, str(pipe)], orders, log, log)
            if kill_after is not None:
                time.sleep(kill_after)
                process.kill()
            return process.wait()
        finally:
            for descriptor in (orders, held, reader):
                os.close(descriptor)
