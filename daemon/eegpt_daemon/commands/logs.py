"""`eegpt-daemon logs`: what the trainer printed."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from eegpt_daemon.errors import OK, Refused
from eegwatch.run.folder import TRAINER_LOG, newest_run
from eegwatch.run.log import Tail
from eegwatch.wording import plain

NEWER_RUN_S = 1.0  # `logs -f` looks for one this often: a log root may hold a thousand


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--follow", action="store_true", help="go on as it grows")


def run(arguments: argparse.Namespace, logs: Path) -> int:
    run = newest_run(logs)
    if run is None and not arguments.follow:
        raise Refused(f"no run in {logs}")
    tail, looked_at = Tail((run or logs) / TRAINER_LOG), time.monotonic()
    try:
        while True:
            if time.monotonic() - looked_at > NEWER_RUN_S:
                newest, looked_at = newest_run(logs), time.monotonic()
                if newest is not None and newest != run:
                    tail.close()
                    run, tail = newest, Tail(newest / TRAINER_LOG)
                    print(f"—— {run.name}", flush=True)
            while data := tail.read().data:
                sys.stdout.write("".join(plain(line) + "\n" for line in data.decode("utf-8", "replace").splitlines()))
                sys.stdout.flush()
            if not arguments.follow:
                return OK
            time.sleep(0.2)
    except KeyboardInterrupt:
        return OK
    except BrokenPipeError:
        sys.stderr.close()  # `eegpt-daemon logs | head`: nobody reads on
        return OK
