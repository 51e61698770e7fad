"""What a data set is beside its samples: plain values that the script changes, signs that it shuffles itself, its size.

Nothing is asked of it but its attributes and its length.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from eegwatch.watching.dataset_identity import fingerprint
from eegwatch.watching.sampler_draws import draws_as
from eegwatch.watching.tensors import torch_module
from eegwatch.watching.workers import generators_of

DEEP, LONG, MANY = 3, 32, 256  # attributes deep, entries of a list or a dictionary, objects that are looked at
SHARED = 16  # elements of a tensor in shared memory through which workers may be told of something
REDRAWS = ("set_epoch", "on_epoch_end", "reshuffle")  # methods of data sets that draw an order of their own


class DatasetChanges:
    """The plain values of one loader's data set, held against what persistent workers have copied of them."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._copied: dict[str, Any] | None = None  # what the workers were started with
        self._identity: str | None = None
        self.changed = False  # did the data set change between this epoch's begin and the last one's?

    def begun(self, *, sequential: bool) -> dict[str, Any] | None:
        """An epoch begins. {"names", "n"} of plain values that changed since the workers were started, else None.

        `sequential`: the data are read in their order, so that it counts whether they have another one by now.
        """
        try:
            return self._compared(sequential=sequential)
        except Exception:  # a data set of any make: its attributes may raise anything, and then it is not compared
            return None

    def _compared(self, *, sequential: bool) -> dict[str, Any] | None:
        if sequential:
            before, self._identity = self._identity, fingerprint(self._loader.dataset)
            self.changed = before is not None and before != self._identity
        if not getattr(self._loader, "persistent_workers", False) or not getattr(self._loader, "num_workers", 0):
            return None
        started = getattr(self._loader, "_iterator", None) is None
        if started or self._copied is None:  # its workers are being started, with all that the data set has now
            self._copied = dict(_plain(self._loader.dataset)) if not _is_told(self._loader.dataset) else None
            return None
        now = dict(_plain(self._loader.dataset))
        names = [name for name, value in self._copied.items() if name in now and now[name] != value]
        return {"n": len(names), "names": names[:5]}

    def close(self) -> None:
        """Hold nothing any more."""
        self._loader = None


def has_own_order(data: Any) -> bool:
    """Does something say that the data set draws an order or samples by itself, whatever index it is asked for?"""
    try:
        shuffles = any(callable(getattr(one, name, None)) for one in _within(data) for name in REDRAWS)
        return shuffles or getattr(data, "shuffle", None) is True or bool(generators_of(data))
    except Exception:  # as above: nothing is known of its order
        return True


def asked_to_shuffle(data: Any) -> str | None:
    """What says of a stream that each epoch is to be in another order; None: nothing does.

    A stream of `datasets` has a set_epoch() whether it is shuffled or not, and so has what accelerate makes of any.
    """
    try:
        return _asked(data)
    except Exception:  # as above: nothing is known of what it is meant to do
        return None


def _asked(data: Any) -> str | None:
    for one in _within(data):
        if getattr(one, "shuffle", None) is False:
            return None
        if getattr(one, "shuffle", None) is True:
            return "has shuffle=True"
        if hasattr(one, "_shuffling"):
            return "is shuffled" if one._shuffling is not None else None
    own = [one for one in _within(data) if type(one).__module__.split(".")[0] not in ("accelerate", "transformers")]
    told = any(callable(getattr(one, "set_epoch", None)) for one in own)
    return "has a set_epoch()" if told else None


def sizes(loader: Any) -> dict[str, Any] | None:
    """{"indices", "samples", "sampler"}: how many a sampler of torch's draws among, and how many the data set has.

    None where one of them is not known.
    """
    data = torch_module().utils.data
    batches = getattr(loader, "batch_sampler", None)
    sampler = getattr(batches if batches is not None else loader, "sampler", None)
    of_kinds = (
        (data.RandomSampler, "data_source"),
        (data.SequentialSampler, "data_source"),
        (data.WeightedRandomSampler, "weights"),
        (data.distributed.DistributedSampler, "dataset"),
    )
    drawn = next((getattr(sampler, name, None) for kind, name in of_kinds if draws_as(sampler, kind)), None)
    try:
        return {"indices": len(drawn), "samples": len(loader.dataset), "sampler": type(sampler).__name__}  # type: ignore[arg-type]
    except Exception:  # a class of anybody's: what has no length is not compared
        return None


def _within(data: Any) -> list[Any]:
    """The data set, and those that it is a part of or is made of."""
    found: list[Any] = []
    waiting = [data]
    while waiting and len(found) < LONG:
        one = waiting.pop(0)
        found.append(one)
        inner = [getattr(one, "dataset", None), *list(getattr(one, "datasets", None) or ())[:LONG]]
        waiting += [part for part in inner if hasattr(part, "__getitem__") or hasattr(part, "__iter__")]
    return found


def _walked(data: Any) -> Iterator[tuple[str, Any]]:
    """(place, what lies there) of what the data set holds, a few attributes deep."""
    seen: set[int] = set()
    waiting = [("", data, 0)]
    while waiting and len(seen) < MANY:
        place, one, deep = waiting.pop(0)
        if isinstance(one, bool | int | float | str):
            yield place.lstrip("."), one
            continue
        if id(one) in seen or isinstance(one, type):
            continue
        seen.add(id(one))
        yield place.lstrip("."), one
        if deep == DEEP:
            continue
        if isinstance(one, list | tuple):
            parts = [(f"{place}[{number}]", part) for number, part in enumerate(one)] if len(one) <= LONG else []
        elif isinstance(one, dict):
            parts = [(f"{place}[{key!r}]", part) for key, part in one.items()] if len(one) <= LONG else []
        else:
            parts = [(f"{place}.{name}", part) for name, part in getattr(one, "__dict__", {}).items()]
        waiting += [(name, part, deep + 1) for name, part in parts]


def _plain(data: Any) -> Iterator[tuple[str, Any]]:
    for place, one in _walked(data):
        if isinstance(one, bool | int | float | str) and one == one:
            yield place, one


def _is_told(data: Any) -> bool:
    """Does it hold something that its workers see too: a value in shared memory, a queue, a manager's object?"""
    torch = torch_module()
    for _, one in _walked(data):
        if type(one).__module__.split(".")[0] in ("multiprocessing", "ctypes", "_ctypes", "mmap"):
            return True
        if isinstance(one, torch.Tensor) and one.device.type == "cpu" and one.numel() <= SHARED and one.is_shared():
            return True
    return False
