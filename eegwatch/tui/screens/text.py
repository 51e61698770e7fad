"""Full-screen texts with search: the events, the trainer's output, files."""

from __future__ import annotations

import re

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, RichLog

from eegwatch.tui.session import Session
from eegwatch.tui.widgets.lines import hanging
from eegwatch.wording import clock, pattern_of, plain

_HEAD = re.compile(r" *(?:\S+(?: \S+){0,2} {2,})?")  # a time of day or a label, and the blanks before the words


class TextScreen(ModalScreen[None]):
    """A scrollable text; `/` searches it, n and N go through what was found; Escape, q or the opening key closes it."""

    BINDINGS = [
        Binding("escape", "back", "close"),
        Binding("q,e,t,c,v", "close", "close"),
        Binding("slash", "search", "search"),
        Binding("n", "find(1)", "next"),
        Binding("N", "find(-1)", "before"),
        Binding("g", "top", "top"),
        Binding("G", "bottom", "bottom"),
        Binding("j", "scroll(1)", "down"),
        Binding("k", "scroll(-1)", "up"),
    ]
    DEFAULT_CSS = """
    TextScreen { align: center middle; }
    TextScreen > Vertical { width: 100; max-width: 100%; height: auto; max-height: 100%; border: round $accent;
                            padding: 0 1; background: $surface; }
    TextScreen RichLog { height: 1fr; background: $surface; }
    TextScreen Input { height: 1; border: none; display: none; }
    TextScreen Input.shown { display: block; }
    """

    def __init__(self, title: str, text: Text, *, at_end: bool = False, hangs: bool = False) -> None:
        """`at_end`: the newest lines first in sight. `hangs`: what wraps of a line stands below its words."""
        super().__init__()
        self.hangs = hangs
        self.title_text, self.lines, self.at_end = title, text.split("\n", allow_blank=True), at_end
        self.log_view = RichLog(wrap=True, markup=False, auto_scroll=False, min_width=20)
        self.pattern = Input(placeholder="search: text, or a regular expression", compact=True)
        self.found: list[int] = []  # rows
        self.at = -1

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = self.title_text
            box.border_subtitle = "/ search   Esc close"
            yield self.log_view
            yield self.pattern

    def on_mount(self) -> None:
        self.log_view.focus()
        self.call_after_refresh(self._first)

    def _first(self) -> None:
        self._write()
        if self.at_end:
            self.log_view.scroll_end(animate=False)

    def on_resize(self) -> None:
        self.call_after_refresh(self._write)

    def _write(self) -> None:
        """Every line anew, what is searched for marked in it."""
        place = self.log_view.scroll_y
        width = self.log_view.scrollable_content_region.width or self.log_view.size.width
        if not width:
            return
        self.log_view.clear()
        self.found = []
        wanted = self._wanted()
        for line in self.lines:
            shown = line
            if wanted is not None and wanted.search(line.plain):
                self.found.append(len(self.log_view.lines))
                shown = line.copy()
                shown.highlight_regex(wanted, "reverse")
            head = _HEAD.match(line.plain) if self.hangs else None
            for row in hanging(shown, self.app.console, width, head.end() if head is not None else 0):
                self.log_view.write(row, width=width, scroll_end=False)
        room = self.app.size.height - 2 - self.pattern.has_class("shown")
        self.log_view.styles.height = min(len(self.log_view.lines), max(room, 1))
        self.log_view.scroll_to(y=place, animate=False)

    def _wanted(self) -> re.Pattern[str] | None:
        typed = self.pattern.value.strip()
        return pattern_of(typed) if typed else None

    @on(Input.Changed)
    def _typed(self) -> None:
        self._write()
        position = self.log_view.scroll_y
        self.at = next((i for i, row in enumerate(self.found) if row >= position), 0) - 1
        self._say()

    @on(Input.Submitted)
    def _kept(self) -> None:
        self.log_view.focus()
        self.action_find(1)

    def _say(self) -> None:
        count = len(self.found)
        where = f"{self.at + 1} of {count}" if count and self.at >= 0 else f"{count} lines"
        self.query_one(Vertical).border_subtitle = (
            f"{where}   n N next, before   Esc close" if self.pattern.value else ""
        )

    def action_search(self) -> None:
        self.pattern.add_class("shown")
        self._write()
        self.pattern.focus()

    def action_find(self, by: int) -> None:
        if not self.found:
            self.notify("not found" if self.pattern.value else "press / and type what to search for")
            return
        self.at = (self.at + by) % len(self.found)
        self.log_view.scroll_to(y=max(0, self.found[self.at] - 2), animate=False)
        self._say()

    def action_top(self) -> None:
        self.log_view.scroll_home(animate=False)

    def action_bottom(self) -> None:
        self.log_view.scroll_end(animate=False)

    def action_scroll(self, rows: int) -> None:
        self.log_view.scroll_relative(y=rows, animate=False)

    def action_back(self) -> None:
        if self.pattern.has_class("shown"):
            self.pattern.value = ""
            self.pattern.remove_class("shown")
            self.log_view.focus()
        else:
            self.dismiss(None)

    def action_close(self) -> None:
        self.dismiss(None)


def events_text(session: Session) -> Text:
    text = Text()
    for finding in session.diagnosis.findings:
        text.append(f"{finding.severity} ", "bold red" if finding.severity == "error" else "bold yellow")
        text.append(f"{finding.rule} since step {finding.since_step:,}\n", "bold")
        text.append(f"   {finding.message}\n")
        if finding.cause is not None:
            text.append(f"   cause      {finding.cause.name}: {finding.cause.evidence}\n")
            if finding.cause.alternatives:
                text.append(f"   or         {', '.join(finding.cause.alternatives)}\n")
            if finding.cause.separates_at:
                text.append(f"   decided    at step {finding.cause.separates_at:,}\n")
            out = ", ".join(f"{name} (step {at:,})" for name, at in sorted(finding.cause.killed.items()))
            if out:
                text.append(f"   ruled out  {out}\n", "dim")
        if finding.remedy:
            text.append(f"   remedy     {finding.remedy}\n")
        text.append("\n")
    for event in session.newest_events():
        text.append(f"{clock(event.time)}  ", "dim")
        text.append(f"{event.text}\n")
    run = session.history.run
    if run is not None and run.notes:
        text.append("\nabout this run\n", "bold")
        for note in run.notes:
            text.append(f"   {plain(note)}\n")
    return text if text.plain else Text("nothing has happened yet")
