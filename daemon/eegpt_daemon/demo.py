"""`python -m eegpt_daemon.demo CONFIG --logs DIR`: begin a demonstration in any state of the log root's daemon.

Without a daemon it starts one. If the same demonstration is running, it continues. Another demonstration, or a run that
has ended, is replaced by the new one. It never ends a run that is not a demonstration.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from eegpt_daemon.cli import main as daemon_main
from eegwatch.run import config as configuration
from eegwatch.run.liveness import Liveness, Pulse
from eegwatch.shell import command as shell

OURS = ("demo", "incident", "script_example", "real_scp1")  # names of the demonstrations' configurations
BUSY = ("preparing", "training", "evaluating", "checkpointing", "starting", "restarting")


def plan(name: str, life: Liveness, ours: tuple[str, ...] = OURS) -> tuple[str, str]:
    """("start", "restart", "watch" or "refuse", the reason) for the demonstration `name`."""
    if not life.alive:
        return "start", f"{name} begins"
    if life.word not in BUSY or life.run_id is None:
        return "restart", f"the daemon is idle: {name} begins as a new run"
    if life.run_id.endswith(f"-{name}"):
        return "watch", f"{name} is running already ({life.run_id})"
    if any(life.run_id.endswith(f"-{other}") for other in ours):
        return "restart", f"{life.run_id} is ended, {name} begins as a new run; the old one can be resumed"
    return "refuse", (
        f"{life.run_id} is being trained here and is not a run of the demonstration: "
        f"stop it first ({shell('eegpt-daemon', 'stop')}), "
        "or use another log root: make demo LOGS=demo-logs"
    )


def main() -> int:
    """Exit code 0 where the demonstration runs, 2 where it must not begin here, else that of eegpt-daemon."""
    parser = argparse.ArgumentParser(prog="python -m eegpt_daemon.demo", description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--logs", type=Path, default=Path("logs"))
    arguments = parser.parse_args()
    name = configuration.load(arguments.config).experiment.name
    what, words = plan(name, Pulse(arguments.logs).take())
    print(f"eegwatch: {words}", flush=True)
    if what in ("watch", "refuse"):
        return 0 if what == "watch" else 2
    return daemon_main([what, "--config", str(arguments.config), "--logs", str(arguments.logs)])


if __name__ == "__main__":
    sys.exit(main())
