"""Finds the logs in a folder, to a limited depth: newest first, logs of steps before tables of results."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from eegwatch.formats.files import beginning
from eegwatch.formats.kinds import KINDS
from eegwatch.formats.log_kind import FileHead, LogKind
from eegwatch.formats.numerals import json_value
from eegwatch.formats.unread_log import unread
from eegwatch.run.follow import ForeignLog, FormatError
from eegwatch.run.records import Eval, Step

DEEPEST = 6  # folders below the one that was named: runs/detect/train3/weights …
MOST_ENTRIES = 20_000  # files and folders that are looked at: a data set has millions
MOST_PROBED = 40  # files that are opened to see whether they hold steps
PROBE_BYTES = 1 << 18
OURS = {"run", "step", "eval", "checkpoint", "system", "finding", "progress", "end"}
SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".log", ".txt", ".out", ".err", ".ipynb", ".db", ".wandb")
SKIPPED = {"node_modules", "__pycache__", "site-packages", "venv", "env", "wheels"}
NO_LOGS = {
    "config.json", "package.json", "package-lock.json", "tokenizer.json", "tokenizer_config.json", "vocab.json",
    "special_tokens_map.json", "generation_config.json", "requirements.txt", "merges.txt", "license.txt", "readme.txt",
    "model.safetensors.index.json", "pytorch_model.bin.index.json", "adapter_config.json", "hparams.json", "args.json",
    "added_tokens.json", "preprocessor_config.json", "cmakelists.txt",
}  # fmt: skip


@dataclass(frozen=True)
class ListedLog:
    """A log that a folder holds: where, of which kind, when it was last written (seconds since the epoch)."""

    path: Path
    kind: LogKind
    written: float


def kind_of(path: Path) -> LogKind | None:
    """The kind of log of a file; None for a run log of this project. Raises OSError."""
    data = beginning(path)
    head = FileHead(path, data)
    if is_ours(data):
        return None
    return next((kind for kind in KINDS if kind.fits(head)), None)


def is_ours(data: bytes) -> bool:
    """Whether any complete line is a record of this project: a known type with unchanged field names."""
    if data.lstrip()[:1] != b"{":
        return False
    for line in data.split(b"\n")[:20]:
        try:
            row = json_value(line)
        except ValueError:
            continue
        if isinstance(row, dict) and row.get("type") in OURS:
            return True
    return False


def logs_in(folder: Path) -> list[ListedLog]:
    """All logs below a folder, the newest first; a file that cannot be read is passed over."""
    listed: dict[tuple[Path, str], ListedLog] = {}
    for path in _files(folder):
        try:
            kind = kind_of(path)
            written = path.stat().st_mtime
        except OSError:
            continue  # no permission, or it is gone: the others are still there
        if kind is None:
            continue
        where = path.parent if kind.folder else path
        known = listed.get((where, kind.name))
        if known is None or known.written < written:
            listed[(where, kind.name)] = ListedLog(path, kind, written)
    return sorted(listed.values(), key=lambda one: (one.written, one.kind.rank), reverse=True)


def best_in(folder: Path, patterns: Sequence[re.Pattern[str]] = ()) -> ForeignLog | None:
    """The log that a folder means: of the highest rank the newest that holds steps, else one with evaluations."""
    listed = sorted(logs_in(folder), key=lambda one: (one.kind.rank, one.written), reverse=True)
    evaluations: ForeignLog | None = None
    for one in listed[:MOST_PROBED]:
        foreign = _foreign(one, patterns)
        try:
            holds = probe(foreign)
        except FormatError:
            if one.kind.folder and len(listed) == 1:
                return foreign  # the library that reads it is missing: whoever follows it says so
            continue
        except OSError:
            continue
        if holds == "steps":
            return foreign
        if holds == "evaluations" and evaluations is None:
            evaluations = foreign
    return evaluations


def probe(foreign: ForeignLog) -> str | None:
    """The content of the beginning of a log: "steps", "evaluations" or None. Raises FormatError, OSError."""
    log = foreign.follow()
    try:
        holds = None
        for _ in range(4):
            records, _, behind = log.read(PROBE_BYTES)
            if any(isinstance(record, Step) for record in records):
                return "steps"
            if any(isinstance(record, Eval) for record in records):
                holds = "evaluations"
            if not behind:
                break
        return holds
    finally:
        log.close()


def _foreign(one: ListedLog, patterns: Sequence[re.Pattern[str]]) -> ForeignLog:
    where = one.path.parent if one.kind.folder else one.path
    return ForeignLog(
        where, one.kind.name, lambda: one.kind.follow(one.path, patterns), lambda: unread(one.path, patterns)
    )


def _files(folder: Path) -> Iterator[Path]:
    """Files whose names may be those of logs, level by level."""
    level, entries = [folder], 0
    for _ in range(DEEPEST + 1):
        below: list[Path] = []
        for place in level:
            try:
                with os.scandir(place) as scan:
                    for entry in scan:
                        entries += 1
                        if entries > MOST_ENTRIES:
                            return
                        if entry.name.startswith(".") or entry.name.lower() in SKIPPED:
                            continue
                        try:
                            if entry.is_dir(follow_symlinks=False):
                                below.append(Path(entry.path))
                            elif entry.is_file() and _may_be_a_log(entry.name):
                                yield Path(entry.path)
                        except OSError:
                            continue
            except OSError:
                continue
        level = sorted(below)


def _may_be_a_log(name: str) -> bool:
    lower = name.lower().removesuffix(".gz")
    return ".tfevents." in name or lower == "meta.yaml" or (lower.endswith(SUFFIXES) and lower not in NO_LOGS)
