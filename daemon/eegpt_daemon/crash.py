"""Named boundaries at which a test can make a process die: `EEGPT_CRASH_AT=command.after_accept` (or `…:2`).

What must survive a crash is tried at each of them (tests/e2e/test_crash_points.py). Without the variable: nothing.
"""

from __future__ import annotations

import os
import signal

POINTS = (
    "command.after_read", "command.after_accept", "command.after_act", "command.before_answer", "command.after_answer",
    "run.after_folder", "run.after_config", "attempt.after_spawn", "attempt.after_run_record",
    "checkpoint.after_write", "checkpoint.after_fsync", "checkpoint.after_rename", "checkpoint.after_folder_fsync",
    "checkpoint.after_record", "end.after_record",
)  # fmt: skip
VARIABLE = "EEGPT_CRASH_AT"

_wanted, _, _times = os.environ.get(VARIABLE, "").partition(":")
_left = int(_times) if _times.isdecimal() else 1


def point(name: str) -> None:
    """Die here by SIGKILL, if this is the boundary that was asked for."""
    global _left
    if name != _wanted:
        return
    assert name in POINTS
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
