"""`eegpt-daemon cost RUN`: what a fault of the learning rate has cost, by training again at the declared rates."""

from __future__ import annotations

import argparse
from pathlib import Path

from eegpt_daemon.commands.options import add_run, computed, in_the_background, print_result, run_folder, say
from eegwatch.run.results import cost as files


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="seeds of both arms (default: 5)")


def run(arguments: argparse.Namespace, logs: Path) -> int:
    """0 written, 1 what was asked for cannot be computed for this run."""
    folder = run_folder(arguments.run, logs)
    in_the_background()

    def work() -> int:
        from eegpt_daemon.analysis.cost import cost_of

        cost = cost_of(folder, arguments.seeds, say)
        print_result(files.write(folder, cost), files.sentences(cost), json=arguments.json)
        return 0

    return computed(work)
