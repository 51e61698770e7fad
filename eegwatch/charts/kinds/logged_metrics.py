"""Charts of the metrics that a program logs by name: training and validation of one metric in one chart.

`train/acc` of the steps and `acc` of the evaluations are the same metric: prefixes and suffixes that name a split are
taken off. What has a chart of its own (loss, AUROC) is not drawn twice.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from eegwatch.charts.kinds.common import empty_chart, placed
from eegwatch.charts.model import FIRST, OBSERVED, SECOND, ChartData, ChartKind, ChartStyle, Series
from eegwatch.charts.view import on_axis
from eegwatch.run.history import History
from eegwatch.wording import significant

OWN_CHART = ("loss", "auroc")  # of an evaluation: the marks of the loss chart, and the AUROC chart
# of the daemon's trainer: the validation set's own threshold moves with every evaluation; the report has them
AT_A_THRESHOLD = ("threshold", "balanced_accuracy_at_threshold", "sensitivity", "specificity", "f1", "kappa")
NOISY_FROM = 200  # points from which a metric of the steps is drawn as a band with a smoothed line
_SPLIT = re.compile(r"^(?:train|training|val|valid|validation|dev|eval|test)[/_.]|[/_.](?:train|val|valid|test|eval)$")
TITLES = {"balanced_accuracy": "balanced accuracy", "recording_auroc": "recording AUROC"}
COLOURS = {"val": FIRST, "eval": SECOND}


@dataclass
class Metric:
    """One metric: the names under which the steps log it, and the splits whose evaluations have it."""

    train: list[str] = field(default_factory=list)
    evaluated: dict[str, str] = field(default_factory=dict)  # split -> name in it


def base_name(name: str) -> str:
    """The metric that a logged name means: train/acc, acc_val and acc are acc."""
    return _SPLIT.sub("", name) or name


def metrics_of(history: History) -> dict[str, Metric]:
    """All named metrics of a run, sorted by name."""
    metrics: dict[str, Metric] = {}
    for name in history.metrics:
        metrics.setdefault(base_name(name), Metric()).train.append(name)
    for record in history.evals:
        ours = record.confusion is not msgspec.UNSET
        for name in record.values():
            if name not in OWN_CHART and not (ours and name.removeprefix("recording_") in AT_A_THRESHOLD):
                metrics.setdefault(base_name(name), Metric()).evaluated.setdefault(record.split, name)
    return dict(sorted(metrics.items()))


_known: dict[int, tuple[tuple[int, int], list[ChartKind]]] = {}  # by history: made anew when a name or record comes
MOST_KNOWN = 8


def named_kinds(history: History) -> list[ChartKind]:
    """One chart a named metric."""
    state = (len(history.metrics), len(history.evals))
    state_known, made = _known.get(id(history), ((-1, -1), []))
    if state != state_known:
        made = [_kind(name, metric, history) for name, metric in metrics_of(history).items()]
        if len(_known) >= MOST_KNOWN:
            _known.clear()
        _known[id(history)] = state, made
    return made


def _kind(name: str, metric: Metric, history: History) -> ChartKind:
    goals = history.run.metric_goals if history.run is not None else {}
    goal = next((goals[n] for n in (name, *metric.train, *metric.evaluated.values()) if n in goals), "")
    better = {"min": ", lower is better", "max": ", higher is better"}.get(goal, "")
    legend = "  ".join(["━ training"] * bool(metric.train) + ["◆ evaluated"] * bool(metric.evaluated))
    title = f"{TITLES.get(name, name)}{better}"
    return ChartKind(name, title, legend, lambda _: True, _draw(name, metric), _value_at(metric))


def _draw(name: str, metric: Metric) -> Callable[[History, ChartStyle], ChartData]:
    def draw(history: History, style: ChartStyle) -> ChartData:
        chart = empty_chart(history, style, name, "nothing is logged under this name")
        for logged in metric.train:
            series = history.metrics.get(logged)
            if series is not None:
                kind = "noisy" if len(series.step) > NOISY_FROM else "line"
                label = "" if len(metric.train) == 1 else logged
                chart.series.append(
                    placed(history, style.view, Series(series.step, series.value, kind, OBSERVED, label))
                )
        for split in metric.evaluated:
            steps, values = _evaluated(history, metric, split)
            chart.series.append(placed(history, style.view, Series(steps, values, "line", COLOURS.get(split, FIRST))))
            places = on_axis(history, style.view.axis, steps)
            chart.marks += [(float(x), float(y), "◆") for x, y in zip(places, values, strict=True) if math.isfinite(y)]
        return chart

    return draw


def _evaluated(history: History, metric: Metric, split: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(steps, values) of a metric in the evaluations of one split, nan where one does not have it."""
    name = metric.evaluated[split]
    records = [record for record in history.evals if record.split == split]
    values = [record.values().get(name, math.nan) for record in records]
    return np.array([record.step for record in records], np.int64), np.array(values, np.float64)


def _value_at(metric: Metric) -> Callable[[History, int], str]:
    def at(history: History, step: int) -> str:
        parts = []
        for logged in metric.train:
            series = history.metrics.get(logged)
            i = int(np.searchsorted(series.step, step)) if series is not None else 0
            if series is not None and i < len(series.step) and series.step[i] == step:
                parts.append(significant(float(series.value[i]), 4))
        for split in metric.evaluated:
            steps, values = _evaluated(history, metric, split)
            i = int(np.searchsorted(steps, step, side="right")) - 1
            if i >= 0 and math.isfinite(values[i]):
                parts.append(f"{split} {significant(float(values[i]), 4)} at step {steps[i]:,}")
        return ", ".join(parts)

    return at
