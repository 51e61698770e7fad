"""Sums of the samples of a stream, so that the samples that several ranks read can be compared.

A stream has no indices. A few bytes of each sample are summed, within a share of the time; nothing else of it is kept.
"""

from __future__ import annotations

import sys
import time
import zlib
from collections.abc import Callable
from typing import Any

from eegwatch.watching.workers import SUMMED, summed_up

KEPT = 256  # sums of an epoch that are kept; with more of them every second, fourth, … by its value
BYTES = 4096  # of a tensor or an array that are summed
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
                self._take(brief(sample))
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


def brief(sample: Any) -> int | None:
    """A sum of some of what a sample holds, the same in every process; None where nothing in it can be read."""
    crc, read = 0, 0
    waiting = [sample]
    while waiting and read < SUMMED:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += list(one.values())
        elif isinstance(one, list | tuple):
            waiting += list(one)
        elif hasattr(one, "numpy") and hasattr(one, "detach"):
            crc, read = _of_array(one.detach().cpu().numpy(), crc), read + 1
        elif hasattr(one, "tobytes") and hasattr(one, "reshape"):
            crc, read = _of_array(one, crc), read + 1
        elif isinstance(one, int | float | str | bytes):
            crc, read = zlib.crc32(repr(one).encode()[:BYTES], crc), read + 1
    return crc if read else None


def _of_array(array: Any, crc: int) -> int:
    flat = array.reshape(-1)
    stride = max(1, flat.size * flat.dtype.itemsize // BYTES)
    return zlib.crc32(flat[::stride].tobytes(), zlib.crc32(repr(array.shape).encode(), crc))


class StreamSamples:
    """A collate_fn of a stream that is read in this process. `first`: what its first batch was."""

    def __init__(self, loader: Any, number: int, guard: Callable[[], Any], tell: Callable[[str, Any], None]) -> None:
        self._inner, self._loader, self._number = loader.collate_fn, loader, number
        self._guard, self._tell = guard, tell
        self.first: dict[str, Any] | None = None
        self._told = False
        self._epoch, self._sums = 1, SampleSums()
        loader.collate_fn = self

    def __call__(self, samples: Any) -> Any:
        with self._guard():
            if not self._told:
                self._told = True
                size = len(samples) if isinstance(samples, list | tuple) else 1
                self.first = {"loader": self._number, "size": size, **summed_up(samples)}
            if self._sums.add(samples):
                self._tell_sums()
        return self._inner(samples)

    def begun(self) -> None:
        """Another epoch of the loader begins."""
        if self._told:
            self._tell_sums()
            self._epoch += 1
            self._sums = SampleSums()

    def _tell_sums(self) -> None:
        values = self._sums.values()
        if values is not None:
            self._tell("stream", {"loader": self._number, "epoch": self._epoch, **values})

    def close(self) -> None:
        """Tell of the epoch under way, and give the loader its own function back."""
        if self._loader.collate_fn is self:
            self._loader.collate_fn = self._inner
            with self._guard():
                self._tell_sums()


def is_stream(loader: Any) -> bool:
    """Does this loader read an iterable data set?"""
    return isinstance(getattr(loader, "dataset", None), sys.modules["torch.utils.data"].IterableDataset)
