"""The cause of a trainer's end, and whether and when it is restarted automatically.

Never after a deliberate end (exit code 0) or a wrong configuration (78), and never without a checkpoint newer than the
one that the last start began from: repeated deaths at the same step need a person.
"""

from __future__ import annotations

import re
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from eegwatch.run.config import Supervision
from eegwatch.run.records import End

LONGEST_PAUSE_S = 300.0
MOST_BARE = 2  # starts in a row after a preparation was killed or hung: what it put into the cache is kept
FINAL = {0: "it ended on purpose", 78: "the configuration is wrong, which no restart mends"}
# what the last words of a trainer tell of its death
TELLING = (
    (re.compile(r"CUDA out of memory|OutOfMemoryError"), "out of GPU memory"),
    (re.compile(r"CUDA error|CUDA driver error|cuDNN error|NCCL error", re.IGNORECASE), "CUDA error"),
    (re.compile(r"MemoryError|Cannot allocate memory|can't allocate memory", re.IGNORECASE), "out of memory"),
    (re.compile(r"No space left on device"), "disk full"),
)


def cause_of(code: int | None, words: str, oom_kills: int = 0) -> str:
    """Describe how a trainer ended: exit code or signal, and the cause by its last output or the kernel.

    `code`: None if it is unknown, as for a process that another daemon had started.
    """
    if code is None:
        cause = "an unknown exit code: another daemon had started it"
    elif code < 0:
        cause = f"killed by {signal.Signals(-code).name}"
        if oom_kills and code == -signal.SIGKILL:
            return f"{cause}: out of memory, by the kernel's count of this control group"
        if code == -signal.SIGKILL:
            cause += " (the kernel's out-of-memory killer sends it too)"
    else:
        meaning = {75: "try again", 78: "wrong configuration"}.get(code)
        cause = f"exit code {code}" + (f" ({meaning})" if meaning else "")
    for pattern, name in TELLING:
        if pattern.search(words):
            return f"{cause}: {name}"
    return cause


def end_in_words(end: End | None, cause: str) -> str:
    """Describe how an attempt ended; without an `end` record, by `cause`."""
    if end is None:
        return f"ended: {cause}"
    return f"{end.reason}: {end.error}" if end.error else f"{end.reason} at step {end.step:,}"


def oom_kills() -> int:
    """Number of processes of this control group (v2) that the kernel killed for lack of memory; 0 if unknown."""
    try:
        group = Path("/proc/self/cgroup").read_text().strip().rpartition("::")[2]
        events = (Path("/sys/fs/cgroup") / group.lstrip("/") / "memory.events").read_text()
    except OSError:
        return 0
    match = re.search(r"^oom_kill (\d+)$", events, re.MULTILINE)
    return int(match[1]) if match else 0


@dataclass
class PlannedRestart:
    """A start that is due: when (monotonic seconds), what the log says of it, and whether it is a new run of a seed."""

    due: float
    note: str
    seed: int | None = None


@dataclass
class Restarts:
    """Counts the starts of one run after a death, by `supervision.restarts`."""

    settings: Supervision
    started_from: int = -1  # checkpoint step that the newest start began from; -1: none
    bare: int = 0  # starts without a new checkpoint, in a row
    _times: list[float] = field(default_factory=list)

    def began(self, checkpoint_step: int | None) -> None:
        """An attempt was started from this checkpoint."""
        self.started_from = -1 if checkpoint_step is None else checkpoint_step

    def after(
        self, code: int, cause: str, checkpoint_step: int | None, *, preparing: bool = False
    ) -> PlannedRestart | str:
        """The planned restart, or the reason for none.

        `checkpoint_step`: of the newest good checkpoint, None if there is none; `preparing`: it died before its first
        step, where no checkpoint can be.
        """
        limit = self.settings.restarts
        if code in FINAL:
            return FINAL[code]
        if limit.max <= 0:
            return "supervision.restarts.max is 0"
        newer = checkpoint_step is not None and checkpoint_step > self.started_from
        self.bare = 0 if newer else self.bare + 1
        if not newer and not (preparing and code < 0 and self.bare <= MOST_BARE):
            return "no checkpoint was written since the last start, it would die at the same step"
        now = time.monotonic()
        self._times = [at for at in self._times if now - at < limit.window_minutes * 60]
        if len(self._times) >= limit.max:
            return f"it has died {limit.max + 1} times within {limit.window_minutes:g} min (supervision.restarts)"
        pause = min(limit.backoff_seconds * 2 ** len(self._times), LONGEST_PAUSE_S)
        self._times.append(now)
        note = f"restarted by the daemon ({len(self._times)} of {limit.max} within {limit.window_minutes:g} min)"
        return PlannedRestart(now + pause, f"{note}: the trainer was {cause}" if code < 0 else f"{note}: {cause}")
