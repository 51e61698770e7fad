"""`eegwatch export`: a run's metrics as CSV, TensorBoard event files or a W&B run, its charts as SVG or PNG.

The live line alone: steps that a resume did again are there once. `lr` is what the step used, `expected_lr` what its
schedule says for it. TensorBoard and W&B are written by their own libraries, which are imported only here.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from eegwatch.charts.deviation import expected_rates
from eegwatch.run.history import History, logged
from eegwatch.run.records import Eval, number
from eegwatch.wording import UserError, pattern_of

STEP_METRICS = ("lr", "expected_lr", "loss", "grad_norm", "samples_per_s")


class ExportError(UserError):
    """The problem of an export and what to do, in one line."""


@dataclass(frozen=True)
class Table:
    """All numbers of a log: `names` of the columns, in order, and one dict per row, ascending in step.

    A row is a training step, or an evaluation where no training step was logged. What was not logged is left out of it;
    a number that was logged as NaN is NaN.
    """

    names: list[str]
    rows: Iterator[dict[str, Any]]


def table_of(history: History) -> Table:
    """`step`, `epoch`, `time`, the metrics of the steps, the rates of further parameter groups, the evaluations."""
    evaluations = [(record.step, record.time, _evaluated(record)) for record in history.evals]
    groups = [] if history.lrs is None else [f"lr_group_{group}" for group in range(1, history.lrs.shape[1])]
    named = sorted({name for _, _, values in evaluations for name in values})
    training = [name for name in history.metrics if name not in STEP_METRICS]
    own = dict.fromkeys(["step", "epoch", "time", *STEP_METRICS, *groups, *training, *named])
    return Table(list(own), _rows(history, sorted(evaluations, key=lambda one: one[0])))


def _evaluated(record: Eval) -> dict[str, float]:
    """Results of an evaluation, and the bounds of their 95 % intervals, as `val/auroc`, `val/auroc/low`, …"""
    values = {f"{record.split}/{name}": value for name, value in record.values().items()}
    if isinstance(record.ci95, dict):
        for name, bounds in record.ci95.items():
            values |= {f"{record.split}/{name}/{end}": number(v) for end, v in zip(("low", "high"), bounds)}
    return values


def _rows(history: History, evaluations: list[tuple[int, float, dict[str, float]]]) -> Iterator[dict[str, Any]]:
    """Steps and evaluations merged; two evaluations of one name at one step are two rows."""
    waiting = deque(evaluations)
    for row in _step_rows(history):
        while waiting and waiting[0][0] < row["step"]:
            yield _evaluation_row(history, *waiting.popleft())
        while waiting and waiting[0][0] == row["step"] and not row.keys() & waiting[0][2].keys():
            row |= waiting.popleft()[2]
        yield row
    for one in waiting:
        yield _evaluation_row(history, *one)


def _step_rows(history: History) -> Iterator[dict[str, Any]]:
    lrs, expected = history.lrs, expected_rates(history, history.step)
    known = {name: getattr(history, name) for name in STEP_METRICS if name != "expected_lr"}
    series = {name: iter(zip(m.step.tolist(), m.value.tolist())) for name, m in history.metrics.items()}
    following = {name: next(values, None) for name, values in series.items()}
    was_logged = logged(history.loss)
    for i, step in enumerate(history.step.tolist()):
        row: dict[str, Any] = {"step": step, "epoch": _epoch(history, step), "time": float(history.time[i])}
        for name, column in known.items():
            value = float(column[i])
            if value == value or (name == "loss" and was_logged[i]):
                row[name] = value
        if expected[i] == expected[i]:
            row["expected_lr"] = float(expected[i])
        if lrs is not None:
            rates = enumerate(lrs[i].tolist())
            row |= {f"lr_group_{group}": rate for group, rate in rates if group and rate == rate}
        for name, one in following.items():
            if one is not None and one[0] <= step:
                row.setdefault(name, one[1])
                following[name] = next(series[name], None)
        yield row


def _evaluation_row(history: History, step: int, time: float, values: dict[str, float]) -> dict[str, Any]:
    return {"step": step, "epoch": _epoch(history, step), "time": time} | values


def _epoch(history: History, step: int) -> int | None:
    """The epoch of a step, from 0, where the length of an epoch is known."""
    per_epoch = history.run.steps_per_epoch if history.run is not None else None
    return max(step - 1, 0) // per_epoch if per_epoch and per_epoch > 0 else None


@dataclass(frozen=True)
class Charts:
    """Which charts a picture shows (a pattern), steps first … last of them, the x axis, the logarithmic y axes."""

    pattern: str = "^(lr|loss)$"
    steps: tuple[int, int] | None = None
    axis: Literal["step", "epoch", "time"] = "step"
    log: frozenset[str] = frozenset({"lr"})
    size: tuple[int, int] | None = None


def export(history: History, name: str, format: str, output: Path, charts: Charts | None = None) -> str:
    """Write the export; returns a description of it. Raises ExportError; never overwrites."""
    if format == "csv":
        return _csv(history, output)
    if format == "chart":
        return _charts(history, name, output, charts or Charts())
    if format == "tensorboard":
        return _tensorboard(history, output)
    return _wandb(history, name, output)


def _charts(history: History, name: str, output: Path, charts: Charts) -> str:
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
        style = ChartStyle(view, charts.log)
        figure.write(output, name, figure.prepare(history, chosen, style), style, charts.size)
    except figure.FigureError as error:
        raise ExportError(str(error)) from None
    return f"{output}: {', '.join(kind.title for kind in chosen)}"


def _csv(history: History, output: Path) -> str:
    table, count = table_of(history), 0
    # in a column's name `/` parts an evaluation's split from its metric: a training metric has `.` in its place
    columns = {name: name.replace("/", ".") if name in history.metrics else name for name in table.names}
    try:
        with output.open("x", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(columns.values())), restval="")
            writer.writeheader()
            for row in table.rows:
                count += 1
                writer.writerow({columns[name]: value for name, value in row.items()})
    except FileExistsError:
        raise ExportError(f"{output} is there already; name another file") from None
    return f"{output}: {count:,} rows, {len(table.names)} columns"


def _tensorboard(history: History, output: Path) -> str:
    try:
        from tensorboard.summary import Writer
    except ImportError:
        raise ExportError("event files are written by tensorboard: pip install tensorboard") from None
    _must_be_empty(output)
    writer, count = Writer(str(output)), 0
    for row in table_of(history).rows:
        step = row.pop("step")
        for tag, value in row.items():
            if tag not in ("epoch", "time") and isinstance(value, float):
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
    for row in table_of(history).rows:
        count += 1
        step = row.pop("step")
        run.log({key: value for key, value in row.items() if value is not None}, step=step)
    run.finish()
    return f"{output}: {count:,} steps; wandb sync {output}/wandb/offline-run-*"


def _must_be_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExportError(f"{folder} is there already and not empty; name another folder")
