"""Named boundaries at which a test can make a process die, to try what must survive (tests/e2e/test_crash_points.py).

`EEGPT_CRASH_FILE` names a file; a process that passes the boundary whose name is in it removes it and dies by SIGKILL.
Without the variable a boundary is one comparison.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

POINTS = (
    "command.after_read", "command.after_accept", "command.after_act", "command.before_answer", "command.after_answer",
    "run.after_folder", "run.after_config", "attempt.after_spawn", "attempt.after_run_record",
    "checkpoint.after_write", "checkpoint.after_fsync", "checkpoint.after_rename", "checkpoint.after_folder_fsync",
    "checkpoint.after_record", "end.after_record",
)  # fmt: skip
VARIABLE = "EEGPT_CRASH_FILE"

_file = Path(os.environ[VARIABLE]) if VARIABLE in os.environ else None


def point(name: str) -> None:
    """Die here, if this is the boundary that was asked for."""
    if _file is None:
        return
    assert name in POINTS, name
    try:
        wanted = _file.read_text().strip()
    except FileNotFoundError:
        return
    if wanted == name:
        _file.unlink()  # once: what starts after the crash lives
        os.kill(os.getpid(), signal.SIGKILL)
