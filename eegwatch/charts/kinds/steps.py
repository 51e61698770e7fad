"""Further columns of the step records: gradient norm, samples a second."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from eegwatch.charts.kinds.common import empty_chart, placed
from eegwatch.charts.model import MORE, OBSERVED, ChartData, ChartKind, ChartStyle, Series
from eegwatch.run.history import History
from eegwatch.wording import significant


def _step_chart(column: str, kind: str = "noisy") -> Callable[[History, ChartStyle], ChartData]:
    """A chart of one more column of the step records."""

    def draw(history: History, style: ChartStyle) -> ChartData:
        chart = empty_chart(history, style, column, "none is logged")
        series = [Series(history.step, getattr(history, column), kind, OBSERVED)]
        for other, colour in zip(style.overlays, MORE):
            series.append(Series(other.history.step, getattr(other.history, column), "smooth", colour, other.label))
        chart.series = [placed(history, style.view, s) for s in series]
        return chart

    return draw


def _logged(column: str) -> Callable[[History], bool]:
    return lambda history: bool(np.isfinite(getattr(history, column)[-2000:]).any())


def value_at_step(column: str, say: Callable[[float], str]) -> Callable[[History, int], str]:
    """The text of the cursor for a column of the step records."""

    def at(history: History, step: int) -> str:
        i = int(np.searchsorted(history.step, step))
        there = i < history.length and history.step[i] == step
        return say(float(getattr(history, column)[i])) if there else ""

    return at


GRAD_NORM = ChartKind(
    "grad_norm", "gradient norm", "", _logged("grad_norm"), _step_chart("grad_norm"),
    value_at_step("grad_norm", significant),
)  # fmt: skip
SAMPLES_PER_S = ChartKind(
    "samples_per_s", "samples a second", "", _logged("samples_per_s"), _step_chart("samples_per_s"),
    value_at_step("samples_per_s", "{:,.0f}".format),
)  # fmt: skip
