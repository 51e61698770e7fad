"""`eegpt-daemon restart`: stop the run and start a new one from step 0."""

from __future__ import annotations

import argparse
from pathlib import Path

from eegpt_daemon.client import require_daemon, send_command
from eegwatch.run import config as configuration
from eegwatch.shell import command as shell


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="PATH", help="another configuration (default: the run's own)")


def run(arguments: argparse.Namespace, logs: Path) -> int:
    config = None
    if arguments.config is not None:
        configuration.load(arguments.config)
        config = str(arguments.config.resolve())
    require_daemon(logs, f"a new run: {shell('eegpt-daemon', 'start', '--config', 'PATH', '--logs', logs)}")
    return send_command(logs, "restart", config=config)
