"""`python -m eegpt_daemon.script RUN_FOLDER ATTEMPT_JSON STATUS_PIPE`: started by the supervisor, never by hand."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from eegpt_daemon.link import ORPHAN_PATIENCE_S, RUN_LOCK
from eegpt_daemon.script.link import ScriptLink
from eegpt_daemon.script.runner import Runner, decoded
from eegwatch.run import config as configuration
from eegwatch.run.control import Locked, take_lock
from eegwatch.run.folder import CONFIG


def main() -> int:
    folder, attempt, status = Path(sys.argv[1]), decoded(sys.argv[2]), sys.argv[3]
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    end = time.monotonic() + ORPHAN_PATIENCE_S
    while True:  # two runners must never write one run
        try:
            take_lock(folder / RUN_LOCK)
            break
        except Locked as held:
            if time.monotonic() > end:
                print(f"eegpt-daemon: another process (pid {held.args[0]}) still holds {folder}", file=sys.stderr)
                return 75
            time.sleep(0.1)
    config = configuration.load(folder / CONFIG, expand=False)
    return Runner(folder, attempt, config, ScriptLink(folder, status)).run()


if __name__ == "__main__":
    sys.exit(main())
