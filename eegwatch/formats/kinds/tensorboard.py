"""A folder of TensorBoard event files, read by tensorboard itself.

Scalars are float32: a rate of 3e-4 comes back as 0.0003000000142. The tags are anyone's (`Loss/Training`, `lr-AdamW`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from eegwatch.formats.kinds.metric_series import SeriesStore, Value
from eegwatch.formats.log_kind import FileHead, LogKind
from eegwatch.run.follow import FormatError


class EventFiles(SeriesStore):
    """The event files of one folder, as one log. They are only ever appended to."""

    precision = "float32"

    def __init__(self, folder: Path) -> None:
        """Raises FormatError where tensorboard is not installed."""
        try:
            from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        except ImportError:
            raise FormatError(f"{folder}: event files are read by tensorboard: pip install tensorboard") from None
        self._accumulator = EventAccumulator
        self._sizes: dict[str, int] = {}
        super().__init__(folder, folder.resolve().name)

    def _begin(self) -> None:
        super()._begin()
        self._events: Any = self._accumulator(str(self.path), size_guidance={"scalars": 0, "tensors": 0})
        self._taken: dict[str, int] = {}

    def look(self) -> tuple[object, float, bool]:
        """As SeriesStore."""
        stats = {path.name: path.stat() for path in sorted(self.path.glob("*.tfevents.*"))}
        sizes = {name: status.st_size for name, status in stats.items()}
        replaced = any(sizes.get(name, 0) < size for name, size in self._sizes.items())
        self._sizes = sizes
        written = max((status.st_mtime for status in stats.values()), default=0.0)
        return tuple((name, status.st_size, status.st_mtime_ns) for name, status in stats.items()), written, replaced

    def new(self) -> Iterator[Value]:
        """As SeriesStore."""
        self._events.Reload()
        tags = self._events.Tags()
        scalars, tensors = tags["scalars"], tags["tensors"]
        self._maker.sum_components = any(tag.startswith("metrics/mAP") for tag in scalars)  # YOLO's: as in results.csv
        for tag in [*scalars, *tensors]:
            events = self._values(tag, tag in tensors)
            for step, time, value in events[self._taken.get(tag, 0) :]:
                yield tag, step, time, value
            self._taken[tag] = len(events)

    def _values(self, tag: str, tensor: bool) -> list[tuple[int, float, float]]:
        if not tensor:
            return [(e.step, e.wall_time, float(e.value)) for e in self._events.Scalars(tag)]
        from tensorboard.util import tensor_util

        values = []
        for event in self._events.Tensors(tag):
            value = tensor_util.make_ndarray(event.tensor_proto)
            if value.size == 1 and value.dtype.kind in "fiu":
                values.append((event.step, event.wall_time, float(value.reshape(()))))
        return values


def _fits(head: FileHead) -> bool:
    return ".tfevents." in head.path.name


def _follow(path: Path, patterns: Sequence[object]) -> EventFiles:
    return EventFiles(path if path.is_dir() else path.parent)


KIND = LogKind("TensorBoard events", "*.tfevents.*", 4, _fits, _follow, folder=True)
