"""`eegwatch tmux`: a session with the monitor above and the trainer's output below, opened once, re-attached after.

The session outlives ssh. tmux's status line shows the monitor's title: state, progress, verdict.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from eegwatch.wording import UserError

BELOW = "25%"  # of the height, for the trainer's output


class TmuxError(UserError):
    """Why there is no session, and what to do: one line."""


def session_name(logs: Path) -> str:
    """The session of a log root: its folder's name, with a suffix that distinguishes equal names."""
    place = str(logs.resolve())
    letters = "".join(c if c.isalnum() else "-" for c in f"{logs.resolve().parent.name}-{logs.resolve().name}")
    return f"eegwatch-{letters.strip('-')}-{hashlib.sha256(place.encode()).hexdigest()[:4]}"


def open_session(logs: Path, words: Sequence[str], *, socket: str | None = None) -> str:
    """Create the session if there is none; returns its name. `words`: further arguments of the monitor.

    `socket`: of another tmux server than the user's own. Raises TmuxError.
    """
    name = session_name(logs)
    if run(["has-session", "-t", f"={name}"], socket, check=False).returncode == 0:
        return name
    place = str(logs.resolve())
    monitor = shlex.join([sys.executable, "-m", "eegwatch.cli", place, *words])
    output = shlex.join([sys.executable, "-m", "eegpt_daemon.cli", "logs", "--follow", "--logs", place])
    run(["new-session", "-d", "-s", name, "-n", "eegwatch", monitor], socket)
    run(["split-window", "-v", "-l", BELOW, "-t", f"{name}:", output], socket)
    run(["select-pane", "-t", f"{name}:.0"], socket)
    for option, value in (
        ("status-left", ""), ("status-right", "#{=100:pane_title}"), ("status-right-length", "100"), ("mouse", "on"),
        ("set-titles", "on"), ("set-titles-string", "#{pane_title}"), ("bell-action", "any"),
    ):  # fmt: skip
        run(["set-option", "-t", name, option, value], socket)
    run(["set-option", "-w", "-t", name, "monitor-bell", "on"], socket)
    run(["set-option", "-w", "-t", name, "remain-on-exit", "off"], socket)
    return name


def attach(name: str) -> None:
    """Show the session here: from within tmux by switching to it. Replaces this process. Raises TmuxError."""
    verb = "switch-client" if "TMUX" in os.environ else "attach-session"
    if not sys.stdout.isatty():
        raise TmuxError(f"no terminal to attach to; the session is there: tmux attach -t {name}")
    os.execvp("tmux", ["tmux", verb, "-t", f"={name}"])


def run(words: list[str], socket: str | None = None, *, check: bool = True) -> subprocess.CompletedProcess[str]:
    if shutil.which("tmux") is None:
        raise TmuxError("tmux is not installed (apt install tmux); eegwatch alone runs in any terminal")
    server = ["-S", socket] if socket else []
    done = subprocess.run(["tmux", *server, *words], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise TmuxError(f"tmux {words[0]}: {done.stderr.strip() or done.returncode}")
    return done
