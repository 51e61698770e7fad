"""A corpus in TUAB layout: its EDF files with their subject, label and split.

`edf/{train,eval}/{normal,abnormal}/…/<subject>_s<session>_t<token>.edf`, flat (v3) or nested by subject (v2).
Label and split are path *parts* ("abnormal" contains "normal"). Splits are by subject, never by window.
TUAB's file names are patient ids, so a log calls a file `train/abnormal #17` unless `data.log_file_names` says
otherwise; the cache folder's recordings.tsv, which stays with the data, knows which one that is.
"""

from __future__ import annotations

import os
import random
import re
import stat
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from eegwatch.wording import plain

SPLITS = ("train", "eval")
_NAME = re.compile(r"^(?P<subject>[A-Za-z0-9]+)_s(?P<session>\d+)(?:_\d{4})?_t(?P<token>\d+)$")


class CorpusError(ValueError):
    """The corpus cannot be trained on: where it was looked for and what is missing."""


@dataclass(frozen=True)
class Entry:
    """One EDF file: `label` is its place in `data.labels` (0 normal, 1 abnormal); `split` train, val or eval.

    `relative` is its path in the corpus; `alias` is what logs call it.
    """

    path: Path
    relative: str
    subject: str
    label: int
    split: str
    alias: str = ""


@dataclass(frozen=True)
class Rejected:
    """A file that is not trained on: its path in the corpus, why, and what logs call it."""

    relative: str
    reason: str
    alias: str


def index(root: Path, labels: list[str], *, names: bool = True) -> list[Entry]:
    """Every EDF file under `root`, sorted by path. Raises CorpusError if there is none for training.

    With `names`, logs may call a file by its path; else by its number among the files of its split and label.
    """
    if not root.is_dir():
        raise CorpusError(
            f"data.root_dir: {root} is not a folder; it must hold edf/train/… and edf/eval/… (TUAB layout)"
        )
    entries: list[Entry] = []
    number: Counter[tuple[str, str]] = Counter()
    for path in sorted(p for p in root.rglob("*") if p.suffix.lower() == ".edf"):
        split, label = _place(path.relative_to(root), labels)
        if split is None or label is None:
            continue
        match = _NAME.match(path.stem)
        subject = match["subject"] if match else path.stem
        relative = path.relative_to(root).as_posix()
        number[split, label] += 1
        alias = _printable(relative) if names else f"{split}/{label} #{number[split, label]}"
        entries.append(Entry(path, relative, subject, labels.index(label), split, alias))
    for split in SPLITS:
        present = {entry.label for entry in entries if entry.split == split}
        for label_number, name in enumerate(labels):
            if label_number not in present:
                raise CorpusError(f"data.root_dir: {root} holds no EDF file under {split}/{name} (TUAB layout)")
    return entries


def _place(relative: Path, labels: list[str]) -> tuple[str | None, str | None]:
    """(split, label) by the folders that a file lies in, in any case."""
    parts, known = [part.lower() for part in relative.parts[:-1]], {label.lower(): label for label in labels}
    return next((p for p in parts if p in SPLITS), None), next((known[p] for p in parts if p in known), None)


def reachable(entries: list[Entry]) -> tuple[list[Entry], list[Rejected]]:
    """(regular files, entries that are not: dangling links, folders, pipes)."""
    kept, rejected = list[Entry](), list[Rejected]()
    for entry in entries:
        try:
            regular = stat.S_ISREG(os.stat(entry.path).st_mode)
            reason = None if regular else "not a regular file"
        except OSError as error:
            reason = f"cannot be reached: {error.strerror}"
        if reason is None:
            kept.append(entry)
        else:
            rejected.append(Rejected(entry.relative, reason, entry.alias))
    return kept, rejected


def _printable(name: str) -> str:
    """A file's name as a log can hold it: bytes that are no UTF-8 and control characters are replaced."""
    return plain(name.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))


def misnamed(root: Path, labels: list[str], *, names: bool = True) -> list[Rejected]:
    """EDF files, by their first bytes, whose names do not end in .edf: not in the index, so they are reported."""
    rejected: list[Rejected] = []
    for path in sorted(p for p in root.rglob("*") if p.suffix.lower() not in (".edf", ".txt", ".csv")):
        split, label = _place(path.relative_to(root), labels)
        if split is None or label is None or not path.is_file():
            continue
        try:
            with path.open("rb") as file:
                begins = file.read(8)
        except OSError:
            continue  # it is none of the corpus's files by its name, and nobody can say what else it is
        if begins == b"0       ":
            relative = path.relative_to(root).as_posix()
            what = _printable(path.suffix) or "without suffix"
            alias = _printable(relative) if names else f"{split}/{label}, a file {what}"
            rejected.append(Rejected(relative, f"an EDF file named {what}: rename it to .edf", alias))
    return rejected


def without_eval_subjects(entries: list[Entry]) -> tuple[list[Entry], int]:
    """Drop from `train` whoever is in the official evaluation set too; returns (entries, files dropped)."""
    official = {e.subject for e in entries if e.split == "eval"}
    kept = [e for e in entries if e.split == "eval" or e.subject not in official]
    return kept, len(entries) - len(kept)


def with_validation(entries: list[Entry], fraction: float, seed: int) -> list[Entry]:
    """Move whole subjects of `train` to `val`: about `fraction` of each label's, the same for the same seed.

    A subject under both labels (54 in TUAB's train) stays on one side. Official evaluation files are left alone.
    Raises CorpusError when there are too few subjects for both sides to hold both labels.
    """
    labels_of: dict[str, set[int]] = defaultdict(set)
    for entry in entries:
        if entry.split == "train":
            labels_of[entry.subject].add(entry.label)
    groups: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for subject in sorted(labels_of):
        groups[tuple(sorted(labels_of[subject]))].append(subject)
    draw = random.Random(seed)
    held_out: set[str] = set()
    if fraction > 0:
        for labels in sorted(groups):
            subjects = groups[labels]
            draw.shuffle(subjects)
            held_out.update(subjects[: max(1 if len(labels) == 1 else 0, round(fraction * len(subjects)))])
    moved = [replace(e, split="val") if e.split == "train" and e.subject in held_out else e for e in entries]
    for split in ("train", "val") if fraction > 0 else ("train",):
        if {e.label for e in moved if e.split == split} != {e.label for e in entries}:
            raise CorpusError(
                f"too few subjects: after holding out {fraction:.0%} of them for validation, {split} lacks a label"
            )
    return moved


def counts(entries: list[Entry], labels: list[str]) -> dict[str, dict[str, int]]:
    """Recordings a split and label, and subjects a split: for the log, before anything long begins."""
    table: dict[str, dict[str, int]] = {}
    for split in ("train", "val", "eval"):
        of_split = [e for e in entries if e.split == split]
        table[split] = {name: sum(e.label == label for e in of_split) for label, name in enumerate(labels)}
        table[split]["subjects"] = len({e.subject for e in of_split})
    return table
