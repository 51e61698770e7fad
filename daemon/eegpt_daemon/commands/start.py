"""`eegpt-daemon start`: start a daemon with a new run, or with the interrupted one."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from eegpt_daemon.errors import OK, USAGE, Refused, require_heavy
from eegpt_daemon.launch import already_running, current_run, launch, live
from eegwatch.run import config as configuration
from eegwatch.run.control import daemon_pid, exposed
from eegwatch.run.folder import newest_run
from eegwatch.shell import begin_anew
from eegwatch.shell import command as shell


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="PATH", help="configuration (default: the demo)")
    parser.add_argument("--foreground", action="store_true", help="stay in this terminal; Ctrl-C checkpoints and ends")
    parser.add_argument("--no-check", action="store_true", help="start in spite of errors that the preflight finds")
    parser.add_argument(
        "--continue",
        dest="go_on",
        action="store_true",
        help="continue the run that a crash, a reboot or a signal interrupted; without one begin --config, or wait",
    )


def run(arguments: argparse.Namespace, logs: Path) -> int:
    require_heavy()
    path = arguments.config or (None if arguments.go_on else shipped_config("demo.yaml"))
    config = configuration.load(path) if path else None
    if config is not None and config.script is not None:
        from eegpt_daemon.preflight_script import refuse_traps
        from eegpt_daemon.script.template import resolved

        script = resolved(config.script, str(path))  # what cannot be run is said before anything is started
        if not arguments.no_check:
            refuse_traps(config, script, str(path))
    pid = daemon_pid(logs)
    if pid is not None:
        raise Refused(already_running(logs, pid))
    if not arguments.no_check and path is not None and config is not None and config.script is None:
        from eegpt_daemon.preflight import refuse_if_wrong

        refuse_if_wrong(path)
    if arguments.foreground:
        return live(logs, config, go_on=arguments.go_on)
    launch(logs, [*(["--config", str(path.resolve())] if path else []), *(["--continue"] if arguments.go_on else [])])
    watched, warning = newest_run(logs), exposed(logs)
    if warning is not None:
        print(f"eegpt-daemon: warning: {warning}", file=sys.stderr)
    run_id, pid = current_run(logs) or (watched.name if watched else None), daemon_pid(logs)
    if run_id is None:
        print(f"started: daemon pid {pid}, idle: there was no run to continue; begin one:  {begin_anew(logs)}")
    else:
        print(f"started: daemon pid {pid}, run {run_id}")
    stop = shell("eegpt-daemon", "stop", "--logs", logs)
    print(f"watch it:  {shell('eegwatch', logs)}      stop it:  {stop}")
    return OK


def shipped_config(name: str) -> Path:
    """A configuration that comes with the package: in the wheel, or in the checkout's configs/."""
    folder_of_package = Path(__file__).resolve().parents[1]
    for folder in (folder_of_package / "configs", folder_of_package.parents[1] / "configs"):
        if (folder / name).exists():
            return folder / name
    raise Refused(f"the shipped configuration {name} is missing from this installation; give --config PATH", USAGE)
