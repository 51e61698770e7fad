"""The first frame of a long run in a real terminal: drawn before the framework is loaded, keys kept, terminal restored."""

from __future__ import annotations

import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from fcntl import ioctl
from pathlib import Path

import pytest

from tests.bench.open import make_log
from tests.patience import PATIENCE_S


@pytest.fixture(scope="module")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of some 6 MB: long enough for a frame of its own."""
    return make_log(tmp_path_factory.mktemp("long"), 30_000)


class Terminal:
    """`eegwatch WORDS` in a pseudo-terminal of 120 x 30."""

    def __init__(self, *words: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever runs the tests may ignore it, as a shell's `&` does
            os.execv(sys.executable, [sys.executable, "-m", "eegwatch.cli", *words])
        ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
        self.output = b""

    def read_until(self, what: bytes) -> bytes:
        """All output up to `what`."""
        end = time.monotonic() + PATIENCE_S
        while what not in self.output:
            assert time.monotonic() < end, self.output[-2000:]
            if select.select([self.fd], [], [], 0.1)[0]:
                self.output += os.read(self.fd, 1 << 16)
        return self.output.partition(what)[0]

    def end(self) -> int:
        """The exit code, once all has been read; a program that does not end is killed."""
        end = time.monotonic() + PATIENCE_S
        while True:
            if time.monotonic() > end:
                os.kill(self.pid, signal.SIGKILL)
            try:
                if not select.select([self.fd], [], [], 0.1)[0]:
                    continue
                data = os.read(self.fd, 1 << 16)
            except OSError:
                break
            if not data:
                break
            self.output += data
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture(autouse=True)
def ordinary_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in (
        ("TERM", "xterm-256color"),
        ("LANG", "C.UTF-8"),
        ("PYTHONUTF8", "1"),
        ("EEGWATCH_CACHE", str(tmp_path)),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)


def curve(text: str) -> int:
    """How many cells of it are part of a curve."""
    return sum("\u2801" <= character <= "\u28ff" for character in text)


def test_a_curve_is_there_before_the_application_and_keys_neither_echo_nor_vanish(long_run: Path) -> None:
    terminal = Terminal(str(long_run))
    first = terminal.read_until("checking it …".encode())
    os.write(terminal.fd, b"q")  # while the application is still being loaded
    frame = terminal.read_until(b"\x1b[?1000h").decode("utf-8", "replace")  # mouse reports: the application begins
    assert "30,000 / 30,000" in frame and "learning rate" not in first.decode("utf-8", "replace")
    assert curve(frame) > 200
    before_the_application = frame.split("\x1b[?1049h")[1]
    assert "q" not in before_the_application.partition("checking")[2].replace("\x1b", "")
    assert terminal.end() == 0  # the key was read: it quit


def test_a_path_that_is_not_there_is_one_line_in_an_ordinary_terminal(tmp_path: Path) -> None:
    terminal = Terminal(str(tmp_path / "none"))
    code = terminal.end()
    assert code == 2 and b"\x1b[?1049h" not in terminal.output and terminal.output.count(b"\n") == 1


def test_ctrl_c_during_the_start_ends_it_and_restores_the_screen(long_run: Path) -> None:
    terminal = Terminal(str(long_run))
    terminal.read_until("checking it …".encode())
    os.kill(terminal.pid, signal.SIGINT)
    assert terminal.end() in (0, 130, -signal.SIGINT)  # a shell says 130 for the last, too
    assert b"Traceback" not in terminal.output
    assert b"\x1b[?1049l" in terminal.output
