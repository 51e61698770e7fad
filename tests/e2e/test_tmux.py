"""A new user's first minutes in a real terminal: tmux runs the monitor, keys are pressed, the screen is read."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import Daemon

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
ConfigFile = Callable[..., Path]


class Terminal:
    """One tmux server of its own, one pane."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "tmux"
        self.folder = folder

    def tmux(self, *words: str) -> str:
        command = ["tmux", "-S", str(self.socket), "-f", "/dev/null", *words]
        # pytest's plugins set COLUMNS and LINES, which a terminal program believes more than its terminal
        env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20, env=env).stdout

    def open(self, command: str, width: int, height: int) -> None:
        shell = f"{command}; echo exit code $?; sleep 60"  # what a user sees when the monitor has given the screen back
        self.tmux("new-session", "-d", "-x", str(width), "-y", str(height), "-s", "t", shell)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.tmux("send-keys", "-t", "t", key)
            time.sleep(0.15)

    def type(self, text: str) -> None:
        self.tmux("send-keys", "-t", "t", "-l", text)

    def text(self) -> str:
        return self.tmux("capture-pane", "-p", "-t", "t")

    def wait(self, *words: str, patience: float = 40.0, absent: bool = False) -> str:
        end = time.monotonic() + patience
        while time.monotonic() < end:
            text = self.text()
            if all((word in text) != absent for word in words):
                return text
            time.sleep(0.1)
        raise AssertionError(f"waited {patience} s for {words} (absent={absent}); the screen says:\n{self.text()}")


@pytest.fixture
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    it = Terminal(tmp_path_factory.mktemp("tmux"))
    yield it
    subprocess.run(["tmux", "-S", str(it.socket), "kill-server"], capture_output=True, check=False)


def eegwatch(path: Path) -> str:
    return f"{sys.executable} -m eegwatch.cli {path}"


def test_watch_stop_resume_restart_from_the_keyboard(
    daemon: Daemon, terminal: Terminal, config_file: ConfigFile
) -> None:
    path = config_file(top={"inject": "scheduler_stepped_per_epoch"}, max_epochs=300, pace_steps_per_s=30)
    daemon.cli("start", "--config", str(path))
    terminal.open(eegwatch(daemon.logs), 80, 24)
    terminal.wait("LR FROZEN at 1.20e-04 since step 1", "stepped once per epoch", "✖ LR moves", "┤", "injected: sch")
    terminal.wait("learning rate", "loss", "● training")

    terminal.press("s")
    terminal.wait("Stop", "Enter  yes")
    terminal.press("Enter")
    terminal.wait("stop: done: at step", "○ stopped")
    assert daemon.pid is not None

    terminal.press("m")
    terminal.wait("resume this run", "rejoins the declared schedule")
    terminal.type("3e-4")
    terminal.wait("follows your LR: 3.00e-04", "--lr 0.0003 --then anneal")
    terminal.press("Enter")
    terminal.wait("LR 0.0003, anneal: done: LR 3.00e-04", "● training", "✔ LR moves")
    terminal.wait("LR FROZEN", absent=True)

    terminal.tmux("resize-window", "-t", "t", "-x", "150", "-y", "45")
    terminal.wait("checklist", "expected / observed", "manual anneal")
    for width, height in ((60, 15), (200, 60), (80, 24), (120, 40)):
        terminal.tmux("resize-window", "-t", "t", "-x", str(width), "-y", str(height))
        time.sleep(0.1)

    first = daemon.run.name
    terminal.press("r")
    terminal.wait("start a fresh run from step 0")
    terminal.press("Enter")
    terminal.wait("fresh restart: done", "● training")
    terminal.wait(first, absent=True)
    terminal.wait("✔ LR moves")

    daemon.trainer().send_signal(signal.SIGKILL)
    terminal.wait("✖ failed", "SIGKILL", patience=15)
    assert daemon.pid is not None
    os.kill(daemon.pid, signal.SIGKILL)
    terminal.wait("✖ dead", patience=15)
    terminal.press("r")
    terminal.wait("no daemon is alive", "eegpt-daemon start")
    terminal.press("q")
    terminal.wait("exit code 0", patience=10)


def test_it_works_in_256_colours_without_a_run(terminal: Terminal, tmp_path: Path) -> None:
    logs = tmp_path / "empty"
    logs.mkdir()
    terminal.open(f"env -u COLORTERM TERM=screen-256color {eegwatch(logs)}", 80, 24)
    terminal.wait("no run in", "eegpt-daemon start", patience=20)
    terminal.press("q")
    terminal.wait("exit code 0", patience=10)
