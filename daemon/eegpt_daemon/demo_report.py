"""`python -m eegpt_daemon.demo_report CONFIG --logs DIR`: the results of a demonstration after its end.

Waits for the end of the newest run of that configuration, then computes its optimum and its baselines, and writes
`report.html` into the run's folder. Each part is the command of that name; a failure is printed and ends the program.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from eegpt_daemon.cli import main as daemon_main
from eegwatch.cli import main as monitor_main
from eegwatch.commands.options import WRONG
from eegwatch.run import config as configuration
from eegwatch.run.folder import runs
from eegwatch.run.follow import history_of

LOOK_EVERY_S = 2.0
ENDED = ("completed", "early_stopped")


def newest_of(logs: Path, name: str) -> Path | None:
    """The newest run of a configuration of this name."""
    return next((folder for folder in reversed(runs(logs)) if folder.name.endswith(f"-{name}")), None)


def wait_for_end(folder: Path) -> str | None:
    """Why the run ended, once it has."""
    announced = False
    while True:
        history = history_of(folder)
        if history.end is not None:
            return history.end.reason
        if not announced:
            announced = True
            total = history.run.total_steps if history.run is not None else None
            print(
                f"{folder.name}: step {history.step_done:,} of {total or 0:,}; the report follows its end", flush=True
            )
        time.sleep(LOOK_EVERY_S)


def main() -> int:
    """Exit code 0 where the report was written, 1 where there is no run that ended by itself, else a command's."""
    parser = argparse.ArgumentParser(prog="python -m eegpt_daemon.demo_report", description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--logs", type=Path, default=Path("logs"))
    arguments = parser.parse_args()
    folder = newest_of(arguments.logs, configuration.load(arguments.config).experiment.name)
    if folder is None:
        print(f"{arguments.logs}: no run of {arguments.config}", file=sys.stderr)
        return 1
    try:
        reason = wait_for_end(folder)
    except KeyboardInterrupt:
        print("interrupted: the run continues; the same command again reports on it", file=sys.stderr)
        return 130
    if reason not in ENDED:
        print(f"{folder.name}: {reason}; a report needs a completed run", file=sys.stderr)
        return 1
    for command in ("optimum", "baselines"):
        code = daemon_main([command, str(folder), "--logs", str(arguments.logs)])
        if code:
            return code
    code = monitor_main(["report", str(folder), "-o", str(folder / "report.html")])
    return 0 if code == WRONG else code  # written, and its findings are part of it


if __name__ == "__main__":
    sys.exit(main())
