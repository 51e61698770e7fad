"""The cost of a fault of the learning rate: `cost.json` in the run's folder, by `eegwatch cost`.

A cost is the AUROC of the same training at the declared rates less that of the run as it was. `low` and `high` are
the 95 % interval of a paired bootstrap over subjects, and over seeds where there are several.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from eegwatch.run.results.result_file import read_result, write_result

COST, TWIN = "cost.json", "twin"  # the twin and the other arms lie in this folder of the run's


class Difference(msgspec.Struct, kw_only=True):
    """AUROC of a `model` (final, best) on a `split` (val, eval), at a `level` (window, recording)."""

    model: str
    split: str
    level: str
    seeds: int
    faulty: float
    right: float
    cost: float
    low: float | None = None
    high: float | None = None


class Cost(msgspec.Struct, kw_only=True):
    """The whole file. `reason`: why there is no cost to tell; all else is empty then.

    `fault`: the cause that was found, or the rule; `since`: the first step at a wrong rate; `wrong`: how many.
    `remarks`: what a reader must know, in words.
    """

    version: int = 1
    made: float = 0.0
    reason: str | None = None
    fault: str = ""
    since: int = 0
    wrong: int = 0
    seeds: list[int] = []
    rows: list[Difference] = []
    remarks: list[str] = []


def write(folder: Path, cost: Cost) -> Path:
    """Raises OSError."""
    return write_result(folder / COST, cost)


def read(folder: Path) -> Cost | None:
    """The content of the run's file; None if the file is missing or invalid."""
    return read_result(folder / COST, Cost)


def sentences(cost: Cost) -> list[str]:
    """The cost on the windows of each split, of the final model; then the remarks."""
    if cost.reason is not None:
        return [f"no cost of a fault: {cost.reason}"]
    sentences = []
    for row in cost.rows:
        if row.model == "final" and row.level == "window":
            split = {"val": "validation", "eval": "evaluation"}[row.split]
            where = "this seed" if row.seeds == 1 else f"{row.seeds} seeds"
            sentences.append(
                f"{cost.fault} cost {signed(row.cost)} {split} AUROC{_interval(row)} over {where}: {row.faulty:.4f} "
                f"instead of {row.right:.4f}; {_verdict(row)}"
            )
    return sentences + cost.remarks


def table(cost: Cost) -> tuple[list[str], list[list[str]]]:
    """(header, rows) of every difference."""
    header = ["model", "split", "level", "seeds", "AUROC as it was", "at the declared rates", "cost", "95 % interval"]
    rows = [
        [
            row.model,
            row.split,
            row.level,
            str(row.seeds),
            f"{row.faulty:.4f}",
            f"{row.right:.4f}",
            signed(row.cost),
            _interval(row).strip() or "too few subjects",
        ]
        for row in cost.rows
    ]
    return header, rows


def signed(value: float) -> str:
    """Four decimals with a sign; nothing is minus zero."""
    return f"{round(value, 4) + 0.0:+.4f}" if round(value, 4) else "0.0000"


def _interval(row: Difference) -> str:
    return "" if row.low is None or row.high is None else f" [{signed(row.low)}, {signed(row.high)}]"


def _verdict(row: Difference) -> str:
    if row.low is None or row.high is None:
        return "too few subjects for an interval"
    if row.low <= 0 <= row.high:
        return "these subjects cannot tell it from no cost"
    return "these subjects tell it from no cost"
