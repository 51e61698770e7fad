"""What the list of runs shows: the order, the folding and the cells of its rows, without a screen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text

from eegwatch.run.branches import in_tree
from eegwatch.run.folder import runs
from eegwatch.run.notes import note_of
from eegwatch.run.seed_series import SeriesPlace, SeriesScores, place_of, scores_of
from eegwatch.run.summary import Summary, summarise
from eegwatch.tui.settings import Settings
from eegwatch.tui.widgets.lines import whole_words
from eegwatch.wording import plain, rate

COLUMNS = ("run", "state", "verdict", "AUROC", "step", "LR")  # what tells most stays in sight where the width is small
SORTS = ("newest", "AUROC", "verdict", "state", "step")
STATE_STYLE = {"failed": "red", "dead": "red", "hung": "red", "completed": "green", "early stopped": "green",
               "training": "bold green", "evaluating": "bold green", "checkpointing": "bold green",
               "unfinished": "yellow"}  # fmt: skip


@dataclass(frozen=True)
class Overlays:
    """The runs drawn over the one on the screen: their labels, and a switch that says what it did."""

    labels: Callable[[], dict[Path, str]]
    toggle: Callable[[Path], str]


class RunRows:
    """The runs of a log root as rows: `known` summaries (None: unreadable), `notes`, series of seeds, the order."""

    def __init__(
        self,
        logs: Path,
        current: Path | None,
        live: tuple[str | None, str],
        settings: Settings | None,
        overlays: Overlays | None,
    ) -> None:
        """The arguments are those of RunsScreen."""
        self.logs, self.current, self.live = logs, current, live
        self.settings, self.overlays = settings or Settings(), overlays
        self.sort_by = SORTS[0]
        self.folders = list(reversed(runs(logs)))
        self.places = {folder: place for folder in self.folders if (place := place_of(folder)) is not None}
        self.unfolded: set[str] = set()  # series of which each seed is shown
        self.known: dict[Path, Summary | None] = {}
        self.notes: dict[Path, str] = {}

    def read(self, folder: Path) -> None:
        """Read the end of a run's log, and its note."""
        try:
            self.known[folder] = summarise(folder)
        except OSError:
            self.known[folder] = None
        self.notes[folder] = note_of(folder)

    def in_order(self, folders: list[Path]) -> list[Path]:
        """Pinned runs first, then by what `s` chose; the newest first among equals. Unknown ones come last."""
        in_order = sorted(folders, key=lambda folder: (not self.settings.pins(folder), self._rank(folder)))
        if self.sort_by != "newest":
            return in_order
        paths = {folder.name: folder for folder in in_order}
        return [paths[name] for _, name in in_tree(paths, self.parents())]

    def parents(self) -> dict[str, str | None]:
        """The run from which each branched off, as far as their logs are read."""
        known = {folder.name: s for folder, s in self.known.items() if s is not None}
        return {name: s.parent if s.parent_step is not None else None for name, s in known.items()}

    def _rank(self, folder: Path) -> tuple[object, ...]:
        s = self.known.get(folder)
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

    def folded(self, folders: list[Path]) -> list[Path]:
        """The runs, with only the newest one of each folded series."""
        seen: set[str] = set()
        kept = []
        for folder in folders:
            place = self.places.get(folder)
            if place is None or place.series in self.unfolded or place.series not in seen:
                kept.append(folder)
            if place is not None:
                seen.add(place.series)
        return kept

    def series_of(self, folder: Path) -> SeriesPlace | None:
        """The series of this row; None for a row of a single run."""
        place = self.places.get(folder)
        return place if place is not None and place.series not in self.unfolded else None

    def _scores(self, place: SeriesPlace) -> SeriesScores | None:
        return scores_of(self.logs / place.series)

    def cells(self, folder: Path, verdict_width: int) -> list[Text]:
        """The cells of COLUMNS for one run."""
        pin = "▸ " if self.settings.pins(folder) else ""
        label = self.overlays.labels().get(folder) if self.overlays is not None else None
        series = self.series_of(folder)
        called = f"{series.series} …" if series is not None else folder.name
        known = self.known.get(folder)
        branch = "└ " if known is not None and known.parent_step is not None else ""
        words = f"{pin}{branch}{label + ' ' if label else ''}{called}"
        name = Text(words, "bold" if folder == self.current else "")
        if self.notes.get(folder):
            name.append(" ¶", "bold yellow")  # its words stand below the list while the cursor is on it
        if folder not in self.known:
            return [name, *(Text("…", "dim") for _ in COLUMNS[1:])]
        s = self.known[folder]
        if s is None:
            return [name, Text("unreadable", "red"), *(Text("") for _ in COLUMNS[2:])]
        total = f" / {s.total_steps:,}" if s.total_steps else ""
        state = self._state(s)
        mean = scores.figures.get("auroc") if series is not None and (scores := self._scores(series)) else None
        auroc = mean[0] if mean and mean[0] is not None else s.auroc
        return [
            name,
            Text(state, STATE_STYLE.get(state, "")),
            self._verdict(s, verdict_width),
            Text(f"{auroc:.3f}" if auroc is not None else "–", justify="right"),
            Text(f"{s.step:,}{total}", justify="right"),
            Text(rate(s.lr) if s.lr is not None else "–", justify="right"),
        ]

    def _verdict(self, s: Summary, width: int) -> Text:
        """In whole words; all of it stands below the list while the cursor is on the run."""
        if not s.verdict:
            return Text("✔" if s.step else "", "green")
        style = "bold red" if s.severity == "error" else "yellow"
        return whole_words(Text(plain(s.verdict), style), width)

    def searched(self, folder: Path) -> str:
        """The text that a filter searches: name, state and verdict."""
        s = self.known.get(folder)
        words = folder.name if s is None else f"{folder.name} {s.name} {self._state(s)} {s.verdict or ''}"
        return f"{words} {self.notes.get(folder, '')}"

    def _state(self, s: Summary) -> str:
        if s.end is None and s.run_id == self.live[0]:
            return self.live[1]
        return plain(s.state).replace("_", " ")

    def about_series(self, place: SeriesPlace) -> str:
        """A series of 5 seeds, 3 evaluated: AUROC 0.913 (0.880 to 0.940)."""
        scores = self._scores(place)
        head = f"series of {len(place.seeds)} seeds"
        if scores is None:
            return f"{head}, none evaluated yet; e shows each"
        return f"{head}, {len(scores.seeds)} evaluated: AUROC {scores.text('auroc')}; e shows each"
