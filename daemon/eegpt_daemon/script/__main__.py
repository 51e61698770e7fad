"""`python -m eegpt_daemon.script RUN_FOLDER ATTEMPT_JSON STATUS_PIPE`: started by the supervisor, never by hand."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from eegpt_daemon.link import hold_run
from eegpt_daemon.script.link import ScriptLink
from eegpt_daemon.script.runner import Runner, decoded
from eegwatch.run import config as configuration
from eegwatch.run.folder import CONFIG


def main() -> int:
    folder, attempt, status = Path(sys.argv[1]), decoded(sys.argv[2]), sys.argv[3]
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if not hold_run(folder):
        return 75
    config = configuration.load(folder / CONFIG, expand=False)
    return Runner(folder, attempt, config, ScriptLink(folder, status)).run()


if __name__ == "__main__":
    sys.exit(main())
