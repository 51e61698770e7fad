"""The same metrics under many weightings of the subjects at once, for a cluster bootstrap.

Windows of one recording, and recordings of one subject, are not independent, so whole subjects are drawn. Each figure
is written over sums a subject, (subjects, …), which are taken once: a draw costs a product of matrices, not a pass over
the windows. Only average precision takes such a pass. At equal weights each is `figures`' own (tests/unit/scores).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from eegwatch.scores.predictions import Reals, Units, log_odds, probabilities

BINS = 15  # of the calibration error, of equal width
AT_ONCE = 1 << 24  # numbers of one intermediate: 128 MB
SLOW = ("average_precision",)  # one pass over the windows a draw


class Resampled:
    """Figures of `units` under weights of their subjects. Raises ValueError where `units.problem()` is not None.

    `subjects`: their numbers, in the order of the weights; `rarest`: how many of them the rarest class has.
    """

    def __init__(self, units: Units, threshold: float | None = None) -> None:
        problem = units.problem()
        if problem is not None:
            raise ValueError(problem)
        self.units, self.threshold = units, threshold or 0.0
        self.subjects, self._subject = np.unique(units.subject, return_inverse=True)
        self._count = len(self.subjects)
        self.rarest = min(len(np.unique(units.subject[units.label == one])) for one in range(units.classes))
        two = units.classes == 2
        self._positives = [1] if two else list(range(units.classes))
        odds = log_odds(units.logits)
        self._odds = {one: units.score if two else odds[:, one] for one in self._positives}
        self._called = units.logits.argmax(axis=1) if not two else (units.score > self.threshold).astype(np.int64)
        self._largest = units.logits.argmax(axis=1) if not two else (units.score > 0).astype(np.int64)

    @property
    def names(self) -> list[str]:
        return list(self._figures())

    def values(self, weights: Reals, names: list[str] | None = None) -> dict[str, Reals]:
        """(draws,) of each figure, nan where it is not defined. `weights` (draws, subjects), in order of `subjects`."""
        known = self._figures()
        with np.errstate(divide="ignore", invalid="ignore"):
            return {name: known[name](weights) for name in (known if names is None else names)}

    def _figures(self) -> dict[str, Callable[[Reals], Reals]]:
        figures: dict[str, Callable[[Reals], Reals]] = {
            "auroc": self._auroc,
            "average_precision": self._average_precision,
            "balanced_accuracy": lambda w: _mean_recall(self._table(w, at_threshold=False)),
            "sensitivity": lambda w: self._sensitivity(self._table(w)),
            "specificity": lambda w: self._specificity(self._table(w)),
            "f1": lambda w: self._f1(self._table(w)),
            "kappa": lambda w: _kappa(self._table(w)),
            "brier": self._brier,
            "calibration_error": self._calibration_error,
        }
        if self.units.classes == 2:
            figures["balanced_accuracy_at_threshold"] = lambda w: _mean_recall(self._table(w))
        else:
            figures["weighted_f1"] = lambda w: _f1_by_support(self._table(w))
        return figures

    # ---- ranks ----

    @cached_property
    def _wins(self) -> list[Reals]:
        """For each positive class (subjects, subjects): pairs in which a positive of the row's subject lies above a
        negative of the column's; ties count half."""
        return [self._wins_of(one) for one in self._positives]

    def _wins_of(self, one: int) -> Reals:
        positive = self.units.label == one
        values, rank = np.unique(self._odds[one], return_inverse=True)
        order = np.argsort(self._subject[positive], kind="stable")
        at = rank[positive][order]
        subjects = self._subject[positive][order]
        begins = np.flatnonzero(np.diff(subjects, prepend=-1))
        wins = np.zeros((self._count, self._count))
        by_subject = np.argsort(self._subject, kind="stable")
        ends = np.searchsorted(self._subject[by_subject], np.arange(1, self._count))
        for column, rows in enumerate(np.split(by_subject, ends)):
            held = np.bincount(rank[rows[~positive[rows]]], minlength=len(values))
            if len(begins) and held.any():
                above = np.cumsum(held) - held / 2  # negatives below, and half of those that tie
                wins[subjects[begins], column] = np.add.reduceat(above[at], begins)
        return wins

    def _auroc(self, weights: Reals) -> Reals:
        each = []
        for one, wins in zip(self._positives, self._wins, strict=True):
            positives = weights @ self._per_subject(self.units.label == one)
            negatives = weights @ self._per_subject(self.units.label != one)
            each.append(np.einsum("rs,rs->r", weights @ wins, weights) / (positives * negatives))
        return np.asarray(np.mean(each, axis=0))

    def _average_precision(self, weights: Reals) -> Reals:
        return np.asarray(np.mean([self._average_precision_of(one, weights) for one in self._positives], axis=0))

    def _average_precision_of(self, one: int, weights: Reals) -> Reals:
        """Sum over thresholds of precision times the recall that is gained there, as scikit-learn defines it."""
        order = np.argsort(-self._odds[one], kind="stable")
        score, subject = self._odds[one][order], self._subject[order]
        positive = (self.units.label[order] == one).astype(np.float64)
        ends = np.flatnonzero(np.diff(score, append=-np.inf))  # the last of each group of ties
        average = np.empty(len(weights))
        size = max(1, AT_ONCE // max(1, len(order)))
        for begin in range(0, len(weights), size):
            part = weights[begin : begin + size][:, subject]
            hits = np.cumsum(part * positive, axis=1)[:, ends]
            called = np.cumsum(part, axis=1)[:, ends]
            precision = np.divide(hits, called, out=np.zeros_like(hits), where=called > 0)
            gained = np.diff(hits, axis=1, prepend=0.0)
            average[begin : begin + size] = (gained * precision).sum(axis=1) / hits[:, -1]
        return average

    # ---- sums ----

    def _per_subject(self, values: NDArray[np.generic]) -> Reals:
        """(subjects,): the sum over each subject's units."""
        sums = np.bincount(self._subject, weights=values.astype(np.float64), minlength=self._count)
        return sums.astype(np.float64)

    @cached_property
    def _tables(self) -> dict[bool, Reals]:
        """Confusion matrices a subject, (subjects, classes x classes); True: at the threshold."""
        classes = self.units.classes
        tables: dict[bool, Reals] = {}
        for at_threshold, called in ((True, self._called), (False, self._largest)):
            cell = self._subject * classes**2 + self.units.label * classes + called
            counts = np.bincount(cell, minlength=self._count * classes**2)
            tables[at_threshold] = counts.reshape(self._count, -1).astype(np.float64)
        return tables

    def _table(self, weights: Reals, *, at_threshold: bool = True) -> Reals:
        """(draws, classes, classes): rows true, columns predicted."""
        classes = self.units.classes
        return (weights @ self._tables[at_threshold]).reshape(-1, classes, classes)

    def confusion(self) -> NDArray[np.int64]:
        """(classes, classes): rows true, columns predicted, at the threshold."""
        table: NDArray[np.int64] = self._table(np.ones((1, self._count)))[0].astype(np.int64)
        return table

    def _sensitivity(self, table: Reals) -> Reals:
        return _recall(table)[:, 1] if self.units.classes == 2 else _recall(table).mean(axis=1)

    def _specificity(self, table: Reals) -> Reals:
        if self.units.classes == 2:
            return np.asarray(_recall(table)[:, 0])
        true, called, hits = table.sum(axis=2), table.sum(axis=1), np.einsum("rii->ri", table)
        whole = table.sum(axis=(1, 2))[:, None]
        return np.asarray(((whole - true - called + hits) / (whole - true)).mean(axis=1))

    def _f1(self, table: Reals) -> Reals:
        each = _f1_each(table)
        return np.asarray(each[:, 1] if self.units.classes == 2 else each.mean(axis=1))

    @cached_property
    def _squares(self) -> Reals:
        share = probabilities(self.units.logits)
        square = (share - np.eye(self.units.classes)[self.units.label]) ** 2
        return square[:, 1] if self.units.classes == 2 else square.sum(axis=1)

    def _brier(self, weights: Reals) -> Reals:
        size = weights @ self._per_subject(np.ones(len(self.units)))
        return np.asarray((weights @ self._per_subject(self._squares)) / size)

    @cached_property
    def _calibration(self) -> Reals:
        return calibration_sums(self.units)

    def _calibration_error(self, weights: Reals) -> Reals:
        sums = np.tensordot(weights, self._calibration, axes=1)  # (draws, 3, bins)
        return np.asarray(np.abs(sums[:, 2] - sums[:, 1]).sum(axis=1) / sums[:, 0].sum(axis=1))


def calibration_sums(units: Units) -> Reals:
    """(subjects, 3, bins): units, hits and the sum of probabilities, by bins of the probability.

    Of two classes the probability of class 1; of more, that of the class with the greatest.
    """
    share = probabilities(units.logits)
    if units.classes == 2:
        promised, hit = share[:, 1], units.label == 1
    else:
        promised, hit = share.max(axis=1), share.argmax(axis=1) == units.label
    which = np.minimum((promised * BINS).astype(np.int64), BINS - 1)
    subjects, subject = np.unique(units.subject, return_inverse=True)
    cell, cells = subject * BINS + which, len(subjects) * BINS
    parts = [np.bincount(cell, weights=w, minlength=cells) for w in (np.ones(len(units)), hit * 1.0, promised)]
    return np.stack([part.reshape(len(subjects), BINS) for part in parts], axis=1)


def _recall(table: Reals) -> Reals:
    return np.asarray(np.einsum("rii->ri", table) / table.sum(axis=2))


def _mean_recall(table: Reals) -> Reals:
    return np.asarray(_recall(table).mean(axis=1))


def _f1_each(table: Reals) -> Reals:
    hits = np.einsum("rii->ri", table)
    return np.asarray(2 * hits / (table.sum(axis=2) + table.sum(axis=1)))


def _f1_by_support(table: Reals) -> Reals:
    each, support = _f1_each(table), table.sum(axis=2)
    return np.asarray(np.where(support > 0, each * support, 0.0).sum(axis=1) / support.sum(axis=1))


def _kappa(table: Reals) -> Reals:
    """Cohen's: (agreement - chance) / (1 - chance)."""
    whole = table.sum(axis=(1, 2))
    agreed = np.einsum("rii->r", table) / whole
    chance = (table.sum(axis=2) * table.sum(axis=1)).sum(axis=1) / whole**2
    return np.asarray((agreed - chance) / (1 - chance))
