"""A corpus in TUAB layout: which EDF files there are, whose they are, which label and split they carry.

`edf/{train,eval}/{normal,abnormal}/…/<subject>_s<session>_t<token>.edf`, flat (v3) or nested by subject (v2).
Label and split are path *parts* ("abnormal" contains "normal"). Splits are by subject, never by window.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "eval")
_NAME = re.compile(r"^(?P<subject>[A-Za-z0-9]+)_s(?P<session>\d+)(?:_\d{4})?_t(?P<token>\d+)$")


class CorpusError(ValueError):
    """The corpus cannot be trained on: where it was looked for and what is missing."""


@dataclass(frozen=True)
class Entry:
    """One EDF file: `label` 0 normal, 1 abnormal (`data.labels`); `split` train, val or eval."""

    path: Path
    relative: str
    subject: str
    label: int
    split: str


def index(root: Path, labels: list[str]) -> list[Entry]:
    """Every EDF file under `root`, sorted by path. Raises CorpusError if there is none for training."""
    if not root.is_dir():
        raise CorpusError(
            f"data.root_dir: {root} is not a folder; it must hold edf/train/… and edf/eval/… (TUAB layout)"
        )
    entries: list[Entry] = []
    for path in sorted(p for p in root.rglob("*") if p.suffix.lower() == ".edf"):
        relative = path.relative_to(root)
        parts = [part.lower() for part in relative.parts[:-1]]
        split = next((part for part in parts if part in SPLITS), None)
        label = next((part for part in parts if part in labels), None)
        if split is None or label is None:
            continue
        match = _NAME.match(path.stem)
        subject = match["subject"] if match else path.stem
        entries.append(Entry(path, relative.as_posix(), subject, labels.index(label), split))
    for split in SPLITS:
        present = {entry.label for entry in entries if entry.split == split}
        for number, name in enumerate(labels):
            if number not in present:
                raise CorpusError(f"data.root_dir: {root} holds no EDF file under {split}/{name} (TUAB layout)")
    return entries


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
    moved = [
        Entry(e.path, e.relative, e.subject, e.label, "val") if e.split == "train" and e.subject in held_out else e
        for e in entries
    ]
    for split in ("train", "val") if fraction > 0 else ("train",):
        if {e.label for e in moved if e.split == split} != {0, 1}:
            raise CorpusError(
                f"too few subjects: after holding out {fraction:.0%} of them for validation, {split} lacks a label"
            )
    return moved


def counts(entries: list[Entry], labels: list[str]) -> dict[str, dict[str, int]]:
    """Recordings a split and label, and subjects a split: for the log, before anything long begins."""
    table: dict[str, dict[str, int]] = {}
    for split in ("train", "val", "eval"):
        mine = [e for e in entries if e.split == split]
        table[split] = {name: sum(e.label == label for e in mine) for label, name in enumerate(labels)}
        table[split]["subjects"] = len({e.subject for e in mine})
    return table
