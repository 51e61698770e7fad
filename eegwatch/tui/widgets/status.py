"""The status line: state, step of total, epoch of epochs, pace, time left, LR now against expected now."""

from __future__ import annotations

import socket
import time

import numpy as np
import psutil
from rich.text import Text

from eegwatch.tui.session import Session
from eegwatch.tui.widgets.lines import TextLines, whole_words
from eegwatch.wording import duration, exact_rate, plain, rate

PACE_OVER = 100  # steps whose median interval is the pace
STALE_S = 15.0  # seconds without growth after which the log of a live trainer is shown as standing still
MOVING = ("training", "evaluating", "checkpointing", "watching")  # states in which a pace says something
GOOD, BAD, QUIET = "bold green", "bold red", "yellow"
LIVE = ("training", "evaluating", "checkpointing", "preparing")
STATE_STYLE = dict.fromkeys((*LIVE, "completed", "early stopped"), GOOD) | dict.fromkeys(
    ("dead", "hung", "failed"), BAD
)
STATE_SIGN = {
    "training": "●", "evaluating": "●", "checkpointing": "●", "preparing": "◔", "restarting": "◔", "starting": "◔",
    "completed": "✔", "early stopped": "✔", "dead": "✖", "hung": "✖", "failed": "✖",
}  # fmt: skip


def pace(session: Session) -> float | None:
    """Optimizer steps a second over the newest steps of this attempt, or None."""
    times = session.history.time[-PACE_OVER:]
    if len(times) < 3:
        return None
    interval = float(np.median(np.diff(times)))
    return 1 / interval if interval > 0 else None


def state_of(session: Session) -> tuple[str, str]:
    """(state, since when or why) of the run on the screen, in words."""
    history, life = session.history, session.life
    if session.is_current and life.word in ("dead", "hung"):
        return life.word, ""  # the notice below says what happened, and what helps
    run = history.run
    stepping = run is not None and history.end is None and history.length > 0 and history.step_done > run.step
    if session.is_current and life.alive and life.word in ("starting", "preparing", "restarting") and stepping:
        return "training", ""  # its steps are here before its next word is
    if session.is_current and life.alive and life.word not in ("idle", "exited"):
        if history.progress is not None and life.word == "preparing":
            p = history.progress
            return life.word, f"{p.what} {p.done:,} of {p.total:,}"
        silent = time.time() - history.last_time
        if life.word == "training" and history.length and silent > STALE_S:
            return life.word, f"no record for {duration(silent)}"
        return life.word, life.detail
    if history.end is not None:
        end = history.end
        return end.reason.replace("_", " "), f"{duration(time.time() - end.time)} ago"
    if session.foreign is not None:
        kind = session.problem or session.foreign.format
        return (
            "watching",
            f"{kind}, last record {duration(time.time() - history.last_time)} ago" if history.run else kind,
        )
    if run is None:
        return life.word, life.detail
    if run.pid and run.host == socket.gethostname() and not life.alive:  # a script's own log (RunLog)
        silent = time.time() - history.last_time
        if not psutil.pid_exists(run.pid):
            return "dead", f"its process {run.pid} is gone, last record {duration(silent)} ago"
        return ("training", "") if silent < STALE_S else ("training", f"no record for {duration(silent)}")
    return "silent", f"no daemon trains it; last record {duration(time.time() - history.last_time)} ago"


def title_of(session: Session) -> str:
    """State, progress and verdict in a few words: the terminal's title, which tmux shows."""
    state, _ = state_of(session)
    history, run = session.history, session.history.run
    share = f" {100 * history.step_done / run.total_steps:.0f} %" if run is not None and run.total_steps else ""
    bad = [f for f in session.diagnosis.findings if f.bad]
    verdict = f" {bad[0].headline or bad[0].message}"[:60] if bad else ""
    name = session.name_of(session.folder) if session.folder else "no run"
    return plain(f"{STATE_SIGN.get(state, '○')} {state}{share}{verdict} · {name}")


def fitted(parts: list[tuple[int, Text]], width: int, between: str) -> Text:
    """The parts (priority, text) side by side; where they do not fit the highest numbers are left out, never 0."""
    kept = list(parts)
    while True:
        line = Text(between).join(text for _, text in kept)
        last = max(kept, key=lambda part: part[0])
        if line.cell_len <= width or last[0] == 0:
            return line
        kept.remove(last)


class StatusLine(TextLines):
    """Two lines, three where the width is small; parts that do not fit are left out, the least needed first."""

    DEFAULT_CSS = "StatusLine { height: auto; padding: 0 1; }"

    def show(self, session: Session) -> None:
        self.put(self._texts(session, max(20, self.size.width - 2)))

    def _texts(self, session: Session, width: int) -> list[Text]:
        run = session.history.run
        if session.folder is None:
            return [Text(f"no run in {session.logs} yet", "bold")]
        state, detail = state_of(session)
        parts: list[tuple[int, Text]] = [(0, Text(session.name_of(session.folder), "bold"))]
        if run is not None and any("SYNTHETIC" in note for note in run.notes):
            parts.append((1, Text("  SYNTHETIC", "bold magenta")))
        if run is not None and run.attempt > 1:
            parts.append((2, Text(f"  attempt {run.attempt}", "dim")))
        parts.append((0, Text(f"   {STATE_SIGN.get(state, '○')} {state}", STATE_STYLE.get(state, QUIET))))
        if detail:
            parts.append((3, Text(f": {detail}")))
        if run is not None and run.inject:
            parts.append((4, Text(f"  injected: {plain(run.inject)}", "magenta")))
        head = whole_words(fitted(parts, width, ""), width)
        return [head, *self._figures(session, width, moving=state in MOVING and "no record" not in detail)]

    def _figures(self, session: Session, width: int, *, moving: bool) -> list[Text]:
        history, run = session.history, session.history.run
        if run is None:
            return []
        step = history.step_done
        parts: list[tuple[int, Text]] = []  # (priority, text): 0 is never left out
        share = f" {100 * step / run.total_steps:5.1f} %" if run.total_steps else ""
        total = f" / {run.total_steps:,}" if run.total_steps else ""
        parts.append((0, Text(f"step {step:,}{total}{share}")))
        if not session.loaded:
            parts.append((1, Text("checking it …" if session.complete else "reading the log …", "dim")))
        if run.steps_per_epoch and step:
            epoch, batch = divmod(step - 1, run.steps_per_epoch)
            epochs = run.epochs or (-(-run.total_steps // run.steps_per_epoch) if run.total_steps else None)
            parts.append((1, Text(f"epoch {epoch + 1}" + (f" / {epochs}" if epochs else ""))))
            parts.append((4, Text(f"batch {batch + 1:,} / {run.steps_per_epoch:,}")))
        speed = pace(session)
        if speed is not None and moving:
            parts.append((3, Text(f"{speed:,.1f} it/s" if speed >= 1 else f"{1 / speed:,.1f} s/it")))
            if run.total_steps:
                parts.append((2, Text(f"{duration((run.total_steps - step) / speed)} left")))
        samples = history.samples_per_s
        if len(samples) and np.isfinite(samples[-1]) and moving:
            parts.append((5, Text(f"{samples[-1]:,.0f} samples/s")))
        rates = self._rates(session)
        line = fitted(parts, width, "  ")
        if rates is None:
            return [line]
        if line.cell_len + rates.cell_len + 3 <= width:
            return [Text("   ").join([line, rates])]
        faulty = session.diagnosis.lr is not None and session.diagnosis.lr.fault is not None
        return [line] if faulty else [line, rates]  # what is wrong with it stands just below

    def _rates(self, session: Session) -> Text | None:
        lr = session.history.lr
        if not len(lr):
            return None
        now = float(lr[-1])
        if session.diagnosis.lr is None:
            law = session.diagnosis.law if session.loaded else None
            of = "no schedule declared" if law is None else f"found law: {law.name.replace('_', ' ')}"
            return Text(f"LR {rate(now)}, {of}")
        expected = float(session.diagnosis.lr.situation.expected(int(session.history.step[-1])))
        if session.diagnosis.lr.fault is None:
            return Text.assemble(f"LR {rate(now)}, expected {rate(expected)} ", ("✔", "green"))
        words = f"LR {exact_rate(now, expected)}, expected {exact_rate(expected, now)} ✖"  # how bad: below
        return Text(words, "bold red")
