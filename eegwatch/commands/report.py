"""`eegwatch report PATH -o FILE`: one self-contained page on a run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from eegwatch.commands.options import A_RUN, UNREADABLE, WRONG, add_declaration, add_path, open_run
from eegwatch.run.folder import private_files
from eegwatch.wording import plain


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    add_path(parser, help=A_RUN)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="report.html or report.md")
    add_declaration(parser)


def run(arguments: argparse.Namespace) -> int:
    """The exit code is that of `check`."""
    from eegwatch.report import write_report

    checked = open_run(arguments, arguments.path)
    outcome = checked.read_to_end()
    with private_files():
        write_report(checked, arguments.output)
    verdict = plain(f"{arguments.output}: {checked.name}, {outcome.verdict()}")
    if not outcome.steps:
        print(f"eegwatch: {verdict}", file=sys.stderr)
        return UNREADABLE
    print(verdict)
    for finding in outcome.findings:
        print(plain(f"{finding.severity:7}  {finding.rule}: {finding.message}"))
    return WRONG if outcome.wrong else 0
