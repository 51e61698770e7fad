"""The supervisor's handle of the runner of a user's script: a child of this daemon, or an adopted process.

A runner outlives the daemon that started it. The next daemon finds it by the lock of its run, and speaks to it by the
named pipe in the run folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import msgspec

from eegpt_daemon.link import ORDERS, RUN_LOCK, Attempt, Order, Phase
from eegpt_daemon.supervisor.process import TrainerProcess, folder_of_the_pipe
from eegwatch.run.control import lock_holder
from eegwatch.run.folder import TRAINER_LOG, open_output

UNKNOWN = 1  # the exit code of an adopted runner that was killed before it said its script's: it did not end by itself


class AdoptedProcess:
    """A runner that another daemon started: as much of subprocess.Popen as its holder needs."""

    def __init__(self, folder: Path, pid: int) -> None:
        self.folder, self.pid = folder, pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """None while it holds the lock of its run; its exit code is not known then, and its `end` record says more."""
        if self.returncode is None and lock_holder(self.folder / RUN_LOCK) != self.pid:
            self.returncode = UNKNOWN
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class ScriptProcess(TrainerProcess):
    """One runner. Orders go by the named pipe `script.orders`, phases come by one of this daemon's own."""

    def __init__(self, folder: Path, attempt: Attempt, adopted: int | None = None) -> None:
        """Start a runner, or with `adopted` take over the one of this pid. Raises OSError."""
        self._prepare(folder, attempt)
        self._last_phases: list[Phase] = []
        with contextlib.ExitStack() as unless_it_starts:
            self._pipe = folder_of_the_pipe() / "status"
            unless_it_starts.callback(shutil.rmtree, self._pipe.parent, ignore_errors=True)
            os.mkfifo(self._pipe, 0o600)
            self._status = os.open(self._pipe, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            unless_it_starts.callback(os.close, self._status)
            if adopted is None:
                encoded = msgspec.json.encode(attempt).decode()
                with open_output(folder / TRAINER_LOG) as log:
                    self._process = subprocess.Popen(
                        [sys.executable, "-m", "eegpt_daemon.script", str(folder), encoded, str(self._pipe)],
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                    )
            else:
                self._process = AdoptedProcess(folder, adopted)  # type: ignore[assignment]
                self.phase = Phase(state="training", progress=0)
                self._send({"order": "attach", "status": str(self._pipe)})
            unless_it_starts.pop_all()

    def order(self, order: Order) -> bool:
        if self._process.poll() is not None:
            return False
        return self._send(msgspec.to_builtins(order))

    def _send(self, message: dict[str, str | None]) -> bool:
        try:
            fd = os.open(self.folder / ORDERS, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False  # nobody reads it: the runner has ended, or has not begun
        try:
            os.write(fd, msgspec.json.encode(message) + b"\n")
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    def dump_stack(self) -> None:
        """A script's stack is not ours to ask for: a Python without faulthandler would die of the signal."""

    def phases(self) -> list[Phase]:
        last, self._last_phases = self._last_phases, []
        return last + super().phases()

    def ended(self) -> int | None:
        code = self._process.poll()
        if code is None:
            return None
        self._last_phases += super().phases()  # its last word may hold the code
        return code if self.phase.code is None else self.phase.code

    def known_code(self) -> int | None:
        """None of an adopted runner that ended without a last word: it was not a child of this daemon."""
        unknown = isinstance(self._process, AdoptedProcess) and self.phase.code is None
        return None if unknown else self.ended()

    def close(self) -> None:
        os.close(self._status)
        shutil.rmtree(self._pipe.parent, ignore_errors=True)

    def _insist(self, number: signal.Signals) -> None:
        self._process.send_signal(number)
