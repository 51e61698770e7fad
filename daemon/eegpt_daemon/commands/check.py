"""`eegpt-daemon check`: a configuration checked without starting anything."""

from __future__ import annotations

import argparse
from pathlib import Path

from eegpt_daemon.errors import FAILED, OK, require_heavy
from eegwatch.wording import json_line, plain_lines


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, metavar="PATH")
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--steps-per-epoch", type=int, metavar="N", help="optimizer steps an epoch, where they are known"
    )


def run(arguments: argparse.Namespace, logs: Path) -> int:
    """The preflight: exit code 0 ready, 1 a trap that would hurt, 78 no configuration at all."""
    require_heavy()
    from eegpt_daemon.preflight import preflight

    outcome = preflight(arguments.config, arguments.steps_per_epoch)
    print(json_line(outcome.as_dict()) if arguments.json else plain_lines(outcome.text()))
    return OK if outcome.ok else FAILED
