"""Logs of JSON objects: one a line by the names of any framework, or one document that lists epochs.

detectron2      metrics.json           iteration (from 0), total_loss, lr; `bbox/AP` are results
mmcv            *.log.json             mode, epoch, iter within the epoch, lr
mmengine        scalars.json, *.json   lr, loss, iter, step; results carry the epoch as their step
LLaMA-Factory   trainer_log.jsonl      current_steps, total_steps
MAE, DETR …     log.txt                train_lr, train_loss, test_…, epoch
any             *.jsonl, *.json        step, loss, lr … by whatever names
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eegwatch.formats.csv_json import Prepare, RowsOfJson
from eegwatch.formats.files import FollowedJson, FollowedLines, clock_of_file
from eegwatch.formats.log_kind import FileHead, LogKind
from eegwatch.formats.names import Role
from eegwatch.formats.numerals import json_value
from eegwatch.formats.row_reader import RowReader
from eegwatch.run.records import RunRecord

MOST_BYTES = 1 << 28
GENERIC = {  # names of files that say nothing of the run
    "metrics", "log", "results", "scalars", "progress", "trainer_log", "history", "None", "train_log", "summary",
    "train",
}  # fmt: skip
RESULTS = ("bbox/", "segm/", "keypoints/", "sem_seg/", "panoptic_seg/", "proposals/", "coco/", "pascal_voc/")


def detectron2(row: dict[str, Any]) -> dict[str, Any]:
    """Results of the evaluator stand among the training values: `bbox/AP`."""
    results = {name: value for name, value in row.items() if name.startswith(RESULTS)}
    if not results:
        return row
    return {name: value for name, value in row.items() if name not in results} | {"val": results}


def mmcv(row: dict[str, Any]) -> dict[str, Any]:
    """`iter` counts within the epoch of the mode that the row names; that of an evaluation is its own length."""
    if row.get("mode") == "val":
        return {name: value for name, value in row.items() if name not in ("iter", "lr")}
    return row


def mmengine(row: dict[str, Any]) -> dict[str, Any]:
    """A row without rate and loss holds results, whose `step` is the epoch where the loop counts epochs."""
    if "iter" in row or "lr" in row or any("loss" in name for name in row):
        return {name: value for name, value in row.items() if name != "iter" or "step" not in row}
    return {"val": {name: value for name, value in row.items() if name not in ("step", "epoch")}}


def _lines(
    name: str,
    files: str,
    fits: Callable[[FileHead], bool],
    prepare: Prepare | None = None,
    *,
    zero_based: bool | None = None,
    rename: Mapping[str, Role] | None = None,
    rank: int = 4,
) -> LogKind:
    def follow(path: Path, patterns: Sequence[re.Pattern[str]]) -> FollowedLines:
        clock = clock_of_file(path)
        return FollowedLines(path, lambda: RowsOfJson(RowReader(run_name(path), zero_based), clock, rename, prepare))

    return LogKind(name, files, rank, fits, follow)


def run_name(path: Path) -> str:
    """A run's name: the file's, or its folder's where the file's says nothing."""
    stem = path.name.partition(".")[0]
    return path.resolve().parent.name if stem in GENERIC else stem


def _rows_of(head: FileHead) -> list[dict[str, Any]]:
    """The objects on the first lines."""
    rows = []
    for line in head.data.split(b"\n")[:30]:
        try:
            value = json_value(line) if line.lstrip().startswith(b"{") else None
        except ValueError:
            continue
        if isinstance(value, dict):
            rows.append(value)
    return rows


def _holds(*names: str) -> Callable[[FileHead], bool]:
    """A file of JSON lines, one of whose first rows has all these names."""

    def fits(head: FileHead) -> bool:
        if not head.first.lstrip().startswith(b"{") or any(name.encode() not in head.data for name in names):
            return False
        return any(all(name in row for name in names) for row in _rows_of(head))

    return fits


def _any_rows(head: FileHead) -> bool:
    rows = _rows_of(head) if head.first.lstrip().startswith(b"{") else []
    # one object of lists is keras' History
    return bool(rows) and not (len(rows) == 1 and _columns(rows[0]))


class JsonDocument(FollowedJson):
    """A list of rows, or an object of lists (keras' History)."""

    most_bytes = MOST_BYTES

    def records_of(self, document: Any, written: float) -> list[RunRecord]:
        reader = RowReader(run_name(self.path))
        rows = RowsOfJson(reader, lambda: written)
        records: list[RunRecord] = []
        for value in rows_of_document(document):
            row = rows.row(value)
            if row is not None:
                records += reader.add(row, written)
        return records + reader.flush()


def rows_of_document(document: Any, depth: int = 0) -> list[dict[str, Any]]:
    """The rows of a document: the first list of objects in it, or lists of one length side by side, an epoch each."""
    if isinstance(document, list):
        rows = [row for row in document if isinstance(row, dict)]
        return rows if len(rows) == len(document) and len(rows) > 0 else []
    if not isinstance(document, dict):
        return []
    lists = _columns(document)
    lengths = {len(value) for value in lists.values()}
    longest = max(lengths, default=0)
    if longest and any("loss" in name.lower() or "lr" in name.lower() for name in lists):
        counted = any(name.lower() in ("epoch", "epochs", "step", "steps", "iter", "iteration") for name in lists)
        rows = []
        for i in range(longest):
            row = {name: value[i] for name, value in lists.items() if len(value) == longest or i < len(value)}
            rows.append(row if counted else {"epoch": i + 1, **row})
        return rows
    for value in document.values():
        if depth < 3 and isinstance(value, list | dict) and (rows := rows_of_document(value, depth + 1)):
            return rows
    return []


def _columns(document: dict[str, Any], prefix: str = "", depth: int = 0) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for name, value in document.items():
        if (
            isinstance(value, list)
            and value
            and all(isinstance(one, int | float | str) or one is None for one in value)
        ):
            columns[prefix + str(name)] = value
        elif isinstance(value, dict) and depth < 2:
            columns |= _columns(value, f"{prefix}{name}/", depth + 1)
    return columns


def _document(head: FileHead) -> bool:
    if not head.name.endswith(".json") or head.first.lstrip()[:1] not in (b"[", b"{"):
        return False
    return bool(re.search(rb'"[^"\n]*(?:loss|lr|learning_rate)[^"\n]*"\s*:', head.data))


KINDS = (
    _lines("LLaMA-Factory", "trainer_log.jsonl", _holds("current_steps", "total_steps")),
    _lines("detectron2", "metrics.json", _holds("iteration", "lr", "total_loss"), detectron2, zero_based=True),
    _lines("mmcv", "*.log.json", _holds("mode", "epoch", "iter"), mmcv),
    _lines("mmengine", "scalars.json", _holds("lr", "iter", "step"), mmengine),
    _lines("JSON rows", "*.jsonl *.json log.txt", _any_rows, rank=3),
    LogKind("JSON document", "*.json", 2, _document, JsonDocument),
)
