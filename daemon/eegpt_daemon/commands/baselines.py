"""`eegpt-daemon baselines RUN`: what simpler models reach on a run's cache and split."""

from __future__ import annotations

import argparse
from pathlib import Path

from eegpt_daemon.commands.options import add_run, computed, in_the_background, run_folder, say
from eegwatch.run.results import baselines as files
from eegwatch.wording import plain, plain_lines

KINDS = ("chance", "logistic", "ridge", "bandpower", "random")


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument(
        "--skip",
        action="append",
        default=[],
        choices=KINDS,
        help="leave one out: random and bandpower read all recordings once more",
    )


def run(arguments: argparse.Namespace, logs: Path) -> int:
    """0 written, 1 what was asked for cannot be computed for this run."""
    folder = run_folder(arguments.run, logs)
    in_the_background()

    def work() -> int:
        from eegpt_daemon.analysis.baselines import baselines_of

        baselines = baselines_of(folder, [kind for kind in KINDS if kind not in arguments.skip], say)
        target = files.write(folder, baselines)
        print(target.read_text() if arguments.json else plain_lines(files.text(baselines)))
        if not arguments.json:
            print(plain(f"written to {target}"))
        return 0

    return computed(work)
