"""`eegpt-daemon resume`: continue the newest run, on its schedule or at a rate of your choice."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from eegpt_daemon.client import send_command
from eegpt_daemon.errors import USAGE, Refused, require_heavy
from eegpt_daemon.launch import launch
from eegwatch.run.control import daemon_pid
from eegwatch.run.folder import newest_run
from eegwatch.run.summary import first_run
from eegwatch.schedule import ScheduleError, declared_base, peak_rate
from eegwatch.schedule import parse as parse_schedule
from eegwatch.shell import command as shell

LARGEST_RATE = 1000.0


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lr", type=_rate, metavar="X", help="a manual learning rate (default: rejoin the schedule)")
    parser.add_argument("--then", choices=("anneal", "hold", "scale"), help="after --lr (default: anneal)")
    parser.add_argument("--checkpoint", metavar="PATH", help="resume from this one (default: the newest good one)")
    parser.add_argument("--force", action="store_true", help="allow an LR above the declared peak")
    parser.add_argument("--as", dest="branch", metavar="NAME", help="in a new run of this name, which branches off")


def run(arguments: argparse.Namespace, logs: Path) -> int:
    if arguments.then is not None and arguments.lr is None:
        raise Refused(
            "--then is the course after a manual LR: give --lr X too, or neither to rejoin the schedule", USAGE
        )
    _refuse_above_the_peak(logs, arguments.lr, force=arguments.force)
    if daemon_pid(logs) is None:
        if newest_run(logs) is None:
            anew = shell("eegpt-daemon", "start", "--config", "PATH", "--logs", logs)
            raise Refused(f"no run in {logs} to resume; a new one: {anew}")
        require_heavy()
        launch(logs, [])
        print(f"no daemon was running: started one (pid {daemon_pid(logs)})")
    then = arguments.then or ("anneal" if arguments.lr is not None else None)
    fields = {"lr": arguments.lr, "then": then, "checkpoint": arguments.checkpoint, "force": arguments.force or None}
    return send_command(logs, "resume", **fields | {"as": arguments.branch})


def _refuse_above_the_peak(logs: Path, lr: float | None, *, force: bool) -> None:
    """Raises Refused before anything is written; the daemon judges again, by the step resumed from."""
    newest = newest_run(logs)
    record = first_run(newest) if newest is not None and lr is not None and not force else None
    if record is None or record.schedule is None or lr is None:
        return
    try:
        peak = float(peak_rate(declared_base(parse_schedule(record.schedule))))
    except ScheduleError:
        return  # a schedule of another version: the daemon says what it makes of it
    if lr > peak:
        raise Refused(f"{lr:g} is above the declared peak {peak:g}; add --force if that is intended", USAGE)


def _rate(text: str) -> float:
    """A learning rate as it is typed: `nan`, `inf`, nothing, a blank or 1e9 is a slip."""
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is not a learning rate; write a number such as 3e-4")
    value = float(text)
    if not 0 < value <= LARGEST_RATE:
        raise argparse.ArgumentTypeError(f"{text} is not a learning rate: above 0, {LARGEST_RATE:g} at most")
    return value
