"""The table of charts, the most telling first. A new chart is one module here and one row of KINDS."""

from __future__ import annotations

from eegwatch.charts.kinds.learning_rate import LEARNING_RATE
from eegwatch.charts.kinds.loss import LOSS
from eegwatch.charts.kinds.residual import RESIDUAL
from eegwatch.charts.kinds.scores import AUROC
from eegwatch.charts.kinds.steps import GRAD_NORM, SAMPLES_PER_S
from eegwatch.charts.kinds.system import CPU, GPU, GPU_MEMORY, MEMORY
from eegwatch.charts.model import ChartKind
from eegwatch.run.history import History

KINDS = (LEARNING_RATE, LOSS, RESIDUAL, AUROC, GRAD_NORM, SAMPLES_PER_S, CPU, MEMORY, GPU, GPU_MEMORY)


def kinds(history: History) -> list[ChartKind]:
    """The charts that this log has something for, the most telling first."""
    return [kind for kind in KINDS if kind.available(history)]
