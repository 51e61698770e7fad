"""`eegwatch [PATH]`: watch a run; `eegwatch check PATH`: the findings without a screen, for cron and CI.

Exit codes: 0 nothing wrong · 1 findings of severity warning or error · 2 unreadable input or wrong usage.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads spin after import: twice the CPU for a 4 ms job

from eegwatch import __version__
from eegwatch.formats import FormatError, PatternError, compile_patterns, foreign_log
from eegwatch.run import config as configuration
from eegwatch.run.config import ConfigError
from eegwatch.run.control import log_root
from eegwatch.run.folder import NotARun, resolve

if TYPE_CHECKING:
    from eegwatch.check import CheckedRun

WRONG, UNREADABLE = 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words[:1] == ["check"]:
            return check(_check_parser().parse_args(words[1:]))
        if words[:1] == ["export"]:
            return export(_export_parser().parse_args(words[1:]))
        if words[:1] == ["report"]:
            return report(_report_parser().parse_args(words[1:]))
        return watch(_watch_parser().parse_args(words))
    except (NotARun, ConfigError, FormatError, PatternError) as error:
        print(f"eegwatch: {error}", file=sys.stderr)
        return UNREADABLE
    except BrokenPipeError:  # `eegwatch check … | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return WRONG
    except OSError as error:
        print(f"eegwatch: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        return UNREADABLE


def _watch_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="eegwatch",
        description="Watch a training run: its learning rate against the declared schedule, its loss, what is wrong.",
        epilog="eegwatch check PATH prints the findings without a screen; eegwatch report PATH -o FILE writes a page; "
        "eegwatch export PATH -o FILE writes the metrics as CSV, TensorBoard or W&B.",
    )
    parser.add_argument(
        "path",
        nargs="?",
        help="log root, run folder, run.jsonl, or someone else's log (default: $EEGWATCH_LOGS, else ./logs)",
    )
    parser.add_argument(
        "--once", action="store_true", help="print one frame as text and exit (default without a terminal)"
    )
    parser.add_argument("--size", default=None, metavar="WxH", help="size of that frame (default: 100x30)")
    parser.add_argument("--wait-steps", type=int, default=0, metavar="N", help="wait until the log holds N steps")
    _declaring(parser)
    parser.add_argument("--version", action="version", version=f"eegwatch {__version__}")
    return parser


def _declaring(parser: argparse.ArgumentParser) -> None:
    """What a log of someone else's does not say."""
    parser.add_argument("--config", type=Path, metavar="YAML", help="the declared schedule, where the log has none")
    parser.add_argument("--steps-per-epoch", type=int, metavar="N", help="where --config and the log do not tell")
    parser.add_argument(
        "--pattern",
        action="append",
        default=[],
        metavar="REGEX",
        help="for text logs: (?P<step>…) (?P<lr>…) (?P<loss>…) …",
    )


def _check_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="eegwatch check", description="Print a run's findings and exit.")
    parser.add_argument(
        "path", nargs="+", help="log root (its newest run), run folder, run.jsonl, or someone else's log"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a run and line instead of text")
    _declaring(parser)
    parser.add_argument("--follow", action="store_true", help="go on as the log grows, print what changes")
    return parser


def _report_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="eegwatch report", description="Write one self-contained page on a run.")
    parser.add_argument("path", help="log root (its newest run), run folder, run.jsonl, or another's log")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="report.html or report.md")
    _declaring(parser)
    return parser


def _export_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="eegwatch export", description="Write a run's metrics for other programs.")
    parser.add_argument("path", help="log root (its newest run), run folder, run.jsonl, or another's log")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="PATH", help="metrics.csv, or a folder")
    parser.add_argument("--format", choices=("csv", "tensorboard", "wandb"), default="csv")
    _declaring(parser)
    return parser


def export(arguments: argparse.Namespace) -> int:
    """Write the metrics; 0, or 2 with the reason."""
    from eegwatch.export import ExportError
    from eegwatch.export import export as write

    run = _open(arguments, arguments.path)
    run.read_to_end()
    try:
        print(write(run.history, run.name, arguments.format, arguments.output))
    except ExportError as error:
        print(f"eegwatch: {error}", file=sys.stderr)
        return UNREADABLE
    return 0


def report(arguments: argparse.Namespace) -> int:
    """Write the page; the exit code is that of `check`."""
    from eegwatch.report import ReportError, write_report

    run = _open(arguments, arguments.path)
    outcome = run.read_to_end()
    try:
        write_report(run, arguments.output)
    except ReportError as error:
        print(f"eegwatch: {error}", file=sys.stderr)
        return UNREADABLE
    print(f"{arguments.output}: {run.name}, " + (outcome.findings[0].message if outcome.wrong else "nothing wrong"))
    return WRONG if outcome.wrong else 0


def _open(arguments: argparse.Namespace, path: str) -> CheckedRun:
    from eegwatch.check import open_run

    patterns = compile_patterns(arguments.pattern)
    return open_run(Path(path), arguments.config, arguments.steps_per_epoch, patterns)


def watch(arguments: argparse.Namespace) -> int:
    path = log_root(arguments.path)
    declared = arguments.config, arguments.steps_per_epoch
    if arguments.config is not None:
        configuration.load(arguments.config, expand=False)
    foreign = foreign_log(path, compile_patterns(arguments.pattern)) if arguments.path else None
    if foreign is not None:
        foreign.follow().close()  # what cannot be read at all is said here, before the screen
        place: tuple[Path, Path | None] = (foreign.path.parent, foreign.path)
    else:
        place = resolve(path) if path.exists() or arguments.path else (path, None)
    gc.disable()  # nothing of the start dies: the app turns it on again once the first frame stands
    from eegwatch.tui.app import WatchApp  # textual: 0.2 s that `check` does not pay

    app = WatchApp(*place, foreign, declared)
    if arguments.once or not sys.stdout.isatty():
        from eegwatch.tui.frame import render

        width, height = _size(arguments.size or "100x30")
        print(render(app, width, height, arguments.wait_steps))
        return 0
    app.run()
    return app.return_code or 0


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if width.isdecimal() and height.isdecimal() and 20 <= int(width) <= 1000 and 6 <= int(height) <= 500:
        return int(width), int(height)
    raise NotARun(f"--size {text}: write it as WxH, for example 100x30")


def check(arguments: argparse.Namespace) -> int:
    """Run every detector over each log and print what they find; the worst of them decides the exit code."""
    from eegwatch.check import Checked, follow

    runs = [_open(arguments, path) for path in arguments.path]
    if arguments.follow:
        return follow(runs, as_json=arguments.json)
    outcomes: list[Checked] = [run.read_to_end() for run in runs]
    for outcome in outcomes:
        print(json.dumps(outcome.as_dict()) if arguments.json else outcome.text())
        for remark in outcome.remarks() if not arguments.json else []:
            print(f"{outcome.run}: {remark}", file=sys.stderr)
    return WRONG if any(outcome.wrong or outcome.disorder for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
