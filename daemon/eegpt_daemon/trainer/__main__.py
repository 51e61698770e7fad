"""`python -m eegpt_daemon.trainer RUN_FOLDER ATTEMPT_JSON STATUS_PIPE`: started by the supervisor, never by hand.

Under torch's launcher every process of the run starts here; the one of rank 0 holds the run's lock and the link.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from pathlib import Path

import msgspec

from eegpt_daemon.link import Attempt, Link, NullLink, hold_run


def main() -> int:
    folder, attempt_json, status = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    attempt = msgspec.json.decode(attempt_json, type=Attempt)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # the supervisor asks a trainer that hangs for its stack
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # whether a terminal that closes ends the run, the supervisor decides
    leads = os.environ.get("RANK", "0") == "0"
    link = Link(status) if leads else NullLink()
    link.phase("starting")
    if leads and not hold_run(folder):
        return 75
    from eegpt_daemon.trainer.attempt import Trainer  # torch: 2 s, after the lock
    from eegpt_daemon.trainer.process_group import ProcessGroup

    return Trainer(folder, attempt, link, ProcessGroup.from_environment()).run()


if __name__ == "__main__":
    sys.exit(main())
