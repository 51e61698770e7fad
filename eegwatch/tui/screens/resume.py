"""The resume dialog: at which learning rate the run goes on, what follows, and the curve that this leads to."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Checkbox, Input, Static

from eegwatch.charts.expected import resume_chart
from eegwatch.charts.model import ChartData
from eegwatch.run.config import Script
from eegwatch.run.control import CONTROL
from eegwatch.run.unsaved import script_of
from eegwatch.schedule import Schedule, ScheduleError, declared_base, final_rate, parse, peak_rate, rate_at, resumed
from eegwatch.shell import command as shell
from eegwatch.tui.session import Session
from eegwatch.tui.widgets.chart import Chart
from eegwatch.wording import duration, exact, rate, short_rate

Then = Literal["anneal", "hold", "scale"]
REJOIN = "rejoin"
CHOICES = {
    REJOIN: "continue on the planned LR curve; type no LR",
    "anneal": "begin at your LR, fall along a cosine to the planned final LR",
    "hold": "stay at your LR until the end of the run",
    "scale": "follow the planned curve, scaled to begin at your LR",
}
FOLLOW_S = 0.5  # the run goes on under the dialog: the step at which the resume begins moves with it
EXPLAINED_FROM = 20  # rows of the terminal from which each choice has a line
AT_NEXT_STEP = ("training", "evaluating", "checkpointing")


@dataclass(frozen=True)
class ResumeChoice:
    """What is sent: without `lr` the run goes back to its declared schedule."""

    lr: float | None
    then: Then | None
    force: bool = False

    @property
    def words(self) -> str:
        return "resume on the planned curve" if self.lr is None else f"resume at LR {exact(self.lr)}, then {self.then}"


@dataclass(frozen=True)
class Beginning:
    """Where a resume would begin: after `step`, and why there, in words."""

    step: int
    words: str


@dataclass(frozen=True)
class Judged:
    """The form as it stands: what would be sent, or why nothing can be."""

    choice: ResumeChoice | None = None
    problem: str = ""
    schedule: Schedule | None = None
    above_peak: bool = False
    lr: float | None = None
    then: str = field(default=REJOIN)


def beginning(session: Session) -> Beginning:
    """After the current step where a trainer runs, else at the newest checkpoint, else at the very beginning."""
    history = session.history
    if session.steers_itself:
        return Beginning(history.step_done, f"after the current step ({history.step_done:,} now); the script runs on")
    if commanded(session) is not None:
        if not history.checkpoints:
            return Beginning(0, "nowhere: the script has written no whole checkpoint yet")
        newest, lost = history.checkpoints[-1], max(0, history.step_done - history.checkpoints[-1].step)
        return Beginning(newest.step, f"at the newest whole checkpoint, step {newest.step:,}; {lost:,} steps are lost")
    if session.is_current and session.life.alive and session.life.word in AT_NEXT_STEP and history.length:
        step = history.step_done
        return Beginning(step, f"after the current step ({step:,} now), where a checkpoint is written")
    if not history.checkpoints:
        return Beginning(0, "at step 1: there is no checkpoint yet")
    newest = history.checkpoints[-1]
    return Beginning(newest.step, f"at the newest checkpoint, step {newest.step:,} ({_ago(newest.time)})")


def _line(choice: ResumeChoice, folder: Path) -> str:
    """The command as a line of the control file, which is all that a script without a daemon needs."""
    fields: dict[str, object] = {"command": "resume", "run_id": folder.name}
    if choice.lr is not None:
        fields |= {"lr": choice.lr, "then": choice.then} | ({"force": True} if choice.force else {})
    return f"echo '{json.dumps(fields)}' >> {folder.parent / CONTROL}"


def commanded(session: Session) -> Script | None:
    """The script of this run, where it is steered by its command line alone."""
    return None if session.steers_itself or session.folder is None else script_of(session.folder)


def _ago(when: float) -> str:
    return f"{duration(time.time() - when)} ago"


def declared_schedule(session: Session) -> Schedule | None:
    """The run's own schedule, below any manual LR; None where it declares none that can be read."""
    run = session.history.run
    if run is None or run.schedule is None:
        return None
    try:
        return declared_base(parse(run.schedule))
    except ScheduleError:
        return None


def judge(session: Session, typed: str, chosen: str | None, *, force: bool) -> Judged:
    """Decide what the form asks for, by the daemon's own rules. `chosen`: what a person picked, None where nothing."""
    text = typed.strip()
    script = commanded(session)
    then = chosen or (("anneal" if script is None else "hold") if text else REJOIN)
    declared, begins = declared_schedule(session), beginning(session)
    run = session.history.run
    per_epoch = run.steps_per_epoch if run else None
    if then == REJOIN:
        if text:
            return Judged(problem="rejoin uses the planned LR: delete the typed one, or choose what follows it")
        return Judged(ResumeChoice(None, None), schedule=declared)
    if not text:
        return Judged(problem=f"{then} needs a learning rate", then=then)
    try:
        lr = float(text)
    except ValueError:
        return Judged(problem=f"{text!r} is not a number; write it as 3e-4 or 0.0003", then=then)
    if script is not None:
        if then != "hold":
            return Judged(
                problem="by its command line a script can only hold a rate; RunLog in it can do more", then=then
            )
        if not any("{lr}" in str(word) for word in script.resume or []):
            return Judged(
                problem="script.resume has no {lr}: this script takes no rate; delete the typed one", then=then
            )
        if declared is None and 0 < lr < float("inf"):
            return Judged(ResumeChoice(lr, "hold"), lr=lr, then=then)
    if declared is None:
        return Judged(problem="the run declares no schedule: only rejoin is possible", lr=lr, then=then)
    above = lr > peak_rate(declared)
    try:
        schedule = resumed(declared, begins.step, lr, cast(Then, then), steps_per_epoch=per_epoch, force=force)
    except ScheduleError as error:
        peak = f"{exact(lr)} is above the planned maximum {short_rate(peak_rate(declared))}"
        problem = f"{peak}: tick the box to use it" if above and not force and lr != float("inf") else str(error)
        return Judged(problem=problem, above_peak=above and lr != float("inf"), lr=lr, then=then)
    choice = ResumeChoice(lr, cast(Then, then), force and above)
    return Judged(choice, schedule=schedule, above_peak=above, lr=lr, then=then)


class RateInput(Input):
    """The field of the learning rate. Enter is the dialog's: what the field holds then is what is sent."""

    async def action_submit(self) -> None:
        cast(ResumeDialog, self.screen).action_confirm()


class Choices(Static, can_focus=True):
    """What follows the typed LR: one of four, each with a line that explains it where there is room."""

    BINDINGS = [
        Binding("left", "move(-1)", "the choice before"),
        Binding("right,space", "move(1)", "the next choice"),
    ]
    DEFAULT_CSS = """
    Choices { height: auto; }
    Choices:focus { background-tint: $accent 15%; }
    """

    class Chosen(Message):
        """Another of the four was picked."""

    def __init__(self) -> None:
        super().__init__(id="then")
        self.chosen: str | None = None
        self.shown = REJOIN

    def show(self, then: str, *, explained: bool) -> None:
        self.shown = then
        marks = [(name, f"({'●' if name == then else ' '}) {name}") for name in CHOICES]
        if explained:
            lines = []
            for name, mark in marks:
                weight = ("bold", "") if name == then else ("", "dim")
                lines.append(Text.assemble((f"{mark:<11}", weight[0]), (CHOICES[name], weight[1])))
            self.update(Text("\n", no_wrap=True, overflow="ellipsis").join(lines))
        else:
            self.update(Text("  ").join(Text(mark, "bold" if name == then else "") for name, mark in marks))

    def pick(self, name: str) -> None:
        self.chosen = name
        self.post_message(self.Chosen())

    def action_move(self, by: int) -> None:
        names = list(CHOICES)
        self.pick(names[(names.index(self.shown) + by) % len(names)])

    def on_click(self, event: events.Click) -> None:
        names = list(CHOICES)
        if self.size.height >= len(names) and event.y < len(names):
            self.pick(names[event.y])
        else:
            self.action_move(1)


class Force(Checkbox, inherit_bindings=False):
    """A box that shows its state without colour too; Enter stays the dialog's."""

    BINDINGS = [Binding("space", "toggle_button", "toggle")]

    @property
    def BUTTON_INNER(self) -> str:  # type: ignore[override]
        return "✔" if self.value else " "


class ResumeDialog(ModalScreen[ResumeChoice | None]):
    """Asks for the LR and what follows it, refuses what the daemon would refuse, and draws the expected curve."""

    BINDINGS = [
        Binding("enter", "confirm", "resume"),
        Binding("escape", "cancel", "cancel"),
        Binding("up", "choose(-1)", "the choice before"),
        Binding("down", "choose(1)", "the next choice"),
    ]
    DEFAULT_CSS = """
    ResumeDialog { align: center middle; }
    ResumeDialog > Vertical { width: 96; max-width: 98%; height: 28; max-height: 98%; border: round $accent;
                              padding: 0 1; background: $surface; }
    ResumeDialog #row { height: 1; }
    ResumeDialog #label { width: auto; padding: 0 1 0 0; }
    ResumeDialog Input { width: 24; height: 1; border: none; padding: 0 1; background: $boost; }
    ResumeDialog Static { height: auto; }
    ResumeDialog Checkbox, ResumeDialog Checkbox:focus { height: 1; border: none; padding: 0; background: $surface; }
    ResumeDialog Chart { height: 1fr; }
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.field = RateInput(placeholder="for example 3e-4", id="lr", compact=True)
        self.choices, self.preview = Choices(), Chart("the learning rate that this leads to", id="preview")
        self.force = Force(self._force_words(), id="force")
        self.begins, self.outcome, self.typed_line = Static(id="from"), Static(id="problem"), Static(id="shell")
        self.judged = Judged()

    def _force_words(self) -> str:
        declared = declared_schedule(self.session)
        most = f" ({short_rate(peak_rate(declared))})" if declared is not None else ""
        return f"yes, use an LR above the planned maximum{most}"

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = "resume this run"
            with Horizontal(id="row"):
                yield Static("learning rate", id="label")
                yield self.field
            yield self.choices
            yield self.begins
            yield self.preview
            yield self.force
            yield self.outcome
            yield self.typed_line
            yield Static(Text("Enter resume   Esc cancel   ↑↓ what follows", "bold"), id="keys")

    def on_mount(self) -> None:
        self.force.display = self.preview.can_focus = False
        self.field.focus()
        self.show_form()
        self.set_interval(FOLLOW_S, self.show_form)

    @on(Input.Changed)
    @on(Choices.Chosen)
    @on(Checkbox.Changed)
    def _changed(self) -> None:
        self.show_form()

    def _read(self) -> Judged:
        return judge(self.session, self.field.value, self.choices.chosen, force=self.force.value)

    def show_form(self) -> None:
        """What the form means now: the choice, from where, the curve, what would be typed in a shell."""
        roomy = self.app.size.height >= EXPLAINED_FROM
        judged = self.judged = self._read()
        begins = beginning(self.session)
        self.choices.show(judged.then, explained=roomy)
        self.begins.update(Text(f"begins {begins.words}", no_wrap=True, overflow="ellipsis"))
        self.begins.display = self.typed_line.display = roomy
        self.force.display = judged.above_peak
        self.outcome.update(Text(judged.problem, "bold red") if judged.problem else self._outcome(judged, begins))
        line = self._shell(judged)
        self.typed_line.update(Text(f"the same from a shell:  {line}" if line else "", "dim"))
        if judged.schedule is not None and judged.choice is not None:
            self.preview.show(resume_chart(self.session.history, judged.schedule, begins.step, log=True))
        else:
            self.preview.show(ChartData(empty="no curve: see below" if judged.problem else "no schedule to draw"))

    def on_resize(self) -> None:
        self.show_form()

    def _outcome(self, judged: Judged, begins: Beginning) -> Text:
        if judged.schedule is None:
            if judged.lr is not None:
                return Text(f"resume at your LR: {rate(judged.lr)} until the end of the run")
            return Text("the trainer goes on with the schedule of its configuration")
        run = self.session.history.run
        per_epoch = run.steps_per_epoch if run else None
        lr = judged.lr if judged.lr is not None else float(rate_at(judged.schedule, begins.step + 1, per_epoch))
        what = "on the planned curve" if judged.lr is None else "at your LR"
        end = short_rate(final_rate(judged.schedule))
        return Text(f"resume {what}: {rate(lr)} from step {begins.step + 1:,}, {end} at the end of the run")

    def _shell(self, judged: Judged) -> str:
        """The command for a shell; nothing where nothing could be sent."""
        if judged.choice is None:
            return ""
        if self.session.steers_itself and self.session.folder is not None:
            return _line(judged.choice, self.session.folder)
        words: list[object] = ["resume"]
        if judged.choice.lr is not None:
            words += ["--lr", exact(judged.choice.lr), "--then", judged.choice.then]
            words += ["--force"] if judged.choice.force else []
        return shell("eegpt-daemon", *words, "--logs", self.session.logs)

    def action_choose(self, by: int) -> None:
        self.choices.action_move(by)

    def action_confirm(self) -> None:
        """Send what the form holds at this moment, not what was last drawn of it."""
        judged = self._read()
        if judged.choice is not None:
            self.dismiss(judged.choice)
        else:
            self.show_form()
            self.app.bell()

    def action_cancel(self) -> None:
        self.dismiss(None)
