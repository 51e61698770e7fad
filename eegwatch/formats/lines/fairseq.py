"""fairseq's text and JSON lines, which count updates (`num_updates`).

    epoch 002:   1000 / 1102 loss=6.859, …, num_updates=2100, lr=0.0002625      a training record (train_inner)
    epoch 002 | loss 5.9 | … | num_updates 2204 | lr 0.00027                    the epoch's mean: no step of its own
    epoch 002 | valid on 'valid' subset | loss 5.4 | … | num_updates 2204       an evaluation
    [train_inner][INFO] - {"epoch": 44, "update": 43.2, "num_updates": "22600", "loss": "3.5"}      with log_format json

Read in fairseq.logging.progress_bar (SimpleProgressBar, JsonProgressBar).
"""

from __future__ import annotations

import re

from eegwatch.formats.csv_json import flat
from eegwatch.formats.numerals import embedded, number
from eegwatch.formats.row_reader import RowReader
from eegwatch.formats.rows import Row, RowMaker

_INNER = re.compile(r"epoch (\d+):\s+(\d+) / (\d+)\s")
_SUMMARY = re.compile(r"\bepoch (\d+) \|(?: (valid|test|dev)\w* on '([^']*)' subset \|)?")
_PAIR = re.compile(r"([A-Za-z_][\w/.]*)(?:=| )([-+]?[\d.]+(?:e[-+]?\d+)?|nan|-?inf)(?=[,\s|]|$)", re.IGNORECASE)


class Fairseq:
    """Lines with `num_updates`."""

    name = "fairseq"
    marks = ("num_updates",)
    active = False

    def __init__(self) -> None:
        self.maker, self.valid = RowMaker(), RowMaker()
        self._subset: str | None = None

    def take(self, line: str, reader: RowReader) -> list[Row] | None:
        if "num_updates" not in line:
            return None
        if "{" in line:
            return self._json(line)
        if (inner := _INNER.search(line)) is not None:
            reader.counter.per_epoch = int(inner[3][:12])
            row = self._row(self.maker, line[inner.end() :], None)
            row.at.epoch = float(inner[1])
            return [row]
        if (summary := _SUMMARY.search(line)) is None:
            return None
        if summary[2] is None:
            return []
        row = self._row(self.valid, line[summary.end() :], "eval" if summary[2] == "test" else "val")
        row.train.clear()
        return [self._of(summary[3], row)]

    def _of(self, subset: str, row: Row) -> Row:
        """Of several validation sets the first is the evaluation; the others' names stand before their values."""
        if self._subset is None:
            self._subset = subset
        if subset != self._subset:
            row.evals = {
                split: {f"{subset}/{name}": value for name, value in values.items()}
                for split, values in row.evals.items()
            }
        return row

    @staticmethod
    def _row(maker: RowMaker, text: str, split: str | None) -> Row:
        pairs = ((name, number(value)) for name, value in _PAIR.findall(text.replace(" | ", "\t")))
        return maker.row(((name, value, None) for name, value in pairs if value is not None), split)

    def _json(self, line: str) -> list[Row] | None:
        inside = embedded(line)
        if inside is None:
            return None
        _, values = inside
        if "num_updates" not in values:
            prefix = next((name.removesuffix("num_updates") for name in values if name.endswith("_num_updates")), None)
            if prefix is None:
                return None
            if prefix == "train_":
                return []  # the epoch's mean
            own = {name.removeprefix(prefix): value for name, value in values.items()}
            row = self.valid.row(flat(own), "eval" if prefix.startswith("test") else "val")
            row.train.clear()
            return [self._of(prefix[:-1], row)]
        return [self.maker.row(f for f in flat(values) if f[0] != "update")]
