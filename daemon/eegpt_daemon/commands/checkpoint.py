"""`eegpt-daemon checkpoint`: write a checkpoint now, and keep it; the training goes on."""

from __future__ import annotations

import argparse
from pathlib import Path

from eegpt_daemon.client import ask, require_daemon


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    """It has no options of its own."""


def run(arguments: argparse.Namespace, logs: Path) -> int:
    require_daemon(logs, "there is nothing to save")
    return ask(logs, "checkpoint")
