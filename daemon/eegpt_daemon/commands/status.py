"""`eegpt-daemon status`: what the daemon is doing, and since when."""

from __future__ import annotations

import argparse
from pathlib import Path

from eegpt_daemon import status
from eegpt_daemon.refusal import FAILED, NOT_RUNNING, OK


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true")


def run(arguments: argparse.Namespace, logs: Path) -> int:
    """0 a daemon lives, 1 it is dead (it ended without saying so), 3 none is running."""
    life, summary, help_ = status.status(logs)
    write = status.as_json if arguments.json else status.as_text
    print(write(logs, life, summary, help_))
    if life.alive:
        return OK
    return FAILED if life.word in ("dead", "unknown") else NOT_RUNNING
