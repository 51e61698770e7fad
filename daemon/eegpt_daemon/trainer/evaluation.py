"""Scores of a split from its logits: loss, AUROC of windows and of recordings, balanced accuracy (torchmetrics)."""

from __future__ import annotations

import time

import torch
from torch import Tensor
from torch.nn import functional as F

from eegpt_daemon.eeg.features import Windows
from eegwatch.run.records import Eval, finite


def score(logits: Tensor, windows: Windows, split: str, step: int, epoch: int) -> Eval:
    """The `eval` record. A recording's score is the mean margin of its windows."""
    # loads in one to three seconds (with transformers installed, that too): the first step does not wait for it
    from torchmetrics.functional.classification import binary_auroc, multiclass_accuracy

    y = torch.from_numpy(windows.y)
    margin = logits[:, 1] - logits[:, 0]
    recordings = torch.from_numpy(windows.recording).long()
    votes = torch.zeros(len(windows.names)).index_add_(0, recordings, margin)
    size = torch.bincount(recordings, minlength=len(windows.names))
    labels = torch.zeros(len(windows.names), dtype=torch.long).index_copy_(0, recordings, y)
    accuracy = multiclass_accuracy(logits.argmax(1), y, num_classes=2, average="macro")
    return Eval(
        time=time.time(),
        step=step,
        epoch=epoch,
        split=split,
        loss=finite(float(F.cross_entropy(logits, y))),
        auroc=finite(float(binary_auroc(margin.sigmoid(), y))),
        balanced_accuracy=finite(float(accuracy)),
        n=len(windows),
        recording_auroc=finite(float(binary_auroc((votes / size).sigmoid(), labels))),
    )
