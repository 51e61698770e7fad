"""Every action of the run screen in one table: its keys, its words, its group; and whether it can work now.

The bindings, the key bar, the help and the command palette are made from this table. A new key is one row.
"""

from __future__ import annotations

from dataclasses import dataclass

from textual.binding import Binding, BindingType

from eegwatch.run.control import CONTROL, unsafe_control
from eegwatch.run.folder import CONFIG
from eegwatch.shell import begin_anew
from eegwatch.shell import command as shell
from eegwatch.tui.session import Session

TRAINS = ("training", "evaluating", "checkpointing", "preparing", "starting", "restarting")  # the daemon's states


@dataclass(frozen=True)
class Action:
    """`keys` as Textual names them, the first of them shown as `shown`; `words` for the key bar and the palette.

    `bar`: place in the key bar, 0 for none; the highest are left out first where the width is small.
    `command`: what it asks the daemon for.
    """

    group: str
    keys: str
    action: str
    words: str
    help: str
    shown: str = ""
    bar: int = 0
    command: str | None = None

    @property
    def key(self) -> str:
        return self.shown or self.keys.split(",")[0]


COMMANDS, WRONG, MOVE, CHARTS, FILES, PROGRAM = (
    "the run",
    "what is wrong",
    "move through the run",
    "charts and panels",
    "runs, files, pictures",
    "the monitor",
)
ACTIONS = (
    Action(COMMANDS, "m", "app.resume", "resume",
           "resume on the planned LR curve, or at an LR that you type; a dialog shows what will happen",
           bar=3, command="resume"),
    Action(COMMANDS, "r", "app.restart", "restart",
           "restart: end this run, start a new one from step 0; asks first, and the old run stays", bar=4,
           command="restart"),
    Action(COMMANDS, "s", "app.stop", "stop",
           "stop after the current step, with a checkpoint; asks first, and the daemon stays", bar=5, command="stop"),
    Action(COMMANDS, "w", "app.checkpoint", "write a checkpoint",
           "write a checkpoint now and keep it; the training continues", command="checkpoint"),
    Action(WRONG, "e", "app.events", "events", "findings and events, the newest first", bar=6),
    Action(WRONG, "enter", "app.evidence", "evidence", "a finding in full: each possible cause drawn over the record",
           "⏎"),
    Action(WRONG, "n", "app.next_finding(1)", "next finding", "go to where the next finding began"),
    Action(WRONG, "N", "app.next_finding(-1)", "finding before", "go to where the finding before it began"),
    Action(MOVE, "plus,equals_sign", "zoom(2.0)", "zoom in", "zoom in about the cursor, else the newest step", "+"),
    Action(MOVE, "minus", "zoom(0.5)", "zoom out", "zoom out (the mouse wheel zooms too)", "-"),
    Action(MOVE, "0", "whole", "the whole run", "show the whole run"),
    Action(MOVE, "f", "follow", "follow", "follow the newest steps"),
    Action(MOVE, "h,shift+left", "pan(-0.2)", "earlier", "move to earlier steps (or drag)", "h ⇧←"),
    Action(MOVE, "l,shift+right", "pan(0.2)", "later", "move to later steps", "l ⇧→"),
    Action(MOVE, "home,g", "edge('begin')", "beginning", "move to the beginning of the run", "g"),
    Action(MOVE, "end,G", "edge('end')", "newest", "move to the newest steps", "G"),
    Action(MOVE, "left", "cursor(-1)", "cursor left", "cursor: read one step in every chart (or click)", "←"),
    Action(MOVE, "right", "cursor(1)", "cursor right", "cursor to the right", "→"),
    Action(MOVE, "escape", "no_cursor", "hide the cursor", "hide the cursor, end the filter, show all charts", "Esc"),
    Action(CHARTS, "x", "axis", "x axis", "x axis: steps, epochs or time"),
    Action(CHARTS, "y", "toggle_log", "log axis", "log or linear y axis of the focused chart, else of the LR"),
    Action(CHARTS, "Y", "toggle_log('loss')", "log axis of the loss", "log or linear y axis of the loss"),
    Action(CHARTS, "left_square_bracket", "smooth(-1)", "smooth less", "smooth the noisy curves less", "["),
    Action(CHARTS, "right_square_bracket", "smooth(1)", "smooth more", "smooth the noisy curves more", "]"),
    Action(CHARTS, "slash", "filter", "filter charts", "show the charts and metrics whose name matches", "/"),
    Action(CHARTS, "tab", "next_chart(1)", "next chart", "focus the next chart", "Tab"),
    Action(CHARTS, "shift+tab", "next_chart(-1)", "chart before", "focus the chart before", "⇧Tab"),
    Action(CHARTS, "z", "alone", "one chart alone", "show the focused chart alone, or all again"),
    Action(CHARTS, "vertical_line", "columns", "columns", "charts in 1, 2, 3 columns, or as many as fit", "|"),
    Action(CHARTS, "J,ctrl+down", "taller(1)", "taller", "make the focused chart taller (or drag its title)", "J"),
    Action(CHARTS, "K,ctrl+up", "taller(-1)", "shorter", "make the focused chart shorter", "K"),
    Action(CHARTS, "less_than_sign", "side(1)", "panels wider", "make the side panels wider (or drag their edge)", "<"),
    Action(CHARTS, "greater_than_sign", "side(-1)", "panels narrower", "make the side panels narrower", ">"),
    Action(CHARTS, "T", "output", "output pane", "show or hide the newest lines that the trainer printed"),
    Action(FILES, "R", "app.runs", "runs", "list of runs: switch, draw over, compare, pin", bar=7),
    Action(FILES, "v", "app.scores", "scores",
           "scores with their intervals; what the run could still reach, baselines, cost of a fault where computed"),
    Action(FILES, "t", "app.trainer_log", "trainer output", "all that the trainer printed"),
    Action(FILES, "c", "app.config", "configuration", "the configuration of this run"),
    Action(FILES, "p", "app.picture", "save the screen", "save this screen as an SVG picture"),
    Action(FILES, "P", "app.chart_picture", "save the charts", "save the charts as an SVG picture"),
    Action(PROGRAM, "question_mark", "app.help", "help", "this help; Enter on a line runs it", "?", bar=1),
    Action(PROGRAM, "q", "app.quit", "quit", "quit the monitor; the training continues", bar=2),
)  # fmt: skip
OF_A_RUN_FOLDER = ("output", "app.runs", "app.trainer_log", "app.config")  # which a log of another program has none of
GROUPS = (COMMANDS, WRONG, MOVE, CHARTS, FILES, PROGRAM)
BY_ACTION = {action.action: action for action in ACTIONS}


def bindings() -> list[BindingType]:
    return [Binding(a.keys, a.action, a.help, show=False, key_display=a.shown or None) for a in ACTIONS]


def possible(session: Session, *, read_only: bool) -> list[Action]:
    """The actions that can work now, in the table's order."""
    there = [a for a in ACTIONS if session.foreign is None or a.action not in OF_A_RUN_FOLDER]
    return [a for a in there if a.command is None or why_not(session, a.command, read_only=read_only) is None]


def why_not(session: Session, command: str, *, read_only: bool) -> str | None:
    """Why the daemon cannot be asked for this now, and what to do instead; None where it can.

    The daemon's own answer decides in the end: between this look and the command the run may have ended.
    """
    logs, life, history = session.logs, session.life, session.history
    if session.foreign is not None:
        return f"This {session.foreign.format} log was not written by eegpt-daemon: it can be watched, not controlled."
    if read_only:
        return "This screen was opened with --read-only: it controls nothing."
    if life.alive or session.steers_itself:
        unsafe = _unsafe(session)
        if unsafe is not None:
            return f"The control file is not obeyed: {unsafe}"
    if session.steers_itself:
        return _of_live_script(command)
    if session.folder is None and not life.alive:
        return f"There is no run here yet. Start one with:\n{shell('eegpt-daemon', 'start', '--logs', logs)}"
    if not life.alive:
        return _without_daemon(session, command) if not _over(session, command) else _over_without_daemon(session)
    if session.folder is None and life.run_id is None:
        return f"The daemon holds no run yet. Begin one with:\n{begin_anew(logs)}"
    if life.run_id is not None and session.folder is not None and not session.is_current:
        return (
            f"The daemon holds another run, {life.run_id}. Press R and choose that run to control it."
            if (logs / life.run_id).is_dir()
            else f"The daemon holds another run, {life.run_id}."
        )
    if command in ("stop", "checkpoint") and life.word not in TRAINS and life.word != "hung":
        return f"Nothing is training: the run is at step {history.step_done:,}."
    if _over(session, command):
        earlier = shell("eegpt-daemon", "resume", "--checkpoint", "CHECKPOINT", "--logs", logs)
        return (
            f"The run has taken all its {history.step_done:,} steps. Press r for a new run, or go back to one of its "
            f"checkpoints:\n{earlier}"
        )
    return None


def _over(session: Session, command: str) -> bool:
    """Is a resume asked for of a run that has taken all its steps?"""
    history = session.history
    total = history.run.total_steps if history.run else None
    return command == "resume" and total is not None and history.step_done >= total


def _over_without_daemon(session: Session) -> str:
    logs, folder = session.logs, session.folder
    if folder is None or not (folder / CONFIG).exists():
        return f"The run has taken all its {session.history.step_done:,} steps. Start it again where it was started."
    line = shell("eegpt-daemon", "start", "--config", folder / CONFIG, "--logs", logs)
    return f"The run has taken all its {session.history.step_done:,} steps. A new run with its configuration:\n{line}"


def _unsafe(session: Session) -> str | None:
    """The reason why commands in the control file of this log root would be ignored."""
    try:
        return unsafe_control(session.logs / CONTROL)
    except OSError:  # gone meanwhile: writing the command says so
        return None


def _of_live_script(command: str) -> str | None:
    """A script that uses RunLog obeys while it runs; whether it looks at a request, its answer says."""
    if command == "restart":
        return "A running script cannot start itself again: stop it (s), and start it where you started it."
    return None


def _without_daemon(session: Session, command: str) -> str:
    logs, folder = session.logs, session.folder
    if folder is not None and not session.is_current and not (folder / CONFIG).exists():
        return "This run belongs to a script with RunLog: stop or restart it where it was started."
    words: tuple[object, ...] = ("start", "--continue")
    if command == "restart" and folder is not None:
        words = ("start", "--config", folder / CONFIG)
    line = shell("eegpt-daemon", *words, "--logs", logs)
    return f"No daemon runs for {logs}, so nothing could carry this out. Start one with:\n{line}"
