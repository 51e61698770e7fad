"""Real daemons, real trainers: a wrapper around the command line, and readers of what they wrote.

They are forked from a process that has imported torch (tests/e2e/zygote.py). `EEGWATCH_COLD=1` executes each anew."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from eegwatch.run.control import daemon_pid
from eegwatch.run.folder import newest_run
from tests.e2e import warm
from tests.patience import PATIENCE_S

PATIENCE = PATIENCE_S
LOOKS = 5  # waits of a daemon's: its sleeps, and at most one write of a sign of life among them


def whole_lines(path: Path, torn: int = 0) -> list[dict[str, Any]]:
    """The records of a log that is being written: a last line without its newline is not there yet.

    `torn`: so many lines may be cut, by a disk that was full.
    """
    text = path.read_text() if path.exists() else ""
    records = []
    for line in text[: text.rfind("\n") + 1].splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            torn -= 1
            if torn < 0:
                raise
    return records


class Daemon:
    """`eegpt-daemon` on a log root of its own."""

    def __init__(self, logs: Path, torn: int = 0) -> None:
        self.logs, self.torn = logs, torn

    def cli(self, *words: str, code: int | None = 0, timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "eegpt_daemon.cli", words[0], "--logs", str(self.logs), *words[1:]]
        done = warm.run(command, timeout)
        if code is not None:
            assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done

    def start(self, config: Path) -> None:
        """`eegpt-daemon start` without the preflight, which takes seconds."""
        self.cli("start", "--no-check", "--config", str(config))

    def begin(self, *words: str, until: str | None = None) -> subprocess.Popen[bytes] | warm.Forked:
        """A daemon alone, as systemd starts it, as far as its lock: what is written from now on is said to it.

        `until`: as far as its own word that this is its state.
        """
        self.logs.mkdir(mode=0o700, exist_ok=True)
        command = [sys.executable, "-m", "eegpt_daemon", str(self.logs), *words]
        with (self.logs / "out").open("ab") as out, open(os.devnull) as nothing:
            begun = warm.start(command, nothing, out, out, session=True)
        self.wait(lambda: self.pid == begun.pid)
        if until is not None:
            log = self.logs / "daemon.jsonl"
            own = {"pid": begun.pid, "state": until}
            self.wait(lambda: any(own.items() <= record.items() for record in whole_lines(log, self.torn)))
        return begun

    def begin_idle(self) -> subprocess.Popen[bytes] | warm.Forked:
        """The same, up to the word that it is idle: it has settled what an earlier one left."""
        return self.begin(until="idle")

    @property
    def pid(self) -> int | None:
        return daemon_pid(self.logs)

    @property
    def run(self) -> Path:
        found = newest_run(self.logs)
        assert found is not None
        return found

    def records(self, kind: str | None = None, run: Path | None = None) -> list[dict[str, Any]]:
        lines = whole_lines((run or self.run) / "run.jsonl", self.torn)
        return [r for r in lines if kind is None or r["type"] == kind]

    def answers(self, command_id: str | None = None) -> list[dict[str, Any]]:
        lines = whole_lines(self.logs / "daemon.jsonl", self.torn)
        return [r for r in lines if r["type"] == "command" and command_id in (None, r["id"])]

    def states(self) -> list[str]:
        lines = whole_lines(self.logs / "daemon.jsonl", self.torn)
        seen = [r["state"] for r in lines if r["type"] == "daemon"]
        return [state for i, state in enumerate(seen) if i == 0 or seen[i - 1] != state]

    def say(self, **command: Any) -> int:
        """Append a control line as `echo` would; returns its byte offset."""
        path = self.logs / "control.jsonl"
        offset = path.stat().st_size if path.exists() else 0
        with path.open("a") as file:
            file.write(json.dumps(command) + "\n")
        path.chmod(0o600)
        return offset

    def wait(self, what: Callable[[], Any], patience: float = PATIENCE) -> Any:
        end = time.monotonic() + patience
        while time.monotonic() < end:
            value = what()
            if value:
                return value
            time.sleep(0.05)
        raise AssertionError(f"waited {patience} s in vain; states {self.states()}, log tail:\n{self._tail()}")

    def wait_for_looks(self) -> None:
        """Until an idle daemon has looked at its files anew: it sleeps once between two looks."""
        assert self.pid is not None
        process = psutil.Process(self.pid)
        before = process.num_ctx_switches().voluntary
        self.wait(lambda: process.num_ctx_switches().voluntary >= before + LOOKS)

    def wait_for_step(self, step: int) -> None:
        def reached() -> bool:
            try:
                steps = self.records("step")
            except (AssertionError, FileNotFoundError, json.JSONDecodeError):
                return False
            return bool(steps) and steps[-1]["step"] >= step

        self.wait(reached)

    def wait_for_end(self) -> dict[str, Any]:
        self.wait(lambda: (self.records() or [{}])[-1].get("type") == "end")
        return self.records()[-1]

    def trainer(self) -> psutil.Process:
        assert self.pid is not None
        return self.wait(lambda: psutil.Process(self.pid).children())[0]

    def _tail(self) -> str:
        found = newest_run(self.logs)
        path = found / "trainer.log" if found else None
        return path.read_text()[-2000:] if path and path.exists() else "no trainer.log"

    def kill(self) -> None:
        pid = self.pid
        if pid is None:
            return
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        for process in processes:
            try:
                os.kill(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        psutil.wait_procs(processes, timeout=PATIENCE)
