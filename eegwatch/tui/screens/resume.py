"""The resume dialog: the learning rate, the course after it, and the resulting curve."""

from __future__ import annotations

from typing import cast

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
from eegwatch.schedule import final_rate, peak_rate, rate_at
from eegwatch.tui.resume_form import (
    REJOIN,
    RELEASE,
    CheckedForm,
    Form,
    ResumeChoice,
    StartPoint,
    branch_words,
    can_branch,
    choices,
    declared_schedule,
    judge,
    shell_line,
    start_point,
)
from eegwatch.tui.session import Session
from eegwatch.tui.widgets.chart import Chart
from eegwatch.wording import fitting, rate, short_rate

FOLLOW_S = 0.5  # the run goes on under the dialog: the step at which the resume begins moves with it
EXPLAINED_FROM = 20  # rows of the terminal from which each choice has a line


class Entry(Input):
    """A field to type in. Enter is the dialog's: what the fields hold then is what is sent."""

    async def action_submit(self) -> None:
        cast(ResumeDialog, self.screen).action_confirm()


class Choices(Static, can_focus=True):
    """What follows the typed LR: one of a few, each with a line that explains it where there is room."""

    BINDINGS = [
        Binding("left", "move(-1)", "the choice before"),
        Binding("right,space", "move(1)", "the next choice"),
    ]
    DEFAULT_CSS = """
    Choices { height: auto; }
    Choices:focus { background-tint: $accent 15%; }
    """

    class Chosen(Message):
        """Another of them was picked."""

    def __init__(self, lines: dict[str, str]) -> None:
        super().__init__(id="then")
        self.lines = lines
        self.chosen: str | None = None
        self.shown = REJOIN

    def show(self, then: str, *, explained: bool) -> None:
        self.shown = then
        marks = [(name, f"({'●' if name == then else ' '}) {name}") for name in self.lines]
        if explained:
            lines, width = [], 1 + max(len(mark) for _, mark in marks)
            for name, mark in marks:
                weight = ("bold", "") if name == then else ("", "dim")
                lines.append(Text.assemble((f"{mark:<{width}}", weight[0]), (self.lines[name], weight[1])))
            self.update(Text("\n", no_wrap=True, overflow="ellipsis").join(lines))
        else:
            self.update(Text("  ").join(Text(mark, "bold" if name == then else "") for name, mark in marks))

    def pick(self, name: str) -> None:
        self.chosen = name
        self.post_message(self.Chosen())

    def action_move(self, by: int) -> None:
        names = list(self.lines)
        self.pick(names[(names.index(self.shown) + by) % len(names)])

    def on_click(self, event: events.Click) -> None:
        names = list(self.lines)
        if self.size.height >= len(names) and event.y < len(names):
            self.pick(names[event.y])
        else:
            self.action_move(1)


class ForceCheckbox(Checkbox, inherit_bindings=False):
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
    ResumeDialog > Vertical { width: 96; max-width: 100%; height: 28; max-height: 100%; border: round $accent;
                              padding: 0 1; background: $surface; }
    ResumeDialog .row { height: 1; }
    ResumeDialog .label { width: 14; }
    ResumeDialog Input { width: 24; height: 1; border: none; padding: 0 1; background: $boost; }
    ResumeDialog Static { height: auto; }
    ResumeDialog Checkbox, ResumeDialog Checkbox:focus { height: 1; border: none; padding: 0; background: $surface; }
    ResumeDialog Chart { height: 1fr; }
    ResumeDialog.low Chart { border: none; border-top: solid $panel; }
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.field = Entry(placeholder="for example 3e-4", id="lr", compact=True)
        self.branch = Entry(placeholder="a name; empty: this run", id="as", compact=True)
        self.branch_row = Horizontal(Static("as a new run", classes="label"), self.branch, classes="row")
        self.branch_told = Static(id="branch")
        self.choices = Choices(choices(session))
        self.preview = Chart("the learning rate that this leads to", id="preview")
        self.force = ForceCheckbox(self._force_words(), id="force")
        self.begins, self.outcome, self.typed_line = Static(id="from"), Static(id="problem"), Static(id="shell")
        self.judged = CheckedForm()
        self.keys = Static(id="keys")

    def _force_words(self) -> str:
        declared = declared_schedule(self.session)
        most = f" ({short_rate(peak_rate(declared))})" if declared is not None else ""
        return f"yes, use an LR above the planned maximum{most}"

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = "resume this run"
            yield Horizontal(Static("learning rate", classes="label"), self.field, classes="row")
            yield self.choices
            yield self.branch_row
            yield self.branch_told
            yield self.begins
            yield self.preview
            yield self.force
            yield self.outcome
            yield self.typed_line
            yield self.keys

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

    def _read(self) -> CheckedForm:
        branch = self.branch.value if can_branch(self.session) else ""
        return judge(self.session, Form(self.field.value, self.choices.chosen, self.force.value, branch))

    def show_form(self) -> None:
        """Show the meaning of the form: the choice, the starting point, the curve, the equivalent shell command."""
        roomy = self.app.size.height >= EXPLAINED_FROM
        self.set_class(not roomy, "low")
        keys = ["Enter resume", "Esc cancel", "↑↓ what follows", "Tab next field"]
        self.keys.update(Text(fitting(keys, self.app.size.width - 4, "   "), "bold"))
        judged = self.judged = self._read()
        self.branch_row.display = can_branch(self.session)
        branch = self.branch.value.strip() if self.branch_row.display else ""
        self.branch_told.display = bool(branch)
        self.branch_told.update(Text(branch_words(self.session, branch), no_wrap=True, overflow="ellipsis"))
        begins = start_point(self.session, branch=bool(branch))
        self.choices.show(judged.then, explained=roomy)
        self.begins.update(Text(f"begins {begins.words}", no_wrap=True, overflow="ellipsis"))
        self.begins.display = self.typed_line.display = roomy
        self.force.display = judged.above_peak
        self.outcome.update(Text(judged.problem, "bold red") if judged.problem else self._outcome(judged, begins))
        line = shell_line(self.session, judged.choice) if judged.choice is not None else ""
        self.typed_line.update(Text(f"the same from a shell:  {line}" if line else "", "dim"))
        if judged.schedule is not None and judged.choice is not None:
            self.preview.show(resume_chart(self.session.history, judged.schedule, begins.step, log=True))
        else:
            self.preview.show(ChartData(empty="no curve: see below" if judged.problem else "no schedule to draw"))

    def on_resize(self) -> None:
        self.show_form()

    def _outcome(self, judged: CheckedForm, begins: StartPoint) -> Text:
        if judged.schedule is None:
            if judged.lr is not None:
                return Text(f"resume at your LR: {rate(judged.lr)} until the end of the run")
            if judged.then == RELEASE:
                return Text("the script's own scheduler sets the learning rate again, from the next step on")
            return Text("the trainer continues on the schedule of its configuration")
        run = self.session.history.run
        per_epoch = run.steps_per_epoch if run else None
        lr = judged.lr if judged.lr is not None else float(rate_at(judged.schedule, begins.step + 1, per_epoch))
        what = "on the planned curve" if judged.lr is None else "at your LR"
        end = short_rate(final_rate(judged.schedule))
        return Text(f"resume {what}: {rate(lr)} from step {begins.step + 1:,}, {end} at the end of the run")

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
