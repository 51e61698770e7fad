"""`guard: {twin: true}`: the cost of a fault, computed in the background after a run has ended.

A separate process at the lowest priority (`eegpt-daemon cost RUN`). It ends when the next attempt or run begins; the
models trained until then are kept, and `eegwatch cost RUN` continues from there.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from eegwatch.run.folder import open_output

COST_LOG = "cost.log"  # what it printed, in the run's folder
PATIENCE_S = 5.0
SEEDS = 5


class TwinProcess:
    """At most one, of the run that ended last. `note`: into daemon.jsonl. `seeds`: how many repeat the fault."""

    def __init__(self, note: Callable[[str], None], seeds: int = SEEDS) -> None:
        self._note, self._seeds = note, seeds
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None

    def begin(self, folder: Path) -> None:
        """Raises OSError."""
        self.give_way()
        with open_output(folder / COST_LOG) as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "eegpt_daemon.cli", "cost", str(folder), "--seeds", str(self._seeds)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self._folder = folder
        self._note(f"guard: twin: the cost of a fault of {folder.name} is computed in the background ({COST_LOG})")

    def look(self) -> None:
        """Say how it ended, once."""
        if self._process is None or self._folder is None or self._process.poll() is None:
            return
        code, folder = self._process.returncode, self._folder
        self._process = self._folder = None
        outcome = "done" if code == 0 else f"ended with code {code}"
        self._note(f"guard: twin of {folder.name}: {outcome}; {COST_LOG} and cost.json in its folder have the words")

    def give_way(self) -> None:
        """End it: its arm saves a checkpoint and leaves when its parent is gone."""
        if self._process is None or self._folder is None:
            return
        if self._process.poll() is None:
            self._process.terminate()
            end = time.monotonic() + PATIENCE_S
            while self._process.poll() is None and time.monotonic() < end:
                time.sleep(0.05)
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._note(
                f"guard: twin of {self._folder.name} is interrupted; eegwatch cost {self._folder.name} continues it"
            )
        self._process = self._folder = None
