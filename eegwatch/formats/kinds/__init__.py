"""One small file a kind of log; KINDS lists them in the order in which they are tried."""

from __future__ import annotations

from eegwatch.formats.kinds import csv_logs, huggingface, json_logs, notebook, stores, tensorboard, text_logs
from eegwatch.formats.table import LogKind

KINDS: tuple[LogKind, ...] = (
    huggingface.KIND,
    tensorboard.KIND,
    *stores.KINDS,
    notebook.KIND,
    *json_logs.KINDS,
    *csv_logs.KINDS,
    text_logs.KIND,
)
