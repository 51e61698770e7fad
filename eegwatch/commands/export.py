"""`eegwatch export PATH -o PATH`: a run's metrics as a table or event files, or its charts as a picture."""

from __future__ import annotations

import argparse
from pathlib import Path

from eegwatch.commands.options import A_RUN, add_declaration, add_path, open_run, size, step_range
from eegwatch.run.folder import private_files

ENDINGS = {".csv": "csv", ".svg": "chart", ".png": "chart"}


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    add_path(parser, help=A_RUN)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="PATH",
        help="metrics.csv, charts.svg, charts.png, or a folder",
    )
    parser.add_argument("--format", choices=("csv", "chart", "tensorboard", "wandb"), help="default: by the ending")
    charts = parser.add_argument_group("charts")
    charts.add_argument("--chart", default="^(lr|loss)$", metavar="PATTERN", help="which: names, text or an expression")
    charts.add_argument("--steps", type=step_range, metavar="A:B", help="only these steps")
    charts.add_argument("--x", choices=("step", "epoch", "time"), default="step", help="what the x axis counts")
    charts.add_argument("--log", default="lr", metavar="NAMES", help="charts with a logarithmic y axis (default: lr)")
    charts.add_argument("--size", type=size((20, 20), 20_000, "1200x800"), metavar="WxH", help="in pixels")
    add_declaration(parser)


def run(arguments: argparse.Namespace) -> int:
    from eegwatch.export import Charts, ExportError, export

    ending = arguments.output.suffix.lower()
    if arguments.format is None and ending not in ENDINGS:
        raise ExportError(
            f"{arguments.output}: write it as .csv, .svg or .png, or choose --format tensorboard or wandb for a folder"
        )
    form = arguments.format or ENDINGS[ending]
    logarithmic = frozenset(arguments.log.replace(",", " ").split())
    charts = Charts(arguments.chart, arguments.steps, arguments.x, logarithmic, arguments.size)
    checked = open_run(arguments, arguments.path)
    checked.read_to_end()
    with private_files():
        print(export(checked.history, checked.name, form, arguments.output, charts))
    return 0
