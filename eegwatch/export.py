"""`eegwatch export`: a run's metrics as CSV, TensorBoard event files or a W&B run, its charts as SVG or PNG.

The live line alone: steps that a resume did again are there once. `lr` is what the step used, `expected_lr` what its
schedule says for it. TensorBoard and W&B are written by their own libraries, which are imported only here.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from eegwatch.run.history import History
from eegwatch.run.records import number
from eegwatch.schedule import ScheduleError, parse, rate_at
from eegwatch.wording import UserError, pattern_of

STEP_METRICS = ("lr", "expected_lr", "loss", "grad_norm", "samples_per_s")
EVAL_METRICS = ("loss", "auroc", "balanced_accuracy", "recording_auroc")


class ExportError(UserError):
    """What is missing or in the way, and what to do: one line."""


def rows(history: History) -> Iterator[dict[str, Any]]:
    """One dict a step: `step`, `epoch`, `time`, the metrics, and `val/auroc` … where an evaluation was made at it."""
    run = history.run
    expected = np.full(history.length, math.nan)
    if run is not None and run.schedule is not None:
        try:
            expected = np.asarray(rate_at(parse(run.schedule), history.step, run.steps_per_epoch), np.float64)
        except ScheduleError:
            pass  # a schedule that this version cannot read: its column stays empty
    evaluations: dict[int, dict[str, float]] = {}
    for record in history.evals:
        values = {f"{record.split}/{name}": number(getattr(record, name)) for name in EVAL_METRICS}
        evaluations.setdefault(record.step, {}).update(values)
    per_epoch = run.steps_per_epoch if run is not None else None
    columns = {name: expected if name == "expected_lr" else getattr(history, name) for name in STEP_METRICS}
    for i, step in enumerate(history.step.tolist()):
        row: dict[str, Any] = {"step": step, "time": float(history.time[i])}
        row["epoch"] = (step - 1) // per_epoch if per_epoch else None
        row |= {name: float(column[i]) for name, column in columns.items()}
        yield row | evaluations.pop(step, {})


@dataclass(frozen=True)
class Charts:
    """Which charts a picture shows (a pattern), steps first … last of them, the x axis, the logarithmic y axes."""

    pattern: str = "^(lr|loss)$"
    steps: tuple[int, int] | None = None
    axis: Literal["step", "epoch", "time"] = "step"
    log: frozenset[str] = frozenset({"lr"})
    size: tuple[int, int] | None = None


def export(history: History, name: str, format: str, output: Path, charts: Charts | None = None) -> str:
    """Write all of it; returns what was written, in words. Raises ExportError; never overwrites."""
    if format == "csv":
        return _csv(history, output)
    if format == "chart":
        return _charts(history, output, charts or Charts())
    if format == "tensorboard":
        return _tensorboard(history, output)
    return _wandb(history, name, output)


def _charts(history: History, output: Path, charts: Charts) -> str:
    from eegwatch.charts import figure
    from eegwatch.charts.kinds import kinds
    from eegwatch.charts.model import ChartStyle
    from eegwatch.charts.view import View

    there, pattern = kinds(history), pattern_of(charts.pattern)
    chosen = [kind for kind in there if pattern.search(kind.name) or pattern.search(kind.title)]
    if not chosen:
        names = ", ".join(kind.name for kind in there)
        raise ExportError(f"--chart {charts.pattern}: no such chart in this run; there are {names}")
    view = View(axis=charts.axis)
    if charts.steps is not None:
        first, last = charts.steps
        view = View(axis=charts.axis, left=float(first), width=float(last - first))
    try:
        figure.write(output, history, chosen, ChartStyle(view, charts.log), charts.size)
    except figure.FigureError as error:
        raise ExportError(str(error)) from None
    return f"{output}: {', '.join(kind.title for kind in chosen)}"


def _csv(history: History, output: Path) -> str:
    evals = sorted({f"{e.split}/{m}" for e in history.evals for m in EVAL_METRICS})
    names = ["step", "epoch", "time", *STEP_METRICS, *evals]
    count = 0
    try:
        with output.open("x", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names, restval="")
            writer.writeheader()
            for row in rows(history):
                count += 1
                writer.writerow({key: _shown(value) for key, value in row.items()})
    except FileExistsError:
        raise ExportError(f"{output} is there already; name another file") from None
    return f"{output}: {count:,} rows, {len(names)} columns"


def _shown(value: Any) -> Any:
    """Full precision; what is not known stays empty, what is not finite is said."""
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value


def _tensorboard(history: History, output: Path) -> str:
    try:
        from tensorboard.summary import Writer
    except ImportError:
        raise ExportError("event files are written by tensorboard: pip install tensorboard") from None
    _must_be_empty(output)
    writer, count = Writer(str(output)), 0
    for row in rows(history):
        step = row.pop("step")
        row.pop("epoch"), row.pop("time")
        for tag, value in row.items():
            if not math.isnan(value):
                writer.add_scalar(tag, value, step)
                count += 1
    writer.close()
    return f"{output}: {count:,} scalars; tensorboard --logdir {output}"


def _wandb(history: History, name: str, output: Path) -> str:
    try:
        import wandb
    except ImportError:
        raise ExportError("a W&B run is written by wandb: pip install wandb") from None
    _must_be_empty(output)
    output.mkdir(parents=True, exist_ok=True)
    first = history.run
    config = first.config if first is not None and first.config else {}
    run = wandb.init(project="eegwatch", name=name, dir=str(output), mode="offline", config=config)
    count = 0
    for row in rows(history):
        count += 1
        step = row.pop("step")
        run.log({key: value for key, value in row.items() if value is not None and value == value}, step=step)
    run.finish()
    return f"{output}: {count:,} steps; wandb sync {output}/wandb/offline-run-*"


def _must_be_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExportError(f"{folder} is there already and not empty; name another folder")
