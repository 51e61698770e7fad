"""Load of the machine that trains: processor, memory, graphics processors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from eegwatch.charts.kinds.common import empty_chart, placed
from eegwatch.charts.model import OBSERVED, ChartData, ChartKind, ChartStyle, Series
from eegwatch.run.history import History
from eegwatch.wording import size

Values = Callable[[History], NDArray[np.float64]]


def _system_chart(name: str, values: Values) -> Callable[[History, ChartStyle], ChartData]:
    def draw(history: History, style: ChartStyle) -> ChartData:
        chart = empty_chart(history, style, name, "no figures yet")
        steps = np.array([s.step for s in history.system])
        chart.series = [placed(history, style.view, Series(steps, values(history), "line", OBSERVED))]
        if name.endswith("memory"):
            chart.y_text = size
        return chart

    return draw


def _of_gpu(key: str) -> Values:
    """The mean over the GPUs."""
    return lambda h: np.array([float(np.mean([g.get(key, np.nan) for g in s.gpu or [{}]])) for s in h.system])


def _cpu(history: History) -> NDArray[np.float64]:
    return np.array([np.nan if s.cpu_percent is None else s.cpu_percent for s in history.system])


def _rss(history: History) -> NDArray[np.float64]:
    return np.array([np.nan if s.rss_bytes is None else s.rss_bytes for s in history.system])


def _at_system(values: Values, say: Callable[[float], str]) -> Callable[..., str]:
    def at(history: History, step: int) -> str:
        i = int(np.searchsorted([s.step for s in history.system], step, side="right")) - 1
        return say(float(values(history)[i])) if i >= 0 else ""

    return at


def _has_system(history: History) -> bool:
    return len(history.system) > 1


def _has_gpu(history: History) -> bool:
    return bool(history.system and history.system[-1].gpu)


_UTIL, _GPU_MEMORY = _of_gpu("util_percent"), _of_gpu("memory_bytes")
CPU = ChartKind(
    "cpu", "cpu, % of a core", "", _has_system, _system_chart("cpu", _cpu), _at_system(_cpu, "{:.0f} %".format)
)
MEMORY = ChartKind("memory", "resident memory", "", _has_system, _system_chart("memory", _rss), _at_system(_rss, size))
GPU = ChartKind("gpu", "gpu, %", "", _has_gpu, _system_chart("gpu", _UTIL), _at_system(_UTIL, "{:.0f} %".format))
GPU_MEMORY = ChartKind(
    "gpu_memory", "gpu memory", "", _has_gpu, _system_chart("gpu_memory", _GPU_MEMORY), _at_system(_GPU_MEMORY, size)
)
