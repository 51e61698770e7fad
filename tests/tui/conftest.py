"""A fixed clock and time zone, so that screens can be compared to the cell."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from eegwatch.run.control import LOCK
from eegwatch.run.records import Checkpoint, End, System
from eegwatch.shell import program
from tests.conftest import ONE_CYCLE, LogWriter

NOW = 1_795_000_000.0  # 2026-11-18
EXPECTED = {"initial_lr": 1.2e-4, "peak_lr": 3e-3, "final_lr": 3e-6}


@pytest.fixture
def fixed_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setattr(time, "time", lambda: NOW)
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def writer(fixed_clock: None, tmp_path: Path) -> Iterator[LogWriter]:
    it = LogWriter(tmp_path / "logs" / "20261118-120000-demo")
    it.time = NOW - 600
    yield it
    it.log.close()


@pytest.fixture
def healthy(writer: LogWriter) -> Path:
    """A finished run that followed its schedule; one loss of 50 among them."""
    writer.run(expected=EXPECTED, notes=["corpus: SYNTHETIC signals"])
    n = np.arange(1, 2001)
    rng = np.random.default_rng(0)
    losses = 0.35 + 0.3 * np.exp(-n / 400) + rng.normal(0, 0.05, len(n))
    losses[1200] = 50.0
    from eegwatch.schedule import parse

    writer.steps(parse(ONE_CYCLE).rate(n - 1), losses=losses)
    for step in range(200, 2001, 200):
        writer.eval(step, 0.70 + 0.18 * (1 - np.exp(-step / 500)))
        writer.add(Checkpoint(time=writer.time, step=step, epoch=step // 200, path=f"checkpoints/step-{step:08d}.pt"))
    writer.add(System(time=writer.time, step=2000, cpu_percent=61.0, rss_bytes=1_200_000_000))
    writer.add(End(time=NOW - 90, step=2000, reason="completed"))
    return writer.folder


@pytest.fixture
def frozen(writer: LogWriter) -> Path:
    """The textbook case: stepped once an epoch, 150 steps into the run."""
    writer.run(expected=EXPECTED, inject="scheduler_stepped_per_epoch", notes=["corpus: SYNTHETIC signals"])
    writer.steps(np.full(150, 1.2e-4), positions=np.zeros(150))
    writer.add(Checkpoint(time=writer.time, step=100, epoch=0, path="checkpoints/step-00000100.pt"))
    return writer.folder


@pytest.fixture(autouse=True)
def own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No theme, pin or pane size of whoever runs the tests; an activated environment."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    program.cache_clear()  # another test of this process may have asked with its own PATH


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def lock_held(logs: Path) -> Iterator[None]:
    """A process that holds the daemon's lock: somebody to command, who never answers."""
    command = [sys.executable, "-c", HOLD, str(logs / LOCK)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        yield
        process.kill()
