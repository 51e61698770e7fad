"""Options that several subcommands share, and the values that they accept."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eegwatch.formats import compile_patterns

if TYPE_CHECKING:
    from eegwatch.check import CheckedRun
    from eegwatch.run.declaration.schedule_line import ScheduleLine

WRONG, UNREADABLE = 1, 2
A_RUN = "log root (its newest run), run folder, run.jsonl, or another program's log"


def add_path(parser: argparse.ArgumentParser, **more: Any) -> None:
    """The PATH of a subcommand; the shell completes it."""
    action = parser.add_argument("path", **more)
    action.complete = {"bash": "_shtab_compgen_files", "zsh": "_files", "fish": "(__fish_complete_path)"}  # type: ignore[attr-defined]


def add_declaration(parser: argparse.ArgumentParser) -> None:
    """Options that declare what another program's log does not contain."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="the declared schedule, where the log has none: ours, or the hyperparameters of transformers "
        "(training_args.bin, JSON), mmengine, detectron2, fairseq, timm or nanoGPT",
    )
    parser.add_argument(
        "--schedule",
        dest="config",
        type=_schedule_line,
        metavar="LINE",
        help='the same in one line: "cosine max_lr=3e-4 warmup=500 total=10000"',
    )
    parser.add_argument(
        "--steps-per-epoch", type=whole(1), metavar="N", help="if neither --config nor the log contains it"
    )
    parser.add_argument(
        "--pattern",
        action="append",
        default=[],
        metavar="REGEX",
        help="for text logs: (?P<step>…) (?P<lr>…) (?P<loss>…) …",
    )


def _schedule_line(text: str) -> ScheduleLine:
    from eegwatch.run.config import ConfigError
    from eegwatch.run.declaration.schedule_line import ScheduleLine

    try:
        return ScheduleLine.read(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("--schedule: ")) from None


def add_read_only(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--read-only", action="store_true", help="watch only: no key commands the run")


def open_run(arguments: argparse.Namespace, path: str) -> CheckedRun:
    """The run at a path, not yet read. Raises UserError."""
    from eegwatch import check

    patterns = compile_patterns(arguments.pattern)
    return check.open_run(Path(path), arguments.config, arguments.steps_per_epoch, patterns)


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """An argparse type: an integer within bounds, both included."""

    def number(text: str) -> int:
        digits = text.replace("_", "").replace(",", "")
        if not (digits.lstrip("+").isdecimal() and len(digits) < 20 and least <= int(digits) <= (most or int(digits))):
            bounds = f"from {least} to {most}" if most is not None else f"of at least {least}"
            raise argparse.ArgumentTypeError(f"{text}: not a whole number {bounds}")
        return int(digits)

    return number


def size(least: tuple[int, int], most: int, example: str) -> Callable[[str], tuple[int, int]]:
    """An argparse type: WIDTHxHEIGHT within bounds."""

    def pair(text: str) -> tuple[int, int]:
        width, times, height = text.lower().partition("x")
        if not (times and width.isdecimal() and height.isdecimal()):
            raise argparse.ArgumentTypeError(f"{text}: write it as WxH, for example {example}")
        if not (len(text) < 20 and least[0] <= int(width) <= most and least[1] <= int(height) <= most):
            raise argparse.ArgumentTypeError(f"{text}: from {least[0]}x{least[1]} to {most}x{most}")
        return int(width), int(height)

    return pair


def step_range(text: str) -> tuple[int, int]:
    """An argparse type: A:B, the first and the last step."""
    first, colon, last = text.replace("_", "").replace(",", "").partition(":")
    if not (colon and first.isdecimal() and last.isdecimal() and len(text) < 40):
        raise argparse.ArgumentTypeError(f"{text}: write it as A:B, for example 1000:5000")
    if int(first) >= int(last):
        raise argparse.ArgumentTypeError(f"{text}: the first step must lie below the last")
    return int(first), int(last)
