"""Subcommands of `eegpt-daemon` that compute something about a run: one module each, one row of COMMANDS.

`prepare_parser` says its options, `run` does it and returns the exit code. What loads torch is imported in `run`.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Protocol, cast

COMMANDS = {
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
