"""The list of runs: state, progress, last LR, AUROC and verdict of each; filter, switch, overlay, compare.

Names come from the folders at once; figures from the end of each log, a few runs a tick, the newest first: a log root
with a thousand runs opens at once, and stays quick.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import DataTable, Input, Static

from eegwatch.run.folder import CONFIG, runs
from eegwatch.run.summary import Summary, summarise
from eegwatch.tui.screens.text import TextScreen
from eegwatch.tui.settings import Settings
from eegwatch.wording import pattern_of, plain, rate

TICK_S, A_TICK = 0.05, 16  # runs whose log's end is read a tick: some ten milliseconds
COLUMNS = ("run", "state", "step", "LR", "AUROC", "verdict")
WIDTHS = (None, 13, 21, 9, 6, 60)  # fixed: a table that measures every cell anew takes a second for a hundred runs


@dataclass(frozen=True)
class RunChoice:
    """What to do with a run of the list."""

    folder: Path
    action: Literal["watch", "overlay"]


class RunsScreen(ModalScreen[RunChoice | None]):
    """Choose a run. Enter watches it, o lays it over the one on the screen, d compares its configuration with that."""

    BINDINGS = [
        Binding("escape,R", "close", "close"),
        Binding("slash", "filter", "filter", key_display="/"),
        Binding("o", "overlay", "overlay"),
        Binding("space", "pin", "pin to the top"),
        Binding("d", "compare", "compare configurations"),
        Binding("j", "down", "down", show=False),
        Binding("k", "up", "up", show=False),
    ]
    DEFAULT_CSS = """
    RunsScreen { align: center middle; }
    RunsScreen > Vertical { width: 98%; height: 96%; border: round $accent; background: $surface; }
    RunsScreen DataTable { height: 1fr; }
    RunsScreen Input { height: 3; display: none; }
    RunsScreen Input.shown { display: block; }
    RunsScreen #keys { height: 1; color: $text-muted; padding: 0 1; }
    """

    def __init__(
        self,
        logs: Path,
        current: Path | None,
        live: tuple[str | None, str] = (None, ""),
        settings: Settings | None = None,
    ) -> None:
        """`live`: (run of the daemon that lives, what it does). `settings`: hold the pinned runs."""
        super().__init__()
        self.settings = settings or Settings()
        self.logs, self.current, self.live = logs, current, live
        self.folders = list(reversed(runs(logs)))
        self.shown: list[Path] = []
        self._known: dict[Path, Summary | None] = {}
        self.table: DataTable[Text] = DataTable(cursor_type="row", zebra_stripes=True)
        self.filter = Input(
            placeholder="name, state, verdict: text or a regular expression; Enter keeps it, Esc clears it"
        )

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = f"{len(self.folders):,} runs in {self.logs}"
            yield self.filter
            yield self.table
            yield Static("Enter watch  o overlay  space pin  d compare configurations  / filter  Esc close", id="keys")

    def on_mount(self) -> None:
        for name, width in zip(COLUMNS, WIDTHS, strict=True):
            self.table.add_column(name, key=name, width=width)
        self._list()
        self.table.focus()
        self.set_interval(TICK_S, self._read_some)

    def _list(self) -> None:
        """Rows of the runs that match the filter, with what is known of them."""
        wanted = self.filter.value.strip()
        pattern = pattern_of(wanted)
        found = [folder for folder in self.folders if pattern.search(self._words(folder))]
        self.shown = sorted(found, key=lambda folder: not self.settings.pins(folder))  # stable: the newest first
        self.table.clear()
        for folder in self.shown:
            self.table.add_row(*self._row(folder), key=folder.name)
        if self.current in self.shown and not wanted:
            self.table.move_cursor(row=self.shown.index(self.current))

    def _row(self, folder: Path) -> list[Text]:
        pin = "▸ " if self.settings.pins(folder) else ""
        name = Text(pin + folder.name, "bold" if folder == self.current else "")
        if folder not in self._known:
            return [name, *(Text("…", "dim") for _ in COLUMNS[1:])]
        s = self._known[folder]
        if s is None:
            return [name, Text("unreadable", "red"), *(Text("") for _ in COLUMNS[2:])]
        total = f" / {s.total_steps:,}" if s.total_steps else ""
        return [
            name,
            Text(self._state(s), "red" if s.end == "failed" else ""),
            Text(f"{s.step:,}{total}", justify="right"),
            Text(rate(s.lr) if s.lr is not None else "–", justify="right"),
            Text(f"{s.auroc:.3f}" if s.auroc is not None else "–", justify="right"),
            Text(plain(s.verdict), "bold red" if s.severity == "error" else "yellow")
            if s.verdict
            else Text("✔" if s.step else "", "green"),
        ]

    def _words(self, folder: Path) -> str:
        """What a filter looks at: the name, and what is known of state and verdict."""
        s = self._known.get(folder)
        return folder.name if s is None else f"{folder.name} {s.name} {self._state(s)} {s.verdict or ''}"

    def _state(self, s: Summary) -> str:
        if s.end is None and s.run_id == self.live[0]:
            return self.live[1]
        return plain(s.end or s.progress or "open")

    def _read_some(self) -> None:
        """The ends of a few more logs: those in sight first."""
        top = int(self.table.scroll_y)
        order = [*self.shown[top : top + 60], *self.shown]
        todo = [folder for folder in dict.fromkeys(order) if folder not in self._known][:A_TICK]
        for folder in todo:
            try:
                self._known[folder] = summarise(folder)
            except OSError:
                self._known[folder] = None
            for column, cell in zip(COLUMNS, self._row(folder), strict=True):
                self.table.update_cell(folder.name, column, cell)

    def _chosen(self) -> Path | None:
        row = self.table.cursor_row
        return self.shown[row] if 0 <= row < len(self.shown) else None

    # ---- actions ----

    @on(DataTable.RowSelected)
    def _watch(self) -> None:
        folder = self._chosen()
        if folder is not None:
            self.dismiss(RunChoice(folder, "watch"))

    def action_overlay(self) -> None:
        folder = self._chosen()
        if folder is not None and folder != self.current:
            self.dismiss(RunChoice(folder, "overlay"))

    def action_pin(self) -> None:
        folder = self._chosen()
        if folder is not None:
            self.settings.toggle_pin(folder)
            self._list()
            self.table.move_cursor(row=self.shown.index(folder))

    def action_compare(self) -> None:
        folder = self._chosen()
        if folder is None or self.current is None or folder == self.current:
            self.notify("move to another run: d compares its configuration with the one on the screen")
            return
        self.app.push_screen(TextScreen(f"{self.current.name} → {folder.name}", config_diff(self.current, folder)))

    def action_filter(self) -> None:
        self.filter.add_class("shown")
        self.filter.focus()

    @on(Input.Changed)
    def _filtered(self) -> None:
        self._list()

    @on(Input.Submitted)
    def _kept(self) -> None:
        self.table.focus()

    def action_close(self) -> None:
        if self.filter.has_class("shown"):
            self.filter.remove_class("shown")
            self.filter.value = ""
            self.table.focus()
            return
        self.dismiss(None)

    def action_down(self) -> None:
        self.table.action_cursor_down()

    def action_up(self) -> None:
        self.table.action_cursor_up()


def config_diff(one: Path, other: Path) -> Text:
    """What differs between the configurations that two runs were trained with."""
    texts: list[list[str]] = []
    for folder in (one, other):
        try:
            texts.append((folder / CONFIG).read_text(encoding="utf-8", errors="replace").splitlines())
        except OSError as error:
            return Text(f"{folder / CONFIG}: {error.strerror}")
    difference = difflib.unified_diff(texts[0], texts[1], one.name, other.name, lineterm="", n=2)
    lines = [plain(line) for line in difference]
    if not lines:
        return Text("the configurations are the same")
    style = {"+": "green", "-": "red", "@": "dim"}
    return Text("\n").join(Text(line, style.get(line[:1], "")) for line in lines)
