"""What the workers of a loader do: the states of their generators before the first batch, what draws, what they yield.

Two functions of the loader are wrapped, its worker_init_fn and its collate_fn; they do what they did, and a worker's
first batch of an epoch leaves one line in a file that the watching process reads. Nothing is drawn and no sample is
touched. The number of the epoch lies in shared memory, since persistent workers are not started again.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eegwatch.watching.samples import summed_up

DEEP, LONG, MANY = 5, 32, 512  # attributes deep, entries of a list, objects in which generators are looked for

_before: dict[str, str] = {}  # in a worker: the states of its generators once it was initialised
_told: dict[str, int] = {}  # in a worker: files that it has written its line to -> the last epoch that it told of


class WorkerInit:
    """A worker_init_fn that notes the generators' states after the one that it wraps."""

    def __init__(self, inner: Callable[[int], Any] | None) -> None:
        self.inner = inner

    def __call__(self, worker: int) -> None:
        if self.inner is not None:
            self.inner(worker)
        with contextlib.suppress(Exception):  # a worker must not die of being watched
            _told.clear()
            _before.clear()
            _before.update(states(_dataset()))


class FirstBatchCollate:
    """A collate_fn that tells of a worker's first batch, and of its samples where sums of the class `kind` take them.

    `epoch`: the loader's, a tensor of one number in shared memory; 0 where it is not known.
    """

    def __init__(self, inner: Callable[[Any], Any], path: str, epoch: Any, kind: Any = None) -> None:
        self.inner, self.path, self.epoch, self.kind = inner, path, epoch, kind
        self.sums: Any = None if kind is None else kind()

    def __call__(self, samples: Any) -> Any:
        epoch = int(self.epoch)
        before = _told.get(self.path)
        if before != epoch:
            _told[self.path] = epoch
            with contextlib.suppress(Exception):
                self._tell(samples, again=before is not None)
            if before is not None and self.kind is not None:
                with contextlib.suppress(Exception):
                    self._write_sums(before)  # of the whole epoch before
                self.sums = self.kind()
        if self.sums is not None:
            with contextlib.suppress(Exception):  # a worker must not die of being watched
                self._tell_sums(samples)
        return self.inner(samples)

    def _tell_sums(self, samples: Any) -> None:
        if sys.modules["torch.utils.data"].get_worker_info() is not None and self.sums.add(samples):
            self._write_sums(int(self.epoch))

    def _write_sums(self, epoch: int) -> None:
        worker = sys.modules["torch.utils.data"].get_worker_info()
        self._write({"worker": worker.id, "number": epoch, "samples": self.sums.values()})

    def _tell(self, samples: Any, *, again: bool) -> None:
        """`again`: the worker has told of an epoch before; with which states it began this one is not known."""
        worker = sys.modules["torch.utils.data"].get_worker_info()
        if worker is None:
            return
        if again:
            _before.clear()
        after = states(worker.dataset) if _before else {}
        drawn = sorted(name for name, state in _before.items() if after.get(name, state) != state)
        line = {
            "worker": worker.id,
            "number": int(self.epoch),
            "states": {name: _before[name] for name in drawn},
            "after": {name: after[name] for name in drawn},
            "drawn": drawn,
            **summed_up(samples),
        }
        self._write(line)

    def _write(self, line: dict[str, Any]) -> None:
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(fd, json.dumps(line).encode() + b"\n")
        finally:
            os.close(fd)


def _dataset() -> Any:
    worker = sys.modules["torch.utils.data"].get_worker_info()
    return None if worker is None else worker.dataset


def states(dataset: Any) -> dict[str, str]:
    """The state of each generator that a sample may draw from, as a sum: the global ones and those of the data set."""
    found = {"random": _sum(random.getstate()), "torch": _sum(sys.modules["torch"].get_rng_state().numpy().tobytes())}
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        found["numpy.random"] = _sum(numpy.random.get_state()[1].tobytes() + bytes(numpy.random.get_state()[2] % 256))
    for where, state in generators_of(dataset).items():  # dataset.generator, dataset.transform.transforms[0].generator
        found[f"the data set's {where}"] = _sum(state)
    return found


def generators_of(dataset: Any) -> dict[str, Any]:
    """The states of the generators that an object holds, a few attributes and list entries deep, by their place."""
    found: dict[str, Any] = {}
    seen: set[int] = set()
    waiting = [("", dataset, 0)]
    while waiting and len(seen) < MANY:
        place, one, deep = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        state = state_of(one) if place else None
        if state is not None:
            found[place.lstrip(".")] = state
        elif deep < DEEP:
            if isinstance(one, list | tuple) and len(one) <= LONG:
                waiting += [(f"{place}[{number}]", part, deep + 1) for number, part in enumerate(one)]
            elif isinstance(one, dict) and len(one) <= LONG:
                waiting += [(f"{place}[{key!r}]", part, deep + 1) for key, part in list(one.items())]
            else:
                held = list(getattr(one, "__dict__", {}).items())
                waiting += [(f"{place}.{name}", part, deep + 1) for name, part in held if not isinstance(part, type)]
    return found


def state_of(generator: Any) -> Any | None:
    """The state of a generator of numpy, Python or torch; None of anything else."""
    if isinstance(generator, random.Random):
        return generator.getstate()
    if hasattr(generator, "bit_generator"):
        return repr(generator.bit_generator.state)
    if type(generator).__name__ == "RandomState":
        return repr(generator.get_state()[1].tolist()) + repr(generator.get_state()[2:])
    if type(generator).__module__.startswith("torch") and hasattr(generator, "get_state"):
        return generator.get_state().numpy().tobytes()
    return None


def _sum(state: Any) -> str:
    return f"{zlib.crc32(state if isinstance(state, bytes) else repr(state).encode()):08x}"


class Workers:
    """The workers of one loader, in the watching process. `path`: a file in a folder of its own, removed at the end."""

    def __init__(
        self,
        loader: Any,
        number: int,
        path: Path,
        tell: Callable[[str, dict[str, Any]], None],
        sums: Any = None,
        asks: str | None = None,
    ) -> None:
        """`tell` takes a look and its values; `sums`: the class of what takes the samples, where they are compared.

        `asks`: what says of a stream that it is to be in another order in each epoch.
        """
        self.number, self._tell, self._loader, self._path = number, tell, loader, path
        self._at = 0
        self._epochs: dict[int, int] = {}
        self._asks, self._epoch = asks, sys.modules["torch"].zeros((), dtype=sys.modules["torch"].int64).share_memory_()
        data = sys.modules["torch.utils.data"]
        self._iterable = isinstance(loader.dataset, data.IterableDataset)
        self._before = loader.worker_init_fn, loader.collate_fn
        loader.worker_init_fn = WorkerInit(loader.worker_init_fn)
        loader.collate_fn = FirstBatchCollate(loader.collate_fn, str(path), self._epoch, sums)

    def begun(self) -> None:
        """Another epoch of the loader begins."""
        self._epoch += 1

    def read(self) -> None:
        """Tell what workers have written since."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._at)
                data = file.read()
        except FileNotFoundError:
            return
        whole = data.rfind(b"\n") + 1
        self._at += whole
        for line in data[:whole].splitlines():
            values = json.loads(line)
            worker, number = int(values["worker"]), int(values.pop("number"))
            if "samples" in values:
                if values["samples"] is not None:
                    epoch = number or self._epochs.get(worker, 1)
                    of = {"loader": self.number, "epoch": epoch, "worker": worker}
                    self._tell("stream", of | values["samples"])
                continue
            epoch = self._epochs[worker] = number or self._epochs.get(worker, 0) + 1
            of = {"loader": self.number, "epoch": epoch, "iterable": self._iterable}
            self._tell("workers", of | ({"asks": self._asks} if self._asks is not None else {}) | values)

    def close(self) -> None:
        """Give the loader its own functions back."""
        self.read()
        self._loader.worker_init_fn, self._loader.collate_fn = self._before
        self._path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # a worker that still lives has written a line more
            self._path.parent.rmdir()
