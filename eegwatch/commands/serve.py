"""`eegwatch serve [PATH]`: the same screen in a browser, behind a token."""

from __future__ import annotations

import argparse

from eegwatch.commands.options import add_declaration, add_path, add_read_only, whole
from eegwatch.run.control import log_root
from eegwatch.run.declaration.schedule_line import ScheduleLine
from eegwatch.run.folder import NotARun


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Needs pip install 'eegwatch[serve]'."
    add_path(parser, nargs="?", help="log root, run folder, run.jsonl, or another program's log")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine alone)")
    parser.add_argument("--port", type=whole(0, 65535), default=8421, help="0: any that is free (default: 8421)")
    add_read_only(parser)
    add_declaration(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    from eegwatch.serve import run_server

    path = log_root(arguments.path)
    if not path.exists():
        raise NotARun(f"{path}: no such file or folder; give a log root, a run folder or a run.jsonl")
    words = ["watch", str(path)]
    for name in ("config", "steps_per_epoch"):
        value = getattr(arguments, name)
        if isinstance(value, ScheduleLine):
            words += ["--schedule", value.text]
        elif value is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    words += [word for pattern in arguments.pattern for word in ("--pattern", pattern)]
    words += ["--read-only"] if arguments.read_only else []
    run_server(words, arguments.host, arguments.port, read_only=arguments.read_only)
    return 0
