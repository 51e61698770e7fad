"""MetricLogger's lines (DETR, DeiT, MAE, BEiT, LaBraM, torchvision's references), and timm's of evaluations.

    Epoch: [3]  [200/625]  eta: 0:03:10  lr: 0.0002  loss: 0.9 (1.1)  time: 0.4 data: 0.0 max mem: 9000     a record
    Test:  [ 20/100]  eta: …  loss: 0.7 (0.7)  acc1: 80.0 (79.1)       an evaluation under way: the last holds its means
    Averaged stats: lr: 0.0002  loss: 1.05 (1.05)                      the epoch's mean: no step of its own
    * Acc@1 78.2 Acc@5 94.1 loss 0.91                                  the result of an evaluation

Read in torchvision/references/classification/utils.py and timm/train.py.
"""

from __future__ import annotations

import re

from eegwatch.formats.row_reader import RowReader
from eegwatch.formats.rows import Row

_TEST = re.compile(
    r"^\W*(?:Test|Val|Valid|Validation|Eval|Evaluation)\w*(?: \(\w+\))?\s*:?\s+\[\s*(\d{1,12})/(\d{1,12})\]"
)
_AVERAGE = re.compile(r"([A-Za-z][\w@/.]*)[ :=]+[-+.\deE]+ \(\s*([-+]?\d[\d.]*(?:e[-+]?\d+)?)\)")
_RESULT = re.compile(r"^\s*\* (?=\S*(?:Acc|AP|mIoU|loss|Prec|top))")
_PAIR = re.compile(r"([A-Za-z][\w@/.]*)[ :=]+([-+]?\d[\d.]*(?:e[-+]?\d+)?)")


class MetricLogger:
    """The lines of MetricLogger that are not training records."""

    name = "MetricLogger"
    marks = ("Averaged stats", "Test", "Val", "Eval", "* ")
    active = False

    def take(self, line: str, reader: RowReader) -> list[Row] | None:
        if "Averaged stats" in line:
            return []
        if "/" in line[:80] and (state := _TEST.match(line)) is not None:
            if int(state[1]) < int(state[2]) - 1:
                return []
            means = {name: float(text) for name, text in _AVERAGE.findall(line) if name.lower() not in ("time", "data")}
            return [Row(evals={"val": means})] if means else []
        if line.lstrip().startswith("* ") and _RESULT.match(line):
            values = {}
            for name, text in _PAIR.findall(line):
                try:
                    values[name] = float(text)
                except ValueError:
                    continue
            return [Row(evals={"val": values})] if values else None
        return None
