"""The threshold of a two-class score, fixed on the validation set."""

from __future__ import annotations

import numpy as np

from eegwatch.scores.predictions import Units


def youden(units: Units) -> float | None:
    """The score above which a unit counts as class 1: where sensitivity + specificity is highest (Youden, 1950).

    Half-way between two neighbouring scores; the one nearest to 0 of several as good. None for other than two classes,
    for one class alone, for scores that are not finite, and where all scores are equal.
    """
    if units.classes != 2 or units.problem() is not None:
        return None
    score, positive = units.score, units.label == 1
    if positive.all() or not positive.any():
        return None
    values, which = np.unique(score, return_inverse=True)
    if len(values) < 2:
        return None
    ones = np.bincount(which[positive], minlength=len(values))
    zeros = np.bincount(which[~positive], minlength=len(values))
    # of a threshold after value k: sensitivity is the share of ones above it, specificity that of zeros up to it
    index = (np.cumsum(zeros) / zeros.sum() - np.cumsum(ones) / ones.sum())[:-1]
    between = (values[:-1] + values[1:]) / 2
    between = np.where(between < values[1:], between, values[:-1])  # neighbours in float64
    best = np.flatnonzero(index >= index.max() - 1e-12)
    return float(between[best[np.argmin(np.abs(between[best]))]])
