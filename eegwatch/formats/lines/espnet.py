"""ESPnet 2's lines: `3epoch:train:101-200batch: iter_time=1e-04, loss_ctc=50.1, loss=48.2, optim0_lr0=2.0e-04, …`.

At the end of an epoch `3epoch results: [train] …, [valid] loss_ctc=…, loss=…, acc=…`. Read in espnet2.train.reporter.
"""

from __future__ import annotations

import re

from eegwatch.formats.numerals import number
from eegwatch.formats.row_reader import RowReader
from eegwatch.formats.rows import Row, RowMaker

_BATCHES = re.compile(r"\b(\d{1,9})epoch:train:(\d{1,12})-(\d{1,12})batch:")
_RESULTS = re.compile(r"\b(\d{1,9})epoch results:")
_PAIR = re.compile(r"([A-Za-z][\w/.]*)=([-+]?[\d.]+(?:e[-+]?\d+)?|nan|-?inf)\b", re.IGNORECASE)


class Espnet:
    """Means over the batches since the last line; the step is that of the last batch."""

    name = "ESPnet"
    marks = ("epoch:train:", "epoch results:")
    active = False

    def __init__(self) -> None:
        self.maker, self.valid = RowMaker(), RowMaker()

    def take(self, line: str, reader: RowReader) -> list[Row] | None:
        if "epoch" not in line:
            return None
        if (match := _BATCHES.search(line)) is not None:
            row = _row(self.maker, line[match.end() :], None)
            row.at.epoch, row.at.batch = float(match[1]), float(match[3])
            return [row]
        if (match := _RESULTS.search(line)) is None:
            return None
        _, _, valid = line.partition("[valid]")
        row = _row(self.valid, valid.partition("[att_plot]")[0], "val")
        row.train.clear()
        row.at.epoch = None
        return [row] if row.evals else []


def _row(maker: RowMaker, text: str, split: str | None) -> Row:
    pairs = ((name, number(value)) for name, value in _PAIR.findall(text))
    return maker.row(((name, value, None) for name, value in pairs if value is not None), split)
