"""Named boundaries at which a test can make a process die, to try what must survive (tests/e2e/test_crash_points.py).

`EEGPT_CRASH_FILE` names a file; a process that passes the boundary whose name is in it removes it and dies by SIGKILL.
Without the variable a boundary is one comparison.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

VARIABLE = "EEGPT_CRASH_FILE"
# of a script that RunLog steers, in the order in which a command passes them; `ranks` where several processes train
LIVE = (
    "live.after_read", "live.after_accept", "live.after_record", "live.before_answer", "live.after_answer",
)  # fmt: skip
RANKS = (
    "ranks.after_proposal", "ranks.after_voice", "ranks.before_decision", "ranks.after_decision", "ranks.before_step",
    "ranks.after_look",
)  # fmt: skip

_file = Path(os.environ[VARIABLE]) if VARIABLE in os.environ else None


def point(name: str) -> None:
    """Die here, if this is the boundary that was asked for."""
    if _file is None:
        return
    try:
        wanted = _file.read_text().strip()
    except FileNotFoundError:
        return
    if wanted == name:
        _file.unlink()  # once: what starts after the crash lives
        os.kill(os.getpid(), signal.SIGKILL)
