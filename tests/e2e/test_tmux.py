"""A new user's first minutes in a real terminal: tmux runs the monitor, keys are pressed, the screen is read."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from eegwatch.run.records import End
from tests.conftest import LogWriter, unwrapped
from tests.e2e.processes import PATIENCE, Daemon

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
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE, env=env).stdout

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

    def wait(self, *words: str, patience: float = PATIENCE, absent: bool = False) -> str:
        end = time.monotonic() + patience
        while time.monotonic() < end:
            text = self.text()
            if all((word in text or word in unwrapped(text)) != absent for word in words):
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
    # stuck at first; off its schedule where the screen comes after the first epochs
    terminal.wait("since step 1", "stepped once per epoch", "✖ LR moves", "┤", "injected: sch")
    terminal.wait("learning rate", "loss", "● training")

    terminal.press("s")
    terminal.wait("Stop", "Enter  yes")
    terminal.press("Enter")
    terminal.wait("stop: done: at step", "○ stopped")
    assert daemon.pid is not None

    terminal.press("m")
    terminal.wait("resume this run", "resume on the planned curve")
    terminal.type("3e-4")
    terminal.wait("resume at your LR: 3.00e-4", "--lr 3e-4 --then anneal")
    terminal.press("Enter")
    terminal.wait("resume at LR 3e-4, then anneal: done: LR 3.00e-4", "● training")
    terminal.wait("✖ LR", absent=True)

    terminal.tmux("resize-window", "-t", "t", "-x", "150", "-y", "45")
    terminal.wait("checklist", "expected / observed", "manual anneal")

    parent = daemon.run.name
    terminal.press("m", "Tab", "Tab")
    terminal.type("again")
    terminal.wait("new run …-again: this run is stopped", "--as again")
    terminal.press("Enter")
    terminal.wait("resume as again on the planned curve: done", f"{daemon.run.name[:8]}", "-again", "● training")
    branch = daemon.records("run", daemon.run)[0]
    assert daemon.run.name.endswith("-again") and branch["parent"] == parent and branch["parent_step"] > 0
    for width, height in ((60, 15), (200, 60), (80, 24), (120, 40)):
        terminal.tmux("resize-window", "-t", "t", "-x", str(width), "-y", str(height))
        time.sleep(0.1)

    first = daemon.run.name
    terminal.press("r")
    terminal.wait("start a new run from step 0")
    terminal.press("Enter")
    terminal.wait("fresh restart: done", "● training")
    terminal.wait(first, absent=True)
    terminal.wait("✔ LR moves")

    daemon.trainer().send_signal(signal.SIGKILL)
    terminal.wait("✖ failed", "SIGKILL")
    assert daemon.pid is not None
    os.kill(daemon.pid, signal.SIGKILL)
    terminal.wait("✖ dead")
    terminal.press("r")
    terminal.wait("No daemon runs", "start --config")
    terminal.press("q")
    terminal.wait("exit code 0")


def curves(screen: str) -> list[str]:
    """The lines of a screen that hold dots of a chart."""
    return [line.rstrip() for line in screen.splitlines() if any("\u2800" < letter <= "\u28ff" for letter in line)]


def test_a_recorded_run_replayed_at_speed_through_a_storm_of_resizes(
    daemon: Daemon, terminal: Terminal, config_file: ConfigFile, tmp_path: Path
) -> None:
    daemon.start(config_file(max_epochs=100, val_check_interval=300))
    daemon.wait(lambda: daemon.records("end"))
    recorded = daemon.run
    last = daemon.records("step")[-1]["step"]
    daemon.cli("stop")

    logs = tmp_path / "replayed"
    target = logs / recorded.name
    replay = [sys.executable, "-m", "tests.e2e.replay", str(recorded), str(target), "--rate", "400"]
    with subprocess.Popen(replay, stdout=subprocess.PIPE) as process:
        while not (target / "run.jsonl").exists():
            time.sleep(0.02)
        terminal.open(eegwatch(logs), 80, 24)
        sizes = [(60, 15), (200, 60), (80, 24), (120, 40), (30, 8), (160, 48)]
        for count in itertools.count():
            width, height = sizes[count % len(sizes)]
            terminal.tmux("resize-window", "-t", "t", "-x", str(width), "-y", str(height))
            time.sleep(0.03)
            if process.poll() is not None and count > 20:
                break
    assert process.returncode == 0
    terminal.tmux("resize-window", "-t", "t", "-x", "120", "-y", "40")
    terminal.wait(f"step {last:,} / {last:,}", "completed")
    once = [sys.executable, "-m", "eegwatch.cli", str(logs), "--once", "--size", "120x40"]
    fresh = subprocess.run(once, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout
    assert len(curves(fresh)) > 12
    end = time.monotonic() + PATIENCE  # the last frame may be due still
    while curves(terminal.text()) != curves(fresh) and time.monotonic() < end:
        time.sleep(0.2)
    assert curves(terminal.text()) == curves(fresh)  # not one cell is left over from another size


def test_without_colour_what_matters_is_in_the_words(log_writer: LogWriter, terminal: Terminal) -> None:
    log_writer.run()
    log_writer.steps(np.full(150, 1.2e-4), positions=np.zeros(150))
    terminal.open(f"env NO_COLOR=1 {eegwatch(log_writer.folder.parent)}", 80, 24)
    terminal.wait("✖ LR STUCK at 1.20e-4", "✖ LR moves")
    coloured = terminal.tmux("capture-pane", "-p", "-e", "-t", "t")
    shades = {tuple(rgb) for rgb in re.findall(r"[34]8;2;(\d+);(\d+);(\d+)", coloured)}
    assert all(red == green == blue for red, green, blue in shades)
    assert not re.search(r"\x1b\[(?:\d+;)*(?:3[1-6]|9[1-6])m", coloured)
    fault = re.search(r"38;2;(\d+);\1;\1m[^\x1b]*✖[^\x1b]*(?:\x1b\[[^m]*m)*[^\x1b]*LR moves", coloured)
    assert fault is not None and int(fault[1]) > 200  # a fault is no darker than other words


def test_a_low_screen_keeps_a_chart_under_its_verdict(log_writer: LogWriter, terminal: Terminal) -> None:
    log_writer.run()
    log_writer.steps(np.full(150, 1.2e-4), positions=np.zeros(150))
    log_writer.add(End(time=log_writer.time, step=150, reason="completed"))
    terminal.open(eegwatch(log_writer.folder.parent), 60, 15)
    terminal.wait("✖ LR STUCK at 1.20e-4", "why", "completed after 150 steps")
    assert len(re.findall(r"[\u2801-\u28ff]", terminal.text())) > 20


def test_an_exported_size_does_not_outlast_a_resize(log_writer: LogWriter, terminal: Terminal) -> None:
    log_writer.run()
    log_writer.healthy(1, 150)
    terminal.open(f"env COLUMNS=80 LINES=24 {eegwatch(log_writer.folder.parent)}", 80, 24)
    terminal.wait("step 150", "q quit")
    terminal.tmux("resize-window", "-t", "t", "-x", "150", "-y", "45")
    terminal.wait("checklist", "expected / observed")


def test_it_works_in_256_colours_without_a_run(terminal: Terminal, tmp_path: Path) -> None:
    logs = tmp_path / "empty"
    logs.mkdir()
    terminal.open(f"env -u COLORTERM TERM=screen-256color {eegwatch(logs)}", 80, 24)
    terminal.wait("no run in", "eegpt-daemon start")
    terminal.press("q")
    terminal.wait("exit code 0")


def test_a_session_of_its_own_is_made_once_and_says_state_and_verdict(
    log_writer: LogWriter, terminal: Terminal
) -> None:
    from eegwatch.tmux import open_session

    log_writer.run()
    log_writer.steps(np.full(150, 1.2e-4), positions=np.zeros(150))
    (log_writer.folder / "trainer.log").write_text("what the trainer printed\n")
    logs = log_writer.folder.parent
    name = open_session(logs, [], socket=str(terminal.socket))
    assert open_session(logs, [], socket=str(terminal.socket)) == name  # not a second one

    def pane(number: int) -> str:
        return terminal.tmux("capture-pane", "-p", "-t", f"{name}:.{number}")

    def until(what: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not what():
            assert time.monotonic() < end, pane(0) + pane(1)
            time.sleep(0.1)

    until(lambda: "LR STUCK at 1.20e-4" in pane(0))
    until(lambda: "what the trainer printed" in pane(1))
    title = terminal.tmux("display-message", "-p", "-t", f"{name}:.0", "#{pane_title}")
    assert "LR stuck at 1.20e-4" in title and log_writer.folder.name in title
    done = subprocess.run(
        [sys.executable, "-m", "eegwatch.cli", "tmux", str(logs)],
        capture_output=True, text=True, timeout=PATIENCE, env=os.environ | {"TMUX_TMPDIR": str(terminal.folder)},
    )  # fmt: skip
    subprocess.run(["tmux", "kill-server"], env=os.environ | {"TMUX_TMPDIR": str(terminal.folder)}, check=False)
    assert done.returncode == 2 and "tmux attach -t eegwatch-" in done.stderr
