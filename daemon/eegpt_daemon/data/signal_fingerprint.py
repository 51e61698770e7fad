"""A fingerprint of a recording's signal: equal for two files with the same samples, independent of their names.

The wanted channels that a file has, in the wanted order, in microvolt as float32, are hashed second by second.
`whole` is a hash of them all. `kept` are the hashes whose last two bits are 0, one second in four,
so that two files which overlap by whole seconds keep the same ones. A second in which most channels are constant says
nothing of whose it is, and is kept nowhere.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEPT_OF = 4  # one second in so many: 300 hashes for 20 minutes, 3 kB of the index


class Fingerprint:
    """Built by `feed` from blocks of the signal; `as_dict` is the entry for the index: {"seconds", "whole", "kept"}."""

    def __init__(self, hertz: float) -> None:
        self._second = max(1, round(hertz))
        self._left: NDArray[np.float32] | None = None
        self._whole = hashlib.blake2b(digest_size=8)
        self._kept: list[int] = []
        self._seconds = 0

    def feed(self, microvolt: NDArray[np.float64]) -> None:
        """(channels, samples)."""
        block = microvolt.astype(np.float32)
        if self._left is not None:
            block = np.concatenate([self._left, block], axis=1)
        whole = block.shape[1] // self._second
        self._left = block[:, whole * self._second :]
        for number in range(whole):
            self._one(block[:, number * self._second : (number + 1) * self._second])

    def _one(self, second: NDArray[np.float32]) -> None:
        digest = hashlib.blake2b(np.ascontiguousarray(second).data, digest_size=8).digest()
        self._whole.update(digest)
        self._seconds += 1
        value = int.from_bytes(digest, "little")
        if value % KEPT_OF == 0 and (np.ptp(second, axis=1) > 0).mean() > 0.5:
            self._kept.append(value)

    def as_dict(self) -> dict[str, Any]:
        if self._left is not None:
            self._whole.update(np.ascontiguousarray(self._left).tobytes())
        kept = np.array(self._kept, "<u8").tobytes()
        return {
            "seconds": self._seconds,
            "whole": self._whole.hexdigest(),
            "kept": base64.b64encode(kept).decode(),
        }


def kept_of(signal: dict[str, Any]) -> set[int]:
    """The hashes of the seconds that were kept, those left out that a recording holds twice (a test signal)."""
    values, times = np.unique(np.frombuffer(base64.b64decode(str(signal.get("kept", ""))), "<u8"), return_counts=True)
    return set(values[times == 1].tolist())
