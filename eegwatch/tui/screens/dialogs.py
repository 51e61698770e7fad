"""The dialogs that ask before a command is sent: stop, fresh restart, resume with the curve that would follow."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Checkbox, Input, RadioButton, RadioSet, Static

from eegwatch.charts.expected import resume_chart
from eegwatch.schedule import Schedule, ScheduleError, declared_base, final_rate, parse, rate_at, resumed
from eegwatch.tui.session import Session
from eegwatch.tui.widgets.chart import Chart
from eegwatch.wording import duration, rate, short_rate

THEN = ("rejoin", "anneal", "hold", "scale")


@dataclass(frozen=True)
class ResumeChoice:
    """What the resume dialog decided: no `lr` rejoins the declared schedule."""

    lr: float | None
    then: str | None
    force: bool = False


class Confirm(ModalScreen[bool]):
    """One question; Enter confirms, Escape cancels."""

    BINDINGS = [Binding("enter", "confirm", "confirm"), Binding("escape", "cancel", "cancel")]
    DEFAULT_CSS = """
    Confirm { align: center middle; }
    Confirm > Vertical { width: 76; max-width: 96%; height: auto; border: round $accent; padding: 1 2;
                         background: $surface; }
    Confirm Static { height: auto; }
    """

    def __init__(self, title: str, lines: list[str], shell: str) -> None:
        super().__init__()
        self.title_text, self.lines, self.shell = title, lines, shell

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = self.title_text
            body = "\n".join(self.lines)
            yield Static(Text(body))
            yield Static(Text(f"\nthe same from a shell:  {self.shell}", "dim"))
            yield Static(Text("\nEnter  yes      Esc  no", "bold"))

    def action_confirm(self) -> None:
        self.dismiss(True)

    def action_cancel(self) -> None:
        self.dismiss(False)


class Choice(RadioButton):
    """A radio button that shows its state without colour too."""

    @property
    def BUTTON_INNER(self) -> str:  # type: ignore[override]
        return "●" if self.value else " "


class ResumeDialog(ModalScreen[ResumeChoice | None]):
    """Asks for the LR and what follows it, refuses what the daemon would refuse, and draws the expected curve."""

    BINDINGS = [
        Binding("enter", "confirm", "resume", priority=True),
        Binding("escape", "cancel", "cancel"),
    ]
    DEFAULT_CSS = """
    ResumeDialog { align: center middle; }
    ResumeDialog > Vertical { width: 90; max-width: 98%; height: 23; max-height: 98%; border: round $accent;
                              padding: 0 1; background: $surface; }
    ResumeDialog #row { height: 3; }
    ResumeDialog Input { width: 20; }
    ResumeDialog RadioSet { width: 1fr; layout: horizontal; height: 3; border: none; padding: 1 0 0 1;
                            background: $surface; }
    ResumeDialog RadioSet:focus { border: none; background-tint: $accent 15%; }
    ResumeDialog RadioButton { width: auto; margin-right: 1; padding: 0; border: none; background: $surface; }
    ResumeDialog Static { height: auto; }
    ResumeDialog Checkbox { height: 1; border: none; background: $surface; }
    ResumeDialog Chart { height: 1fr; }
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        history = session.history
        self.at = history.step_done
        self.declared: Schedule | None = None
        run = history.run
        if run is not None and run.schedule is not None:
            try:
                self.declared = declared_base(parse(run.schedule))
            except ScheduleError:
                self.declared = None  # said in the dialog: only a rejoin is possible then
        self.choice: ResumeChoice | None = None

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = "resume this run"
            with Horizontal(id="row"):
                yield Input(placeholder="LR, e.g. 3e-4", id="lr")
                with RadioSet(id="then"):
                    for name in THEN:
                        yield Choice(name, value=name == "rejoin")
            yield Static(id="from")
            yield Chart("the curve that you will get", id="preview")
            yield Checkbox("above the declared peak is meant", id="force")
            yield Static(id="problem")
            yield Static(id="shell")
            yield Static(Text("Enter  resume      Esc  cancel      Tab, ←→ + Space  choose what follows", "bold"))

    def on_mount(self) -> None:
        self.query_one("#force").display = False
        self.query_one("#from", Static).update(Text(self._from()))
        self.query_one("#lr", Input).focus()
        self._judge()

    def _from(self) -> str:
        checkpoints = self.session.history.checkpoints
        if self.session.is_current and self.session.life.word in ("training", "evaluating", "checkpointing"):
            return f"from  a checkpoint at the next step boundary (step {self.at:,} now); the trainer restarts from it"
        if not checkpoints:
            return "from  the beginning: there is no checkpoint yet"
        newest = checkpoints[-1]
        self.at = newest.step
        return f"from  the newest checkpoint, step {newest.step:,} ({duration(time.time() - newest.time)} ago)"

    @property
    def then(self) -> str:
        pressed = self.query_one("#then", RadioSet).pressed_index
        return THEN[pressed] if pressed >= 0 else "rejoin"

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        buttons = list(self.query(Choice))
        if event.value.strip() and self.then == "rejoin":
            buttons[THEN.index("anneal")].value = True
        elif not event.value.strip() and self.then != "rejoin":
            buttons[0].value = True
        self._judge()

    @on(RadioSet.Changed)
    @on(Checkbox.Changed)
    def _chosen(self) -> None:
        self._judge()

    def _judge(self) -> None:
        """Read the form; set `choice` if it can be sent, else say why not; draw what would follow."""
        text, then = self.query_one("#lr", Input).value.strip(), self.then
        force = self.query_one("#force", Checkbox).value
        problem, lr, schedule = "", None, self.declared
        self.choice = None
        if then != "rejoin":
            try:
                lr = float(text)
            except ValueError:
                problem = f"{text!r} is not a number" if text else f"{then} needs a learning rate"
        if not problem:
            try:
                if self.declared is not None:
                    run = self.session.history.run
                    schedule = resumed(
                        self.declared,
                        self.at,
                        lr,
                        then if then != "rejoin" else "anneal",  # type: ignore[arg-type]
                        steps_per_epoch=run.steps_per_epoch if run else None,
                        force=force,
                    )
                elif lr is not None:
                    raise ScheduleError("the run declares no schedule: only a rejoin is possible")
                self.choice = ResumeChoice(lr, then if lr is not None else None, force and lr is not None)
            except ScheduleError as error:
                problem = str(error)
        checkbox = self.query_one("#force", Checkbox)
        checkbox.display = "above the declared peak" in problem or checkbox.value
        self.query_one("#problem", Static).update(Text(problem, "bold red") if problem else self._outcome(schedule, lr))
        self.query_one("#shell", Static).update(Text(f"the same from a shell:  {self._shell(lr, then, force)}", "dim"))
        if schedule is not None and self.choice is not None:
            self.query_one("#preview", Chart).show(resume_chart(self.session.history, schedule, self.at, log=True))

    def _outcome(self, schedule: Schedule | None, lr: float | None) -> Text:
        if schedule is None:
            return Text("the trainer goes on with the schedule of its configuration")
        run = self.session.history.run
        per_epoch = run.steps_per_epoch if run else None
        start = lr if lr is not None else float(rate_at(schedule, self.at + 1, per_epoch))
        kind = "rejoins the declared schedule" if lr is None else "follows your LR"
        return Text(f"{kind}: {rate(start)} from step {self.at + 1:,}, ends at {short_rate(final_rate(schedule))}")

    def _shell(self, lr: float | None, then: str, force: bool) -> str:
        words = ["eegpt-daemon", "resume"]
        if lr is not None:
            words += ["--lr", f"{lr:g}", "--then", then] + (["--force"] if force else [])
        return shlex.join([*words, "--logs", str(self.session.logs)])

    def action_confirm(self) -> None:
        if self.choice is not None:
            self.dismiss(self.choice)
        else:
            self.app.bell()

    def action_cancel(self) -> None:
        self.dismiss(None)
