"""Simulated cohorts: subjects with a level of their own, recordings, windows; and the same figures by plain formulas."""

from __future__ import annotations

import numpy as np

from eegwatch.scores.predictions import Predictions


def cohort(
    seed: int, subjects: int = 30, windows: int = 8, classes: int = 2, shift: float = 1.0, digits: int | None = None
) -> Predictions:
    """One to three recordings a subject; `digits` rounds the logits, so that many tie."""
    draw = np.random.default_rng(seed)
    recording, subject, start, label, logits = [], [], [], [], []
    number = 0
    for person in range(subjects):
        true = person % classes
        level = draw.normal(0, 0.7, classes)
        for _ in range(draw.integers(1, 4)):
            for window in range(draw.integers(windows // 2, windows + 1)):
                x = level + draw.normal(0, 1, classes)
                x[true] += shift
                recording.append(number)
                subject.append(person)
                start.append(2.0 * window)
                label.append(true)
                logits.append(x if digits is None else np.round(x, digits))
            number += 1
    whole = (np.array(column, np.int64) for column in (recording, subject, label))
    recordings, people, labels = whole
    return Predictions(recordings, people, np.array(start), labels, np.array(logits, np.float32), 7, "c")


def plain_auroc(score: np.ndarray, positive: np.ndarray) -> float:
    """Pairs in which the positive scores higher, ties half."""
    above = score[positive][:, None] - score[~positive][None, :]
    return float(((above > 0) + 0.5 * (above == 0)).mean())


def plain_average_precision(score: np.ndarray, positive: np.ndarray) -> float:
    """The mean, over positives, of the precision among all that score at least as high."""
    return float(np.mean([positive[score >= one].mean() for one in score[positive]]))


def plain_calibration_error(probability: np.ndarray, hit: np.ndarray, bins: int = 15) -> float:
    """Bins of equal width; |mean probability - share of hits| by the share of units in each."""
    total = 0.0
    for i in range(bins):
        last = i == bins - 1
        inside = (probability >= i / bins) & ((probability < (i + 1) / bins) | last)
        if inside.any():
            total += inside.mean() * abs(probability[inside].mean() - hit[inside].mean())
    return total


def plain_kappa(label: np.ndarray, called: np.ndarray, classes: int) -> float:
    chance = sum((label == one).mean() * (called == one).mean() for one in range(classes))
    return float(((label == called).mean() - chance) / (1 - chance))


def plain_figures(label: np.ndarray, logits: np.ndarray, threshold: float) -> dict[str, float]:
    """All figures of a level from float64 logits, two classes or more, without any code of eegwatch."""
    classes = logits.shape[1]
    share = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    largest = logits.argmax(axis=1)
    if classes == 2:
        score = logits[:, 1] - logits[:, 0]
        called = (score > threshold).astype(int)
        yes, no = label == 1, label == 0
        hit, miss = (called[yes] == 1).mean(), (called[no] == 1).mean()
        precision = yes[called == 1].mean() if called.any() else 0.0
        return {
            "auroc": plain_auroc(score, yes),
            "average_precision": plain_average_precision(score, yes),
            "balanced_accuracy": ((score[yes] > 0).mean() + (score[no] <= 0).mean()) / 2,
            "threshold": threshold,
            "balanced_accuracy_at_threshold": (hit + 1 - miss) / 2,
            "sensitivity": hit,
            "specificity": 1 - miss,
            "f1": 2 * precision * hit / (precision + hit) if precision + hit else 0.0,
            "kappa": plain_kappa(label, called, 2),
            "brier": ((share[:, 1] - yes) ** 2).mean(),
            "calibration_error": plain_calibration_error(share[:, 1], yes),
        }
    recall = np.array([(largest[label == one] == one).mean() for one in range(classes)])
    f1 = [
        2 * ((largest == i) & (label == i)).sum() / ((largest == i).sum() + (label == i).sum()) for i in range(classes)
    ]
    size = np.array([(label == one).mean() for one in range(classes)])
    one_hot = np.eye(classes)[label]
    odds = np.log(share) - np.log1p(-share)
    return {
        "auroc": float(np.mean([plain_auroc(odds[:, i], label == i) for i in range(classes)])),
        "average_precision": float(np.mean([plain_average_precision(odds[:, i], label == i) for i in range(classes)])),
        "balanced_accuracy": recall.mean(),
        "sensitivity": recall.mean(),
        "specificity": float(np.mean([(largest[label != i] != i).mean() for i in range(classes)])),
        "f1": float(np.mean(f1)),
        "weighted_f1": float((f1 * size).sum()),
        "kappa": plain_kappa(label, largest, classes),
        "brier": ((share - one_hot) ** 2).sum(axis=1).mean(),
        "calibration_error": plain_calibration_error(share.max(axis=1), largest == label),
    }
