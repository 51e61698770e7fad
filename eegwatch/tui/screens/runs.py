"""The list of runs: state, progress, last LR, AUROC and verdict of each; filter, switch, overlay, compare.

Names come from the folders at once; figures from the end of each log, a few runs a tick, the newest first: a log root
with a thousand runs opens at once, and stays quick.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import DataTable, Input, Static

from eegwatch.run.branches import family, in_tree
from eegwatch.run.folder import runs
from eegwatch.run.notes import LONGEST, NotNoted, note_of, write_note
from eegwatch.run.seed_series import SeriesPlace, SeriesScores, place_of, scores_of
from eegwatch.run.summary import Summary, summarise
from eegwatch.tui.screens.run_diff import run_diff
from eegwatch.tui.screens.text import TextScreen
from eegwatch.tui.settings import Settings
from eegwatch.tui.widgets.chart import TITLE_FRAME
from eegwatch.tui.widgets.lines import whole_words
from eegwatch.wording import count, fitting, path_end, pattern_of, plain, rate

TICK_S, A_TICK = 0.05, 16  # runs whose log's end is read a tick: some ten milliseconds
COLUMNS = ("run", "state", "verdict", "AUROC", "step", "LR")  # what tells most stays in sight where the width is small
STATE_WIDTH, SCORE_WIDTH, STEP_WIDTH, RATE_WIDTH = 12, 7, 19, 8
NAME_WIDTH, VERDICT_WIDTH = (24, 44), (20, 60)  # least and most; fixed widths: measuring every cell takes a second
NUMBERS = ("AUROC", "step", "LR")
SORTS = ("newest", "AUROC", "verdict", "state", "step")
STATE_STYLE = {"failed": "red", "dead": "red", "hung": "red", "completed": "green", "early stopped": "green",
               "training": "bold green", "evaluating": "bold green", "checkpointing": "bold green",
               "unfinished": "yellow"}  # fmt: skip


@dataclass(frozen=True)
class RunChoice:
    """A run of the list to watch."""

    folder: Path


@dataclass(frozen=True)
class Overlays:
    """The runs drawn over the one on the screen: their labels, and a switch that says what it did."""

    labels: Callable[[], dict[Path, str]]
    toggle: Callable[[Path], str]


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
        self.overlays, self.sort_by = overlays, SORTS[0]
        self.settings = settings or Settings()
        self.logs, self.current, self.live = logs, current, live
        self.folders = list(reversed(runs(logs)))
        self.shown: list[Path] = []
        self.places = {folder: place for folder in self.folders if (place := place_of(folder)) is not None}
        self._unfolded: set[str] = set()  # series of which each seed is shown
        self._known: dict[Path, Summary | None] = {}
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
        self._notes: dict[Path, str] = {}

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            head = f"{count(len(self.folders), 'run')} in "
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
        seeds = ["e seeds"] if self.places else []
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
        longest = max((len(folder.name) for folder in self.folders), default=0) + 4  # a pin, a label
        name = min(max(longest, NAME_WIDTH[0]), NAME_WIDTH[1], max(NAME_WIDTH[0], room - VERDICT_WIDTH[0]))
        verdict = min(max(room - name, VERDICT_WIDTH[0]), VERDICT_WIDTH[1])
        return [name, STATE_WIDTH, verdict, SCORE_WIDTH, STEP_WIDTH, RATE_WIDTH]

    def _sorted(self, folders: list[Path]) -> list[Path]:
        """Pinned runs first, then by what `s` chose; the newest first among equals. Unknown ones come last."""
        in_order = sorted(folders, key=lambda folder: (not self.settings.pins(folder), self._rank(folder)))
        if self.sort_by != "newest":
            return in_order
        paths = {folder.name: folder for folder in in_order}
        return [paths[name] for _, name in in_tree(paths, self._parents())]

    def _parents(self) -> dict[str, str | None]:
        """The run from which each branched off, as far as their logs are read."""
        known = {folder.name: s for folder, s in self._known.items() if s is not None}
        return {name: s.parent if s.parent_step is not None else None for name, s in known.items()}

    def _rank(self, folder: Path) -> tuple[object, ...]:
        s = self._known.get(folder)
        if self.sort_by == "newest":
            return ()
        if s is None:
            return (2,)
        if self.sort_by == "AUROC":
            return (1, 0.0) if s.auroc is None else (0, -s.auroc)
        if self.sort_by == "verdict":
            return (0, {"error": 0, "warning": 1, "info": 2}.get(s.severity or "", 3))
        if self.sort_by == "state":
            return (0, self._state(s))
        return (0, -s.step)

    def _list(self) -> None:
        """Rows of the runs that match the filter, with what is known of them."""
        wanted = self.filter.value.strip()
        pattern = pattern_of(wanted)
        matching = [folder for folder in self.folders if pattern.search(self._words(folder))]
        self.shown = self._sorted(self._folded(matching))
        self.query_one(Vertical).border_subtitle = "" if self.sort_by == "newest" else f"sorted by {self.sort_by}"
        self.table.clear()
        for folder in self.shown:
            self.table.add_row(*self._row(folder), key=folder.name)
        if self.current in self.shown and not wanted:
            self.table.move_cursor(row=self.shown.index(self.current))

    def _folded(self, folders: list[Path]) -> list[Path]:
        """The runs, with only the newest one of each folded series."""
        seen: set[str] = set()
        kept = []
        for folder in folders:
            place = self.places.get(folder)
            if place is None or place.series in self._unfolded or place.series not in seen:
                kept.append(folder)
            if place is not None:
                seen.add(place.series)
        return kept

    def _series(self, folder: Path) -> SeriesPlace | None:
        """The series of this row; None for a row of a single run."""
        place = self.places.get(folder)
        return place if place is not None and place.series not in self._unfolded else None

    def _scores(self, place: SeriesPlace) -> SeriesScores | None:
        return scores_of(self.logs / place.series)

    def _row(self, folder: Path) -> list[Text]:
        pin = "▸ " if self.settings.pins(folder) else ""
        label = self.overlays.labels().get(folder) if self.overlays is not None else None
        series = self._series(folder)
        called = f"{series.series} …" if series is not None else folder.name
        known = self._known.get(folder)
        branch = "└ " if known is not None and known.parent_step is not None else ""
        words = f"{pin}{branch}{label + ' ' if label else ''}{called}"
        name = Text(words, "bold" if folder == self.current else "")
        if self._notes.get(folder):
            name.append(" ¶", "bold yellow")  # its words stand below the list while the cursor is on it
        if folder not in self._known:
            return [name, *(Text("…", "dim") for _ in COLUMNS[1:])]
        s = self._known[folder]
        if s is None:
            return [name, Text("unreadable", "red"), *(Text("") for _ in COLUMNS[2:])]
        total = f" / {s.total_steps:,}" if s.total_steps else ""
        state = self._state(s)
        mean = scores.figures.get("auroc") if series is not None and (scores := self._scores(series)) else None
        auroc = mean[0] if mean and mean[0] is not None else s.auroc
        return [
            name,
            Text(state, STATE_STYLE.get(state, "")),
            self._verdict(s),
            Text(f"{auroc:.3f}" if auroc is not None else "–", justify="right"),
            Text(f"{s.step:,}{total}", justify="right"),
            Text(rate(s.lr) if s.lr is not None else "–", justify="right"),
        ]

    def _verdict(self, s: Summary) -> Text:
        """In whole words; all of it stands below the list while the cursor is on the run."""
        if not s.verdict:
            return Text("✔" if s.step else "", "green")
        style = "bold red" if s.severity == "error" else "yellow"
        return whole_words(Text(plain(s.verdict), style), self._widths()[2])

    def _words(self, folder: Path) -> str:
        """The text that a filter searches: name, state and verdict."""
        s = self._known.get(folder)
        words = folder.name if s is None else f"{folder.name} {s.name} {self._state(s)} {s.verdict or ''}"
        return f"{words} {self._notes.get(folder, '')}"

    def _state(self, s: Summary) -> str:
        if s.end is None and s.run_id == self.live[0]:
            return self.live[1]
        return plain(s.state).replace("_", " ")

    def _read_some(self) -> None:
        """The ends of a few more logs: those in sight first."""
        top = int(self.table.scroll_y)
        order = [*self.shown[top : top + 60], *self.shown]
        todo = [folder for folder in dict.fromkeys(order) if folder not in self._known][:A_TICK]
        if not todo and not self._complete:
            self._complete = True
            if self.sort_by != "newest" or any(self._parents().values()):
                chosen = self._chosen()
                self._list()  # now that all figures are known
                if chosen in self.shown:
                    self.table.move_cursor(row=self.shown.index(chosen))
        for folder in todo:
            try:
                self._known[folder] = summarise(folder)
            except OSError:
                self._known[folder] = None
            self._notes[folder] = note_of(folder)
            for column, cell in zip(COLUMNS, self._row(folder), strict=True):
                self.table.update_cell(folder.name, column, cell)
        if self._chosen() in todo:
            self._show_note()

    @on(DataTable.RowHighlighted)
    def _show_note(self) -> None:
        """Below the list, of the run under the cursor: its verdict where the list cuts it, its note."""
        folder = self._chosen()
        words = f"¶ {note}" if folder is not None and (note := self._notes.get(folder, "")) else ""
        known = self._known.get(folder) if folder is not None else None
        if known is not None and known.verdict and len(known.verdict) > self._widths()[2]:
            words = f"{known.verdict}  {words}".rstrip()
        place = self._series(folder) if folder is not None else None
        if place is not None:
            words = f"{self._about_series(place)}  {words}".rstrip()
        about = self.query_one("#about", Static)
        about.update(whole_words(Text(plain(words), "yellow"), self.app.size.width - 4))
        about.set_class(bool(words), "shown")

    def _about_series(self, place: SeriesPlace) -> str:
        """A series of 5 seeds, 3 evaluated: AUROC 0.913 (0.880 to 0.940)."""
        scores = self._scores(place)
        head = f"series of {len(place.seeds)} seeds"
        if scores is None:
            return f"{head}, none evaluated yet; e shows each"
        return f"{head}, {len(scores.seeds)} evaluated: AUROC {scores.text('auroc')}; e shows each"

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
        if folder is None or folder == self.current or self.overlays is None:
            self.notify("move to another run: o draws it over the one on the screen")
            return
        self.notify(self.overlays.toggle(folder))
        self._list()
        self.table.move_cursor(row=self.shown.index(folder))

    def action_branches(self) -> None:
        """Draw the runs that branched off with the one on the screen over it, all at once."""
        if self.current is None or self.overlays is None:
            return
        names = family(self.current.name, self._parents()) - {self.current.name}
        branches = [folder for folder in self.folders if folder.name in names]
        for folder in branches:
            if folder not in self.overlays.labels():
                self.overlays.toggle(folder)
        self.notify(f"{len(branches) or 'no'} run{'s' * (len(branches) > 1)} branched off with this one")
        self._list()

    def action_sort(self) -> None:
        self.sort_by = SORTS[(SORTS.index(self.sort_by) + 1) % len(SORTS)]
        chosen = self._chosen()
        self._list()
        if chosen is not None:
            self.table.move_cursor(row=self.shown.index(chosen))

    def action_seeds(self) -> None:
        """Show each seed of the series under the cursor, or the series in one row again."""
        folder = self._chosen()
        place = self.places.get(folder) if folder is not None else None
        if folder is None or place is None:
            self.notify("move to a series of seeds (experiment.seeds): e shows each of its runs")
            return
        self._unfolded ^= {place.series}
        self._list()
        rows = [i for i, one in enumerate(self.shown) if one == folder or self._series(one) is not None]
        alike = [i for i in rows if self.places.get(self.shown[i], place).series == place.series]
        self.table.move_cursor(row=alike[0])

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
        self.app.push_screen(TextScreen(f"{self.current.name} → {folder.name}", run_diff(self.current, folder)))

    def action_note(self) -> None:
        """Write the note of the run under the cursor."""
        folder = self._chosen()
        if folder is None:
            return
        if self.read_only:
            self.notify("--read-only: no note is written")
            return
        self._noted = folder
        self.note.value = self._notes.get(folder, "")
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
        self._notes[folder] = note_of(folder)
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
