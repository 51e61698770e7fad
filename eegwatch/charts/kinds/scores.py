"""Scores of the evaluations: validation AUROC over the steps, and the target."""

from __future__ import annotations

import numpy as np

from eegwatch.charts.kinds.common import empty_chart, placed
from eegwatch.charts.model import EXPECTED, MORE, OBSERVED, ChartData, ChartKind, ChartStyle, Series
from eegwatch.charts.view import on_axis
from eegwatch.run.history import History
from eegwatch.run.records import number


def auroc_chart(history: History, style: ChartStyle) -> ChartData:
    """Validation AUROC over the steps, and the target."""
    chart = empty_chart(history, style, "auroc", "no evaluation yet")
    left, right = style.view.window(history)
    target = ((history.run.target if history.run else None) or {}).get("auroc")
    series = [Series(np.array([left, right]), np.array([target, target]), "dotted", EXPECTED)] if target else []
    for label, one, colour in [
        ("", history, OBSERVED),
        *((o.label, o.history, c) for o, c in zip(style.overlays, MORE)),
    ]:
        evals = [e for e in one.evals if e.split == "val" and e.auroc is not None]
        steps, scores = np.array([e.step for e in evals]), np.array([number(e.auroc) for e in evals])
        series.append(Series(steps, scores, "line", colour, label))
        if one is history:
            places = on_axis(history, style.view.axis, steps)
            chart.marks = [(float(x), float(y), "◆") for x, y in zip(places, scores, strict=True)]
    chart.series = [placed(history, style.view, s) for s in series]
    return chart


def _at_eval(history: History, step: int) -> str:
    known = [e for e in history.evals if e.split == "val" and e.auroc is not None and e.step <= step]
    return f"{number(known[-1].auroc):.3f} at step {known[-1].step:,}" if known else ""


def _has_auroc(history: History) -> bool:
    return any(e.auroc is not None for e in history.evals)


AUROC = ChartKind("auroc", "validation AUROC", "┄ target", _has_auroc, auroc_chart, _at_eval)
