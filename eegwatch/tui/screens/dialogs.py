"""A question before a command is sent: stop, fresh restart."""

from __future__ import annotations

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static


class Confirm(ModalScreen[bool]):
    """One question; Enter confirms, Escape cancels."""

    BINDINGS = [Binding("enter", "confirm", "confirm"), Binding("escape", "cancel", "cancel")]
    DEFAULT_CSS = """
    Confirm { align: center middle; }
    Confirm > Vertical { width: 76; max-width: 100%; height: auto; border: round $accent; padding: 1 2;
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
