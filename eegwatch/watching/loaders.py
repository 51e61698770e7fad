"""What the watched loaders do: the orders that their samplers draw, their workers, the samples of their streams."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eegwatch.watching.data_order import SamplerOrder
from eegwatch.watching.dataset_changes import asked_to_shuffle, sizes
from eegwatch.watching.streams import SampleSums, StreamSamples, is_stream
from eegwatch.watching.workers import Workers

if TYPE_CHECKING:
    from eegwatch.watching.watcher import Watcher


class Loaders:
    """The loaders of one watcher."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self.orders: list[SamplerOrder] = []
        self._workers: list[Workers] = []
        self._streams: list[StreamSamples] = []
        self._numbered = 0  # whose order is looked at

    def watch(self, loader: Any) -> None:
        """Look at this one too."""
        if any(order.is_of(loader) for order in self.orders):
            return
        began = self._wrapped(loader)
        before = next((order for order in self.orders if order.goes_on_in(loader)), None)
        watcher = self._watcher
        try:
            number = self._numbered if before is None else before.number
            order = SamplerOrder(loader, number, self._tell, watcher.guarded, watcher.declared.world, self._taken)
        except TypeError as error:
            watcher.emit("order", {"loader": self._numbered, "unread": str(error)})
            return
        order.began = began
        if before is None:
            self._numbered += 1
            size = sizes(loader)
            if size is not None:
                watcher.emit("loader", {"loader": number} | size)
        else:  # a script that makes its loader anew in each epoch
            order.epoch = before.epoch
            before.close()
            self.orders.remove(before)
        self.orders.append(order)

    def _wrapped(self, loader: Any) -> Callable[[], None] | None:
        """Wrap the loader's functions where its workers or its stream are looked at.

        Returns what is to be called when an epoch begins.
        """
        several, stream = self._watcher.declared.world > 1, is_stream(loader)
        asks = asked_to_shuffle(loader.dataset) if stream else None
        emit, collate = self._watcher.emit, getattr(loader, "collate_fn", None)
        if collate is None or isinstance(collate, StreamSamples):
            return None
        if getattr(loader, "num_workers", 0) and hasattr(loader, "worker_init_fn"):
            path = Path(tempfile.mkdtemp(prefix="eegwatch-")) / "workers"
            sums = SampleSums if several and stream else None
            self._workers.append(Workers(loader, len(self._workers), path, emit, sums, asks))
            return self._workers[-1].begun
        if not stream or not (several or asks):
            return None
        guard, number = self._watcher.guarded, len(self._streams)
        self._streams.append(StreamSamples(loader, number, guard, emit, sums=several, asks=asks))
        return self._streams[-1].begun

    def _tell(self, values: dict[str, Any]) -> None:
        if values.get("sequential") and any(order.shuffled for order in self.orders):
            values["beside"] = True  # a loader that shuffles is read too
        self._watcher.emit("order", values, step=values.pop("step", None))

    def _taken(self) -> int:
        return max((listener.taken for listener in self._watcher.listeners), default=0)

    def first_step(self, step: int, *, resumed: bool, trained: int) -> None:
        """The first step of the attempt comes, after step `step`; `trained`: batches that passed through the model."""
        for order in self.orders:
            order.first_step(step, resumed=resumed, trained=trained)

    def looked(self) -> None:
        """A step was looked at: tell what can be told by now."""
        for order in self.orders:
            order.settle()
        for loader in self._workers:
            loader.read()

    def so_far(self, step: int, beside: dict[str, Any]) -> None:
        """The first step of a job of several ranks: tell what each of them has read until now."""
        for order in self.orders:
            order.so_far(step, beside)
        for stream in self._streams:
            if stream.first is not None:
                self._watcher.emit("stream", stream.first | beside, step=step)

    def note(self, when: str, step: int) -> None:
        """Tell how far the epochs under way are drawn: at a checkpoint."""
        for order in self.orders:
            order.note(when, step)

    def end(self, step: int) -> None:
        """The run ends: tell what is left to be told."""
        for order in self.orders:
            order.note("end", step)
            order.close()
        for loader in self._workers:
            loader.close()

    def close(self) -> None:
        """Take everything off, whatever fails of it."""
        parts: tuple[Any, ...] = (*self.orders, *self._workers, *self._streams)
        for part in parts:
            with contextlib.suppress(Exception):  # each is taken off, whatever the others do
                part.close()
        self.orders, self._workers, self._streams = [], [], []
