"""The order in which a loader's sampler draws its indices, epoch by epoch, as sums: read as it is drawn.

The sampler's class is replaced by a subclass of it that looks on: `isinstance` holds, its attributes are its own, and
a copy or a pickle of it is of the class that it was. So is the class of a batch sampler of the script's own; what it
draws counts where it asks no sampler.
"""

from __future__ import annotations

import copyreg
import sys
from collections.abc import Callable, Iterator
from typing import Any

from eegwatch.watching.dataset_changes import DatasetChanges, has_own_order
from eegwatch.watching.dataset_identity import fingerprint
from eegwatch.watching.sampler_draws import FIRST_MARK, LOOKS_ON, EpochDraws, SamplerIntent
from eegwatch.watching.tensors import torch_module
from eegwatch.watching.workers import FirstBatchCollate

EPOCHS = 9  # whose steps are counted
CYCLES = 2  # epochs' worth of steps without a draw
Tell = Callable[[dict[str, Any]], None]


class SamplerOrder:
    """Looks on at one loader's sampler. `tell` takes what an epoch drew: {"sampler", "n", "length", "crc", "head"}.

    `taken` gives the steps that the watched optimizers have taken so far.
    """

    def __init__(
        self,
        loader: Any,
        number: int,
        tell: Tell,
        guard: Callable[[], Any],
        world: int = 1,
        taken: Callable[[], int] = int,
    ) -> None:
        """Raises TypeError for a loader whose sampler cannot be looked at, with the reason."""
        self.number, self._tell, self.guard, self._world = number, tell, guard, world
        self._taken, self._began_at = taken, 0
        self._drawn_out: tuple[int, int, int] | None = None  # (batches of the first epoch, its steps, steps until then)
        self._changes = DatasetChanges(loader)
        self._stale: int | None = None  # values of the data set that were told of as unknown to the workers
        self._own_order = False
        self.shuffled = False  # has it read in another order than that of the indices?
        self.epoch = 0
        self.open: EpochDraws | None = None
        self.began: Callable[[], None] | None = None  # called when an epoch begins
        self._loader, self._data = loader, getattr(loader, "dataset", None)
        self._identity: str | None = None
        self._beside: dict[str, Any] = {}
        self._first = 0  # indices that were drawn before the first step
        self._trained = 0  # batches that passed through the model before it
        self._resumed = False
        self._owed: int | None = None  # the last step before a resume that is still to be told of
        self.batch = getattr(loader, "batch_size", None)
        self._swapped: list[tuple[Any, type]] = []
        batches = getattr(loader, "batch_sampler", None)
        sampler = getattr(batches if batches is not None else loader, "sampler", None)
        own = batches is not None and _has_own_batches(batches)
        if sampler is None and not own:
            raise TypeError("the loader has no sampler of its own (an iterable data set, say)")
        self.kind: Any = type(sampler if sampler is not None else batches)
        if sampler is not None:
            self._look_on(sampler, _looking_on)
        if own:
            try:
                self._look_on(batches, _looking_on_batches)
            except TypeError:  # a list of batches, or a class with slots
                if sampler is None:
                    raise TypeError(f"a {type(batches).__name__} of batches cannot be looked at") from None

    def _look_on(self, sampler: Any, how: Callable[[type, SamplerOrder], type]) -> None:
        before = type(sampler)
        sampler.__class__ = how(before, self)
        self._swapped.append((sampler, before))

    def is_of(self, loader: Any) -> bool:
        """Does this look on at that loader's sampler already?"""
        batches = getattr(loader, "batch_sampler", None)
        both = [batches, getattr(batches if batches is not None else loader, "sampler", None)]
        return any(one is sampler for one, _ in self._swapped for sampler in both)

    def goes_on_in(self, loader: Any) -> bool:
        """Is that another loader of the same data, which was made when an epoch of this one was over?"""
        if loader is self._loader or self.open is not None or not self.epoch:
            return False
        batches = getattr(loader, "batch_sampler", None)
        sampler = getattr(batches if batches is not None else loader, "sampler", batches)
        return type(sampler) is self.kind and getattr(loader, "dataset", None) is self._data

    def close(self) -> None:
        """Give the sampler its own class back, and hold neither it nor its data any more."""
        self.end()
        for sampler, before in self._swapped:
            sampler.__class__ = before
        self._swapped = []
        self._loader = self._data = self.began = None
        self._changes.close()

    def begun(self, drawn: EpochDraws) -> None:
        """An epoch begins."""
        self.end()
        self.epoch += 1
        taken = self._taken()
        took, self._drawn_out = taken - self._began_at, None
        self.open, self._began_at = drawn, taken
        if took and 1 < self.epoch <= EPOCHS and not (self._resumed and self.epoch == 2):
            self._tell({"loader": self.number, "epoch": self.epoch, "took": took})  # the epoch before
        if self.began is not None:
            self.began()
        sequential = drawn.source.sequential
        self.shuffled = self.shuffled or not sequential
        if sequential and self.epoch == 1:
            self._own_order = has_own_order(self._data)
        stale = self._changes.begun(sequential=sequential)
        if stale is not None and stale["n"] != self._stale:
            self._stale = stale["n"]
            self._tell({"loader": self.number, "epoch": self.epoch, "stale": stale})

    def first_step(self, step: int, *, resumed: bool, trained: int) -> None:
        """The first step of the attempt comes, after step `step`: how far the epoch was drawn for it.

        `trained`: batches that passed through the model until then. More than a step's were left out by the script.
        """
        self._resumed, self._trained = resumed, trained
        self._first = 0 if self.open is None else self.open.n
        self._owed = step if resumed else None

    def settle(self) -> None:
        """Tell how a resume began, as soon as enough was drawn to know an order by."""
        if self._drawn_out is not None:
            self._cycled(*self._drawn_out)
        if self._owed is not None and self.open is not None and self.open.n >= FIRST_MARK:
            owed, self._owed = self._owed, None
            self.note("begin", owed)

    def _cycled(self, batches: int, steps: int, at: int) -> None:
        """Steps go on though the first epoch is drawn out and no other has begun: tell of two more epochs' worth."""
        waiting = getattr(self._loader, "num_workers", 0) * (getattr(self._loader, "prefetch_factor", None) or 0)
        since = self._taken() - at
        if not self._is_held():
            self._drawn_out = None
        elif since >= (CYCLES * batches + waiting) * max(1, -(-steps // batches)):
            self._drawn_out = None
            self._tell({"loader": self.number, "epoch": self.epoch, "cycled": since})

    def _is_held(self) -> bool:
        """Does anybody but the watcher hold the loader? One that is made anew in each epoch is dropped by then."""
        wrapped = getattr(self._loader, "collate_fn", None)
        own = 2 + isinstance(wrapped, FirstBatchCollate)  # this, its DatasetChanges, and the Workers
        return sys.getrefcount(self._loader) - 1 > own

    def note(self, when: str, step: int) -> None:
        """Tell how far the epoch under way is drawn: at a checkpoint, at the end, and when a resume begins."""
        if self.open is not None and self.open.n:
            values = {"partial": True, "when": when, "step": step, "first": self._first, "trained": self._trained}
            self._tell(self._values(self.open, whole=True) | values | {"resumed": self._resumed})

    def so_far(self, step: int, beside: dict[str, Any]) -> None:
        """Tell what the epoch under way has drawn until now: ranks that read the same are seen at once."""
        if self.open is not None and self.open.n:
            self._identity = fingerprint(self._data)
            self._beside = beside
            self._tell(self._values(self.open) | {"partial": True, "step": step})

    def end(self) -> None:
        """The epoch under way is over: tell what it drew."""
        drawn, self.open = self.open, None
        if drawn is not None and self.epoch == 1 and drawn.n > (self.batch or 1) and drawn.source.draws_anew:
            steps, batches = self._taken() - self._began_at, -(-drawn.n // (self.batch or 1))
            self._drawn_out = (batches, steps, self._taken()) if steps else None
        if drawn is not None and drawn.n:
            with self.guard():
                self._tell(self._values(drawn, whole=self._resumed and self.epoch == 1))

    def _values(self, drawn: EpochDraws, *, whole: bool = False) -> dict[str, Any]:
        of_loader: dict[str, Any] = {"loader": self.number, "epoch": self.epoch} | drawn.source.values()
        if self._identity is not None:
            once, weighted = drawn.source.once or drawn.source.weighted, drawn.source.weighted
            of_loader |= {"data": self._identity, "once": once} | ({"weighted": True} if weighted else {})
            of_loader |= self._beside
        if drawn.source.sequential:
            of_loader["steps"] = self._taken() - self._began_at
            if self._changes.changed or self._own_order:
                of_loader["own_order"] = True
        values = of_loader | {"batch": self.batch} | drawn.summed()
        if self._world < 2 and not whole:
            values.pop("some", None)
        return values


def _has_own_batches(batches: Any) -> bool:
    """Is this a batch sampler of the script's own, and not torch's or one of accelerate's around it?"""
    kind = type(batches)
    torchs = getattr(kind, "__iter__", None) is torch_module().utils.data.BatchSampler.__iter__
    return not torchs and not kind.__module__.startswith("accelerate.")


def _length(sampler: Any) -> int:
    try:
        return len(sampler)
    except Exception:  # a class of anybody's: what it raises is the loader's to tell of, if it asks at all
        return 0


def _looking_on(kind: type, order: SamplerOrder) -> type:
    intent = SamplerIntent(kind)

    def __iter__(self: Any) -> Iterator[Any]:
        # what draws its order here and not in its first step draws it before the loader draws the seed of its workers
        with order.guard():
            intent.read(self)
        iterator = kind.__iter__(self)  # type: ignore[attr-defined]
        with order.guard():
            intent.drew(self)
        return looked_at(self, iterator)

    def looked_at(sampler: Any, iterator: Iterator[Any]) -> Iterator[Any]:
        drawn: EpochDraws | None = None
        with order.guard():
            drawn = EpochDraws(_length(sampler), intent)
            order.begun(drawn)
            intent.waits(sampler)
        first = True
        for index in iterator:
            if drawn is not None:
                drawn.add(index)
            if first:
                first = False
                with order.guard():
                    intent.drew(sampler)
            yield index
        if drawn is not None and order.open is drawn:
            order.end()

    return _subclass(kind, __iter__)


def _looking_on_batches(kind: type, order: SamplerOrder) -> type:
    intent = SamplerIntent(kind)

    def __iter__(self: Any) -> Iterator[Any]:
        before = order.epoch
        with order.guard():
            intent.read(self)
        iterator = kind.__iter__(self)  # type: ignore[attr-defined]
        with order.guard():
            intent.drew(self)
        return looked_at(self, iterator, before)

    def looked_at(sampler: Any, iterator: Iterator[Any], before: int) -> Iterator[Any]:
        drawn: EpochDraws | None = None
        first = True
        with order.guard():
            intent.waits(sampler)
        for batch in iterator:
            if first:
                first = False
                with order.guard():
                    intent.drew(sampler)
                    if order.epoch == before:  # it asks no sampler that is looked at
                        size = len(batch) if isinstance(batch, list | tuple) else 0
                        drawn = EpochDraws(_length(sampler) * size, intent)
                        order.begun(drawn)
            if drawn is not None and isinstance(batch, list | tuple):
                drawn.batches += 1
                for index in batch:
                    drawn.add(index)
            yield batch
        if drawn is not None and order.open is drawn:
            order.end()

    return _subclass(kind, __iter__)


def _subclass(kind: type, iterate: Callable[[Any], Iterator[Any]]) -> type:
    def __reduce_ex__(self: Any, protocol: Any) -> Any:
        return copyreg.__newobj__, (kind,), dict(self.__dict__)  # type: ignore[attr-defined]

    own = {"__iter__": iterate, "__reduce_ex__": __reduce_ex__, "__module__": kind.__module__, LOOKS_ON: True}
    return type(kind.__name__, (kind,), own)
