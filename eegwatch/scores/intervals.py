"""95 % intervals by a bootstrap over subjects, of one run and of the difference between two.

Subjects are drawn with replacement, as often as there are (Efron 1979); of a run with several seeds, subjects and seeds
are drawn together. The draws are always the same, so that anyone gets the same interval from the same predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eegwatch.scores.predictions import Reals
from eegwatch.scores.resample import SLOW, Resampled

DRAWS, SEED = 2000, 0
LEAST_SUBJECTS = 10  # fewer say nothing of how subjects vary
LEAST_DEFINED = 0.95  # of the draws; in the others a class is missing, and the interval would leave them out
LEVELS = (2.5, 97.5)
Interval = tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """Of a figure between two runs, the second less the first: its value, and its interval (None: too few subjects)."""

    value: float
    interval: Interval | None

    @property
    def told_apart(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


def draws(subjects: int, count: int = DRAWS) -> Reals:
    """(count, subjects): how often each subject is drawn. The same for the same number of subjects."""
    chances = np.full(subjects, 1 / subjects)
    return np.random.default_rng(SEED).multinomial(subjects, chances, size=count).astype(np.float64)


def intervals(resampled: Resampled, *, slow: bool = True, count: int = DRAWS) -> dict[str, Interval]:
    """The interval of each figure that has one. Without `slow`, not of those that take a pass a draw."""
    subjects = len(resampled.subjects)
    if subjects < LEAST_SUBJECTS:
        return {}
    names = [name for name in resampled.names if slow or name not in SLOW]
    found = resampled.values(draws(subjects, count), names)
    return {name: kept for name, values in found.items() if (kept := percentiles(values)) is not None}


def percentiles(values: Reals) -> Interval | None:
    """The middle 95 % of the draws; None where too many of them have no value."""
    known = values[np.isfinite(values)]
    if len(known) < LEAST_DEFINED * len(values) or not len(known):
        return None
    low, high = np.percentile(known, LEVELS)
    return float(low), float(high)


def over_seeds(
    runs: Sequence[Resampled], names: Sequence[str], count: int = DRAWS
) -> dict[str, tuple[float, Interval | None]]:
    """Mean over the seeds of one configuration, and its interval over seeds and subjects: the same in all runs."""
    subjects = len(runs[0].subjects)
    mean = {name: _mean(runs, name) for name in names}
    if subjects < LEAST_SUBJECTS:
        return {name: (value, None) for name, value in mean.items()}
    drawn = _drawn(runs, list(names), draws(subjects, count), seed_draws(len(runs), count))
    return {name: (mean[name], percentiles(drawn[name])) for name in names}


def differences(
    first: Sequence[Resampled],
    second: Sequence[Resampled],
    names: Sequence[str],
    count: int = DRAWS,
    *,
    paired_seeds: bool = False,
) -> dict[str, Difference]:
    """Of each figure, second less first, over the same draws of the same subjects: a paired bootstrap.

    Several runs on a side are the seeds of one configuration. With `paired_seeds` both sides draw the same seeds (they
    are in the same order), else each side its own.
    """
    subjects = len(first[0].subjects)
    value = {name: _mean(second, name) - _mean(first, name) for name in names}
    if subjects < LEAST_SUBJECTS:
        return {name: Difference(value[name], None) for name in names}
    weights = draws(subjects, count)
    one = seed_draws(len(first), count)
    other = one if paired_seeds else seed_draws(len(second), count, stream=1)
    a, b = _drawn(first, list(names), weights, one), _drawn(second, list(names), weights, other)
    return {name: Difference(value[name], percentiles(b[name] - a[name])) for name in names}


def seed_draws(seeds: int, count: int = DRAWS, stream: int = 0) -> Reals:
    """(count, seeds): the share of each seed in a draw."""
    chances = np.full(seeds, 1 / seeds)
    return np.random.default_rng([SEED, 1, stream]).multinomial(seeds, chances, size=count) / seeds


def _drawn(runs: Sequence[Resampled], names: list[str], weights: Reals, shares: Reals) -> dict[str, Reals]:
    each = [run.values(weights, names) for run in runs]
    totals = {name: np.zeros(len(weights)) for name in names}
    for seed, values in enumerate(each):
        for name in names:
            totals[name] += shares[:, seed] * values[name]
    return totals


def _mean(runs: Sequence[Resampled], name: str) -> float:
    return float(np.mean([_whole(run, name) for run in runs]))


def _whole(run: Resampled, name: str) -> float:
    return float(run.values(np.ones((1, len(run.subjects))), [name])[name][0])
