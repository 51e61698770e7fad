"""95 % intervals by a bootstrap over subjects, of one run and of the difference between two.

Subjects are drawn with replacement, as often as there are; of a run with several seeds, subjects and seeds are drawn
together. The percentiles are corrected for bias and skew (BCa, Efron 1987) and widened as Student's t is for as many
subjects as the rarest class has (Hesterberg 2015): plain ones hold an AUROC of 100 subjects in 92 % of cohorts, these
in 95 % (tests/bench/intervals). The draws are always the same: anyone gets the same interval from the same predictions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from eegwatch.scores.predictions import Reals
from eegwatch.scores.resampled_metrics import SLOW, Resampled

DRAWS, SEED = 2000, 0
LEAST_SUBJECTS, LEAST_OF_A_CLASS = 10, 5  # fewer say too little of how subjects vary
LEAST_DEFINED = 0.95  # of the draws; in the others a class is missing, and the interval would leave them out
LEVEL = 0.95
BIASED = ("calibration_error",)  # resampling raises it: no interval by it holds the true one
NORMAL = NormalDist()
TIED = 1e-12
LOWEST = {"kappa": -1.0}  # of a figure, else 0; the greatest is 1, of the Brier score of many classes 2
Interval = tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """Of a figure between two runs, the second less the first: its value, and its interval (None: too few subjects)."""

    value: float
    interval: Interval | None

    @property
    def told_apart(self) -> bool:
        """Whether the interval excludes 0."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


def draws(subjects: int, count: int = DRAWS) -> Reals:
    """(count, subjects): how often each subject is drawn. The same for the same number of subjects."""
    chances = np.full(subjects, 1 / subjects)
    return np.random.default_rng(SEED).multinomial(subjects, chances, size=count).astype(np.float64)


def intervals(resampled: Resampled, *, slow: bool = True, count: int = DRAWS) -> dict[str, Interval]:
    """The interval of each figure that has one. Without `slow`, not of those that take a pass a draw."""
    names = [name for name in resampled.names if name not in BIASED and (slow or name not in SLOW)]
    sample = _Sample([[resampled]], names, count)
    return {name: kept for name in names if (kept := sample.interval(name)) is not None}


def over_seeds(
    runs: Sequence[Resampled], names: Sequence[str], count: int = DRAWS
) -> dict[str, tuple[float, Interval | None]]:
    """Mean over the seeds of one configuration, and its interval over seeds and subjects: the same in all runs."""
    sample = _Sample([runs], names, count)
    return {name: (sample.whole[name], within_range(name, sample.interval(name))) for name in names}


def within_range(name: str, interval: Interval | None) -> Interval | None:
    """An interval cut to what the figure can be: seeds that are drawn with widened weights reach a little beyond."""
    if interval is None:
        return None
    lowest, greatest = LOWEST.get(name, 0.0), 2.0 if name == "brier" else 1.0
    return max(interval[0], lowest), min(interval[1], greatest)


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
    sample = _Sample([first, second], names, count, paired_seeds=paired_seeds)
    return {name: Difference(sample.whole[name], sample.interval(name)) for name in names}


class _Sample:
    """The figures of one side, or of the second less the first: of all subjects, of the draws, and without each one."""

    def __init__(
        self, sides: Sequence[Sequence[Resampled]], names: Sequence[str], count: int, *, paired_seeds: bool = False
    ) -> None:
        subjects = len(sides[0][0].subjects)
        self._rarest = sides[0][0].rarest
        whole, drawn, without = np.ones((1, subjects)), draws(subjects, count), 1 - np.eye(subjects)
        self._enough = enough = subjects >= LEAST_SUBJECTS and self._rarest >= LEAST_OF_A_CLASS
        self.whole = dict.fromkeys(names, 0.0)
        self._drawn = {name: np.zeros(count) for name in names}
        self._without = {name: np.zeros(subjects) for name in names}
        for number, side in enumerate(sides):  # each side by itself, so that a run differs from itself by exactly 0
            sign = 1.0 if number == len(sides) - 1 else -1.0
            shares = seed_draws(len(side), count, stream=0 if paired_seeds else number)
            alone = [run.values(whole, list(names)) for run in side]
            of_draws = [run.values(drawn, list(names)) for run in side] if enough else []
            left_out = [run.values(without, list(names)) for run in side] if enough else []
            for name in names:
                self.whole[name] += sign * float(np.mean([one[name][0] for one in alone]))
                if enough:
                    self._drawn[name] += sign * sum(share * one[name] for share, one in zip(shares.T, of_draws))
                    self._without[name] += sign * np.mean([one[name] for one in left_out], axis=0)

    def interval(self, name: str) -> Interval | None:
        """None for too few subjects, and where too many draws lack a class."""
        if not self._enough:
            return None
        return bca(self._drawn[name], self.whole[name], self._without[name], self._rarest)


def bca(drawn: Reals, whole: float, without: Reals, rarest: int) -> Interval | None:
    """The corrected percentiles of `drawn` (draws,). `whole`: the figure itself; `without` each subject, (subjects,);
    `rarest`: how many subjects the rarest class has.

    None where more than 5 % of the draws have no value, or the figure has none without one of the subjects.
    """
    known = drawn[np.isfinite(drawn)]
    if len(known) < LEAST_DEFINED * len(drawn) or not np.isfinite([whole, *without]).all():
        return None
    # ties count half; a draw that equals the figure may differ from it by the rounding of its sums
    below = (np.mean(known < whole - TIED) + np.mean(known <= whole + TIED)) / 2
    least = 0.5 / len(known)
    bias = NORMAL.inv_cdf(min(max(float(below), least), 1 - least))
    influence = without.mean() - without
    square = float((influence**2).sum())
    skew = float((influence**3).sum()) / (6 * square**1.5) if square > 0 else 0.0
    wide = math.sqrt(rarest / (rarest - 1)) * student(rarest - 1)
    levels = []
    for z in (-wide, wide):
        reach = bias + z
        levels.append(NORMAL.cdf(bias + reach / max(1 - skew * reach, 1e-3)))
    low, high = np.quantile(known, levels)
    return float(low), float(high)


def student(freedom: int) -> float:
    """t with P(|T| < t) = 0.95 of Student's distribution: by its finite sums (Abramowitz and Stegun 26.7.3, 26.7.4)."""

    def within(t: float) -> float:
        angle = math.atan(t / math.sqrt(freedom))
        square, odd = math.cos(angle) ** 2, freedom % 2
        term, total = (math.cos(angle) if odd else 1.0), 0.0
        for k in range(odd + 1, freedom, 2):  # the k-th factor leads to the next term
            total += term
            term *= square * k / (k + 1)
        inner = math.sin(angle) * total
        return 2 / math.pi * (angle + inner) if odd else inner

    low, high = 0.0, 64.0  # of one degree of freedom it is 12.7
    while high - low > 1e-14 * high:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if within(middle) < LEVEL else (low, middle)
    return (low + high) / 2


def seed_draws(seeds: int, count: int = DRAWS, stream: int = 0) -> Reals:
    """(count, seeds): the weight of each seed in a draw, 1 in all.

    Resampling K seeds shows (K - 1) / K of their variance: the weights' distances from 1 / K are widened to make it up.
    """
    if seeds == 1:
        return np.ones((count, 1))
    chances = np.full(seeds, 1 / seeds)
    drawn = np.random.default_rng([SEED, 1, stream]).multinomial(seeds, chances, size=count) / seeds
    return np.asarray(1 / seeds + (drawn - 1 / seeds) * np.sqrt(seeds / (seeds - 1)))
