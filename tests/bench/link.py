"""What the screen sends while a run lives: bytes a second, as ssh would carry them.

    python -m tests.bench.link [--seconds 20] [--paces 0 2 15 500]

The monitor runs in a pseudo-terminal whose other end counts. The log grows by so many records a second; the first five
seconds (the first frames) are not counted. With `--ssh` it is told that it runs inside ssh.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

from tests.bench.beside_leet import OURS_WRITER
from tests.bench.open import make_log

SIZES = [(80, 24), (200, 50)]


def sent(run: Path, size: tuple[int, int], seconds: float, *, ssh: bool) -> tuple[float, float]:
    """(bytes a second, writes a second) of a monitor of `run`."""
    width, height = size
    pid, terminal = pty.fork()
    if pid == 0:
        env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "SSH_CONNECTION", "TMUX")}
        env |= {"TERM": "xterm-256color"} | ({"SSH_CONNECTION": "10.0.0.1 50000 10.0.0.2 22"} if ssh else {})
        os.execve(sys.executable, [sys.executable, "-m", "eegwatch.cli", str(run)], env)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    begin, count, writes = time.monotonic() + 5, 0, 0
    while time.monotonic() < begin + seconds:
        if select.select([terminal], [], [], 0.1)[0]:
            got = len(os.read(terminal, 1 << 16))
            if time.monotonic() > begin:
                count, writes = count + got, writes + 1
    os.write(terminal, b"q")
    end = time.monotonic() + 10
    while time.monotonic() < end and os.waitpid(pid, os.WNOHANG) == (0, 0):
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                os.read(terminal, 1 << 16)
            except OSError:
                break  # its end is closed
    os.close(terminal)
    return count / seconds, writes / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--paces", type=float, nargs="+", default=[0, 2, 15, 500])
    parser.add_argument("--ssh", action="store_true")
    given = parser.parse_args()
    print(f"{'records/s':>10} " + " ".join(f"{f'{w}×{h}':>20}" for w, h in SIZES))
    for pace in given.paces:
        cells = []
        for size in SIZES:
            with tempfile.TemporaryDirectory() as scratch:
                run = make_log(Path(scratch), 20_000, 2_000_000)
                log = str(run / "run.jsonl")
                writer = None
                if pace:
                    writer = subprocess.Popen([sys.executable, "-c", OURS_WRITER, log, "20001", str(pace)])
                try:
                    rate, writes = sent(run, size, given.seconds, ssh=given.ssh)
                finally:
                    if writer is not None:
                        writer.kill()
                        writer.wait()
                cells.append(f"{rate / 1000:8.1f} kB/s {writes:4.1f}/s")
        print(f"{pace:>10g} " + " ".join(f"{cell:>20}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
