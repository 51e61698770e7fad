"""The texts at the top of the screen: events of the run with the key to press, findings, and results."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass
from pathlib import Path

from eegwatch.diagnosis.findings import RATE, Finding
from eegwatch.run.folder import RUN_LOG
from eegwatch.run.history import History
from eegwatch.run.records import End, Eval
from eegwatch.run.unsaved_steps import script_of
from eegwatch.shell import begin_anew
from eegwatch.shell import command as shell
from eegwatch.tui.actions import possible
from eegwatch.tui.session import Session
from eegwatch.wording import duration, of_planned, plain, rate

CONFIG_HINT = "CONFIG.yaml"
ENDED_WELL = ("completed", "early_stopped")
AN_ERROR = re.compile(r"^\w*(Error|Exception|Interrupt)\b")  # the last line of a traceback
OVERALL = ("auroc", "balanced_accuracy", "loss")  # of a test result, the first on the screen
SHORT_LABELS = {"auroc": "AUROC", "balanced_accuracy": "balanced accuracy", "recording_auroc": "recording AUROC"}


@dataclass(frozen=True)
class Notice:
    """One thing to know at once: `kind` is error, warning or good; `do` is what helps, a key or a command.

    `parts` follow `text` as far as they fit. `more`: a line that a small screen leaves out. `shorter_more`
    and `shorter_do`: the same in fewer words, where `more` or `do` is too long.
    """

    kind: str
    text: str
    do: str = ""
    more: str = ""
    shorter_more: str = ""
    shorter_do: str = ""
    parts: tuple[str, ...] = ()


def _left_by_the_daemon(session: Session) -> str:
    """The state of the training after the death of its daemon."""
    if session.folder is not None and script_of(session.folder) is not None:
        return "the script continues; the next daemon takes it over"
    return "the trainer writes a checkpoint and ends"


def why_it_ended(end: End) -> str:
    """The reason of an attempt's end, without the lines of output that are glued to it; `t` shows those."""
    error = plain(end.error or "")
    first, *printed = error.split(" | ")
    if "SIGKILL" in first:
        return "the training process was killed (SIGKILL), often for want of memory"
    reason = re.sub(r"^the trainer ended with ([^:]+).*", r"the training process ended with \1", first)
    last = (printed[-1] if printed else first.rpartition(": ")[2]).strip()
    errors = [part for part in (last, first.partition(": ")[2]) if AN_ERROR.match(part)]
    return f"{reason} ({errors[0]})" if errors and errors[0] not in reason else reason


def notice(session: Session, *, read_only: bool) -> Notice | None:
    """An event of the run or the daemon that needs attention; None otherwise."""
    logs, life, history = session.logs, session.life, session.history
    start = shell("eegpt-daemon", "start", "--continue", "--logs", logs)
    if session.folder is None:
        return _no_run(session)
    if session.foreign is not None:
        return _nothing_read(session)
    unread = _no_record(session)
    if unread is not None:
        return unread
    if session.is_current and life.word == "dead":
        ago = f" {duration(time.time() - life.since)} ago" if life.since else ""
        kept = (_left_by_the_daemon(session),) if history.length else ()
        go_on = f"go on where it stood:  {start}"
        return Notice(
            "error", f"the daemon died{ago}", go_on, shorter_do="m tells the command that goes on", parts=kept
        )
    if session.is_current and life.word == "hung":
        return Notice("error", life.detail, "t what the trainer printed last")
    end = history.end
    if end is None or (session.is_current and life.alive and life.word not in ("idle", "exited")):
        return None
    if end.reason in ENDED_WELL:
        return _outcome(session)
    able = {action.action for action in possible(session, read_only=read_only)}
    if end.reason == "failed":
        from_where = f"from the checkpoint of step {history.checkpoints[-1].step:,}" if history.checkpoints else (
            "from step 1, as there is no checkpoint yet")  # fmt: skip
        keys = [f"m resume {from_where}"] if "app.resume" in able else []
        keys += ["r restart"] if "app.restart" in able else []
        line = "" if life.alive or read_only else f"start the daemon:  {start}"
        return Notice("error", f"failed at step {end.step:,}: {why_it_ended(end)}",
                      " · ".join([*keys, *([line] if line else []), "t what it printed"]))  # fmt: skip
    return None


def _no_run(session: Session) -> Notice:
    logs = session.logs
    if session.life.alive:
        return Notice("warning", "the daemon is idle and holds no run", f"begin one:  {begin_anew(logs)}")
    line = shell("eegpt-daemon", "start", "--config", CONFIG_HINT, "--logs", logs)
    return Notice("warning", f"no run in {logs} yet", f"begin one:  {line}")


def _nothing_read(session: Session) -> Notice | None:
    """Someone else's file in which nothing is a step."""
    if not session.loaded or session.history.length or session.history.evals or session.foreign is None:
        return None
    bad = session.follower.bad_lines if session.follower is not None else 0
    lines = f" ({bad:,} lines could not be read)" if bad else ""
    path = session.foreign.path
    if _is_empty(path):
        return Notice("warning", f"{path.name} is empty", "its steps are shown as soon as they are written")
    problem = session.problem or f"nothing in {session.foreign.path.name} is a step or an evaluation{lines}"
    return Notice("warning", problem, "name what its lines look like:  --pattern '(?P<step>…) (?P<loss>…)'")


def _is_empty(path: Path) -> bool:
    try:
        return path.is_file() and path.stat().st_size == 0
    except OSError:  # it was rotated away between the two calls
        return False


def _no_record(session: Session) -> Notice | None:
    """A run of ours whose log holds lines, and none that is a record."""
    bad = session.follower.bad_lines if session.follower is not None else 0
    if not session.loaded or session.history.run is not None or session.history.length or not bad:
        return None
    return Notice("warning", f"{RUN_LOG}: {bad:,} lines, none of them a record; this is not a run log", "R other runs")


def _outcome(session: Session) -> Notice:
    """At the end of a run: its results, the best checkpoint, what can be done with it."""
    history, folder = session.history, session.folder
    assert history.end is not None and folder is not None
    results = [words for words in (_result(history, "eval", "test"), _result(history, "val", "validation")) if words]
    ended = f"{history.end.reason.replace('_', ' ')} after {history.step_done:,} steps"
    first, *parts = [*results, ended]  # the state and the step stand in the two lines above
    saved, kept, shorter = [c for c in history.checkpoints if c.path], "", ""
    if saved:
        best = next((c for c in reversed(saved) if c.best), saved[-1])
        word = f"{'best ' if best.best else ''}checkpoint "
        kept, shorter = f"{word} {folder / best.path}", f"{word} {best.path} in the run's folder"
    report = shell("eegwatch", "report", folder, "-o", "report.html")
    shorter_do = "eegwatch report RUN -o report.html   (RUN: the run's folder)"
    return Notice("good", first, report, kept, shorter, shorter_do, tuple(parts))


def _result(history: History, split: str, name: str) -> str:
    """The newest result of a split: test AUROC 0.913 (0.90–0.92)."""
    evals = [record for record in history.evals if record.split == split]
    if not evals:
        return ""
    values = evals[-1].values()
    key = next((key for key in (*OVERALL, *values) if math.isfinite(values.get(key, math.nan))), None)
    if key is None:
        return ""
    target = ((history.run.target if history.run else None) or {}).get(key)
    of = f" of {target:g}" if target is not None and split == "val" else ""
    return f"{name} {SHORT_LABELS.get(key, key)} {values[key]:.3f}{_interval(evals[-1], key)}{of}"


def _interval(record: Eval, key: str) -> str:
    between = record.ci95.get(key) if isinstance(record.ci95, dict) else None
    return f" ({between[0]:.3f}–{between[1]:.3f})" if between is not None and len(between) == 2 else ""


# ---- findings ----


def headline(finding: Finding) -> str:
    """The fault and its first step; the important words (LR STUCK) are readable without colour."""
    words = finding.headline or finding.message
    if words.startswith("LR "):
        first, second, rest = (words + "  ").split(" ", 2)
        return f"{first} {second.upper()} {rest}".rstrip()
    return words


def consequence(session: Session, finding: Finding, *, short: bool = False) -> str:
    """The effect of the fault now and at the end of the run; empty if the finding has no such figures."""
    watch = session.diagnosis.lr
    if finding.family != RATE or watch is None or watch.fault is None or watch.fault.rule != finding.rule:
        return finding.cost
    now, later = watch.fault.cost()
    step = session.history.step_done
    expected = float(watch.situation.expected(step)) if step else math.nan
    if not math.isfinite(now) or not math.isfinite(later):
        return finding.cost
    if step >= watch.situation.total:
        return f"{of_planned(now)} at the end"
    if short:
        return f"now {of_planned(now)}; if nothing is done, {of_planned(later).partition(' of ')[0]} on average"
    left = f"if nothing is done, the rest of the run averages {of_planned(later)}"
    return f"now {of_planned(now)} ({rate(expected)}); {left}"
