"""`eegpt-daemon status`: the state of the daemon and its run, and the command to use if something is wrong."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from eegpt_daemon.errors import FAILED, NOT_RUNNING, OK
from eegpt_daemon.script.checkpoints import candidates
from eegwatch.run import config as configuration
from eegwatch.run import heartbeat
from eegwatch.run.control import latest_state
from eegwatch.run.folder import CHECKPOINTS, CONFIG, newest_run
from eegwatch.run.liveness import Liveness, Pulse
from eegwatch.run.seed_series import members, place_of
from eegwatch.run.summary import Summary, summarise
from eegwatch.shell import begin_anew
from eegwatch.shell import command as shell
from eegwatch.wording import clock, duration, json_line, plain, plain_lines

AT_WORK = ("training", "evaluating", "checkpointing")


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true")


def run(arguments: argparse.Namespace, logs: Path) -> int:
    """0 a daemon lives, 1 it is dead (it ended without saying so), 3 none is running."""
    life, summary, help_ = status(logs)
    write = as_json if arguments.json else as_text
    print(write(logs, life, summary, help_))
    if life.alive:
        return OK
    return FAILED if life.word in ("dead", "unknown") else NOT_RUNNING


def status(logs: Path) -> tuple[Liveness, Summary | None, str]:
    """(is a daemon there, its run, what to do where something is wrong). Raises OSError."""
    life = Pulse(logs).take()
    folder = logs / life.run_id if life.run_id and (logs / life.run_id).is_dir() else newest_run(logs)
    summary = summarise(folder) if folder else None
    saved = folder is not None and _saved(folder)
    return life, summary, _older(life, logs) or advice(life, summary, logs, saved=saved)


def _older(life: Liveness, logs: Path) -> str:
    """The advice for a live daemon of version 0.1 (its heartbeats are in daemon.jsonl), which lacks newer commands."""
    if not life.alive or heartbeat.read(logs) is not None or latest_state(logs) is None:
        return ""
    stop = shell("eegpt-daemon", "stop", "--logs", logs)
    return f"this daemon is of version 0.1: {stop}, then start --continue, with this version"


def _saved(folder: Path) -> bool:
    """Whether a checkpoint exists from which a resume could begin."""
    try:
        script = configuration.load(folder / CONFIG, expand=False).script
    except configuration.ConfigError:
        script = None
    if script is not None:
        return script.resume is not None and bool(candidates(folder, script))
    return any((folder / CHECKPOINTS).glob("step-*.pt"))


def advice(life: Liveness, summary: Summary | None, logs: Path, *, saved: bool) -> str:
    """The command that helps, and why; empty where nothing has to be done. `saved`: there is a checkpoint."""

    def typed(*words: object) -> str:
        return shell("eegpt-daemon", *words, "--logs", logs)

    if life.word == "hung":
        return f"{typed('stop')}, or kill -9 {life.pid}, then start --continue; its output: {logs}/daemon.out"
    if life.word == "unknown":
        return "the state of the daemon is unknown until these files can be read"
    if life.word == "dead":
        goes_on = "continues from the newest checkpoint" if saved else "begins the run again: it has no checkpoint yet"
        return f"{typed('start', '--continue')} {goes_on}; why it died may be in {logs}/daemon.out"
    if life.alive and life.word != "idle":
        return ""
    if summary is None:
        if life.alive:
            return f"it has no run: {begin_anew(logs)} begins one"
        return f"{typed('start', '--config', 'PATH')} begins a run"
    if summary.end == "failed" and not saved:
        anew = typed("restart" if life.alive else "start")
        return f"no checkpoint was written: {typed('logs')} says why it failed; {anew} begins anew"
    if summary.end in ("failed", "stopped") or summary.end is None:
        return f"{typed('resume')} continues from the newest checkpoint"
    return ""


def as_text(logs: Path, life: Liveness, summary: Summary | None, help_: str) -> str:
    word = {"none": "not running"}.get(life.word, life.word)
    since = f" since {clock(life.since)} ({duration(time.time() - life.since)})" if life.since is not None else ""
    lines = [f"daemon   {word}{since}" + (f", pid {life.pid}" if life.pid else "")]
    if life.detail:
        lines.append(f"         {plain(life.detail)}")
    running = _running(life, summary)
    lines.append(plain_lines(summary.text(running=running)) if summary else f"run      none in {logs}")
    series = series_position(logs, summary, running=running)
    if series is not None:
        left = f", about {duration(series.left_s)} left for all" if series.left_s is not None else ""
        lines.append(f"series   seed {series.seed}, {series.number} of {series.of} of {series.name}{left}")
    if help_:
        lines.append(f"do       {plain(help_)}")
    return "\n".join(lines)


def _running(life: Liveness, summary: Summary | None) -> bool:
    """Whether this run is in training now."""
    return life.alive and life.word in AT_WORK and summary is not None and summary.run_id == life.run_id


@dataclass(frozen=True)
class SeriesPosition:
    """Where the run stands in its series of seeds. `left_s`: for all seeds at the pace of this one, where it runs."""

    name: str
    seed: int
    number: int
    of: int
    left_s: float | None


def series_position(logs: Path, summary: Summary | None, *, running: bool) -> SeriesPosition | None:
    """None for a run of no series."""
    place = place_of(logs / summary.run_id) if summary is not None else None
    if summary is None or place is None or place.seed not in place.seeds:
        return None
    left = None
    if running and summary.left_s is not None and summary.steps_per_s and summary.total_steps:
        to_come = len(place.seeds) - len(members(logs / summary.run_id))
        left = summary.left_s + to_come * summary.total_steps / summary.steps_per_s
    return SeriesPosition(place.series, place.seed, place.seeds.index(place.seed) + 1, len(place.seeds), left)


def as_json(logs: Path, life: Liveness, summary: Summary | None, help_: str) -> str:
    """One object; a number that is not finite is the string "nan", "inf" or "-inf", as everywhere."""
    try:
        state = latest_state(logs)
    except OSError:
        state = None  # `daemon` is "unknown" then
    series = series_position(logs, summary, running=_running(life, summary))
    tree = {
        "daemon": {"none": "not running"}.get(life.word, life.word),
        "pid": life.pid,
        "since": life.since,
        "last_sign": state.time if state else None,
        "reason": life.detail or None,
        "do": help_ or None,
        "logs": str(logs),
        "run": summary.as_dict() if summary else None,
        "series": asdict(series) if series is not None else None,
    }
    return json_line(tree)
