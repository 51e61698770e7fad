"""Processes of the daemon without the seconds of importing torch: a parent that has imported it, and forks.

`python -m tests.e2e.zygote SOCKET`: each connection brings one request, `{"command", "env", "cwd", "session"}` and three descriptors
(standard input, output, error), and gets back `pid N` and, when that process has ended, `exit CODE` (negative for a
signal). The command is one of `python -m eegpt_daemon…`, run by its own entry point. What the child starts in turn that
way (the command line a daemon, a daemon its trainer or torch's launcher, that its workers) is forked as well, and is its
child; anything else is executed as ever. Process ids, sessions, signals, pipes, descriptors and exit codes are real; only
the import is spared. The command line in /proc is the parent's: a test that looks for a process by it sets EEGWATCH_COLD.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import ctypes
import faulthandler
import gc
import importlib
import inspect
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from typing import Any, NoReturn

import eegwatch.run.crash_points
from tests.e2e.warm import ADOPTS

LAUNCHER = "torch.distributed.run"  # of several processes: three imports of torch a job of two
ENTRIES = {
    "eegpt_daemon": "eegpt_daemon.__main__",
    "eegpt_daemon.cli": "eegpt_daemon.cli",
    "eegpt_daemon.script": "eegpt_daemon.script.__main__",
    "eegpt_daemon.trainer": "eegpt_daemon.trainer.__main__",
    "eegpt_daemon.analysis.retrain": "eegpt_daemon.analysis.retrain",
    LAUNCHER: LAUNCHER,
}
# forked where one of ours starts it too. A script's runner and what a daemon starts beside a trainer (`cost`) import
# little, and tests look for them by their command line, which a forked process does not have
FORKED = ("eegpt_daemon", "eegpt_daemon.trainer", "eegpt_daemon.analysis.retrain", LAUNCHER)
BEFOREHAND = (
    "scipy.stats", "eegpt_daemon.trainer.attempt", "eegpt_daemon.supervisor.loop",
    *(module for name, module in ENTRIES.items() if name != LAUNCHER),
)  # fmt: skip
MOST_DESCRIPTORS = 4096
PR_SET_CHILD_SUBREAPER = 36


def entry_of(command: list[str]) -> tuple[str, list[str]] | None:
    """(name of one of ENTRIES, its arguments); None for a command that is not ours. torch's launcher adds `-u`."""
    words = [word for i, word in enumerate(command) if (i, word) != (1, "-u")]
    ours = len(words) > 2 and words[0] == sys.executable and words[1] == "-m" and words[2] in ENTRIES
    return (words[2], words[3:]) if ours else None


def become(command: list[str], descriptors: tuple[int, int, int], *, session: bool = False) -> NoReturn:
    """In a forked child: be the process that executing the command would have made. -1 keeps a descriptor."""
    code = 1
    try:
        if session:
            os.setsid()
        _like_a_new_process(descriptors, unbuffered="-u" in command[:2])
        entry = entry_of(command)
        assert entry is not None
        module = importlib.import_module(ENTRIES[entry[0]])
        sys.modules["__main__"] = module  # what a pool of workers imports again
        sys.argv, sys.orig_argv = [module.__file__ or entry[0], *entry[1]], command
        try:
            code = module.main()
        except SystemExit as leaving:
            if isinstance(leaving.code, str):
                print(leaving.code, file=sys.stderr)
            code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            atexit._run_exitfuncs()
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code or 0)


def _like_a_new_process(descriptors: tuple[int, int, int], *, unbuffered: bool) -> None:
    """What an exec clears: descriptors, handlers of signals, and what modules read from the environment."""
    gc.freeze()  # the parent's objects keep numbers of descriptors that mean something else here
    for target, source in enumerate(descriptors):
        if source not in (-1, target):
            os.dup2(source, target)
    os.closerange(3, MOST_DESCRIPTORS)
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    faulthandler.unregister(signal.SIGUSR1)
    atexit._clear()
    tempfile.tempdir = None
    sys.stdin = open(0, closefd=False)
    sys.stdout = open(1, "w", closefd=False, buffering=1 if unbuffered else -1)
    sys.stderr = open(2, "w", closefd=False, errors="backslashreplace", buffering=1)
    importlib.reload(eegwatch.run.crash_points)


class ForkedPopen(subprocess.Popen):  # type: ignore[type-arg]
    """subprocess.Popen that forks a daemon or a trainer, and executes anything else."""

    def _execute_child(self, *given: Any) -> None:
        bound = inspect.signature(subprocess_execute).bind(self, *given).arguments
        command = [str(word) for word in bound["args"]] if isinstance(bound["args"], list | tuple) else []
        entry = entry_of(command)
        if bound["shell"] or bound["cwd"] is not None or entry is None or entry[0] not in FORKED:
            subprocess_execute(self, *given)
            return
        flush()
        self.pid = os.fork()
        if self.pid == 0:
            if bound["env"] is not None:
                os.environ.clear()
                os.environ.update(bound["env"])
            become(
                command,
                (bound["p2cread"], bound["c2pwrite"], bound["errwrite"]),
                session=bound["start_new_session"],
            )
        self._child_created = True
        self._close_pipe_fds(*(bound[name] for name in PIPES))


PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
subprocess_execute = subprocess.Popen._execute_child  # type: ignore[attr-defined]


def flush() -> None:
    """What is in a buffer would be written twice: by the parent and by the child."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()


def received(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """One request and its three descriptors."""
    text, descriptors = b"", array.array("i")
    while not text.endswith(b"\n"):
        data, ancillary, _, _ = connection.recvmsg(1 << 16, socket.CMSG_LEN(3 * descriptors.itemsize))
        if not data:
            raise EOFError("a request that ended early")
        text += data
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(content)
    return json.loads(text), list(descriptors)


def fork_one(connection: socket.socket) -> int:
    request, descriptors = received(connection)
    flush()
    child = os.fork()
    if child == 0:
        os.environ.clear()
        os.environ.update(request["env"])
        os.chdir(request["cwd"])
        become(request["command"], (descriptors[0], descriptors[1], descriptors[2]), session=request["session"])
    for descriptor in descriptors:
        os.close(descriptor)
    connection.sendall(f"pid {child}\n".encode())
    return child


def main() -> None:
    for name in BEFOREHAND:
        importlib.import_module(name)
    subprocess.Popen = ForkedPopen  # type: ignore[misc]
    importlib.import_module(LAUNCHER)  # it takes the name from subprocess, so it comes after
    if os.environ.get(ADOPTS):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    server = socket.socket(socket.AF_UNIX)
    server.bind(sys.argv[1])
    server.listen(64)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, _look_up)
    signal.set_wakeup_fd(wake)
    children: dict[int, socket.socket] = {}
    print("ready", flush=True)
    while True:
        ready, _, _ = select.select([server, woken, 0], [], [])
        if 0 in ready:
            return  # the test session is over
        if woken in ready:
            os.read(woken, 1 << 12)
        if server in ready:
            connection, _ = server.accept()
            children[fork_one(connection)] = connection
        reap(children)


def _look_up(number: int, frame: object) -> None:
    """A handler alone makes the interpreter write to the wakeup descriptor."""


def reap(children: dict[int, socket.socket]) -> None:
    while True:
        try:
            child, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if child == 0:
            return
        connection = children.pop(child, None)
        if connection is None:  # adopted: its parent, which was forked here, has ended before it
            continue
        with contextlib.suppress(OSError):  # nobody may wait for it any more
            connection.sendall(f"exit {os.waitstatus_to_exitcode(status)}\n".encode())
        connection.close()


if __name__ == "__main__":
    main()
