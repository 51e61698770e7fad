"""`eegpt-daemon stop`: checkpoint, end the run and the daemon."""

from __future__ import annotations

import argparse
import contextlib
import time
from pathlib import Path

from eegpt_daemon.client import require_daemon, send_command
from eegwatch.run.control import daemon_pid
from eegwatch.run.folder import newest_run
from eegwatch.run.unsaved_steps import unsaved_of


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    """It has no options of its own."""


def run(arguments: argparse.Namespace, logs: Path) -> int:
    require_daemon(logs, "there is nothing to stop")
    newest = newest_run(logs)
    with contextlib.suppress(OSError):  # a log that cannot be read is no reason not to stop
        if newest is not None and (words := unsaved_of(newest)) is not None:
            print(words, flush=True)
    code = send_command(logs, "stop", exit=True)
    end = time.monotonic() + 5
    while daemon_pid(logs) is not None and time.monotonic() < end:
        time.sleep(0.05)
    return code
