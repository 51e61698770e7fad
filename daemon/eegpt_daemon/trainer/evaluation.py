"""Scores of a split from its logits: loss, AUROC of windows and of recordings, balanced accuracy."""

from __future__ import annotations

import math
import time

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from eegpt_daemon.data.features import Windows
from eegwatch.run.records import Eval, finite


def score(logits: Tensor, windows: Windows, split: str, step: int, epoch: int) -> Eval:
    """The `eval` record. A recording's score is the mean margin of its windows."""
    y = windows.y
    margin = (logits[:, 1] - logits[:, 0]).numpy()
    size = np.bincount(windows.recording, minlength=len(windows.names))
    votes = np.bincount(windows.recording, weights=margin, minlength=len(windows.names))
    labels = np.zeros(len(windows.names), y.dtype)
    labels[windows.recording] = y
    return Eval(
        time=time.time(),
        step=step,
        epoch=epoch,
        split=split,
        loss=finite(float(F.cross_entropy(logits, torch.from_numpy(y)))),
        auroc=finite(auroc(margin, y)),
        balanced_accuracy=finite(balanced_accuracy(margin > 0, y)),
        n=len(windows),
        recording_auroc=finite(auroc(votes[size > 0] / size[size > 0], labels[size > 0])),
    )


def auroc(scores: NDArray[np.floating], y: NDArray[np.integer]) -> float:
    """The chance that a positive of `y` (0, 1) scores above a negative; ties count half. NaN without both, or by a NaN.

    Mann and Whitney's U over its greatest value (scipy.stats.mannwhitneyu). `scores`, `y`: one a window or recording.
    """
    from scipy.stats import mannwhitneyu  # loads in a second: the first step does not wait for it

    positive, negative = scores[y == 1], scores[y == 0]
    if not len(positive) or not len(negative):
        return math.nan
    return float(mannwhitneyu(positive, negative, method="asymptotic").statistic / (len(positive) * len(negative)))


def balanced_accuracy(predicted: NDArray[np.bool_], y: NDArray[np.integer]) -> float:
    """The mean recall of the classes that `y` (0, 1) holds."""
    return float(np.mean([np.mean(predicted[y == label] == label) for label in (0, 1) if (y == label).any()]))
