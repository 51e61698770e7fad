"""`eegpt-daemon checkpoint`: write a checkpoint now, and keep it; the training goes on."""

from __future__ import annotations

import argparse
from pathlib import Path

from eegpt_daemon.client import require_daemon, send_command


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    """It has no options of its own."""


def run(arguments: argparse.Namespace, logs: Path) -> int:
    require_daemon(logs, "there is nothing to save")
    return send_command(logs, "checkpoint")
