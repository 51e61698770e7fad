"""`eegpt-daemon optimum RUN`: the optimum of the training loss on a run's features, and how far the run is from it."""

from __future__ import annotations

import argparse
from pathlib import Path

from eegpt_daemon.commands.options import add_run, computed, in_the_background, run_folder, say
from eegwatch.run.results import optimum as files
from eegwatch.wording import plain


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    add_run(parser)


def run(arguments: argparse.Namespace, logs: Path) -> int:
    """0 written, 1 what was asked for cannot be computed for this run."""
    folder = run_folder(arguments.run, logs)
    in_the_background()

    def work() -> int:
        from eegpt_daemon.analysis.optimum_of_run import reach_of

        reach = reach_of(folder, say)
        target = files.write(folder, reach)
        if arguments.json:
            print(target.read_text(), end="")
            return 0
        for sentence in files.sentences(reach):
            print(plain(sentence))
        print(plain(f"written to {target}"))
        return 0

    return computed(work)
