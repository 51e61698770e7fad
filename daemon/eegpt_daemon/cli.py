"""`eegpt-daemon`: start, status, stop, restart, resume, checkpoint, check, prepare, prune, join, logs.

What changes a run goes through the control file. What is computed about a run is a module of `commands`.

Exit codes: 0 done · 1 refused, failed, died, or already running · 2 wrong usage · 3 no daemon is running ·
75 try again · 78 wrong configuration.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from eegpt_daemon import commands
from eegpt_daemon.link import SHELL_UMASK
from eegwatch import __version__
from eegwatch.run import config as configuration
from eegwatch.run.config import Config, ConfigError
from eegwatch.run.control import (
    CONTROL,
    AnswerWatch,
    Locked,
    daemon_pid,
    exposed,
    latest_state,
    log_root,
    send,
    unsafe_control,
)
from eegwatch.run.folder import TRAINER_LOG, last_bytes, newest_run
from eegwatch.run.log import Tail
from eegwatch.run.records import DaemonState
from eegwatch.run.summary import first_run
from eegwatch.run.unsaved import unsaved_of
from eegwatch.schedule import ScheduleError, declared_base, peak_rate
from eegwatch.schedule import parse as parse_schedule
from eegwatch.wording import UserError, clock, duration, json_line, plain, plain_lines, size

OK, FAILED, USAGE, NOT_RUNNING, TRY_AGAIN, WRONG_CONFIG = 0, 1, 2, 3, 75, 78
HEAVY = ("torch", "mne", "edfio")
LARGEST_RATE = 1000.0
PRIVATE = 0o077  # folders 0700, files 0600, whatever the shell says: logs, caches, checkpoints
DAEMON_OUT = "daemon.out"  # what a crash of the supervisor itself printed
DAEMON_WORDS = 1 << 16
START_TIMEOUT_S = 60.0  # it may wait for the trainer of a killed daemon first
NEWER_RUN_S = 1.0  # `logs -f` looks for one this often: a log root may hold a thousand
ANSWER_TIMEOUT_S = 600.0  # a resume answers with its first step, and preparation may come before it


class Refused(Exception):
    """A command line that cannot be carried out: the words, and the exit code."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


def in_words(error: OSError) -> str:
    where = "" if error.filename is None else f"{error.filename}: "
    return plain(f"{where}{error.strerror or error}")


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    os.environ[SHELL_UMASK] = f"{os.umask(PRIVATE):04o}"  # a script that is started makes its files as the shell does
    try:
        code: int = arguments.action(arguments, log_root(arguments.logs))
        return code
    except ConfigError as error:
        print(f"eegpt-daemon: {plain(str(error))}", file=sys.stderr)
        return WRONG_CONFIG
    except Refused as error:
        print(f"eegpt-daemon: {plain(str(error))}", file=sys.stderr)
        return error.code
    except UserError as error:
        print(f"eegpt-daemon: {plain(str(error))}", file=sys.stderr)
        return FAILED
    except OSError as error:
        print(f"eegpt-daemon: {in_words(error)}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("eegpt-daemon: interrupted; a command already sent is still carried out", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="eegpt-daemon", description="Trains EEGPT probes and obeys the control file.")
    top.add_argument("--version", action="version", version=f"eegpt-daemon {__version__}")
    below = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, help_text: str) -> argparse.ArgumentParser:
        sub = below.add_parser(name, help=help_text, description=help_text)
        sub.add_argument("--logs", metavar="DIR", help="log root (default: $EEGWATCH_LOGS, else ./logs)")
        return sub

    sub = command("start", "start a daemon and a new run")
    sub.add_argument("--config", type=Path, metavar="PATH", help="configuration (default: the demo)")
    sub.add_argument("--foreground", action="store_true", help="stay in this terminal; Ctrl-C checkpoints and ends")
    sub.add_argument("--no-check", action="store_true", help="start in spite of errors that the preflight finds")
    sub.add_argument(
        "--continue",
        dest="go_on",
        action="store_true",
        help="go on with the run that a crash, a reboot or a signal cut off; without one begin --config, or wait",
    )
    sub.set_defaults(action=start)
    sub = command("status", "say what the daemon is doing, and since when")
    sub.add_argument("--json", action="store_true")
    sub.set_defaults(action=status)
    sub = command("stop", "checkpoint, end the run and the daemon")
    sub.set_defaults(action=stop)
    sub = command("restart", "stop the run and start a new one from step 0")
    sub.add_argument("--config", type=Path, metavar="PATH", help="another configuration (default: the run's own)")
    sub.set_defaults(action=restart)
    sub = command("resume", "go on with the newest run: rejoin the schedule, or with an LR of your choice")
    sub.add_argument("--lr", type=_rate, metavar="X", help="a manual learning rate (default: rejoin the schedule)")
    sub.add_argument("--then", choices=("anneal", "hold", "scale"), default=None, help="after --lr (default: anneal)")
    sub.add_argument("--checkpoint", metavar="PATH", help="resume from this one (default: the newest good one)")
    sub.add_argument("--force", action="store_true", help="allow an LR above the declared peak")
    sub.add_argument("--as", dest="branch", metavar="NAME", help="in a new run of this name, which branches off")
    sub.set_defaults(action=resume)
    sub = command("checkpoint", "write a checkpoint now, and keep it; the training goes on")
    sub.set_defaults(action=checkpoint)
    sub = command("check", "check a configuration without starting anything: its schedule, drawn, and every trap in it")
    sub.add_argument("--config", type=Path, required=True, metavar="PATH")
    sub.add_argument("--json", action="store_true")
    sub.add_argument("--steps-per-epoch", type=int, metavar="N", help="optimizer steps an epoch, where they are known")
    sub.set_defaults(action=check)
    sub = command(
        "prepare", "index, check and encode a corpus into the cache, without training: start then begins at once"
    )
    sub.add_argument("--config", type=Path, required=True, metavar="PATH")
    sub.set_defaults(action=prepare)
    sub = command("join", "on a further node: take part in the runs of the daemon whose log root this is")
    sub.add_argument("--node-rank", type=int, required=True, metavar="N", help="1 … nnodes - 1; the daemon's is node 0")
    sub.set_defaults(action=join)
    sub = command("prune", "list old runs, packs and caches, and remove them with --yes")
    sub.add_argument("--older-than", type=_days, default=30.0, metavar="DAYS", help="unused for so long (default: 30)")
    sub.add_argument("--keep", type=int, default=10, metavar="N", help="the newest N runs stay (default: 10)")
    sub.add_argument("--cache", type=Path, action="append", default=[], metavar="DIR", help="a further data.cache_dir")
    sub.add_argument("--yes", action="store_true", help="remove what is listed")
    sub.add_argument("--json", action="store_true")
    sub.set_defaults(action=prune)
    sub = command("logs", "print what the trainer printed")
    sub.add_argument("-f", "--follow", action="store_true", help="go on as it grows")
    sub.set_defaults(action=show_logs)
    for name, words in commands.COMMANDS.items():
        module = commands.subcommand(name)
        sub = command(name, words)
        module.prepare_parser(sub)
        sub.set_defaults(action=module.run)
    return top


def _rate(text: str) -> float:
    """A learning rate as it is typed: `nan`, `inf`, nothing, a blank or 1e9 is a slip."""
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is not a learning rate; write a number such as 3e-4")
    value = float(text)
    if not 0 < value <= LARGEST_RATE:
        raise argparse.ArgumentTypeError(f"{text} is not a learning rate: above 0, {LARGEST_RATE:g} at most")
    return value


def _days(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days")
    return value


def require_heavy() -> None:
    """Raises Refused, with the one line to type, where only the monitor is installed."""
    missing = [name for name in HEAVY if importlib.util.find_spec(name) is None]
    if missing:
        raise Refused(f"training needs {', '.join(missing)}: pip install 'eegwatch[daemon]'")


def shipped_config(name: str) -> Path:
    """A configuration that comes with the package: in the wheel, or in the checkout's configs/."""
    folder_of_package = Path(__file__).resolve().parent
    for folder in (folder_of_package / "configs", folder_of_package.parents[1] / "configs"):
        if (folder / name).exists():
            return folder / name
    raise Refused(f"the shipped configuration {name} is missing from this installation; give --config PATH", USAGE)


# ---- start ----


def start(arguments: argparse.Namespace, logs: Path) -> int:
    require_heavy()
    path = arguments.config or (None if arguments.go_on else shipped_config("demo.yaml"))
    config = configuration.load(path) if path else None
    if config is not None and config.script is not None:
        from eegpt_daemon.script.template import resolved
        from eegpt_daemon.script_traps import refuse_traps

        script = resolved(config.script, str(path))  # what cannot be run is said before anything is started
        if not arguments.no_check:
            refuse_traps(config, script, str(path))
    pid = daemon_pid(logs)
    if pid is not None:
        raise Refused(_already_running(logs, pid))
    if not arguments.no_check and path is not None and config is not None and config.script is None:
        from eegpt_daemon.preflight import refuse_if_wrong

        refuse_if_wrong(path)
    if arguments.foreground:
        return live(logs, config, go_on=arguments.go_on)
    launch(logs, [*(["--config", str(path.resolve())] if path else []), *(["--continue"] if arguments.go_on else [])])
    watched, warning = newest_run(logs), exposed(logs)
    if warning is not None:
        print(f"eegpt-daemon: warning: {warning}", file=sys.stderr)
    print(f"started: daemon pid {daemon_pid(logs)}, run {_current_run(logs) or (watched.name if watched else '?')}")
    print(f"watch it:  eegwatch {logs}      stop it:  eegpt-daemon stop --logs {logs}")
    return OK


def _already_running(logs: Path, pid: int) -> str:
    state = latest_state(logs)
    what = f"{state.state}, run {state.run_id}" if state else "starting"
    return f"already running: daemon pid {pid} on {logs} ({what}); a new run: eegpt-daemon restart --config PATH"


def live(logs: Path, config: Config | None, *, go_on: bool = False) -> int:
    """Be the daemon, in this process. `go_on`: with the run that was cut off, if one was, instead of a new one."""
    from eegpt_daemon.supervisor.loop import Supervisor

    try:
        supervisor = Supervisor(logs.resolve(), say)
    except Locked as held:
        raise Refused(_already_running(logs, held.args[0] or 0)) from None
    if not (go_on and supervisor.go_on()) and config is not None:
        supervisor.start(config)
    return supervisor.run()


def say(text: str) -> None:
    """A line for whoever reads the daemon's output. A disk that is full or a terminal that is gone does not end it."""
    with contextlib.suppress(OSError):  # daemon.jsonl has it too
        os.write(sys.stdout.fileno(), f"{clock(time.time())} {plain(text)}\n".encode("utf-8", "backslashreplace"))


STANDS = ("preparing", "training", "idle")  # "training": it took over a script that went on without a daemon


def launch(logs: Path, arguments: list[str]) -> None:
    """Start a detached daemon and wait until it says that it trains or idles. Raises Refused if it dies."""
    from eegwatch.run.folder import open_output

    logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    watch = AnswerWatch(logs)
    with open_output(logs / DAEMON_OUT) as out:
        said_before = os.fstat(out.fileno()).st_size
        process = subprocess.Popen(
            [sys.executable, "-m", "eegpt_daemon", str(logs.resolve()), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end:
        for record in watch.poll():
            if isinstance(record, DaemonState) and record.pid == process.pid and record.state in STANDS:
                return
        if process.poll() is not None:
            other = daemon_pid(logs)
            if other is not None:
                raise Refused(_already_running(logs, other))
            grown = max(1, min(DAEMON_WORDS, (logs / DAEMON_OUT).stat().st_size - said_before))
            words = last_bytes(logs / DAEMON_OUT, DAEMON_WORDS)[-grown:].decode(errors="replace").strip().splitlines()
            full = shutil.disk_usage(logs).free < 1 << 16 and f"no space left on the disk of {logs}: make room"
            error = words[-1].removeprefix("eegpt-daemon: ") if words else full or f"exit code {process.returncode}"
            raise Refused(f"the daemon cannot start: {error}")
        time.sleep(0.05)
    raise Refused(f"the daemon (pid {process.pid}) did not report within {START_TIMEOUT_S:.0f} s", TRY_AGAIN)


# ---- commands through the control file ----


def _current_run(logs: Path) -> str | None:
    state = latest_state(logs)
    if state is not None and state.run_id is not None:
        return state.run_id
    newest = newest_run(logs)
    return newest.name if newest else None


def _require_daemon(logs: Path, instead: str) -> None:
    if daemon_pid(logs) is not None:
        return
    state = latest_state(logs)
    if state is not None and state.state != "exited":
        when = f"its last sign of life was {duration(time.time() - state.time)} ago ({state.state})"
        raise Refused(f"no daemon is running on {logs}: it died; {when}; {instead}", NOT_RUNNING)
    raise Refused(f"no daemon is running on {logs}; {instead}", NOT_RUNNING)


def ask(logs: Path, name: str, **fields: object) -> int:
    """Send one command, print each answer as it comes, and return the exit code for the last."""
    problem = unsafe_control(logs / CONTROL)
    if problem is not None:
        raise Refused(f"the daemon will not obey this file: {problem}")
    watch = AnswerWatch(logs)
    command_id = send(logs, name, _current_run(logs), **fields)
    for answer in watch.answers(command_id, ANSWER_TIMEOUT_S, lambda: daemon_pid(logs) is not None):
        effect = ", ".join(f"{key} {value}" for key, value in (answer.effect or {}).items() if value is not None)
        details = "; ".join(part for part in (answer.reason, effect) if part)
        print(f"{name}: {answer.status}" + (f": {plain(details)}" if details else ""), flush=True)
        if answer.status in ("done", "rejected", "failed", "expired"):
            return OK if answer.status == "done" else FAILED
    if daemon_pid(logs) is None:
        raise Refused(f"{name}: the daemon died before it answered; see {logs / DAEMON_OUT}")
    raise Refused(f"{name}: no answer within {ANSWER_TIMEOUT_S:.0f} s; it is still queued", TRY_AGAIN)


def stop(arguments: argparse.Namespace, logs: Path) -> int:
    _require_daemon(logs, "there is nothing to stop")
    newest = newest_run(logs)
    with contextlib.suppress(OSError):  # a log that cannot be read is no reason not to stop
        if newest is not None and (words := unsaved_of(newest)) is not None:
            print(words, flush=True)
    code = ask(logs, "stop", exit=True)
    end = time.monotonic() + 5
    while daemon_pid(logs) is not None and time.monotonic() < end:
        time.sleep(0.05)
    return code


def restart(arguments: argparse.Namespace, logs: Path) -> int:
    config = None
    if arguments.config is not None:
        configuration.load(arguments.config)
        config = str(arguments.config.resolve())
    _require_daemon(logs, "a new run: eegpt-daemon start --config PATH")
    return ask(logs, "restart", config=config)


def resume(arguments: argparse.Namespace, logs: Path) -> int:
    if arguments.then is not None and arguments.lr is None:
        raise Refused("--then says what follows a manual LR: give --lr X too, or neither to rejoin the schedule", USAGE)
    _refuse_above_the_peak(logs, arguments.lr, force=arguments.force)
    if daemon_pid(logs) is None:
        if newest_run(logs) is None:
            raise Refused(f"no run in {logs} to resume; a new one: eegpt-daemon start --config PATH", NOT_RUNNING)
        require_heavy()
        launch(logs, [])
        print(f"no daemon was running: started one (pid {daemon_pid(logs)})")
    then = arguments.then or ("anneal" if arguments.lr is not None else None)
    fields = {"lr": arguments.lr, "then": then, "checkpoint": arguments.checkpoint, "force": arguments.force or None}
    return ask(logs, "resume", **fields | {"as": arguments.branch})


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
        raise Refused(f"{lr:g} is above the declared peak {peak:g}; --force if it is meant", USAGE)


def checkpoint(arguments: argparse.Namespace, logs: Path) -> int:
    _require_daemon(logs, "there is nothing to save")
    return ask(logs, "checkpoint")


# ---- what is ----


def status(arguments: argparse.Namespace, logs: Path) -> int:
    """0 a daemon lives, 1 it is dead (it ended without saying so), 3 none is running."""
    from eegpt_daemon import status_command

    life, summary, help_ = status_command.status(logs)
    write = status_command.as_json if arguments.json else status_command.as_text
    print(write(logs, life, summary, help_))
    if life.alive:
        return OK
    return FAILED if life.word in ("dead", "unknown") else NOT_RUNNING


def prune(arguments: argparse.Namespace, logs: Path) -> int:
    """List what can be removed; with --yes remove it."""
    from eegpt_daemon import prune_command

    candidates = prune_command.candidates(
        logs, older_than_days=arguments.older_than, keep=arguments.keep, caches=arguments.cache
    )
    if arguments.json:
        print(prune_command.as_json(candidates))
    else:
        for candidate in candidates:
            print(plain(candidate.line()))
    total = size(sum(c.size for c in candidates))
    if not arguments.yes:
        if not arguments.json:
            print(f"{len(candidates)} in all, {total}; --yes removes them" if candidates else "nothing to remove")
        return OK
    failed = 0
    for candidate in candidates:
        try:
            prune_command.remove(candidate)
        except OSError as error:
            failed += 1
            print(f"eegpt-daemon: {plain(str(candidate.path))}: {error.strerror}", file=sys.stderr)
    if not arguments.json:
        print(f"removed {len(candidates) - failed}, {total}" if candidates else "nothing to remove")
    return FAILED if failed else OK


def check(arguments: argparse.Namespace, logs: Path) -> int:
    """The preflight: exit code 0 ready, 1 a trap that would hurt, 78 no configuration at all."""
    require_heavy()
    from eegpt_daemon.preflight import preflight

    outcome = preflight(arguments.config, arguments.steps_per_epoch)
    print(json_line(outcome.as_dict()) if arguments.json else plain_lines(outcome.text()))
    return OK if outcome.ok else FAILED


def prepare(arguments: argparse.Namespace, logs: Path) -> int:
    """0 ready, 78 a configuration or corpus that cannot be trained on, 130 interrupted (what is done is kept)."""
    require_heavy()
    from eegpt_daemon.prepare_command import prepare_alone
    from eegpt_daemon.trainer.attempt import USER_ERRORS

    try:
        prepare_alone(arguments.config)
    except USER_ERRORS as error:
        raise Refused(str(error), WRONG_CONFIG) from None
    except KeyboardInterrupt:
        raise Refused("interrupted; what is done is kept, the same command goes on from there", 130) from None
    return OK


def join(arguments: argparse.Namespace, logs: Path) -> int:
    """Start this node's trainer processes for every attempt of the daemon, until the daemon ends."""
    require_heavy()
    from eegpt_daemon.supervisor.process import join_attempts

    if arguments.node_rank < 1:
        raise Refused("--node-rank: 1 or more; node 0 is the daemon's, started with eegpt-daemon start", USAGE)
    return join_attempts(logs.resolve(), arguments.node_rank, lambda text: print(text, flush=True))


def show_logs(arguments: argparse.Namespace, logs: Path) -> int:
    run = newest_run(logs)
    if run is None and not arguments.follow:
        raise Refused(f"no run in {logs}", NOT_RUNNING)
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


if __name__ == "__main__":
    sys.exit(main())
