"""Provenance of a run for its `run` record: versions, host, process and git revision."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
from typing import Any

import mne
import numpy as np
import torch

from eegwatch import __version__

GIT_TIMEOUT_S = 5.0


def of_this_process() -> dict[str, Any]:
    """Fields of the `run` record; `git` is null where the daemon was not started in a git repository."""
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "versions": {
            "eegwatch": __version__,
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "mne": mne.__version__,
            "numpy": np.__version__,
        },
        "git": git_revision(),
    }


def git_revision() -> dict[str, Any] | None:
    """{"revision", "dirty"} of the working directory: where the user's own experiment lies."""
    revision = _git("rev-parse", "HEAD")
    if revision is None:
        return None
    return {"revision": revision, "dirty": bool(_git("status", "--porcelain", "--untracked-files=no"))}


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None  # no git, or no repository
    return done.stdout.strip()
