"""`eegpt-daemon optimum RUN`: the optimum of the training loss on a run's features, and how far the run is from it."""

from __future__ import annotations

import argparse
from pathlib import Path

from eegpt_daemon.commands.options import add_run, computed, in_the_background, print_result, run_folder, say
from eegwatch.run.results import optimum as files


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    add_run(parser)


def run(arguments: argparse.Namespace, logs: Path) -> int:
    """0 written, 1 what was asked for cannot be computed for this run."""
    folder = run_folder(arguments.run, logs)
    in_the_background()

    def work() -> int:
        from eegpt_daemon.analysis.optimum_of_run import reach_of

        reach = reach_of(folder, say)
        print_result(files.write(folder, reach), files.sentences(reach), json=arguments.json)
        return 0

    return computed(work)
