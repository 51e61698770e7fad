"""The order in which a loader's sampler draws its indices, epoch by epoch, as sums: read as it is drawn.

The sampler's class is replaced by a subclass of it that looks on: `isinstance` holds, its attributes are its own, and
a copy or a pickle of it is of the class that it was.
"""

from __future__ import annotations

import copyreg
import zlib
from array import array
from collections.abc import Callable, Iterator
from typing import Any

from eegwatch.watching.dataset_identity import fingerprint
from eegwatch.watching.tensors import torch_module

COMPARED = 128  # indices of an epoch that are kept, to compare what ranks read
HEAD = 64  # indices whose sum is kept beside the whole: an epoch that was left early is compared by them
LARGEST = 1 << 63  # an index that is summed has 64 bits

Tell = Callable[[dict[str, Any]], None]


class SamplerOrder:
    """Looks on at one loader's sampler. `tell` takes what an epoch drew: {"sampler", "n", "size", "crc", "head"}."""

    def __init__(self, loader: Any, number: int, tell: Tell, guard: Callable[[], Any]) -> None:
        """Raises TypeError for a loader whose sampler cannot be looked at, with the reason."""
        self.number, self._tell, self.guard = number, tell, guard
        self.epoch = 0
        self.open: _Drawn | None = None
        sampler = getattr(getattr(loader, "batch_sampler", None), "sampler", None)
        if sampler is None:
            raise TypeError("the loader has no sampler of its own (an iterable data set, or a batch sampler of yours)")
        self.sampler, self.name = sampler, type(sampler).__name__
        self.once, self._data = reads_once(sampler), getattr(loader, "dataset", None)
        self._identity: str | None = None
        self._beside: dict[str, Any] = {}
        self.shuffles = shuffles(sampler)
        self.batch = getattr(loader, "batch_size", None)
        self._before = type(sampler)
        sampler.__class__ = _looking_on(type(sampler), self)

    def close(self) -> None:
        """Give the sampler its own class back, and hold neither it nor its data any more."""
        self.end()
        self.sampler.__class__ = self._before
        self.sampler = self._data = None

    def begun(self, drawn: _Drawn) -> None:
        self.end()
        self.epoch += 1
        self.open = drawn

    def so_far(self, step: int, beside: dict[str, Any]) -> None:
        """Tell what the epoch under way has drawn until now: ranks that read the same are seen at once."""
        if self.open is not None and self.open.n:
            self._identity = fingerprint(self._data)
            self._beside = beside
            self._tell(self._values(self.open) | {"partial": True, "step": step})

    def end(self) -> None:
        """The epoch under way is over: tell what it drew."""
        drawn, self.open = self.open, None
        if drawn is not None and drawn.n:
            with self.guard():
                self._tell(self._values(drawn))

    def _values(self, drawn: _Drawn) -> dict[str, Any]:
        of_loader = {"loader": self.number, "epoch": self.epoch, "sampler": self.name, "shuffles": self.shuffles}
        if self._identity is not None:
            of_loader |= {"data": self._identity, "once": self.once} | self._beside
        return of_loader | {"batch": self.batch} | drawn.summed()


class _Drawn:
    """What one epoch has drawn so far."""

    def __init__(self, size: int) -> None:
        """`size`: how many indices an epoch has; of them about COMPARED are kept, the same in every process."""
        self.n = 0
        self._crc = 0
        self._head: int | None = None
        self._waiting = array("q")
        self.whole = True
        self.every = max(1, size // COMPARED)
        self._some: set[int] = set()

    def add(self, index: Any) -> None:
        if type(index) is not int or not -LARGEST <= index < LARGEST:
            self.whole = False  # indices of another kind are not compared
            return
        self._waiting.append(index)
        if self.every == 1 or (index * 2654435761 & 0xFFFFFFFF) % self.every == 0:
            self._some.add(index)
        self.n += 1
        if len(self._waiting) == HEAD:
            self._sum()
            if self._head is None:
                self._head = self._crc

    def _sum(self) -> None:
        self._crc = zlib.crc32(self._waiting.tobytes(), self._crc)
        self._waiting = array("q")

    def summed(self) -> dict[str, Any]:
        crc = zlib.crc32(self._waiting.tobytes(), self._crc)
        head = {} if self._head is None else {"head": f"{self._head:08x}"}
        if not self.whole:
            return {"n": 0}
        return {"n": self.n, "crc": f"{crc:08x}", **head, "some": sorted(self._some), "every": self.every}


def _length(sampler: Any) -> int:
    try:
        return len(sampler)
    except Exception:  # a class of anybody's: what it raises is the loader's to tell of, if it asks at all
        return 0


def shuffles(sampler: Any) -> bool:
    """Is this one of torch's samplers that draw a new order each epoch, without replacement?

    A class of the script's own with another __iter__ may have any order on purpose.
    """
    data = torch_module().utils.data
    if _draws_as(sampler, data.distributed.DistributedSampler):
        return bool(sampler.shuffle)
    if _draws_as(sampler, data.RandomSampler):
        return not sampler.replacement
    return _draws_as(sampler, data.SubsetRandomSampler)


def reads_once(sampler: Any) -> bool:
    """Is this one of torch's samplers that draw no sample twice in an epoch?"""
    return shuffles(sampler) or any(
        _draws_as(sampler, kind)
        for kind in (torch_module().utils.data.SequentialSampler, torch_module().utils.data.DistributedSampler)
    )


def _draws_as(sampler: Any, kind: Any) -> bool:
    own = type(sampler).__iter__ is kind.__iter__ or type(sampler).__module__.startswith("accelerate.")
    return isinstance(sampler, kind) and own


def _looking_on(kind: type, order: SamplerOrder) -> type:
    def __iter__(self: Any) -> Iterator[Any]:
        drawn: _Drawn | None = None
        with order.guard():
            drawn = _Drawn(_length(self))
            order.begun(drawn)
        for index in kind.__iter__(self):  # type: ignore[attr-defined]
            if drawn is not None:
                drawn.add(index)
            yield index
        if drawn is not None and order.open is drawn:
            order.end()

    def __reduce_ex__(self: Any, protocol: Any) -> Any:
        return copyreg.__newobj__, (kind,), dict(self.__dict__)  # type: ignore[attr-defined]

    return type(
        kind.__name__, (kind,), {"__iter__": __iter__, "__reduce_ex__": __reduce_ex__, "__module__": kind.__module__}
    )
