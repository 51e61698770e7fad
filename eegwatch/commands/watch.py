"""`eegwatch watch [PATH]`, or `eegwatch [PATH]`: the screen, or one frame of it as text."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from pathlib import Path

from eegwatch import __version__
from eegwatch.commands.options import add_declaration, add_path, add_read_only, size, whole
from eegwatch.firstframe import hand_over
from eegwatch.formats import compile_patterns, foreign_log
from eegwatch.run.control import log_root
from eegwatch.run.declaration.apply import source_of
from eegwatch.run.folder import resolve
from eegwatch.wording import plain_lines


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    add_path(
        parser,
        nargs="?",
        help="log root, run folder, run.jsonl, or another program's log (default: $EEGWATCH_LOGS, else ./logs)",
    )
    parser.add_argument(
        "--once", action="store_true", help="print one frame as text and exit (default without a terminal)"
    )
    parser.add_argument(
        "--size",
        type=size((20, 6), 1000, "100x30"),
        default=(100, 30),
        metavar="WxH",
        help="size of that frame in characters (default: 100x30)",
    )
    parser.add_argument("--wait-steps", type=whole(0), default=0, metavar="N", help="wait until the log holds N steps")
    add_declaration(parser)
    add_read_only(parser)
    parser.add_argument("--theme", help="a theme of Textual's, or the next of them with ctrl+p")
    parser.add_argument("--ascii", action="store_true", help="no Unicode (default on a terminal without it)")
    parser.add_argument(
        "--slow-link",
        action=argparse.BooleanOptionalAction,
        default="SSH_CONNECTION" in os.environ,
        help="draw at most twice a second, charts every two seconds (default inside ssh)",
    )
    parser.add_argument("--version", action="version", version=f"eegwatch {__version__}")


def run(arguments: argparse.Namespace) -> int:
    path = log_root(arguments.path)
    declared = arguments.config, arguments.steps_per_epoch
    source_of(arguments.config)  # an error in it is reported here, before the screen opens
    foreign = foreign_log(path, compile_patterns(arguments.pattern)) if arguments.path else None
    if foreign is not None:
        foreign.follow().close()  # a log that cannot be read is reported here, before the screen opens
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
        from eegwatch.tui.text_frame import render

        width, height = arguments.size
        print(plain_lines(render(app, width, height, arguments.wait_steps)))
        return 0
    hand_over()
    ask_the_terminal()
    app.run()
    return app.return_code or 0


def ask_the_terminal() -> None:
    """Drop COLUMNS and LINES where the terminal knows its size: exported, they stay as they are when it is resized."""
    try:
        known = all(os.get_terminal_size(sys.stdout.fileno()))
    except OSError:
        return
    if known:
        for name in ("COLUMNS", "LINES"):
            os.environ.pop(name, None)
