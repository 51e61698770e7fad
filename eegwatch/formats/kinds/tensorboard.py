"""A folder of TensorBoard event files, read by tensorboard itself.

Scalars are float32: a rate of 3e-4 comes back as 0.0003000000142. The tags are anyone's (`Loss/Training`, `lr-AdamW`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eegwatch.formats.collect import RowReader
from eegwatch.formats.files import Whole
from eegwatch.formats.rows import RowMaker
from eegwatch.formats.table import Head, Kind
from eegwatch.run.follow import FormatError
from eegwatch.run.records import RunRecord


class EventFiles(Whole):
    """The event files of one folder, as one log."""

    def __init__(self, folder: Path) -> None:
        """Raises FormatError where tensorboard is not installed."""
        try:
            from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        except ImportError:
            raise FormatError(f"{folder}: event files are read by tensorboard: pip install tensorboard") from None
        self.folder = folder
        self._accumulator = EventAccumulator
        self._taken: dict[str, int] = {}
        self._stamp: tuple[tuple[str, int, int], ...] = ()
        self._begin()

    def _begin(self) -> None:
        self._events: Any = self._accumulator(str(self.folder), size_guidance={"scalars": 0, "tensors": 0})
        self._taken = {}
        self._maker = RowMaker()
        self._reader = RowReader(self.folder.resolve().name, lr_precision="float32")

    def read(self, most: int) -> tuple[list[RunRecord], str | None, bool]:
        """As Followed: all that is new at once. Event files are only ever appended to."""
        files = sorted(self.folder.glob("*.tfevents.*"))
        stamp = tuple((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files)
        if stamp == self._stamp:
            return [], None, False
        reset = None
        sizes = {name: size for name, size, _ in stamp}
        if any(sizes.get(name, 0) < size for name, size, _ in self._stamp):
            self._begin()
            reset = "replaced"
        self._stamp = stamp
        self._events.Reload()
        records = self._read_rows()
        if self._reader.late and reset is None:
            # a tag is written later than the others of its step (Lightning's evaluation): what was passed on is void
            self._begin()
            self._events.Reload()
            return self._read_rows(), "read anew: values of one step came later", False
        return records, reset, False

    def _read_rows(self) -> list[RunRecord]:
        tags = self._events.Tags()
        rows: dict[int, dict[str, float]] = {}
        times: dict[int, float] = {}
        for tag in [*tags["scalars"], *tags["tensors"]]:
            events = self._values(tag, tag in tags["tensors"])
            for step, time, value in events[self._taken.get(tag, 0) :]:
                rows.setdefault(step, {})[tag] = value
                times.setdefault(step, time)
            self._taken[tag] = len(events)
        records: list[RunRecord] = []
        for step in sorted(rows):
            row = self._maker.row((tag, value, None) for tag, value in rows[step].items() if tag != "epoch")
            row.at.step, row.at.steps, row.at.epoch, row.at.batch = float(step), None, None, None
            records += self._reader.add(row, times[step])
        return records + self._reader.flush()

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


def _fits(head: Head) -> bool:
    return ".tfevents." in head.path.name


def _follow(path: Path, patterns: Sequence[object]) -> EventFiles:
    return EventFiles(path if path.is_dir() else path.parent)


KIND = Kind("TensorBoard events", "*.tfevents.*", 4, _fits, _follow, folder=True)
