"""What one epoch of a sampler has drawn, as sums, and whether the sampler was asked for a new order each epoch."""

from __future__ import annotations

import zlib
from array import array
from typing import Any

from eegwatch.watching.tensors import torch_module
from eegwatch.watching.workers import states

COMPARED = 128  # indices of an epoch that are kept, to compare what ranks and attempts read
HEAD = 64  # indices whose sum is kept beside the whole: an epoch that was left early is compared by them
FIRST_MARK = 16  # indices whose sum is kept, then twice as many each time: 16! orders are alike once in 1e13
LARGEST = 1 << 63  # an index that is summed has 64 bits
LOOKED = 3  # epochs in which random numbers that a sampler of the script's own draws are looked for
LOOKS_ON = "_eegwatch_looks_on"  # marks the class that a sampler which is looked at has
DEEP = 2  # attributes of attributes in which another sampler is looked for


class EpochDraws:
    """What one epoch has drawn so far. `source`: the sampler that draws."""

    def __init__(self, size: int, source: SamplerIntent) -> None:
        """`size`: how many indices an epoch has; of them about COMPARED are kept, the same in every process."""
        self.n, self.size, self.source = 0, size, source
        self._crc = 0
        self._marks: dict[int, str] = {}
        self._mark = FIRST_MARK
        self._waiting = array("q")
        self.whole = True
        self.ascends = True
        self._last = -LARGEST
        self.batches = 0  # that a batch sampler of the script's own has drawn
        self._breaks = 0  # places where an index is not the one after the last
        self.every = max(1, size // COMPARED)
        self._some: set[int] = set()

    def add(self, index: Any) -> None:
        """An index was drawn, or a list of them."""
        if type(index) is not int:
            if isinstance(index, list | tuple):
                for one in index:
                    self.add(one)
                return
            index = _as_int(index)
        if index is None or not -LARGEST <= index < LARGEST:
            self.whole = False  # indices of another kind are not compared
            return
        self._waiting.append(index)
        if index != self._last + 1:
            self._breaks += 1
            if index < self._last:
                self.ascends = False
        self._last = index
        if self.every == 1 or (index * 2654435761 & 0xFFFFFFFF) % self.every == 0:
            self._some.add(index)
        self.n += 1
        if self.n == self._mark:
            self._sum()
            self._marks[self.n] = f"{self._crc:08x}"
            self._mark *= 2
        elif len(self._waiting) == HEAD:
            self._sum()

    def _sum(self) -> None:
        self._crc = zlib.crc32(self._waiting.tobytes(), self._crc)
        self._waiting = array("q")

    def summed(self) -> dict[str, Any]:
        """{"n", "crc", "head", "marks", "ascends", "some", "every", "length"}; {"n": 0} where not all were integers."""
        if not self.whole:
            return {"n": 0}
        crc = zlib.crc32(self._waiting.tobytes(), self._crc)
        values = {"n": self.n, "crc": f"{crc:08x}", "marks": {str(n): one for n, one in self._marks.items()}}
        if HEAD in self._marks:
            values["head"] = self._marks[HEAD]
        if self.ascends:
            values["ascends"] = True
        if self.source.asks is not None:  # what is drawn may be batches or blocks of indices that stay together
            values["units"] = self.batches or self._breaks
        return values | {
            "length": self.size,
            "some": sorted(self._some),
            "every": self.every,
            "distinct": len(self._some),
        }


def _as_int(index: Any) -> int | None:
    """A number of numpy's, or a tensor of one integer on the CPU, as an integer; None of anything else."""
    kind = getattr(getattr(index, "dtype", None), "kind", None)  # of numpy's types alone
    if kind in ("i", "u") and getattr(index, "ndim", 1) == 0:
        return int(index)
    torch = torch_module()
    if isinstance(index, torch.Tensor) and index.dim() == 0 and index.device.type == "cpu":
        return None if index.is_floating_point() or index.is_complex() else int(index)
    return None


class SamplerIntent:
    """A sampler as it draws: its class, and whether it was asked for a new order in each epoch.

    `shuffles`: torch's own, which draws a new order each time. `asks`: a class of the script's own of which something
    says that it is meant to, in words. `once`: no sample is drawn twice in an epoch. `weighted`: nor here, where torch
    draws by weights. `sequential`: torch's own that draws the indices as they come, the same in each epoch.
    """

    def __init__(self, kind: type) -> None:
        self._kind, self.name = kind, kind.__name__
        self.shuffles = self.redraws = self.once = self.weighted = self.sequential = False
        self.asks: str | None = None
        self._replicas = 0
        self._epochs = 0
        self._states: dict[str, str] | None = None

    @property
    def draws_anew(self) -> bool:
        """Does each epoch have an order of its own?"""
        return self.shuffles or self.redraws or self.weighted

    def read(self, sampler: Any) -> SamplerIntent:
        """An epoch begins."""
        self.shuffles, self.redraws = shuffles(sampler), redraws(sampler)
        self.once, self.weighted, self.sequential = reads_once(sampler), by_weights(sampler), in_sequence(sampler)
        replicas = getattr(sampler, "num_replicas", 0)
        self._replicas = replicas if isinstance(replicas, int) else 0
        self._epochs += 1
        if not self.shuffles and not self.redraws and not self.once:
            self.asks = self.asks or asked_for(sampler)
            self.waits(sampler)
        return self

    def waits(self, sampler: Any) -> None:
        """What comes next is drawn by the sampler alone: it is looked whether random numbers are."""
        told = self.shuffles or self.redraws or self.once or self.asks is not None
        self._states = None if told or self._epochs > LOOKED else states(sampler)

    def drew(self, sampler: Any) -> None:
        """It has drawn what it draws at its begin, or its first index."""
        before, self._states = self._states, None
        if before is not None and getattr(sampler, "shuffle", None) is not False and states(sampler) != before:
            self.asks = "draws random numbers"

    def values(self) -> dict[str, Any]:
        """What stands of it in a record."""
        values: dict[str, Any] = {"sampler": self.name, "shuffles": self.shuffles or self.redraws}
        if self.redraws:
            values["redraws"] = True
        if self.asks is not None:
            values["asks"] = self.asks
        if self._replicas > 1:
            values["replicas"] = self._replicas
        if self.sequential:
            values["sequential"] = True
        return values


def asked_for(sampler: Any) -> str | None:
    """What says of a sampler of the script's own that it is to draw a new order each epoch; None: nothing does."""
    held = getattr(sampler, "__dict__", {})
    if held.get("shuffle", True) is False:
        return None
    data = torch_module().utils.data
    drawing = (data.RandomSampler, data.SubsetRandomSampler, data.WeightedRandomSampler)
    distributed = data.distributed.DistributedSampler
    if isinstance(sampler, drawing) or (isinstance(sampler, distributed) and sampler.shuffle):
        return f"is a {next(kind.__name__ for kind in (*drawing, distributed) if isinstance(sampler, kind))}"
    for one in _held_within(held, DEEP):
        if isinstance(one, drawing) or (isinstance(one, distributed) and one.shuffle):
            return f"holds a {type(one).__name__}"
    if held.get("shuffle") is True:
        return "has shuffle=True"
    return "has a set_epoch()" if callable(getattr(sampler, "set_epoch", None)) else None


def _held_within(held: dict[str, Any], deep: int) -> list[Any]:
    """The samplers among the attributes, and what those hold."""
    kind = torch_module().utils.data.Sampler
    found = [one for one in held.values() if isinstance(one, kind)]
    for one in list(found) if deep else ():
        found += _held_within(getattr(one, "__dict__", {}), deep - 1)
    return found


def shuffles(sampler: Any) -> bool:
    """Is this one of torch's samplers that draw a new order each epoch, without replacement?

    A class of the script's own with another __iter__ may have any order on purpose.
    """
    data = torch_module().utils.data
    if draws_as(sampler, data.distributed.DistributedSampler):
        return bool(sampler.shuffle)
    if draws_as(sampler, data.RandomSampler):
        return not sampler.replacement
    return draws_as(sampler, data.SubsetRandomSampler)


def redraws(sampler: Any) -> bool:
    """Is this one of torch's samplers that draw with replacement?"""
    data = torch_module().utils.data
    if draws_as(sampler, data.RandomSampler):
        return bool(sampler.replacement)
    return draws_as(sampler, data.WeightedRandomSampler) and bool(sampler.replacement)


def reads_once(sampler: Any) -> bool:
    """Is this one of torch's samplers that draw no sample twice in an epoch?"""
    return shuffles(sampler) or any(
        draws_as(sampler, kind)
        for kind in (torch_module().utils.data.SequentialSampler, torch_module().utils.data.DistributedSampler)
    )


def by_weights(sampler: Any) -> bool:
    """Is this torch's sampler by weights, without replacement?"""
    return draws_as(sampler, torch_module().utils.data.WeightedRandomSampler) and not sampler.replacement


def in_sequence(sampler: Any) -> bool:
    """Is this one of torch's samplers that draw the indices as they come?"""
    data = torch_module().utils.data
    if draws_as(sampler, data.distributed.DistributedSampler):
        return not sampler.shuffle
    return draws_as(sampler, data.SequentialSampler)


def draws_as(sampler: Any, kind: Any) -> bool:
    """Does it draw as this class of torch's does?"""
    for own in type(sampler).__mro__:
        if "__iter__" in vars(own) and LOOKS_ON not in vars(own):
            iterates = vars(own)["__iter__"]
            break
    else:
        return False
    accelerates = type(sampler).__module__.startswith("accelerate.")
    return isinstance(sampler, kind) and (iterates is kind.__iter__ or accelerates)
