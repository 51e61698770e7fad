"""Shared by the commands about one run: the run's folder, progress output, low priority, and the user's errors."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

from eegwatch.run.folder import RUN_LOG, NotARun, newest_run, run_at
from eegwatch.wording import UserError, plain

IDLE = 19  # the nice value of work that must never be in the way of a run
# threads of OpenMP sleep while they wait for each other: on a busy machine spinning takes nine tenths of the time
PASSIVE = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}


class Unusable(UserError):
    """The result cannot be computed for this run; the message gives the reason in one line."""


def add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", metavar="RUN", help="run folder, or its name (default: the newest run)")
    parser.add_argument("--json", action="store_true", help="print the file that was written")


def run_folder(word: str | None, logs: Path) -> Path:
    """The folder of the run named on the command line, or of the newest run. Raises NotARun."""
    if word is None:
        newest = newest_run(logs)
        if newest is None:
            raise NotARun(f"no run in {logs}")
        return newest.resolve()
    if (logs / word / RUN_LOG).exists():
        return (logs / word).resolve()
    return run_at(Path(word)).resolve()


def in_the_background() -> None:
    """Give way to everything else on this machine: a run may train beside this command. Before torch is loaded."""
    os.nice(max(0, IDLE - os.nice(0)))
    with contextlib.suppress(psutil.Error, AttributeError, OSError):  # not on every system
        psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)
    for name, value in PASSIVE.items():
        os.environ.setdefault(name, value)


def say(text: str) -> None:
    """A line of progress, on standard error: standard output holds the result alone."""
    print(plain(text), file=sys.stderr, flush=True)


def print_result(target: Path, lines: list[str], *, json: bool) -> None:
    """The file that was written as it is, or `lines` and where it lies."""
    if json:
        print(target.read_text(), end="")
        return
    for line in [*lines, f"written to {target}"]:
        print(plain(line))


def computed(work: Callable[[], int]) -> int:
    """`work`, with the mistakes of configuration, corpus or checkpoint as one line. Raises Unusable."""
    from eegpt_daemon.trainer.attempt import USER_ERRORS

    try:
        return work()
    except USER_ERRORS as error:
        raise Unusable(str(error)) from None
