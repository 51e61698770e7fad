"""`eegpt-daemon prune`: list old runs, packs and caches, and remove them with --yes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from eegpt_daemon import prune
from eegpt_daemon.refusal import FAILED, OK
from eegwatch.wording import plain, size


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--older-than", type=_days, default=30.0, metavar="DAYS", help="unused for so long (default: 30)"
    )
    parser.add_argument("--keep", type=int, default=10, metavar="N", help="the newest N runs stay (default: 10)")
    parser.add_argument(
        "--cache", type=Path, action="append", default=[], metavar="DIR", help="a further data.cache_dir"
    )
    parser.add_argument("--yes", action="store_true", help="remove what is listed")
    parser.add_argument("--json", action="store_true")


def run(arguments: argparse.Namespace, logs: Path) -> int:
    """List what can be removed; with --yes remove it."""
    candidates = prune.candidates(
        logs, older_than_days=arguments.older_than, keep=arguments.keep, caches=arguments.cache
    )
    if arguments.json:
        print(prune.as_json(candidates))
    else:
        for candidate in candidates:
            print(plain(candidate.line()))
    total = size(sum(c.size for c in candidates))
    if not arguments.yes:
        if not arguments.json:
            print(f"{len(candidates)} in all, {total}; --yes removes them" if candidates else "nothing to remove")
        return OK
    failed = 0
    for candidate in candidates:
        try:
            prune.remove(candidate)
        except OSError as error:
            failed += 1
            print(f"eegpt-daemon: {plain(str(candidate.path))}: {error.strerror}", file=sys.stderr)
    if not arguments.json:
        print(f"removed {len(candidates) - failed}, {total}" if candidates else "nothing to remove")
    return FAILED if failed else OK


def _days(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days")
    return value
