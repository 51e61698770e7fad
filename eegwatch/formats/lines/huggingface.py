"""transformers' console: `{'loss': 1.14, 'learning_rate': 1.8e-05, 'epoch': 2.73}` between the states of a tqdm bar.

The dict names no step. tqdm draws the bar anew after it has written the dict, so the bar that follows holds the exact
step; the one before may lag by its refresh interval. Numbers may be quoted (accelerate, TRL). The last dict, with
`train_runtime`, is a summary. Read in transformers.trainer_callback.ProgressCallback (on_step_end, on_log).
"""

from __future__ import annotations

import re

from eegwatch.formats.csv_json import flat, lists_of
from eegwatch.formats.numerals import embedded
from eegwatch.formats.row_reader import RowReader
from eegwatch.formats.rows import Row, RowMaker

_BAR = re.compile(r"(?:^|[\s|])(\d+)/(\d+)\s*\[[\d:?]+<")
_DESCRIBED = re.compile(r"^\s*\d{1,3}%(?:\|| \d+/\d+ \[)")  # the trainer's own bars have no description
_TOTAL = re.compile(r"Total optimization steps\s*=\s*([\d,]+)")
_EPOCH = re.compile(r"""['"]epoch['"]:\s*(?:\d+\.\d|['"][\d.]+['"])""")
_LOGGING = re.compile(r"^\s*logging_steps=([1-9]\d{0,8}),?\s*$")  # TrainingArguments, printed
_FIRST = re.compile(r"^\s*logging_first_step=True,?\s*$")
_EPOCHS = re.compile(r"Num Epochs\s*=\s*([\d,]+)")


class HuggingFaceConsole:
    """Dicts of the Trainer, placed by the bar."""

    name = "Hugging Face console"
    marks = ("%|", "{", "Total optimization", "Num Epochs", "it/s", "s/it", "logging_")
    active = False

    def __init__(self) -> None:
        self.maker = RowMaker()
        self._waiting: Row | None = None
        self._bars: dict[int, int] = {}  # total -> count, of the bars drawn since the last training dict
        self._total: int | None = None
        self._count = 0
        self._drained: int | None = None
        self._fraction: float | None = None
        self._buffered = False
        self._logging = 0  # steps from one dict to the next, where the log says how many
        self._first = 0  # 1 if the first step was logged as well
        self._dicts = 0
        self._per_dict: float | None = None  # epochs

    def take(self, line: str, reader: RowReader) -> list[Row] | None:
        rows: list[Row] = []
        taken = False
        if "%|" in line or "it/s" in line or "s/it" in line:
            taken = bool(_DESCRIBED.match(line)) and line.count(":") < 6
            self._bar(line, rows, reader)
        if "{" in line and (inside := embedded(line)) is not None and self._is_ours(inside[1], line):
            rows += self._dict(inside[1], reader)
            return rows
        if "Total optimization steps" in line and (match := _TOTAL.search(line)) is not None:
            reader.stated_total = int(match[1].replace(",", ""))
        elif "Num Epochs" in line and (match := _EPOCHS.search(line)) is not None:
            reader.counter.announce(None, int(match[1].replace(",", "")))
        elif "logging_" in line:
            self._arguments(line)
        return rows if rows or (taken and "loss" not in line) else None

    @staticmethod
    def _is_ours(inside: dict[str, object], line: str) -> bool:
        """The Trainer's: no counter but the epoch, which is a fraction (`1.0`) or a quoted number."""
        if "step" in inside or "lr" in inside or "iteration" in inside or "global_step" in inside:
            return False
        return "train_runtime" in inside or (
            _EPOCH.search(line) is not None and ("learning_rate" in inside or "loss" in inside or _evaluated(inside))
        )

    def _bar(self, line: str, rows: list[Row], reader: RowReader) -> None:
        if not _DESCRIBED.match(line) or (match := _BAR.search(line)) is None or len(match[1]) > 15:
            return
        count, total = int(match[1]), int(match[2][:15])
        if self._buffered:
            if self._logging and 0 <= count - self._dicts * self._logging < self._logging:
                reader.stated_total = total
            return
        if self._waiting is not None and (self._total in (None, total) and count >= self._count):
            rows.append(self._placed(count, total, reader))
        elif self._drained is not None and total == self._total and count != self._drained:
            reader.late, self._drained = True, None
        self._bars.pop(total, None)
        self._bars[total] = count

    def _arguments(self, line: str) -> None:
        """`logging_steps=10,` of the printed TrainingArguments."""
        if not self._dicts and (match := _LOGGING.match(line)) is not None:
            self._logging = int(match[1])
        elif not self._dicts and _FIRST.match(line):
            self._first = 1

    def _check_interval(self) -> None:
        """Dicts come every `logging_steps` only if their epochs do: not after a resume, nor where others print too."""
        if self._fraction is None or self._first:
            self._logging = 0
        elif self._per_dict is None:
            self._per_dict = self._fraction
        elif abs(self._fraction - self._dicts * self._per_dict) > 0.006 * (self._dicts + 1):  # two decimals are printed
            self._logging = 0

    def _placed(self, count: int, total: int, reader: RowReader) -> Row:
        row, self._waiting = self._waiting, None
        assert row is not None
        row.at.step, self._count, self._total = count, count, total
        row.at.steps = None
        reader.stated_total = total
        return row

    def _dict(self, inside: dict[str, object], reader: RowReader) -> list[Row]:
        if self._waiting is not None and not self._count and self._bars:
            self._buffered = True  # two dicts and no bar between: the bars went another way
        rows = self.drain(reader)
        self._drained = None
        if "train_runtime" in inside:
            return rows
        row = self.maker.row(flat(inside), None, lists_of(inside))
        fraction, row.at.epoch = row.at.epoch, None
        if row.train and row.evals:
            row.evals.clear()
        if row.train:
            self._waiting, self._fraction = row, fraction
            self._dicts += 1
            self._check_interval()
        elif row.evals:
            rows.append(row)
        return rows

    def drain(self, reader: RowReader) -> list[Row]:
        """The dict that no bar has followed: at the bar before it, else one row more."""
        if self._waiting is None:
            return []
        if self._buffered or not self._bars:
            return [self._by_epoch(reader)]
        total = self._total if self._total in self._bars else next(reversed(self._bars), None)
        if total is not None and self._bars[total] > self._count:
            row = self._placed(self._bars[total], total, reader)
            self._drained = self._count
            return [row]
        row, self._waiting = self._waiting, None
        if self._count:
            self._count += 1
            row.at.step = self._count
        return [row]

    def _by_epoch(self, reader: RowReader) -> Row:
        """A dict without a bar: its epoch gives the step where the log says how many there are; else one row more."""
        row, self._waiting = self._waiting, None
        assert row is not None
        total, epochs = reader.stated_total, reader.counter.epochs
        if self._logging:
            row.at.step = self._count = max(self._dicts - self._first, 0) * self._logging or 1
        elif total and epochs and self._fraction is not None:
            step = round(self._fraction * total / epochs)
            if step > self._count:
                row.at.step = self._count = step
        return row


def _evaluated(inside: dict[str, object]) -> bool:
    return any(name.startswith("eval_") for name in inside)
