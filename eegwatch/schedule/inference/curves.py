"""Falls from 1 to 0 over x in [0, 1], and backwards: the shapes that a decay can have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Fall:
    """A monotone shape: `down(x)` from 1 at x = 0 to 0 at x = 1, `back(v)` its inverse; both any shape, float64."""

    name: str
    down: Callable[[Floats], Floats]
    back: Callable[[Floats], Floats]
    power: float | None = None

    def at(self, x: Floats) -> Floats:
        return self.down(np.clip(x, 0.0, 1.0))

    def inverse(self, v: Floats) -> Floats:
        return self.back(np.clip(v, 0.0, 1.0))


def _polynomial(power: float) -> Fall:
    return Fall("polynomial", lambda x: (1 - x) ** power, lambda v: 1 - v ** (1 / power), power)


LINEAR = Fall("linear", lambda x: 1 - x, lambda v: 1 - v)
COSINE = Fall("cosine", lambda x: (1 + np.cos(np.pi * x)) / 2, lambda v: np.arccos(2 * v - 1) / np.pi)
ROOT = Fall("root", lambda x: 1 - np.sqrt(x), lambda v: (1 - v) ** 2)
POLYNOMIALS = [_polynomial(p) for p in (2.0, 0.9, 3.0, 0.5, 1.5, 4.0, 0.8, 5.0, 0.7, 2.5, 0.75, 0.6, 1.2, 1.25)]
FALLS = [LINEAR, COSINE, *POLYNOMIALS, ROOT]
