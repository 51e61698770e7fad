"""The list of runs: state, progress, last LR, AUROC and verdict of each; filter, switch, overlay, compare.

Names come from the folders at once; figures from the end of each log, a few runs a tick, the newest first: a log root
with a thousand runs opens at once, and stays quick.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import DataTable, Input, Static

from eegwatch.run.branches import family
from eegwatch.run.notes import LONGEST, NotNoted, note_of, write_note
from eegwatch.tui.screens.run_diff import run_diff
from eegwatch.tui.screens.run_rows import COLUMNS, SORTS, Overlays, RunRows
from eegwatch.tui.screens.text import TextScreen
from eegwatch.tui.settings import Settings
from eegwatch.tui.widgets.chart import TITLE_FRAME
from eegwatch.tui.widgets.lines import whole_words
from eegwatch.wording import count, fitting, path_end, pattern_of, plain

TICK_S, A_TICK = 0.05, 16  # runs whose log's end is read a tick: some ten milliseconds
STATE_WIDTH, SCORE_WIDTH, STEP_WIDTH, RATE_WIDTH = 12, 7, 19, 8
NAME_WIDTH, VERDICT_WIDTH = (24, 44), (20, 60)  # least and most; fixed widths: measuring every cell takes a second
NUMBERS = ("AUROC", "step", "LR")


@dataclass(frozen=True)
class RunChoice:
    """A run of the list to watch."""

    folder: Path


class RunsScreen(ModalScreen[RunChoice | None]):
    """Choose a run. Enter watches it, o draws it over the one on the screen, d compares its configuration with that."""

    BINDINGS = [
        Binding("escape,R", "close", "close"),
        Binding("slash", "filter", "filter", key_display="/"),
        Binding("o", "overlay", "draw over the run on the screen, or take it away"),
        Binding("s", "sort", "sort"),
        Binding("space", "pin", "pin to the top"),
        Binding("d", "compare", "compare configurations"),
        Binding("b", "branches", "draw the runs over it that branched off with it"),
        Binding("n", "note", "write a note on the run"),
        Binding("e", "seeds", "each seed of a series, or one row"),
        Binding("j", "down", "down", show=False),
        Binding("k", "up", "up", show=False),
    ]
    DEFAULT_CSS = """
    RunsScreen { align: center middle; }
    RunsScreen > Vertical { width: 100%; height: 100%; border: round $accent; background: $surface; }
    RunsScreen DataTable { height: 1fr; }
    RunsScreen Input { height: 3; display: none; }
    RunsScreen Input.shown { display: block; }
    RunsScreen #about { height: 1; padding: 0 1; display: none; }
    RunsScreen #about.shown { display: block; }
    RunsScreen #keys { height: 1; color: $text-muted; padding: 0 1; }
    """

    def __init__(
        self,
        logs: Path,
        current: Path | None,
        live: tuple[str | None, str] = (None, ""),
        settings: Settings | None = None,
        overlays: Overlays | None = None,
        *,
        read_only: bool = False,
    ) -> None:
        """`live`: (run of the daemon that lives, what it does). `settings`: hold the pinned runs.

        `overlays`: which runs are drawn over the one on the screen, and how to change that. `read_only`: no note is
        written.
        """
        super().__init__()
        self.read_only = read_only
        self.logs = logs
        self.rows = RunRows(logs, current, live, settings, overlays)
        self.shown: list[Path] = []  # the rows in their order
        self._complete = False
        self.table: DataTable[Text] = DataTable(cursor_type="row", zebra_stripes=True)
        self.filter = Input(
            id="filter",
            placeholder="name, state, verdict, note: text or a regular expression; Enter keeps it, Esc clears it",
        )
        self.note = Input(
            id="note", max_length=LONGEST, placeholder="a note on this run; Enter writes it, Esc leaves it"
        )
        self._noted: Path | None = None  # the run whose note is being written

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            head = f"{count(len(self.rows.folders), 'run')} in "
            box.border_title = head + path_end(self.logs, self.app.size.width - TITLE_FRAME - len(head))
            yield self.filter
            yield self.table
            yield self.note
            yield Static(id="about")
            yield Static(id="keys")

    def on_mount(self) -> None:
        self._lay_out()
        self.table.focus()
        self.set_interval(TICK_S, self._read_some)

    def on_resize(self) -> None:
        self._say_keys()
        if self.table.columns:
            row = self.table.cursor_row
            self._lay_out()
            self.table.move_cursor(row=row)

    def _say_keys(self) -> None:
        """As many of the keys as fit, the way out first."""
        seeds = ["e seeds"] if self.rows.places else []
        keys = ["Enter watch", "Esc close", "o draw over", "d compare", "/ filter", "s sort", *seeds, "n note",
                "space pin", "b branches"]  # fmt: skip
        self.query_one("#keys", Static).update(fitting(keys, self.app.size.width - 4))

    def _lay_out(self) -> None:
        """The columns at the widths that the screen has room for, and the rows."""
        self.table.clear(columns=True)
        for name, width in zip(COLUMNS, self._widths(), strict=True):
            words = Text(name, justify="right" if name in NUMBERS else "left")  # above its figures
            self.table.add_column(words, key=name, width=width)
        self._list()

    def _widths(self) -> list[int]:
        """Name and verdict share what the other columns leave, so that all fit 120 columns; 80 show the first four."""
        padding = 2 * len(COLUMNS)
        room = self.app.size.width - 3 - padding - STATE_WIDTH - SCORE_WIDTH - STEP_WIDTH - RATE_WIDTH
        longest = max((len(folder.name) for folder in self.rows.folders), default=0) + 4  # a pin, a label
        name = min(max(longest, NAME_WIDTH[0]), NAME_WIDTH[1], max(NAME_WIDTH[0], room - VERDICT_WIDTH[0]))
        verdict = min(max(room - name, VERDICT_WIDTH[0]), VERDICT_WIDTH[1])
        return [name, STATE_WIDTH, verdict, SCORE_WIDTH, STEP_WIDTH, RATE_WIDTH]

    def _list(self) -> None:
        """Rows of the runs that match the filter, with what is known of them."""
        wanted = self.filter.value.strip()
        pattern = pattern_of(wanted)
        matching = [folder for folder in self.rows.folders if pattern.search(self.rows.searched(folder))]
        self.shown = self.rows.in_order(self.rows.folded(matching))
        sort_by = self.rows.sort_by
        self.query_one(Vertical).border_subtitle = "" if sort_by == "newest" else f"sorted by {sort_by}"
        self.table.clear()
        for folder in self.shown:
            self.table.add_row(*self.rows.cells(folder, self._widths()[2]), key=folder.name)
        if self.rows.current in self.shown and not wanted:
            self.table.move_cursor(row=self.shown.index(self.rows.current))

    def _read_some(self) -> None:
        """The ends of a few more logs: those in sight first."""
        top = int(self.table.scroll_y)
        order = [*self.shown[top : top + 60], *self.shown]
        todo = [folder for folder in dict.fromkeys(order) if folder not in self.rows.known][:A_TICK]
        if not todo and not self._complete:
            self._complete = True
            if self.rows.sort_by != "newest" or any(self.rows.parents().values()):
                chosen = self._chosen()
                self._list()  # now that all figures are known
                if chosen in self.shown:
                    self.table.move_cursor(row=self.shown.index(chosen))
        for folder in todo:
            self.rows.read(folder)
            for column, cell in zip(COLUMNS, self.rows.cells(folder, self._widths()[2]), strict=True):
                self.table.update_cell(folder.name, column, cell)
        if self._chosen() in todo:
            self._show_note()

    @on(DataTable.RowHighlighted)
    def _show_note(self) -> None:
        """Below the list, of the run under the cursor: its verdict where the list cuts it, its note."""
        folder = self._chosen()
        words = f"¶ {note}" if folder is not None and (note := self.rows.notes.get(folder, "")) else ""
        known = self.rows.known.get(folder) if folder is not None else None
        if known is not None and known.verdict and len(known.verdict) > self._widths()[2]:
            words = f"{known.verdict}  {words}".rstrip()
        place = self.rows.series_of(folder) if folder is not None else None
        if place is not None:
            words = f"{self.rows.about_series(place)}  {words}".rstrip()
        about = self.query_one("#about", Static)
        about.update(whole_words(Text(plain(words), "yellow"), self.app.size.width - 4))
        about.set_class(bool(words), "shown")

    def _chosen(self) -> Path | None:
        row = self.table.cursor_row
        return self.shown[row] if 0 <= row < len(self.shown) else None

    # ---- actions ----

    @on(DataTable.RowSelected)
    def _watch(self) -> None:
        folder = self._chosen()
        if folder is not None:
            self.dismiss(RunChoice(folder))

    def action_overlay(self) -> None:
        """Draw a run over the one on the screen, or take it away; the list stays open for the next one."""
        folder = self._chosen()
        if folder is None or folder == self.rows.current or self.rows.overlays is None:
            self.notify("move to another run: o draws it over the one on the screen")
            return
        self.notify(self.rows.overlays.toggle(folder))
        self._list()
        self.table.move_cursor(row=self.shown.index(folder))

    def action_branches(self) -> None:
        """Draw the runs that branched off with the one on the screen over it, all at once."""
        if self.rows.current is None or self.rows.overlays is None:
            return
        names = family(self.rows.current.name, self.rows.parents()) - {self.rows.current.name}
        branches = [folder for folder in self.rows.folders if folder.name in names]
        for folder in branches:
            if folder not in self.rows.overlays.labels():
                self.rows.overlays.toggle(folder)
        self.notify(f"{len(branches) or 'no'} run{'s' * (len(branches) > 1)} branched off with this one")
        self._list()

    def action_sort(self) -> None:
        self.rows.sort_by = SORTS[(SORTS.index(self.rows.sort_by) + 1) % len(SORTS)]
        chosen = self._chosen()
        self._list()
        if chosen is not None:
            self.table.move_cursor(row=self.shown.index(chosen))

    def action_seeds(self) -> None:
        """Show each seed of the series under the cursor, or the series in one row again."""
        folder = self._chosen()
        place = self.rows.places.get(folder) if folder is not None else None
        if folder is None or place is None:
            self.notify("move to a series of seeds (experiment.seeds): e shows each of its runs")
            return
        self.rows.unfolded ^= {place.series}
        self._list()
        rows = [i for i, one in enumerate(self.shown) if one == folder or self.rows.series_of(one) is not None]
        alike = [i for i in rows if self.rows.places.get(self.shown[i], place).series == place.series]
        self.table.move_cursor(row=alike[0])

    def action_pin(self) -> None:
        folder = self._chosen()
        if folder is not None:
            self.rows.settings.toggle_pin(folder)
            self._list()
            self.table.move_cursor(row=self.shown.index(folder))

    def action_compare(self) -> None:
        folder = self._chosen()
        if folder is None or self.rows.current is None or folder == self.rows.current:
            self.notify("move to another run: d compares its configuration with the one on the screen")
            return
        self.app.push_screen(
            TextScreen(f"{self.rows.current.name} → {folder.name}", run_diff(self.rows.current, folder))
        )

    def action_note(self) -> None:
        """Write the note of the run under the cursor."""
        folder = self._chosen()
        if folder is None:
            return
        if self.read_only:
            self.notify("--read-only: no note is written")
            return
        self._noted = folder
        self.note.value = self.rows.notes.get(folder, "")
        self.note.border_title = folder.name
        self.note.add_class("shown")
        self.note.focus()

    @on(Input.Submitted, "#note")
    def _note_written(self, event: Input.Submitted) -> None:
        folder = self._noted
        if folder is None:
            return
        try:
            write_note(folder, event.value)
        except NotNoted as error:
            self.notify(str(error), severity="error", markup=False)
            return
        self.rows.notes[folder] = note_of(folder)
        self._leave_note()
        self._list()
        self.table.move_cursor(row=self.shown.index(folder) if folder in self.shown else 0)
        self._show_note()

    def _leave_note(self) -> None:
        self._noted = None
        self.note.remove_class("shown")
        self.table.focus()

    def action_filter(self) -> None:
        self.filter.add_class("shown")
        self.filter.focus()

    @on(Input.Changed, "#filter")
    def _filtered(self) -> None:
        self._list()

    @on(Input.Submitted, "#filter")
    def _kept(self) -> None:
        self.table.focus()

    def action_close(self) -> None:
        if self._noted is not None:
            self._leave_note()
            return
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
