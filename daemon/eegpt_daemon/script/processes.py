"""The processes of a script: its process group and all descendants, in any session.

torch's launcher starts each worker in a separate session, and a killed parent leaves its data loaders behind. On
Linux the runner is made the reaper of its descendants (prctl, PR_SET_CHILD_SUBREAPER), so that an orphan becomes its
child and can be found; elsewhere only what still has its parent is found.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from eegwatch.steering.daemon_attempt import RUN

_PR_SET_CHILD_SUBREAPER = 36
GRACE_S = 3.0  # between SIGTERM and SIGKILL for what a dead script has left behind


def adopt_orphans() -> None:
    """Make this process the parent of its orphaned descendants, where the system can."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # a libc without prctl
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants() -> list[psutil.Process]:
    """Living processes that this one has started, directly or not. The dead among its own children are reaped."""
    living = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                living.append(process)
            elif process.ppid() == os.getpid():
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(process.pid, os.WNOHANG)
    return living


def of_run(folder: Path) -> list[psutil.Process]:
    """Processes that were started for this run, found by their environment: left by a runner that was killed."""
    processes = []
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid not in own and process.environ().get(RUN) == str(folder):
                processes.append(process)
    return processes


def end_all(processes: list[psutil.Process]) -> None:
    """SIGTERM, then SIGKILL for what lives on."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        end = time.monotonic() + GRACE_S
        while time.monotonic() < end and (processes := [p for p in processes if _lives(p)]):
            descendants()  # the dead among them are reaped
            time.sleep(0.05)


def deaf(number: signal.Signals) -> bool:
    """Do all programs of the script that train ignore this signal, as what a shell starts with `&` ignores SIGINT?

    A program that trains has no other below it, but for its own data loaders. False where the system does not say.
    """
    trains = [process for process in descendants() if _programs_below(process) == 0]
    return bool(trains) and all(_ignores(process, number) for process in trains)


def _programs_below(process: psutil.Process) -> int:
    """Number of descendants that execute another program: a process forked by this one has its command line."""
    with contextlib.suppress(psutil.Error):
        own = process.cmdline()
        return sum(below.cmdline() != own for below in process.children(recursive=True))
    return 1


def _ignores(process: psutil.Process, number: signal.Signals) -> bool:
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = Path(f"/proc/{process.pid}/status").read_text()
        ignored = next(line for line in status.splitlines() if line.startswith("SigIgn:"))
        return bool(int(ignored.split()[1], 16) >> (number - 1) & 1)
    return False


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def send(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """A signal to the script's group; SIGKILL to all that descends from it, asked before it loses its parent."""
    below = descendants() if number == signal.SIGKILL else []
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)  # it leads its own session: the group has its pid
    for worker in below:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.kill()
    for stopped in descendants():  # by SIGSTOP or Ctrl-Z: it hears a signal when it goes on
        with contextlib.suppress(psutil.NoSuchProcess):
            if stopped.status() == psutil.STATUS_STOPPED:
                stopped.send_signal(signal.SIGCONT)
