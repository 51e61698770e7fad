"""skorch's console (braindecode's EEGClassifier): a line of column names, a rule, then a row of numbers an epoch.

      epoch    train_loss    valid_acc    valid_loss    cp     dur
    -------  ------------  -----------  ------------  ----  ------
          1        1.3871       0.3000        1.3863     +  0.0344

`cp` marks the epochs whose weights were saved, and is empty else. Read in skorch.callbacks.logging (PrintLog).
"""

from __future__ import annotations

import re

from eegwatch.formats.lines.headered_rows import HeaderedRows
from eegwatch.formats.numerals import number
from eegwatch.formats.row_reader import RowReader
from eegwatch.formats.rows import Row

_HEADER = re.compile(r"^\s*epoch(?:\s{2,}[A-Za-z_]\w*)+\s*$")
_RULE = re.compile(r"^\s*-{3,}(?:\s+-{2,})*\s*$")
NO_RESULT = ("dur", "cp")


class SkorchTable(HeaderedRows):
    """The rows under a header that skorch has printed."""

    name = "skorch console"
    marks = ("epoch",)

    def take(self, line: str, reader: RowReader) -> list[Row] | None:
        if _HEADER.match(line):
            self._names = line.split()
            return []
        if not self._names:
            return None
        if _RULE.match(line) or not line.strip():
            return []
        values = [number(cell) for cell in line.split() if cell != "+"]
        names = [name for name in self._names if name != "cp"]
        if len(values) != len(names) or None in values:
            self._names = []
            return None
        fields = [(name, value, None) for name, value in zip(names, values, strict=True) if name not in NO_RESULT]
        return [self._maker.row((name, value, of) for name, value, of in fields if value is not None)]
