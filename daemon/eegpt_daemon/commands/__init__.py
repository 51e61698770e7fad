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
    "status": "say what the daemon is doing, and since when",
    "stop": "checkpoint, end the run and the daemon",
    "restart": "stop the run and start a new one from step 0",
    "resume": "go on with the newest run: rejoin the schedule, or with an LR of your choice",
    "checkpoint": "write a checkpoint now, and keep it; the training goes on",
    "check": "check a configuration without starting anything: its schedule, drawn, and every trap in it",
    "prepare": "index, check and encode a corpus into the cache, without training: start then begins at once",
    "join": "on a further node: take part in the runs of the daemon whose log root this is",
    "prune": "list old runs, packs and caches, and remove them with --yes",
    "logs": "print what the trainer printed",
    "baselines": "score simpler models on the cache and split of a run, in one table with its protocol",
    "cost": "say what a fault of the learning rate has cost, by training the run again at its declared rates",
    "optimum": "prove what a linear probe could still reach on the features of a run, and say how far it is from that",
}


class Subcommand(Protocol):
    """A module of this package."""

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, arguments: argparse.Namespace, logs: Path) -> int: ...


def subcommand(name: str) -> Subcommand:
    return cast(Subcommand, importlib.import_module(f"eegpt_daemon.commands.{name}"))
