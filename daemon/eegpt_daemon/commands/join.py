"""`eegpt-daemon join`: take part, on a further node, in the runs of the daemon whose log root this is."""

from __future__ import annotations

import argparse
from pathlib import Path

from eegpt_daemon.errors import USAGE, Refused, require_heavy


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--node-rank", type=int, required=True, metavar="N", help="1 … nnodes - 1; the daemon's is node 0"
    )


def run(arguments: argparse.Namespace, logs: Path) -> int:
    """Start this node's trainer processes for every attempt of the daemon, until the daemon ends."""
    require_heavy()
    from eegpt_daemon.supervisor.process import join_attempts

    if arguments.node_rank < 1:
        raise Refused("--node-rank: 1 or more; node 0 is the daemon's, started with eegpt-daemon start", USAGE)
    return join_attempts(logs.resolve(), arguments.node_rank, lambda text: print(text, flush=True))
