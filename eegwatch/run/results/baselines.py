"""Baselines beside a run: `baselines.json` in its folder, by `eegpt-daemon baselines`, and the tables made of it.

All rows are of one cache and one split. Whatever a baseline chooses, it chooses on validation; each was scored once on
the evaluation set. `card` says how the data were made, so that nothing is compared that cannot be.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from eegwatch.run.results import published_scores
from eegwatch.run.results.result_file import read_result, write_result

BASELINES = "baselines.json"
SHOWN = ("auroc", "average_precision", "balanced_accuracy", "recording_auroc", "recording_balanced_accuracy")
HEADER = [
    "model",
    "lambda",
    "val AUROC",
    "eval AUROC",
    "eval AUC-PR",
    "eval B-Acc",
    "eval AUROC, rec.",
    "eval B-Acc, rec.",
]


class Row(msgspec.Struct, kw_only=True):
    """One model. `val`, `eval`: figures by name, as in an `eval` record; `ci95`: 95 % intervals of those of `eval`."""

    name: str
    detail: str = ""
    lam: float | None = None
    val: dict[str, float] = {}
    eval: dict[str, float] = {}
    ci95: dict[str, list[float]] = {}


class Baselines(msgspec.Struct, kw_only=True):
    """The whole file. `card`: (what, how) in order; `tuab`: whether published rows of TUAB may stand beside it."""

    version: int = 1
    made: float = 0.0
    rows: list[Row] = []
    card: list[tuple[str, str]] = []
    remarks: list[str] = []
    tuab: bool = False


def write(folder: Path, baselines: Baselines) -> Path:
    """Raises OSError."""
    return write_result(folder / BASELINES, baselines)


def read(folder: Path) -> Baselines | None:
    """The content of the run's file; None if the file is missing or invalid."""
    return read_result(folder / BASELINES, Baselines)


def tables(baselines: Baselines) -> list[tuple[str, list[str], list[list[str]]]]:
    """(caption, header, rows): the models, the protocol card, and what is published where that may be compared."""
    tables = [
        ("the same cache and split; 95 % intervals over subjects", HEADER, [_cells(row) for row in baselines.rows]),
        ("protocol", ["what", "how"], [list(pair) for pair in baselines.card]),
    ]
    if baselines.tuab:
        header, rows = published_scores.table()
        caption = (
            f"published on TUAB (looked up {published_scores.LOOKED_UP}), each by its own protocol: compare with care"
        )
        tables.append((caption, header, rows))
    return tables


def text(baselines: Baselines) -> str:
    """The tables for a terminal, columns aligned."""
    parts = []
    for caption, header, rows in tables(baselines):
        widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
        lines = [_aligned(row, widths) for row in [header, *rows]]
        parts.append("\n".join([caption, *lines]))
    return "\n\n".join([*parts, *baselines.remarks])


def _aligned(row: list[str], widths: list[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _cells(row: Row) -> list[str]:
    lam = "" if row.lam is None else f"{row.lam:.2g}"
    val = f"{row.val['auroc']:.4f}" if "auroc" in row.val else ""
    return [row.name + (f" ({row.detail})" if row.detail else ""), lam, val, *(_figure(row, name) for name in SHOWN)]


def _figure(row: Row, name: str) -> str:
    if name not in row.eval:
        return ""
    interval = row.ci95.get(name)
    return f"{row.eval[name]:.4f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")
