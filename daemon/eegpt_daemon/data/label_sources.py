"""Labels of a corpus from other sources than its folders: file names, lists, tables, and files beside a recording.

A column of a table counts as labels where it is called so (`label`, `class`, …, or as one of the classes); in a list
without a header, where it agrees with the folders for four in five of the recordings that it names. Of any other column
nothing is known: the background of an EEG may be normal where the EEG is not. The text of a report is not read.
"""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from eegpt_daemon.data.corpus import Entry
from eegpt_daemon.data.edf_header import Header

LISTS = (".csv", ".tsv", ".txt", ".list", ".lst", ".json", ".lbl", ".lab")
MOST_BYTES, MOST_LISTS, BESIDE_BYTES = 32 << 20, 200, 1 << 16
CALLED = {"label", "labels", "class", "target", "y", "diagnosis", "pathology", "pathological", "group", "category"}
AGREES, LEAST = 0.8, 4  # of a column without a name, over so many recordings
SHOWN = 5
SHORT = 3  # letters of a class's name from which on it is known within a file's name


@dataclass
class Column:
    """The labels in one source: `says` maps a recording to a label. `sure`: the column is named as a label."""

    name: str
    sure: bool
    says: dict[str, int] = field(default_factory=dict)  # relative path -> label
    unclear: set[str] = field(default_factory=set)

    def add(self, relative: str, label: int) -> None:
        if self.says.setdefault(relative, label) != label:
            self.unclear.add(relative)


class LabelSources:
    """Everything that was found about the labels of `entries`."""

    def __init__(self, root: Path, entries: Sequence[Entry], labels: Sequence[str]) -> None:
        self.root, self.entries, self.labels = root, entries, list(labels)
        self._numbers = {label.lower(): number for number, label in enumerate(labels)}
        self._by_relative = {entry.relative: entry for entry in entries}
        self._by_stem: dict[str, list[Entry]] = defaultdict(list)
        self._by_subject: dict[str, list[Entry]] = defaultdict(list)
        for entry in entries:
            self._by_stem[entry.path.stem.lower()].append(entry)
            self._by_subject[entry.subject.lower()].append(entry)
        self.columns: dict[str, Column] = {}

    def look(self, headers: Iterable[tuple[Entry, Header]] = ()) -> dict[str, Any]:
        """The values of a `labels` record."""
        for entry in self.entries:
            self._by_name(entry)
        for entry, header in headers:
            self._words(entry, f"{header.patient} {header.recording}", "the EDF headers", sure=False)
        for path in self._files():
            self._read(path)
        return {"sources": [judged for column in self.columns.values() if (judged := self._judged(column))]}

    def _judged(self, column: Column) -> dict[str, Any] | None:
        """None where the column says nothing, or cannot be known to be about labels."""
        says = {relative: label for relative, label in column.says.items() if relative not in column.unclear}
        wrong = [(relative, label) for relative, label in says.items() if self._by_relative[relative].label != label]
        agrees = len(says) >= LEAST and len(wrong) <= (1 - AGREES) * len(says)
        if not says or not (column.sure or agrees):
            return None
        shown = []
        for relative, label in wrong[:SHOWN]:
            entry = self._by_relative[relative]
            shown.append([entry.alias or entry.relative, self.labels[entry.label], self.labels[label]])
        return {"name": column.name, "compared": len(says), "n": len(wrong), "shown": shown}

    # ---- names ----

    def _by_name(self, entry: Entry) -> None:
        parts = {self._numbers[part.lower()] for part in PurePosixPath(entry.relative).parts[:-1] if self._is(part)}
        for label in parts - {entry.label}:  # a folder within a folder of another class
            self._column("the folders within them", sure=True).add(entry.relative, label)
        self._words(entry, entry.path.stem, "the names of the files", sure=True)

    def _words(self, entry: Entry, text: str, name: str, *, sure: bool) -> None:
        words = {word.lower() for word in re.split(r"[^A-Za-z0-9]+", text)}
        known = [number for label, number in self._numbers.items() if label in words and len(label) >= SHORT]
        if len(known) == 1:
            self._column(name, sure=sure).add(entry.relative, known[0])

    def _is(self, part: str) -> bool:
        return part.lower() in self._numbers

    def _column(self, name: str, *, sure: bool) -> Column:
        return self.columns.setdefault(name, Column(name, sure))

    # ---- files ----

    def _files(self) -> Iterator[Path]:
        found = (path for path in sorted(self.root.rglob("*")) if path.suffix.lower() in LISTS and path.is_file())
        lists = 0
        for path in found:
            if path.stem.lower() not in self._by_stem:
                lists += 1
                if lists > MOST_LISTS:
                    continue
            yield path

    def _read(self, path: Path) -> None:
        beside = self._by_stem.get(path.stem.lower(), [])
        own = [entry for entry in beside if entry.path.parent == path.parent]
        try:
            if path.stat().st_size > (BESIDE_BYTES if own else MOST_BYTES):
                return
            text = path.read_text("utf-8", "replace").removeprefix("\ufeff")
        except OSError:
            return  # a list that cannot be read says nothing
        if own:
            self._beside(own, path.suffix.lower(), text)
            return
        where = path.relative_to(self.root).as_posix()
        if path.suffix.lower() == ".json":
            self._json_list(where, text)
        else:
            self._table(where, path.stem, text)

    def _beside(self, entries: list[Entry], suffix: str, text: str) -> None:
        """A file of the same name beside the recording: fields of a JSON object, columns of a table, or one word."""
        name = f"the {suffix} files beside them"
        pairs: list[tuple[Any, Any]]
        if suffix == ".json":
            fields = _json(text)
            pairs = list(fields.items()) if isinstance(fields, dict) else []
        elif suffix in (".csv", ".tsv") and "\n" in text.strip():
            rows = _rows(text)
            pairs = [(column, cell) for row in rows[1:] for column, cell in zip(rows[0], row, strict=False)]
        else:
            pairs = [("label", text)]
        for column, cell in pairs:
            if self._called(str(column)):
                self._say(name, str(column), entries, cell, sure=True)

    def _json_list(self, where: str, text: str) -> None:
        """An object of recordings or subjects to labels, or a list of objects."""
        content = _json(text)
        if isinstance(content, dict) and all(isinstance(value, str | int) for value in content.values()):
            for key, value in content.items():
                self._say(where, "label", self._named([str(key)]), value, sure=True)
        for one in content if isinstance(content, list) else ():
            if isinstance(one, dict):
                self._row(where, list(map(str, one)), list(map(str, one.values())))

    def _table(self, where: str, stem: str, text: str) -> None:
        rows = _rows(text)
        words = {word.lower() for word in re.split(r"[^A-Za-z0-9]+", stem)}
        of_name = [number for label, number in self._numbers.items() if label in words and len(label) >= SHORT]
        header: list[str] = []
        for row in rows:
            entries = self._named(row)
            if not entries:
                header = header or row
                continue
            if len(row) == 1 and len(of_name) == 1:  # a list that is called after a class
                for entry in entries:
                    self._column(where, sure=False).add(entry.relative, of_name[0])
            self._row(where, header, row)

    def _row(self, where: str, header: list[str], row: list[str]) -> None:
        entries = self._named(row)
        for number, cell in enumerate(row):
            column = header[number] if number < len(header) else ""
            if not column or self._called(column):
                name = where if column else f"{where}, column {number + 1}"
                self._say(name, column, entries, cell, sure=bool(column))
            parts = {self._numbers[part.lower()] for part in PurePosixPath(cell).parts[:-1] if self._is(part)}
            if len(parts) == 1 and "/" in cell:  # a path that names a class
                for entry in entries:
                    self._column(f"the paths in {where}", sure=True).add(entry.relative, next(iter(parts)))

    def _say(self, name: str, column: str, entries: list[Entry], cell: Any, *, sure: bool) -> None:
        label = self._label(cell, column, sure=sure)
        for entry in entries if label is not None else ():
            self._column(name, sure=sure).add(entry.relative, label)  # type: ignore[arg-type]

    def _called(self, column: str) -> bool:
        """Whether the name of a column means a label."""
        words = set(re.split(r"[^a-z0-9]+", column.strip().lower()))
        return bool(words & CALLED) or column.strip().lower() in self._numbers

    def _label(self, cell: Any, column: str, *, sure: bool) -> int | None:
        """The label that a cell names, by a class's name; in a column called as a class, by yes or no."""
        word = str(cell).strip().strip("\"'").lower()
        if word in self._numbers:
            return self._numbers[word]
        own = self._numbers.get(column.strip().lower())
        if sure and own is not None and len(self.labels) == 2:
            if word in ("1", "1.0", "true", "yes", "y"):
                return own
            if word in ("0", "0.0", "false", "no", "n"):
                return 1 - own
        return None

    def _named(self, row: Sequence[str]) -> list[Entry]:
        """The recordings that a row is about: by a path or a file's name; else all of a subject."""
        for cell in row:
            text = cell.strip().replace("\\", "/")
            if text in self._by_relative:
                return [self._by_relative[text]]
            name = text.rpartition("/")[2]
            known = self._by_stem.get(name.lower()) or self._by_stem.get(name.rpartition(".")[0].lower())
            if known is not None and len({entry.label for entry in known}) == 1:
                return known
        for cell in row:
            known = self._by_subject.get(cell.strip().lower().removeprefix("sub-"))
            if known is not None and len({entry.label for entry in known}) == 1:  # else each has a label of its own
                return known
        return []


def _rows(text: str) -> list[list[str]]:
    """Rows of cells: by tabs, semicolons or commas, whichever the first line holds; else by white space."""
    lines = [line for line in text.splitlines() if line.strip()]
    mark = next((one for one in "\t;," if lines and one in lines[0]), None)
    if mark is None:
        return [line.split() for line in lines]
    try:
        return [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=mark)]
    except csv.Error:
        return []


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
