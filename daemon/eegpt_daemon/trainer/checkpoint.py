"""Checkpoints that survive a power cut: written aside, fsynced, renamed, the folder fsynced, verified on load.

Loaded with `weights_only=True` alone, so they hold tensors and plain types only (numpy's legacy RNG state and numpy
scalars cannot be loaded back under torch >= 2.6).
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from eegpt_daemon import crash_points
from eegwatch.run.folder import CHECKPOINTS, write_whole
from eegwatch.wording import size

VERSION = 2
KEEP_NEWEST = 2  # whatever their scores: the newest, and one before it should that turn out damaged
NEEDED = (
    "run_id", "probe", "optimizer", "step", "epoch", "batch", "position", "total_steps", "steps_per_epoch", "schedule",
    "overrides", "sampler", "standardiser", "rng", "ranking", "waited", "world_size", "config_hash", "data_hash",
)  # fmt: skip
_NAME = re.compile(r"^step-(\d{8,})\.pt$")


class CheckpointError(ValueError):
    """A checkpoint that cannot be resumed from: which file, and what is wrong with it."""


def name_of(step: int) -> str:
    return f"{CHECKPOINTS}/step-{step:08d}.pt"


def step_of(path: str | Path) -> int | None:
    """The step in a checkpoint's file name, or None if it is not one."""
    match = _NAME.match(Path(path).name)
    return int(match[1]) if match else None


def save(
    run_folder: Path, step: int, state: dict[str, Any], about_to_rename: Callable[[str, str], None] = lambda *_: None
) -> tuple[str, str]:
    """Write the state durably; returns (path relative to the run, sha256). Raises OSError when the disk is full.

    A file of that name is replaced only by the rename, when the new one is complete and on disk; `about_to_rename`
    hears of path and hash just before.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    target = run_folder / name_of(step)
    target.parent.mkdir(mode=0o700, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if free < 2 * len(content):
        words = f"{os.strerror(errno.ENOSPC)}: {size(free)} free, a checkpoint needs {size(2 * len(content))}"
        raise OSError(errno.ENOSPC, words, str(target.parent))
    sha256 = hashlib.sha256(content).hexdigest()

    def reached(boundary: str) -> None:
        if boundary == "after_fsync":
            about_to_rename(name_of(step), sha256)
        crash_points.point(f"checkpoint.{boundary}")

    write_whole(target, content, reached)
    return name_of(step), sha256


def load(path: Path) -> dict[str, Any]:
    """A checkpoint's state. Raises CheckpointError for a file that is damaged, foreign or of another version."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()
        raise CheckpointError(f"{path}: damaged: {reason[0] if reason else error!r}") from None
    if not isinstance(state, dict) or state.get("version") != VERSION:
        raise CheckpointError(f"{path}: not a checkpoint of this version of eegwatch (format {VERSION})")
    lacking = [key for key in NEEDED if key not in state]
    if lacking:
        raise CheckpointError(f"{path}: lacks {', '.join(lacking)}: an exact resume is impossible")
    return state


def ranked(ranking: list[tuple[float, str]], score: float, name: str, top_k: int) -> list[tuple[float, str]]:
    """The `top_k` best (score, checkpoint), best first, with this one among them if it is; the newer wins a tie."""
    others = [(s, n) for s, n in ranking if n != name]
    return sorted([(score, name), *others], key=lambda entry: -entry[0])[:top_k]


def prune(run_folder: Path, until: int, keep: set[str]) -> None:
    """Delete all but the newest two checkpoints up to this step, and those in `keep` (paths relative to the run).

    Checkpoints beyond this step were superseded by a resume; they stay until training reaches their steps again.
    """
    folder = run_folder / CHECKPOINTS
    numbered = sorted((n, path) for path in folder.iterdir() if (n := step_of(path)) is not None and n <= until)
    for step, path in numbered[:-KEEP_NEWEST]:
        if name_of(step) not in keep:
            path.unlink(missing_ok=True)
    for stale in folder.glob(".*.tmp"):
        stale.unlink(missing_ok=True)
