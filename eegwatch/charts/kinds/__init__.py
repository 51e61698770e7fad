"""The table of charts, the most telling first. A new chart is one module here and one row of KINDS.

Every metric that a program logs under a name has one too, without a row (`named`).
"""

from __future__ import annotations

from eegwatch.charts.kinds.learning_rate import LEARNING_RATE
from eegwatch.charts.kinds.logged_metrics import named_kinds
from eegwatch.charts.kinds.loss import LOSS
from eegwatch.charts.kinds.residual import RESIDUAL
from eegwatch.charts.kinds.scores import AUROC
from eegwatch.charts.kinds.steps import GRAD_NORM, SAMPLES_PER_S
from eegwatch.charts.kinds.system import CPU, GPU, GPU_MEMORY, MEMORY
from eegwatch.charts.model import ChartKind
from eegwatch.run.history import History

MACHINE = (CPU, MEMORY, GPU, GPU_MEMORY)
KINDS = (LEARNING_RATE, LOSS, RESIDUAL, AUROC, GRAD_NORM, SAMPLES_PER_S, CPU, MEMORY, GPU, GPU_MEMORY)


def kinds(history: History) -> list[ChartKind]:
    """The charts that this log has something for, the most telling first."""
    fixed = [kind for kind in KINDS if kind.available(history)]
    taken = {kind.name for kind in fixed}
    named = [kind for kind in named_kinds(history) if kind.name not in taken]
    about_the_run = [kind for kind in fixed if kind not in MACHINE]
    return [*about_the_run, *named, *(kind for kind in fixed if kind in MACHINE)]
