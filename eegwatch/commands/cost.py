"""`eegwatch cost RUN`: what a fault of the learning rate has cost, computed by the daemon's program."""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys

from eegwatch.commands.options import add_path, whole
from eegwatch.wording import UserError

HEAVY = ("torch", "mne", "scipy", "edfio")


class NotInstalled(UserError):
    """The trainer is not there: what to type."""


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    add_path(parser, metavar="RUN", help="run folder of eegpt-daemon's trainer, or a log root (its newest run)")
    parser.add_argument("--seeds", type=whole(1, 1000), default=5, metavar="N", help="seeds of both arms (default: 5)")
    parser.add_argument("--json", action="store_true", help="print the file that was written")


def run(arguments: argparse.Namespace) -> int:
    """The exit code of `eegpt-daemon cost`. Raises NotInstalled."""
    lacking = [name for name in ("eegpt_daemon", *HEAVY) if importlib.util.find_spec(name) is None]
    if lacking:
        raise NotInstalled(f"the twin of a run is trained by eegpt-daemon, which lacks {', '.join(lacking)} here: "
                           "pip install 'eegwatch[daemon]'")  # fmt: skip
    command = [sys.executable, "-m", "eegpt_daemon.cli", "cost", arguments.path, "--seeds", str(arguments.seeds)]
    return subprocess.call([*command, *(["--json"] if arguments.json else [])])
