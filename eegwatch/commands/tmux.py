"""`eegwatch tmux [PATH]`: the monitor and the trainer's output in a tmux session, opened once and re-attached after."""

from __future__ import annotations

import argparse

from eegwatch.commands.options import add_path, add_read_only
from eegwatch.run.control import log_root
from eegwatch.run.folder import resolve


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    add_path(parser, nargs="?", help="log root (default: $EEGWATCH_LOGS, else ./logs)")
    parser.add_argument("--detach", action="store_true", help="make the session, print its name, do not show it")
    add_read_only(parser)


def run(arguments: argparse.Namespace) -> int:
    """Open or find the session, and show it."""
    from eegwatch.tmux import attach, open_session

    logs = log_root(arguments.path)
    if arguments.path is not None:
        resolve(logs)  # a missing path is reported here, not in a session that closes at once
    name = open_session(logs, ["--read-only"] if arguments.read_only else [])
    if arguments.detach:
        print(f"tmux attach -t {name}")
    else:
        attach(name)
    return 0
