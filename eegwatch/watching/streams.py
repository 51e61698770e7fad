"""Sums of the samples of a stream, so that the samples that several ranks read can be compared.

A stream has no indices. A few bytes of each sample are summed, within a share of the time; nothing else of it is kept.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from eegwatch.watching.samples import sum_of, summed_up

KEPT = 256  # sums of an epoch that are kept; with more of them every second, fourth, … by its value
BYTES = 4096  # of a tensor or an array that are summed
EPOCHS = 4  # whose first batches are compared
SHARE, ALLOWANCE_S = 0.003, 0.05  # of the time that summing may take, and seconds at first


class SampleSums:
    """The sums of the samples of one epoch, as one process reads them."""

    def __init__(self) -> None:
        self._sums: set[int] = set()
        self._every = 1
        self._seen = self._repeats = self._batches = 0
        self._readable = True
        self._spent = 0.0
        self._began: float | None = None

    def add(self, samples: Any) -> bool:
        """Take a batch before it is collated. Is it time to tell: after 4, 16, 64, … batches?"""
        now = time.perf_counter()
        self._began = now if self._began is None else self._began
        self._batches += 1
        if self._readable and self._spent <= ALLOWANCE_S + SHARE * (now - self._began):
            for sample in samples if isinstance(samples, list | tuple) else [samples]:
                self._take(sum_of(sample, BYTES))
            self._spent += time.perf_counter() - now
        power = self._batches.bit_length() - 1
        return self._batches >= 4 and self._batches == 1 << power and power % 2 == 0

    def _take(self, sum_of: int | None) -> None:
        if sum_of is None:
            self._readable = False
            return
        self._seen += 1
        if sum_of % self._every:
            return
        if sum_of in self._sums:
            self._repeats += 1
        self._sums.add(sum_of)
        if len(self._sums) > KEPT:
            self._every *= 2
            self._sums = {one for one in self._sums if not one % self._every}

    def values(self) -> dict[str, Any] | None:
        """{"some", "every", "seen", "repeats"}; None where nothing was read, or not all of it can be."""
        if not self._readable or not self._seen:
            return None
        return {"some": sorted(self._sums), "every": self._every, "seen": self._seen, "repeats": self._repeats}


class StreamSamples:
    """A collate_fn of a stream that is read in this process. `first`: what its first batch was.

    `sums`: are its samples compared with those of other ranks? `asks`: what says that each epoch is to have another
    order; the first batches of the first epochs are told of then.
    """

    def __init__(
        self,
        loader: Any,
        number: int,
        guard: Callable[[], Any],
        tell: Callable[[str, Any], None],
        *,
        sums: bool,
        asks: str | None,
    ) -> None:
        self._inner, self._loader, self._number = loader.collate_fn, loader, number
        self._guard, self._tell, self._asks = guard, tell, asks
        self.first: dict[str, Any] | None = None
        self._summed = sums
        self._at_first = True  # is the next batch the first of its epoch?
        self._epoch, self._sums = 1, SampleSums()
        loader.collate_fn = self

    def __call__(self, samples: Any) -> Any:
        if self._at_first or self._summed:
            with self._guard():
                self._take(samples)
        return self._inner(samples)

    def _take(self, samples: Any) -> None:
        if self._at_first and self._epoch <= EPOCHS:
            size = len(samples) if isinstance(samples, list | tuple) else 1
            first = {"loader": self._number, "size": size, **summed_up(samples, BYTES)}
            self.first = self.first or first
            if self._asks is not None:
                self._tell("stream", {"begins": True, "asks": self._asks, "epoch": self._epoch} | first)
        self._at_first = False
        if self._summed and self._sums.add(samples):
            self._tell_sums()

    def begun(self) -> None:
        """Another epoch of the loader begins."""
        if not self._at_first:
            if self._summed:
                self._tell_sums()
            self._epoch += 1
            self._at_first, self._sums = True, SampleSums()

    def _tell_sums(self) -> None:
        values = self._sums.values()
        if values is not None:
            self._tell("stream", {"loader": self._number, "epoch": self._epoch, **values})

    def close(self) -> None:
        """Tell of the epoch under way, and give the loader its own function back."""
        if self._loader.collate_fn is self:
            self._loader.collate_fn = self._inner
            with self._guard():
                if self._summed:
                    self._tell_sums()


def is_stream(loader: Any) -> bool:
    """Does this loader read an iterable data set?"""
    return isinstance(getattr(loader, "dataset", None), sys.modules["torch.utils.data"].IterableDataset)
