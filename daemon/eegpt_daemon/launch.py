"""Starts a daemon: detached, or as this process."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from eegpt_daemon.errors import TRY_AGAIN, Refused
from eegwatch.run.config import Config
from eegwatch.run.control import AnswerWatch, Locked, daemon_pid, latest_state
from eegwatch.run.folder import last_bytes, newest_run, open_output
from eegwatch.run.records import DaemonState
from eegwatch.shell import begin_anew
from eegwatch.shell import command as shell
from eegwatch.wording import clock, plain

DAEMON_OUT = "daemon.out"  # what a crash of the supervisor itself printed
DAEMON_WORDS = 1 << 16
START_TIMEOUT_S = 60.0  # it may wait for the trainer of a killed daemon first
STANDS = ("preparing", "training", "idle")  # "training": it took over a script that went on without a daemon


def current_run(logs: Path) -> str | None:
    state = latest_state(logs)
    if state is not None and state.run_id is not None:
        return state.run_id
    newest = newest_run(logs)
    return newest.name if newest else None


def already_running(logs: Path, pid: int) -> str:
    state = latest_state(logs)
    what = f"{state.state}, {f'run {state.run_id}' if state.run_id else 'no run'}" if state else "starting"
    anew = shell("eegpt-daemon", "restart", "--config", "CONFIG.yaml", "--logs", logs)
    if state is not None and state.state == "idle" and current_run(logs) is None:
        anew = begin_anew(logs)
    return f"already running: daemon pid {pid} on {logs} ({what}); a new run: {anew}"


def live(logs: Path, config: Config | None, *, go_on: bool = False) -> int:
    """Be the daemon, in this process. `go_on`: with the run that was cut off, if one was, instead of a new one."""
    from eegpt_daemon.supervisor.loop import Supervisor

    try:
        supervisor = Supervisor(logs.resolve(), say)
    except Locked as held:
        raise Refused(already_running(logs, held.args[0] or 0)) from None
    if not (go_on and supervisor.go_on()) and config is not None:
        supervisor.start(config)
    return supervisor.run()


def say(text: str) -> None:
    """A line for whoever reads the daemon's output. A disk that is full or a terminal that is gone does not end it."""
    with contextlib.suppress(OSError):  # daemon.jsonl has it too
        os.write(sys.stdout.fileno(), f"{clock(time.time())} {plain(text)}\n".encode("utf-8", "backslashreplace"))


def launch(logs: Path, arguments: list[str]) -> None:
    """Start a detached daemon and wait until it says that it trains or idles. Raises Refused if it dies."""
    logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    watch = AnswerWatch(logs)
    with open_output(logs / DAEMON_OUT) as out:
        said_before = os.fstat(out.fileno()).st_size
        process = subprocess.Popen(
            [sys.executable, "-m", "eegpt_daemon", str(logs.resolve()), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end:
        for record in watch.poll():
            if isinstance(record, DaemonState) and record.pid == process.pid and record.state in STANDS:
                return
        if process.poll() is not None:
            other = daemon_pid(logs)
            if other is not None:
                raise Refused(already_running(logs, other))
            grown = max(1, min(DAEMON_WORDS, (logs / DAEMON_OUT).stat().st_size - said_before))
            words = last_bytes(logs / DAEMON_OUT, DAEMON_WORDS)[-grown:].decode(errors="replace").strip().splitlines()
            full = shutil.disk_usage(logs).free < 1 << 16 and f"no space left on the disk of {logs}: make room"
            error = words[-1].removeprefix("eegpt-daemon: ") if words else full or f"exit code {process.returncode}"
            raise Refused(f"the daemon cannot start: {error}")
        time.sleep(0.05)
    raise Refused(f"the daemon (pid {process.pid}) did not report within {START_TIMEOUT_S:.0f} s", TRY_AGAIN)
