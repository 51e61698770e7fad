"""Stores with one series per metric: new values are joined by step, and a step waits for its other metrics.

The newest step is passed on once the store has been left alone, or when a later step is there; a value that comes later
still is put where it belongs by reading the store anew, once.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from eegwatch.formats.files import LEFT_ALONE_S, FollowedDocument
from eegwatch.formats.row_reader import RowReader
from eegwatch.formats.rows import RowMaker
from eegwatch.run.records import RunRecord

Value = tuple[str, int, float, float]  # name, step, time (seconds since 1970), value
LATE = "read again: values of an earlier step arrived"


# what transformers logs once, at the end of a run: no step of it
SUMMARY = ("train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos", "train_loss")


class SeriesStore(FollowedDocument):
    """A store of series, as one log. `precision`: the floating-point type of its values, where it is not float64's."""

    precision: str | None = None

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self._stamp: object = None
        self._patient = False
        self._begin()

    def _begin(self) -> None:
        """Forget what was read."""
        self._maker = RowMaker()
        self._reader = RowReader(self.name, lr_precision=self.precision)
        self._rows: dict[int, dict[str, float]] = {}
        self._times: dict[int, float] = {}

    def look(self) -> tuple[object, float, bool]:
        """(a value that changes with the store, time of the last write, whether it was rewritten). Raises OSError."""
        raise NotImplementedError

    def new(self) -> Iterable[Value]:
        """Values since the last call, or since `_begin`."""
        raise NotImplementedError

    @property
    def left_out(self) -> int:
        return self._reader.counter.left_out

    def read(self, most: int) -> tuple[list[RunRecord], str | None, bool]:
        """As Followed."""
        try:
            stamp, written, replaced = self.look()
        except OSError:
            return [], None, False
        alone = time.time() - written > LEFT_ALONE_S
        if stamp == self._stamp and not (self._rows and alone):
            return [], None, False
        reset = "replaced" if replaced else None
        if replaced:
            self._begin()
        if stamp != self._stamp:
            self._take()
        self._stamp = stamp
        records = self._passed_on(alone)
        if self._reader.late and not self._patient:
            self._patient = True
            self._begin()
            self._take()
            return self._passed_on(alone), LATE, False
        return records, reset, False

    def _take(self) -> None:
        for name, step, when, value in self.new():
            self._rows.setdefault(step, {}).setdefault(name, value)
            self._times.setdefault(step, when)

    def _passed_on(self, alone: bool) -> list[RunRecord]:
        newest = max(self._rows, default=0)
        records: list[RunRecord] = []
        for step in sorted(self._rows):
            if step == newest and self._patient and not alone:
                break
            values = _without_summary(self._rows.pop(step))
            row = self._maker.row((name, value, None) for name, value in values.items() if name != "epoch")
            row.at.step, row.at.steps, row.at.epoch, row.at.batch = float(step), None, None, None
            records += self._reader.add(row, self._times.pop(step))
        return records + self._reader.flush()


def _without_summary(values: dict[str, float]) -> dict[str, float]:
    """The values of a step without the summary of the run, where one was logged at this step."""
    if not any(name.endswith("train_runtime") for name in values):
        return values
    return {name: value for name, value in values.items() if not name.endswith(SUMMARY)}
