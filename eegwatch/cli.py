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
from eegwatch.formats import compile_patterns, foreign_log
from eegwatch.run import config as configuration
from eegwatch.run.control import log_root
from eegwatch.run.folder import NotARun, resolve
from eegwatch.wording import UserError, plain, plain_lines

if TYPE_CHECKING:
    from eegwatch.check import CheckedRun

WRONG, UNREADABLE = 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        match words[:1]:
            case ["check"]:
                return check(_check_parser().parse_args(words[1:]))
            case ["export"]:
                return export(_export_parser().parse_args(words[1:]))
            case ["tmux"]:
                return in_tmux(_tmux_parser().parse_args(words[1:]))
            case ["serve"]:
                return serve(_serve_parser().parse_args(words[1:]))
            case ["report"]:
                return report(_report_parser().parse_args(words[1:]))
        return watch(_watch_parser().parse_args(words))
    except UserError as error:
        print(f"eegwatch: {plain(str(error))}", file=sys.stderr)
        return UNREADABLE
    except BrokenPipeError:  # `eegwatch check … | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return WRONG
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        print(f"eegwatch: {plain(where)}{plain(error.strerror or str(error))}", file=sys.stderr)
        return UNREADABLE


def _watch_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="eegwatch",
        description="Watch a training run: its learning rate against the declared schedule, its loss, what is wrong.",
        epilog="eegwatch check PATH prints the findings without a screen; eegwatch report PATH -o FILE writes a page; "
        "eegwatch export PATH -o FILE writes the metrics or the charts; eegwatch serve PATH shows it in a browser; "
        "eegwatch tmux PATH keeps it in a tmux session.",
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
    parser.add_argument("--read-only", action="store_true", help="watch only: no key commands the run")
    parser.add_argument("--theme", help="a theme of Textual's, or the next of them with ctrl+p")
    parser.add_argument("--ascii", action="store_true", help="no Unicode (by itself where the terminal has none)")
    parser.add_argument(
        "--slow-link",
        action=argparse.BooleanOptionalAction,
        default="SSH_CONNECTION" in os.environ,
        help="draw twice a second at most, charts every two seconds (by itself inside ssh)",
    )
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
    parser = argparse.ArgumentParser(prog="eegwatch export", description="Write a run's metrics, or its charts.")
    parser.add_argument("path", help="log root (its newest run), run folder, run.jsonl, or another's log")
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
    charts.add_argument("--steps", metavar="A:B", help="only these steps")
    charts.add_argument("--x", choices=("step", "epoch", "time"), default="step", help="what the x axis counts")
    charts.add_argument("--log", default="lr", metavar="NAMES", help="charts with a logarithmic y axis (default: lr)")
    charts.add_argument("--size", metavar="WxH", help="in pixels")
    _declaring(parser)
    return parser


def _tmux_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="eegwatch tmux",
        description="The monitor and the trainer's output in a tmux session, opened once and re-attached after.",
    )
    parser.add_argument("path", nargs="?", help="log root (default: $EEGWATCH_LOGS, else ./logs)")
    parser.add_argument("--detach", action="store_true", help="make the session, print its name, do not show it")
    parser.add_argument("--read-only", action="store_true", help="watch only: no key commands the run")
    return parser


def in_tmux(arguments: argparse.Namespace) -> int:
    """Open or find the session, and show it."""
    from eegwatch.tmux import attach, open_session

    name = open_session(log_root(arguments.path), ["--read-only"] if arguments.read_only else [])
    if arguments.detach:
        print(f"tmux attach -t {name}")
    else:
        attach(name)
    return 0


def _serve_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="eegwatch serve",
        description="The same screen in a browser, behind a token. Needs pip install 'eegwatch[serve]'.",
    )
    parser.add_argument("path", nargs="?", help="log root, run folder, run.jsonl, or someone else's log")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine alone)")
    parser.add_argument("--port", type=int, default=8421, help="0: any that is free (default: 8421)")
    parser.add_argument("--read-only", action="store_true", help="watch only: no key commands the run")
    _declaring(parser)
    return parser


def serve(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    from eegwatch.serve import run_server

    path = log_root(arguments.path)
    if not path.exists():
        raise NotARun(f"{path}: no such file or folder; give a log root, a run folder or a run.jsonl")
    words = [str(path)]
    for name in ("config", "steps_per_epoch"):
        if getattr(arguments, name) is not None:
            words += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
    words += [word for pattern in arguments.pattern for word in ("--pattern", pattern)]
    words += ["--read-only"] if arguments.read_only else []
    run_server(words, arguments.host, arguments.port, read_only=arguments.read_only)
    return 0


def export(arguments: argparse.Namespace) -> int:
    """Write the metrics."""
    from eegwatch.export import Charts
    from eegwatch.export import export as write

    form = arguments.format or ("chart" if arguments.output.suffix.lower() in (".svg", ".png") else "csv")
    size = _size(arguments.size, most=20_000) if arguments.size else None
    charts = Charts(
        arguments.chart, _steps(arguments.steps), arguments.x, frozenset(arguments.log.replace(",", " ").split()), size
    )
    run = _open(arguments, arguments.path)
    run.read_to_end()
    print(write(run.history, run.name, form, arguments.output, charts))
    return 0


def report(arguments: argparse.Namespace) -> int:
    """Write the page; the exit code is that of `check`."""
    from eegwatch.report import write_report

    run = _open(arguments, arguments.path)
    outcome = run.read_to_end()
    write_report(run, arguments.output)
    verdict = outcome.findings[0].message if outcome.wrong else "nothing wrong"
    print(plain(f"{arguments.output}: {run.name}, {verdict}"))
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
    from eegwatch.tui.ascii import needed as ascii_needed

    in_browser = "TEXTUAL_DRIVER" in os.environ  # set by textual-serve: a screen, though no terminal
    app = WatchApp(
        *place,
        foreign,
        declared,
        ascii=arguments.ascii or (not in_browser and ascii_needed()),
        read_only=arguments.read_only,
        theme=arguments.theme,
        slow_link=arguments.slow_link,
    )
    if arguments.once or not (sys.stdout.isatty() or in_browser):
        from eegwatch.tui.frame import render

        width, height = _size(arguments.size or "100x30")
        print(plain_lines(render(app, width, height, arguments.wait_steps)))
        return 0
    app.run()
    return app.return_code or 0


def _size(text: str, most: int = 1000) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if width.isdecimal() and height.isdecimal() and 20 <= int(width) <= most and 6 <= int(height) <= most:
        return int(width), int(height)
    raise NotARun(f"--size {text}: write it as WxH, for example 100x30")


def _steps(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    first, _, last = text.replace("_", "").partition(":")
    if first.isdecimal() and last.isdecimal() and int(first) < int(last):
        return int(first), int(last)
    raise NotARun(f"--steps {text}: write it as A:B, for example 1000:5000")


def check(arguments: argparse.Namespace) -> int:
    """Run every detector over each log and print what they find; the worst of them decides the exit code."""
    from eegwatch.check import Checked, follow

    runs = [_open(arguments, path) for path in arguments.path]
    if arguments.follow:
        return follow(runs, as_json=arguments.json)
    outcomes: list[Checked] = [run.read_to_end() for run in runs]
    for outcome in outcomes:
        print(json.dumps(outcome.as_dict()) if arguments.json else plain_lines(outcome.text()))
        for remark in outcome.remarks() if not arguments.json else []:
            print(plain(f"{outcome.run}: {remark}"), file=sys.stderr)
    return WRONG if any(outcome.wrong or outcome.disorder for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
