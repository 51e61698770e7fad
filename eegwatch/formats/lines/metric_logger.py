"""MetricLogger's lines (DETR, DeiT, MAE, BEiT, LaBraM, torchvision's references).

    Epoch: [3]  [200/625]  eta: 0:03:10  lr: 0.0002  loss: 0.9 (1.1)  time: 0.4 data: 0.0 max mem: 9000     a record
    Test:  [ 20/100]  eta: …  loss: 0.7 (0.7)  acc1: 80.0 (79.1)       a state of an evaluation under way: no result
    Averaged stats: lr: 0.0002  loss: 1.05 (1.05)                      the epoch's mean: no step of its own
    * Acc@1 78.2 Acc@5 94.1 loss 0.91                                  the result of an evaluation

Read in torchvision/references/classification/utils.py.
"""

from __future__ import annotations

import re

from eegwatch.formats.collect import RowReader
from eegwatch.formats.rows import Row

_TEST = re.compile(r"^\W*(?:Test|Val|Valid|Validation|Eval|Evaluation)\s*:?\s+\[\s*\d+/\d+\]\s+eta:")
_RESULT = re.compile(r"^\s*\* (?=\S*(?:Acc|AP|mIoU|loss))")
_PAIR = re.compile(r"([A-Za-z][\w@/.]*)[ :=]+([-+]?\d[\d.]*(?:e[-+]?\d+)?)")


class MetricLogger:
    """What of its lines is no training record."""

    name = "MetricLogger"

    def take(self, line: str, reader: RowReader) -> list[Row] | None:
        if "Averaged stats" in line or _TEST.match(line):
            return []
        if line.lstrip().startswith("* ") and _RESULT.match(line):
            values = {}
            for name, text in _PAIR.findall(line):
                try:
                    values[name] = float(text)
                except ValueError:
                    continue
            return [Row(evals={"val": values})] if values else None
        return None
