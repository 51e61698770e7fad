"""Logs that are read anew when they change: Hugging Face's trainer_state.json, TensorBoard's event files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from eegwatch.formats.rows import RowReader, meaning
from eegwatch.formats.tables import numbers
from eegwatch.run.follow import FormatError
from eegwatch.run.records import RunRecord


class Whole:
    """What a log that is read anew has in common: no lines to count as bad, nothing held open between two looks."""

    bad = 0

    def close(self) -> None: ...


class TrainerState(Whole):
    """`trainer_state.json`: the Trainer's log history, rewritten with every checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, ...] = ()
        self._taken = 0
        self._reader = self._new_reader()

    def _new_reader(self) -> RowReader:
        parent = self.path.parent
        return RowReader(parent.parent.name if parent.name.startswith("checkpoint-") else parent.name)

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
            state: dict[str, Any] = msgspec.json.decode(self.path.read_bytes())
            history = state["log_history"]
        except (msgspec.DecodeError, KeyError, TypeError):
            return [], None, False  # it is being written: the next look finds it whole
        self._stamp, reset = stamp, None
        if len(history) < self._taken:
            self._taken, self._reader, reset = 0, self._new_reader(), "replaced"
        reader = self._reader
        reader.total_steps = int(state.get("max_steps") or 0) or None
        epochs = round(float(state.get("num_train_epochs") or 0))
        if epochs and reader.total_steps:
            reader.epochs, reader.steps_per_epoch = epochs, -(-reader.total_steps // epochs)
        records: list[RunRecord] = []
        for entry in history[self._taken :]:
            row = numbers(entry)
            row.pop("epoch", None)  # a fraction here
            records += reader.row(row, status.st_mtime)
        self._taken = len(history)
        return records + reader.flush(), reset, False


class EventFiles(Whole):
    """A folder of TensorBoard event files, read by tensorboard itself."""

    def __init__(self, folder: Path) -> None:
        """Raises FormatError where tensorboard is not installed."""
        try:
            from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        except ImportError:
            raise FormatError(f"{folder}: event files are read by tensorboard: pip install tensorboard") from None
        self.folder = folder
        self._events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
        self._taken: dict[str, int] = {}
        self._stamp: tuple[tuple[int, int], ...] = ()
        self._reader = RowReader(folder.name)

    def read(self, most: int) -> tuple[list[RunRecord], str | None, bool]:
        """As Followed: all that is new at once. Event files are only ever appended to."""
        files = sorted(self.folder.glob("events.out.tfevents.*"))
        stamp = tuple((path.stat().st_size, path.stat().st_mtime_ns) for path in files)
        if stamp == self._stamp:
            return [], None, False
        self._stamp = stamp
        self._events.Reload()
        tags = self._events.Tags()
        rows: dict[int, dict[str, float]] = {}
        times: dict[int, float] = {}
        for tag in [*tags["scalars"], *tags["tensors"]]:
            if meaning(tag) is None:
                continue
            events = self._values(tag, tag in tags["tensors"])
            begun = self._taken.get(tag, 0)
            for step, time, value in events[begun:]:
                rows.setdefault(step, {})[tag] = value
                times[step] = time
            self._taken[tag] = len(events)
        records: list[RunRecord] = []
        for step in sorted(rows):
            records += self._reader.row(rows[step] | {"step": float(step)}, times[step])
        return records + self._reader.flush(), None, False

    def _values(self, tag: str, tensor: bool) -> list[tuple[int, float, float]]:
        if not tensor:
            return [(e.step, e.wall_time, float(e.value)) for e in self._events.Scalars(tag)]
        from tensorboard.util import tensor_util

        found = []
        for event in self._events.Tensors(tag):
            value = tensor_util.make_ndarray(event.tensor_proto)
            if value.size == 1 and value.dtype.kind in "fiu":
                found.append((event.step, event.wall_time, float(value.reshape(()))))
        return found
