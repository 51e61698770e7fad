"""`eegwatch compare A B …`: whether runs differ in their scores, by their predictions."""

from __future__ import annotations

import argparse
from pathlib import Path

from eegwatch.commands.options import add_path
from eegwatch.wording import UserError, json_line


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    add_path(parser, nargs="+", metavar="RUN", help="run folders of the daemon's trainer; each is held to the first")
    parser.add_argument("--seeds", action="store_true", help="each RUN represents all seeds of its series")
    parser.add_argument("--split", choices=("eval", "val"), default="eval", help="which predictions (default: eval)")
    parser.add_argument("--model", choices=("final", "best"), default="final", help="of which model (default: final)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", dest="form", action="store_const", const="markdown", help="as a Markdown table")
    form.add_argument("--latex", dest="form", action="store_const", const="latex", help="as a LaTeX table (booktabs)")
    form.add_argument("--json", dest="form", action="store_const", const="json", help="as one JSON object")


def run(arguments: argparse.Namespace) -> int:
    from eegwatch.comparison import tables
    from eegwatch.comparison.compare import compare

    if len(arguments.path) < 2:
        raise UserError(f"{arguments.path[0]}: give two runs or more; the others are held to the first")
    paths = [Path(path) for path in arguments.path]
    comparison = compare(paths, arguments.split, arguments.model, all_seeds=arguments.seeds)
    if arguments.form == "json":
        print(json_line(tables.as_dict(comparison)))
    else:
        print({"markdown": tables.markdown, "latex": tables.latex}.get(arguments.form, tables.text)(comparison))
    return 0
