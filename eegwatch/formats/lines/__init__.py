"""Lines of text that need their own reading: one small file a framework, all listed in LINE_KINDS.

A kind is asked about each line, in the order of the list; what none of them takes, the general reader scans.
"""

from __future__ import annotations

from collections.abc import Callable

from eegwatch.formats.lines.deepspeed_chat import DeepSpeedChat
from eegwatch.formats.lines.detectron2 import Detectron2
from eegwatch.formats.lines.espnet import Espnet
from eegwatch.formats.lines.estimator import EstimatorResults
from eegwatch.formats.lines.fairseq import Fairseq
from eegwatch.formats.lines.huggingface import HuggingFaceConsole
from eegwatch.formats.lines.llm_c import LlmC
from eegwatch.formats.lines.metric_logger import MetricLogger
from eegwatch.formats.lines.nanogpt import NanoGpt
from eegwatch.formats.lines.skorch import SkorchTable
from eegwatch.formats.lines.tables import HeaderTable, KeyValueTable
from eegwatch.formats.lines.ultralytics import Ultralytics, YoloResults
from eegwatch.formats.text import LineKind

LINE_KINDS: tuple[Callable[[], LineKind], ...] = (
    HuggingFaceConsole,
    Fairseq,
    NanoGpt,
    LlmC,
    MetricLogger,
    DeepSpeedChat,
    Detectron2,
    Espnet,
    EstimatorResults,
    Ultralytics,
    YoloResults,
    SkorchTable,
    HeaderTable,
    KeyValueTable,
)
