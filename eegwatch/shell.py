"""Formats a command so that the user can run it in a shell exactly as it is shown."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from functools import cache
from pathlib import Path

SERVER_PID = "EEGWATCH_SERVER_PID"  # `eegwatch serve` tells its screens whose death ends them


@cache
def program(name: str) -> str:
    """`name` where the shell finds it; else the path of the one beside this Python, relative where that is shorter.

    Without an activated environment `eegpt-daemon` alone is not found, and `.venv/bin/eegpt-daemon` is.
    """
    if shutil.which(name):
        return name
    beside = Path(sys.executable).parent / name
    if not beside.exists():
        return name
    relative = os.path.relpath(beside)
    return min((str(beside), relative), key=len)


def begin_anew(logs: Path) -> str:
    """The command that begins a run with an idle daemon that has no run to restart."""
    stop = command("eegpt-daemon", "stop", "--logs", logs)
    return f"{stop} && {command('eegpt-daemon', 'start', '--config', 'CONFIG.yaml', '--logs', logs)}"


def command(name: str, *words: object) -> str:
    """A command line, quoted: `command("eegpt-daemon", "stop", "--logs", path)`."""
    return shlex.join([program(name), *map(str, words)])
