"""The figures of an evaluation, by scikit-learn: what a reviewer asks for, of windows or of recordings.

A figure that is not defined (one class alone, a score that is not finite) is left out. The monitor is installed without
scikit-learn: there `Resampled` gives the same figures.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from eegwatch.scores.predictions import Units, log_odds, probabilities
from eegwatch.scores.resampled_metrics import Resampled, calibration_sums

LOWER_IS_BETTER = ("brier", "calibration_error")


@dataclass(frozen=True)
class Metrics:
    """`values`: figures by name; `confusion`: rows true, columns predicted; `problem`: what is left out, and why."""

    values: dict[str, float]
    confusion: list[list[int]] | None = None
    problem: str | None = None


def metrics_of(units: Units, threshold: float | None) -> Metrics:
    """Two classes: AUROC, average precision, the rest of class 1 above `threshold` (None: 0). More: macro averages."""
    problem = units.problem()
    if problem is not None:
        return Metrics({}, problem=problem)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a figure without a value is left out; `problem` gives the reason
        if find_spec("sklearn") is None:
            return _by_weights(units, threshold)
        return _of_two(units, threshold or 0.0) if units.classes == 2 else _of_many(units)


def _of_two(units: Units, threshold: float) -> Metrics:
    from sklearn import metrics as of

    label, score = units.label, units.score
    called, probability = (score > threshold).astype(np.int64), probabilities(units.logits)[:, 1]
    both = 0 < label.sum() < len(label)
    table = of.confusion_matrix(label, called, labels=[0, 1])
    recall = _shares(table)
    values = {
        "auroc": float(of.roc_auc_score(label, score)) if both else math.nan,
        "average_precision": float(of.average_precision_score(label, score)) if both else math.nan,
        "balanced_accuracy": float(of.balanced_accuracy_score(label, score > 0)) if both else math.nan,
        "threshold": threshold,
        "balanced_accuracy_at_threshold": float(of.balanced_accuracy_score(label, called)) if both else math.nan,
        "sensitivity": recall[1],
        "specificity": recall[0],
        "f1": float(of.f1_score(label, called, zero_division=np.nan)),
        "kappa": float(of.cohen_kappa_score(label, called, labels=[0, 1])),
        "brier": float(of.brier_score_loss(label, probability, labels=[0, 1])),
        "calibration_error": _calibration_error(units),
    }
    return _without_undefined(values, table.tolist(), units)


def _of_many(units: Units) -> Metrics:
    from sklearn import metrics as of

    label, every = units.label, list(range(units.classes))
    called, odds, share = units.logits.argmax(axis=1), log_odds(units.logits), probabilities(units.logits)
    table = of.confusion_matrix(label, called, labels=every)
    present = all((label == one).any() for one in every)
    aurocs = [float(of.roc_auc_score(label == one, odds[:, one])) for one in every] if present else [math.nan]
    areas = [float(of.average_precision_score(label == one, odds[:, one])) for one in every] if present else [math.nan]
    outside = [(len(label) - table[one].sum() - table[:, one].sum() + table[one, one]) for one in every]
    values = {
        "auroc": float(np.mean(aurocs)),
        "average_precision": float(np.mean(areas)),
        "balanced_accuracy": float(of.balanced_accuracy_score(label, called)) if present else math.nan,
        "sensitivity": float(np.mean(_shares(table))),
        "specificity": float(np.mean([outside[one] / max(1, len(label) - table[one].sum()) for one in every])),
        "f1": float(of.f1_score(label, called, labels=every, average="macro", zero_division=np.nan)),
        "weighted_f1": float(of.f1_score(label, called, labels=every, average="weighted", zero_division=np.nan)),
        "kappa": float(of.cohen_kappa_score(label, called, labels=every)),
        "brier": float(of.brier_score_loss(label, share, labels=every)),
        "calibration_error": _calibration_error(units),
    }
    return _without_undefined(values, table.tolist(), units)


def _by_weights(units: Units, threshold: float | None) -> Metrics:
    resampled = Resampled(units, threshold)
    equal = np.ones((1, len(resampled.subjects)))
    values = {name: float(value[0]) for name, value in resampled.values(equal).items()}
    if units.classes == 2:
        values["threshold"] = resampled.threshold
    return _without_undefined(values, resampled.confusion().tolist(), units)


def _shares(table: NDArray[np.int64]) -> list[float]:
    """The share of each true class that was called so; nan for a class that is not there."""
    return [float(row[i] / row.sum()) if row.sum() else math.nan for i, row in enumerate(table)]


def _calibration_error(units: Units) -> float:
    """Expected calibration error (Naeini 2015): |mean probability - share of hits|, weighted, over 15 equal bins."""
    size, hits, promised = calibration_sums(units).sum(axis=0)
    return float(np.abs(promised - hits).sum() / size.sum())


def _without_undefined(values: dict[str, float], table: list[list[int]], units: Units) -> Metrics:
    missing = [name for name, value in values.items() if not math.isfinite(value)]
    problem = None
    if missing:
        absent = [str(one) for one in range(units.classes) if not (units.label == one).any()]
        why = f"no {units.level} has label {', '.join(absent)}" if absent else "they are not defined here"
        problem = f"{', '.join(missing)} left out: {why}"
    return Metrics({name: value for name, value in values.items() if name not in missing}, table, problem)
