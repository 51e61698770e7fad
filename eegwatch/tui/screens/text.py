"""Full-screen texts: the help, made from the real key bindings, and the events with every finding."""

from __future__ import annotations

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from eegwatch.tui.session import Session
from eegwatch.wording import clock, plain

EXPLAINED = {
    "app.resume": "resume: rejoin the declared schedule, or go on with an LR of your choice (asks, draws the curve)",
    "app.restart": "fresh restart: stop this run and start a new one from step 0 (asks first; the old run stays)",
    "app.stop": "stop: checkpoint at the next step boundary, the daemon stays ready (asks first)",
    "toggle_lr_axis": "learning-rate chart: logarithmic or linear y axis",
    "toggle_loss_axis": "loss chart: logarithmic or linear y axis",
    "app.events": "events and findings, the newest first",
    "app.help": "this help",
    "app.quit": "quit the monitor; the training goes on",
    "app.command_palette": "command palette: every action by name, themes",
}


class TextScreen(ModalScreen[None]):
    """A scrollable text; Escape, q or the key that opened it closes it."""

    BINDINGS = [Binding("escape,q,question_mark,e,t,c", "close", "close")]
    DEFAULT_CSS = """
    TextScreen { align: center middle; }
    TextScreen > VerticalScroll { width: 100; max-width: 98%; height: auto; max-height: 96%; border: round $accent;
                                  padding: 0 1; background: $surface; }
    TextScreen Static { height: auto; }
    """

    def __init__(self, title: str, text: Text, *, at_end: bool = False) -> None:
        super().__init__()
        self.title_text, self.text, self.at_end = title, text, at_end

    def compose(self) -> ComposeResult:
        with VerticalScroll() as box:
            box.border_title = self.title_text
            box.border_subtitle = "Esc closes"
            yield Static(self.text)

    def on_mount(self) -> None:
        box = self.query_one(VerticalScroll)
        box.focus()
        if self.at_end:
            box.scroll_end(animate=False)

    def action_close(self) -> None:
        self.dismiss(None)


def help_text(bindings: list[Binding]) -> Text:
    text = Text()
    for binding in bindings:
        key = binding.key_display or binding.key.replace("ctrl+", "^")
        text.append(f"{key:>8}  ", "bold")
        text.append(EXPLAINED.get(binding.action, binding.description) + "\n")
    text.append("\n✔ proved right   ✖ proved wrong   ! evidence, not proof   … cannot be told yet\n", "bold")
    text.append(
        "\nThe LR chart draws what was logged (━) over what the declared schedule asks for (┄), ahead to the end of "
        "the run. A learning-rate finding is a fact: the logged rates cannot come from the declared schedule. A single "
        "batch's loss scatters: the range under “loss” is what batch size and AUROC explain.\n"
    )
    return text


def events_text(session: Session) -> Text:
    text = Text()
    for finding in session.diagnosis.findings:
        text.append(f"{finding.severity} ", "bold red" if finding.severity == "error" else "bold yellow")
        text.append(f"{finding.rule} since step {finding.since_step:,}\n", "bold")
        text.append(f"   {finding.message}\n")
        if finding.cause is not None:
            text.append(f"   cause     {finding.cause.name}: {finding.cause.evidence}\n")
            if finding.cause.alternatives:
                text.append(f"   or        {', '.join(finding.cause.alternatives)}\n")
            if finding.cause.separates_at:
                text.append(f"   decided   at step {finding.cause.separates_at:,}\n")
            out = ", ".join(f"{name} (step {at:,})" for name, at in sorted(finding.cause.killed.items()))
            if out:
                text.append(f"   ruled out {out}\n", "dim")
        if finding.remedy:
            text.append(f"   remedy    {finding.remedy}\n")
        text.append("\n")
    for event in reversed(session.events):
        text.append(f"{clock(event.time)}  ", "dim")
        text.append(f"{event.text}\n")
    run = session.history.run
    if run is not None and run.notes:
        text.append("\nabout this run\n", "bold")
        for note in run.notes:
            text.append(f"   {plain(note)}\n")
    return text if text.plain else Text("nothing has happened yet")
