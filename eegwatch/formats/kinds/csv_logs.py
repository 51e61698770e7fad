"""Logs of rows under a header: commas, tabs, semicolons or aligned columns.

Lightning    metrics.csv     sparse columns, steps from 0, `lr-AdamW/pg1` of LearningRateMonitor
YOLO 5-11    results.csv     one row an epoch, `train/box_loss` …, `metrics/mAP50(B)`, `val/…`, `lr/pg0` … or `x/lr0` …
keras        CSVLogger       one row an epoch, from 0
timm         summary.csv     epoch, train_loss, eval_loss, eval_top1, lr
SB3          progress.csv    time/total_timesteps, train/loss, train/learning_rate
any          *.csv *.tsv     step, epoch, loss, lr … by whatever names
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from eegwatch.formats.csv_json import RowsOfCsv, delimiter_of
from eegwatch.formats.files import FollowedLines, clock_of_file
from eegwatch.formats.kinds.json_logs import run_name
from eegwatch.formats.log_kind import FileHead, LogKind
from eegwatch.formats.names import Role, is_metric, role
from eegwatch.formats.numerals import number
from eegwatch.formats.row_reader import RowReader
from eegwatch.formats.rows import Row

SUFFIXES = (".csv", ".tsv", ".txt", ".log", ".dat")


def columns(head: FileHead) -> list[str]:
    """The names in the header line, [] where the first line is not a header."""
    lines = [line for line in re.split("[\r\n]+", head.data.decode("utf-8", "replace")) if line.strip()]
    lines = [line for line in lines if not line.startswith("#")] or lines
    first = lines[0] if lines else ""
    mark = delimiter_of(first)
    names = [cell.strip().strip('"') for cell in (first.split(mark) if mark else first.split())]
    if len(names) < 2 or any(number(name) is not None for name in names):
        return []
    if mark is None or not head.name.endswith((".csv", ".tsv")):
        # not called a table: its first rows must have as many cells, and be numbers mostly
        for line in lines[1:4]:
            cells = line.split(mark) if mark else line.split()
            numbers = sum(number(cell) is not None for cell in cells)
            if len(cells) != len(names) or numbers * 2 < len(cells):
                return []
        if len(lines) < 2:
            return []
    return names


def _fits(head: FileHead) -> bool:
    if not head.name.endswith(SUFFIXES):
        return False
    roles = [role(name) for name in columns(head)]
    kinds = {what.kind for what in roles}
    counted = bool(kinds & {"step", "epoch"})
    return bool(kinds & {"loss", "lr"}) or (counted and any(is_metric(what.name) for what in roles))


def _named(*names: str) -> Callable[[FileHead], bool]:
    def fits(head: FileHead) -> bool:
        return head.name.endswith(".csv") and set(names) <= set(columns(head))

    return fits


def _lightning(head: FileHead) -> bool:
    names = columns(head) if head.name == "metrics.csv" else []
    return "step" in names and ("epoch" in names or any(name.startswith("lr-") for name in names))


def yolo(header: list[str]) -> Mapping[str, Role]:
    """`metrics/…` are results; the losses of training are components, whose sum is what is minimised."""
    return {
        name: Role("metric", "val", name.removeprefix("metrics/")) for name in header if name.startswith("metrics/")
    }


class RowsOfYolo(RowsOfCsv):
    """results.csv: the sum of the component losses is the loss."""

    def _begin(self, cells: list[str]) -> None:
        super()._begin(cells)
        self._maker.sum_components = True


def _yolo(head: FileHead) -> bool:
    names = columns(head) if head.name.endswith(".csv") else []
    return "epoch" in names and any(name.startswith("metrics/") for name in names)


def _rows(
    name: str, files: str, fits: Callable[[FileHead], bool], *, zero_based: bool | None = None, rank: int = 4,
    rename: Callable[[list[str]], Mapping[str, Role]] | None = None, make: type[RowsOfCsv] = RowsOfCsv,
) -> LogKind:  # fmt: skip
    def follow(path: Path, patterns: Sequence[re.Pattern[str]]) -> FollowedLines:
        clock = clock_of_file(path)
        return FollowedLines(
            path, lambda: make(RowReader(run_name(path), zero_based), clock, rename), header=True, bars=True
        )

    return LogKind(name, files, rank, fits, follow)


class RowsOfMonitor(RowsOfCsv):
    """monitor.csv of a gym environment: reward, length and time of each episode; steps are the lengths' sum."""

    def _begin(self, cells: list[str]) -> None:
        super()._begin(cells)
        self._counted, self._done = True, 0.0

    def _row(self, values: list[tuple[Role, float, int | None]]) -> Row:
        row = super()._row(values)
        self._done += row.train.get("length", 0.0)
        row.at.step = self._done
        return row


def _monitor(head: FileHead) -> bool:
    return head.name.endswith(".csv") and columns(head)[:3] == ["r", "l", "t"]


def _episodes(header: list[str]) -> Mapping[str, Role]:
    return {
        "r": Role("metric", None, "reward"), "l": Role("metric", None, "length"), "t": Role("metric", None, "elapsed"),
    }  # fmt: skip


def _sb3(header: list[str]) -> Mapping[str, Role]:
    """`time/iterations` counts rollouts, `time/total_timesteps` steps of the environment."""
    return {"time/iterations": Role("metric", None, "time/iterations")}


KINDS = (
    _rows("Lightning CSV", "metrics.csv", _lightning, zero_based=True),
    _rows("YOLO results", "results.csv", _yolo, rename=yolo, make=RowsOfYolo),
    _rows("progress.csv of RL", "progress.csv", _named("time/total_timesteps"), rename=_sb3),
    _rows("episodes of RL", "*.monitor.csv", _monitor, rename=_episodes, make=RowsOfMonitor, rank=3),
    _rows("timm summary", "summary.csv", _named("epoch", "train_loss", "eval_loss")),
    _rows("CSV", "*.csv *.tsv", _fits, rank=3),
)
