"""nanoGPT's evaluations: `step 250: train loss 2.8548, val loss 2.9973` estimates both, before update 250 is taken.

Its training lines (`iter 250: loss 2.95, time 52.57ms, mfu 7.09%`) are read by the general reader.
"""

from __future__ import annotations

import re

from eegwatch.formats.row_reader import RowReader
from eegwatch.formats.rows import Row

_BOTH = re.compile(
    r"^\W*(?:step|iter)\s+(\d{1,15})\s*:\s*train loss\s+([\d.]+|nan|inf)\b(.*?),\s*val loss\s+([\d.]+|nan|inf)\b",
    re.IGNORECASE,
)


class NanoGpt:
    """The estimate of both losses is one evaluation; the training loss of that step stands on a line of its own."""

    name = "nanoGPT"
    marks = ("train loss",)
    active = False

    def take(self, line: str, reader: RowReader) -> list[Row] | None:
        if "train loss" not in line or (match := _BOTH.search(line)) is None:
            return None
        row = Row(evals={"val": {"loss": float(match[4]), "train_loss": float(match[2])}})
        row.at.step = float(match[1])
        return [row]
