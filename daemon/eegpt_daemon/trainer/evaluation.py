"""An evaluation of a split from its logits: predictions that are kept, and the `eval` record computed from them."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import msgspec
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from eegpt_daemon.data.windows import Windows
from eegwatch.run.records import Eval, Number, finite
from eegwatch.scores.intervals import intervals
from eegwatch.scores.metrics import Metrics, metrics_of
from eegwatch.scores.predictions import Predictions, Units, corpus_hash
from eegwatch.scores.resampled_metrics import Resampled
from eegwatch.scores.threshold import youden

FINAL, BEST = "final", "best"
Thresholds = dict[str, float | None]  # by level, window and recording


@dataclass
class Scored:
    """`record`: the logged record; `problems`: metrics that could not be computed, with reasons."""

    record: Eval
    problems: list[str] = field(default_factory=list)


def predictions_of(logits: Tensor, windows: Windows, step: int, stride_s: float) -> Predictions:
    """Predictions of a split, in its order. `logits` (n, classes); windows of a recording begin `stride_s` apart."""
    recording = windows.recording.astype(np.int64)
    begins = np.concatenate([[True], recording[1:] != recording[:-1]]) if len(recording) else np.empty(0, bool)
    first = np.maximum.accumulate(np.where(begins, np.arange(len(recording)), 0))
    names, labels = windows.names, np.zeros(len(windows.names), np.int64)
    labels[recording] = windows.y
    number = {subject: i for i, subject in enumerate(dict.fromkeys(windows.subjects or names))}
    subjects = np.array([number[subject] for subject in windows.subjects or names], np.int64)
    return Predictions(
        recording=recording,
        subject=subjects[recording],
        start=(np.arange(len(recording)) - first).astype(np.float64) * stride_s,
        label=windows.y.astype(np.int64),
        logits=logits.numpy(),
        step=step,
        corpus=corpus_hash(names, labels.tolist()),
    )


def thresholds_of(predictions: Predictions) -> Thresholds:
    """Fixed on these predictions, of the validation set: for windows and for recordings."""
    return {units.level: youden(units) for units in (predictions.windows(), predictions.recordings())}


def scored(
    predictions: Predictions,
    split: str,
    epoch: int,
    thresholds: Thresholds,
    *,
    with_intervals: bool = True,
    slow: bool = False,
) -> Scored:
    """The `eval` record of these predictions. `slow`: intervals too that cost a pass over the windows a draw."""
    windows, recordings = predictions.windows(), predictions.recordings()
    metrics: dict[str, Number] = {}
    ci95: dict[str, list[Number]] = {}
    confusion: dict[str, list[list[int]]] = {}
    problems: list[str] = []
    for units, prefix in ((windows, ""), (recordings, "recording_")):
        figures_of_level = metrics_of(units, thresholds.get(units.level))
        metrics |= {prefix + name: value for name, value in figures_of_level.values.items()}
        if figures_of_level.confusion is not None:
            confusion[units.level] = figures_of_level.confusion
        if figures_of_level.problem is not None:
            problems.append(figures_of_level.problem)
        if with_intervals and figures_of_level.values:
            ci95 |= _intervals(units, thresholds.get(units.level), figures_of_level, prefix, slow=slow)
    own = {name: finite(_number(metrics, name)) for name in ("auroc", "balanced_accuracy", "recording_auroc")}
    record = Eval(
        time=time.time(),
        step=predictions.step,
        epoch=epoch,
        split=split,
        loss=finite(_loss(predictions)),
        n=len(predictions),
        metrics=metrics,
        ci95=ci95 or msgspec.UNSET,
        recordings=len(recordings),
        subjects=len(np.unique(predictions.subject)),
        confusion=confusion,
        **own,  # type: ignore[arg-type]
    )
    return Scored(record, problems)


def _intervals(
    units: Units, threshold: float | None, computed: Metrics, prefix: str, *, slow: bool
) -> dict[str, list[Number]]:
    """Intervals of the metrics that have a value."""
    made = intervals(Resampled(units, threshold), slow=slow)
    return {prefix + name: list(interval) for name, interval in made.items() if name in computed.values}


def _number(metrics: dict[str, Number], name: str) -> float:
    value = metrics.get(name)
    return value if isinstance(value, float) else math.nan


def _loss(predictions: Predictions) -> float:
    """The mean cross-entropy of the windows."""
    if not len(predictions):
        return math.nan
    return float(F.cross_entropy(torch.from_numpy(predictions.logits), torch.from_numpy(predictions.label)))
