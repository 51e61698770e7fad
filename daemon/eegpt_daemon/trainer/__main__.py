"""`python -m eegpt_daemon.trainer RUN_FOLDER ATTEMPT_JSON STATUS_FD`: started by the supervisor, never by hand."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec

from eegpt_daemon.trainer.attempt import ORPHAN_PATIENCE_S, RUN_LOCK, Attempt, Link
from eegwatch.run.control import Locked, take_lock


def main() -> int:
    folder, attempt_json, status_fd = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    attempt = msgspec.json.decode(attempt_json, type=Attempt)
    link = Link(status_fd)
    link.phase("starting")
    end = time.monotonic() + ORPHAN_PATIENCE_S
    while True:  # two trainers must never write one run
        try:
            take_lock(folder / RUN_LOCK)
            break
        except Locked as held:
            if time.monotonic() > end:
                print(f"eegpt-daemon: another trainer (pid {held.args[0]}) still holds {folder}", file=sys.stderr)
                return 75
            time.sleep(0.1)
    from eegpt_daemon.trainer.loop import Trainer  # torch: 2 s, after the lock

    return Trainer(folder, attempt, link).run()


if __name__ == "__main__":
    sys.exit(main())
