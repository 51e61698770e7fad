"""llm.c's main.log, also written by modded-nanogpt's first records: `s:10 trl:9.40 lr:0.0006 norm:2.1`, `s:0 tel:10.9`.

`trl` is the training loss, `tel` the validation loss, `eval` HellaSwag's accuracy. Read in llm.c's logger.h.
"""

from __future__ import annotations

import re

from eegwatch.formats.row_reader import RowReader
from eegwatch.formats.rows import Row

_LINE = re.compile(r"^\s*s:(\d{1,15}) ((?:[A-Za-z_]+:[-+]?(?:[\d.]+(?:e[-+]?\d+)?|nan|inf)\s*)+)$", re.IGNORECASE)
_PAIR = re.compile(r"([A-Za-z_]+):(\S+)")
TRAINING = {"trl": "loss", "lr": "lr", "norm": "grad_norm"}
EVALUATION = {"tel": "loss", "eval": "hellaswag"}


class LlmC:
    """Lines that begin with `s:`, the step."""

    name = "llm.c"
    marks = ("trl:", "tel:", "eval:")
    active = False

    def take(self, line: str, reader: RowReader) -> list[Row] | None:
        if "s:" not in line[:8] or (match := _LINE.match(line)) is None:
            return None
        row = Row()
        row.at.step = float(match[1])
        for name, text in _PAIR.findall(match[2]):
            try:
                value = float(text)
            except ValueError:
                continue
            if name in EVALUATION:
                row.evals.setdefault("val", {})[EVALUATION[name]] = value
            else:
                row.train[TRAINING.get(name, name)] = value
        return [row]
