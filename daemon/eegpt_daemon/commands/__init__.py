"""The commands of `eegpt-daemon`: one module each, one row of COMMANDS.

`prepare_parser` says its options, `run` does it and returns the exit code. What loads torch is imported in `run`.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Protocol, cast

COMMANDS = {
    "start": "start a daemon and a new run",
    "status": "print the daemon's state, and since when",
    "stop": "checkpoint, end the run and the daemon",
    "restart": "stop the run and start a new one from step 0",
    "resume": "continue the newest run: on its schedule, or with an LR of your choice",
    "checkpoint": "write a checkpoint now, and keep it; the training continues",
    "check": "check a configuration without starting anything: its schedule, drawn, and every trap in it",
    "prepare": "index, check and encode a corpus into the cache, without training: start then begins at once",
    "join": "on a further node: take part in the runs of the daemon of this log root",
    "prune": "list old runs, packs and caches, and remove them with --yes",
    "logs": "print what the trainer printed",
    "baselines": "score simpler models on the cache and split of a run, in one table with its protocol",
    "cost": "compute the cost of a fault of the learning rate, by training the run again at its declared rates",
    "optimum": "prove how far a run is from the optimum of a linear probe on its features",
}


class Subcommand(Protocol):
    """A module of this package."""

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, arguments: argparse.Namespace, logs: Path) -> int: ...


def subcommand(name: str) -> Subcommand:
    return cast(Subcommand, importlib.import_module(f"eegpt_daemon.commands.{name}"))
