"""Hugging Face's trainer_state.json: the Trainer's log history, rewritten with every checkpoint.

    {"max_steps": 8660, "num_train_epochs": 4, "log_history": [{"step": 10, "loss": 2.5, "learning_rate": 5e-07, …}, …]}

The last entry holds `train_runtime` and `train_loss`, the mean over the run: no step. Read in
transformers.trainer_callback.TrainerState.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eegwatch.formats.csv_json import flat
from eegwatch.formats.files import FollowedDocument, beginning
from eegwatch.formats.log_kind import FileHead, LogKind
from eegwatch.formats.numerals import json_value
from eegwatch.formats.row_reader import RowReader
from eegwatch.formats.rows import RowMaker
from eegwatch.run.records import RunRecord

MOST_BYTES = 1 << 30
SUMMARY = ("train_runtime", "train_samples_per_second", "total_flos")


class TrainerState(FollowedDocument):
    """`trainer_state.json`, followed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, ...] = ()
        self._history: list[Any] = []
        self._begin()

    def _begin(self) -> None:
        parent = self.path.resolve().parent
        name = parent.parent.name if parent.name.startswith("checkpoint-") else parent.name
        self._reader = RowReader(name, lr_precision="float64")  # Python's json writes every bit: a 0.0 is 0
        self._maker = RowMaker()
        self._taken = 0
        self.bad = 0

    def read(self, most: int) -> tuple[list[RunRecord], str | None, bool]:
        """As Followed: all that is new at once."""
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return [], None, False
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        if stamp == self._stamp:
            return [], None, False
        try:
            state = json_value(beginning(self.path, MOST_BYTES))
        except ValueError:
            return [], None, False  # it is being written: the next look finds it whole
        history = state.get("log_history") if isinstance(state, dict) else None
        if not isinstance(history, list):
            return [], None, False
        self._stamp, reset = stamp, None
        if len(history) < self._taken or history[: min(self._taken, 1)] != self._history:
            self._begin()
            reset = "replaced" if self._history else None
        self._history = history[:1]
        self._lengths(state)
        records: list[RunRecord] = []
        for entry in history[self._taken :]:
            records += self._entry(entry, status.st_mtime)
        self._taken = len(history)
        return records + self._reader.flush(), reset, False

    def _lengths(self, state: dict[str, Any]) -> None:
        reader = self._reader
        total, epochs = _number(state.get("max_steps")), _number(state.get("num_train_epochs"))
        reader.stated_total = int(total) if total else None
        if total and epochs and epochs == int(epochs):
            # an accumulated last group counts as a step, so that an epoch has a whole number of them
            reader.counter.epochs, reader.counter.per_epoch = int(epochs), math.ceil(total / epochs)

    def _entry(self, entry: Any, time: float) -> list[RunRecord]:
        if not isinstance(entry, dict) or "step" not in entry:
            self.bad += 1
            return []
        if any(name in entry for name in SUMMARY):
            return []
        row = self._maker.row(field for field in flat(entry) if field[0] != "epoch")  # the epoch is a fraction
        return self._reader.add(row, time)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 < value < 1 << 53 else None


def _fits(head: FileHead) -> bool:
    if not head.name.endswith(".json"):
        return False
    return head.name == "trainer_state.json" or (b'"log_history"' in head.data and b'"global_step"' in head.data)


def _follow(path: Path, patterns: Sequence[object]) -> TrainerState:
    return TrainerState(path)


KIND = LogKind("Hugging Face trainer state", "trainer_state.json", 5, _fits, _follow)
