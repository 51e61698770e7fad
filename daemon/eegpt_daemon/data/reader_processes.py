"""Recordings read ahead by worker processes: torch's DataLoader over files, with the users' own keys for it.

Blocks travel as numpy arrays through a pipe, not as shared-memory tensors: nothing is mapped, so WSL and containers
with a small /dev/shm are safe. `data.num_workers: 0` reads in this process.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from eegpt_daemon.data.corpus import CorpusError, Entry
from eegpt_daemon.data.recording import Recording, Unusable, read, why
from eegwatch.run.config import Data

PAUSES_S = (1.0, 5.0, 20.0)  # before a recording on a network mount that does not answer is given up


@dataclass
class RecordingPart:
    """Something of the recording `entries[number]`: a block of signal, or its end (`reason`: it cannot be used).

    The end brings `repairs` and the fingerprint of the `signal`.
    """

    number: int
    block: NDArray[np.float32] | None = None
    repairs: list[str] = field(default_factory=list)
    reason: str | None = None
    lasting: bool = True
    signal: dict[str, Any] = field(default_factory=dict)


class _Recordings(IterableDataset[RecordingPart]):
    def __init__(self, entries: list[Entry], data: Data) -> None:
        self.entries, self.data = entries, data

    def __iter__(self) -> Iterator[RecordingPart]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for number in range(first, len(self.entries), step):
            path = self.entries[number].path
            try:
                recording = self._patiently(path)
                for block in recording.blocks():
                    yield RecordingPart(number, block)
                yield RecordingPart(number, repairs=recording.repairs, signal=recording.signal)
            except Unusable as error:
                yield RecordingPart(number, reason=str(error), lasting=error.lasting)
            except Exception as error:  # one recording never ends a preparation
                cause = why(path, error)
                yield RecordingPart(number, reason=str(cause), lasting=cause.lasting)

    def _patiently(self, path: Path) -> Recording:
        """`read`, tried again where the file system is away for a moment. Raises Unusable."""
        for pause in PAUSES_S:
            try:
                return read(path, self.data)
            except Unusable as error:
                if error.lasting:
                    raise
            time.sleep(pause)
        return read(path, self.data)


def blocks(entries: list[Entry], data: Data) -> Iterator[RecordingPart]:
    """Every recording's blocks in order, then its end; recordings of different workers interleave.

    Raises CorpusError when a worker process dies (the kernel's out-of-memory killer, mostly).
    """
    workers = min(data.num_workers, len(entries))
    loader = DataLoader(
        _Recordings(entries, data),
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        prefetch_factor=(data.prefetch_factor or 2) if workers else None,
        worker_init_fn=_settle_in,
        in_order=False,
        generator=torch.Generator(),  # its own: reading must not move the trainer's random state
    )
    try:
        yield from loader
    except RuntimeError as error:
        if "worker" not in str(error):
            raise
        first_line = str(error).splitlines()[0]
        raise CorpusError(f"{first_line}; with data.num_workers: 0 recordings are read in the trainer itself") from None


def _as_it_is(part: Any) -> Any:
    return part


def _settle_in(worker: int) -> None:
    """One BLAS thread a worker, and its own signals: a stop is the trainer's to carry out, and it ends the workers."""
    # without it OpenBLAS's threads spin against each other: 210 windows/s instead of 15,000 (two cores, measured)
    threadpoolctl.threadpool_limits(1, user_api="blas")
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
