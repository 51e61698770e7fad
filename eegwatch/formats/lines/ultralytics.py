"""YOLO's console: a line of column names, then bars `3/99  2.3G  0.088  0.091  0.048  45  640: 100%|██| 50/50 [00:10`.

The losses are components whose sum is what the trainer minimises (times the batch size). Below, `all  128  929  0.65 …`
under `Class Images Instances P R mAP50 mAP50-95` is the evaluation. Read in ultralytics/engine/trainer.py and YOLOv5's
train.py.
"""

from __future__ import annotations

import re

from eegwatch.formats.lines.headered_rows import HeaderedRows
from eegwatch.formats.row_reader import RowReader
from eegwatch.formats.rows import Row

NO_VALUES = {"Size", "img_size", "labels", "Instances", "targets"}
_NAMES = re.compile(r"^\s*Epoch\s+GPU_mem\s+(.+?)\s*$|^\s*Epoch\s+gpu_mem\s+(.+?)\s*$")
_BAR = re.compile(r"^\s*(\d{1,7})/(\d{1,7})\s+[\d.]+G\s+([-\d.\seE+naif]+?):\s+100%\|?.*?\s(\d+)/(\d+)\s")
_EVALUATED = re.compile(r"^\s*all\s+\d+\s+\d+\s+([\d.\s]+)$|^\s*all\s+\d+\s+\d+\s+([\d.\s]+?)\s*$")
_RESULT_NAMES = re.compile(r"^\s*Class\s+Images\s+(?:Instances|Labels)\s+(.+?)(?::\s|\s*$)")


# results.txt, one row an epoch: `0/299 11.8G 0.069 0.031 0 0.101 30 640 0.0046 0.29 0.0013 0.0002 0.093 0.038 0`
_RESULT_ROW = re.compile(r"^\s*(\d{1,7})/(\d{1,7})\s+[\d.]+G((?:\s+(?:\d[\d.]*(?:e[-+]?\d+)?|nan|inf)){13})\s*$", re.I)
_RESULT_COLUMNS = ("box", "obj", "cls", "loss", "labels", "img_size", "P", "R", "mAP@.5", "mAP@.5:.95")


class YoloResults:
    """The rows of results.txt, which YOLOv3 to YOLOv7 write without a header. Read in train.py of YOLOv7."""

    name = "YOLO results.txt"
    marks = ("G ",)
    active = False

    def take(self, line: str, reader: RowReader) -> list[Row] | None:
        if (match := _RESULT_ROW.match(line)) is None:
            return None
        numbers = [float(text) for text in match[3].split()]
        values = dict(zip(_RESULT_COLUMNS, numbers, strict=False))
        result = {name: values.pop(name) for name in _RESULT_COLUMNS[6:]}
        if result["mAP@.5:.95"] > result["mAP@.5"]:
            result["F1"] = result.pop("mAP@.5:.95")  # YOLOv3's last column; a mean over thresholds cannot be above
        result |= {"loss": sum(numbers[10:]), "box": numbers[10], "obj": numbers[11], "cls": numbers[12]}
        row = Row(train={name: value for name, value in values.items() if name not in NO_VALUES}, evals={"val": result})
        row.at.epoch, row.at.epochs = float(match[1]), int(match[2]) + 1  # epochs from 0
        return [row]


class Ultralytics(HeaderedRows):
    """The last state of an epoch's bar, and its evaluation."""

    name = "YOLO console"
    marks = ("pu_mem", "PU_mem")

    def __init__(self) -> None:
        super().__init__()
        self._results: list[str] = []
        self._zero = False  # YOLOv5 and v7 count epochs from 0

    def take(self, line: str, reader: RowReader) -> list[Row] | None:
        if "pu_mem" in line.lower() and (match := _NAMES.match(line)) is not None:
            self._names = (match[1] or match[2]).split()
            return []
        if not self._names:
            return None
        if "Class" in line and (match := _RESULT_NAMES.match(line)) is not None:
            names = re.sub(r"[()]", " ", match[1]).replace("Box", "").split()
            self._results = [name for name in names if name != ":"]
            return []
        if (match := _EVALUATED.match(line)) is not None and self._results:
            numbers = [float(text) for text in (match[1] or match[2]).split()]
            if len(numbers) != len(self._results):
                return None
            return [Row(evals={"val": dict(zip(self._results, numbers, strict=True))})]
        if "G" not in line[:60] or "%|" not in line:
            return None
        if (match := _BAR.match(line)) is None:
            return [] if re.match(r"^\s*\d+/\d+\s+[\d.]+G\s", line) else None
        if match[4] != match[5]:
            return []  # the mean of the epoch so far
        numbers = [float(text) for text in match[3].split()]
        epoch, last = int(match[1]), int(match[2])
        self._zero = self._zero or epoch == 0
        values = dict(zip(self._names, numbers, strict=False))
        losses = [value for name, value in values.items() if "loss" in name or name in ("box", "obj", "cls", "dfl")]
        row = Row(train={name: value for name, value in values.items() if name not in NO_VALUES})
        if losses:
            row.train["loss"] = row.train.pop("total", sum(losses))
        row.at.epoch, row.at.epochs = float(epoch), last + self._zero
        return [row] if row.train else []
