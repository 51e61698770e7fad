"""One small file a kind of log; KINDS lists them in the order in which they are tried."""

from __future__ import annotations

from eegwatch.formats.kinds import (
    csv_logs,
    huggingface,
    json_logs,
    mlflow,
    notebook,
    tensorboard,
    text_logs,
    trackio,
    wandb,
)
from eegwatch.formats.log_kind import LogKind

KINDS: tuple[LogKind, ...] = (
    huggingface.KIND,
    tensorboard.KIND,
    mlflow.KIND,
    trackio.KIND,
    wandb.KIND,
    notebook.KIND,
    *json_logs.KINDS,
    *csv_logs.KINDS,
    text_logs.KIND,
)
