"""Every figure agrees with plain formulas and with scikit-learn to 1e-9: ties, weights, two classes and more."""

from __future__ import annotations

import math

import numpy as np
import pytest

from eegwatch.scores import metrics as by_sklearn
from eegwatch.scores.metrics import metrics_of
from eegwatch.scores.predictions import Predictions, Units, margin
from eegwatch.scores.resampled_metrics import Resampled
from eegwatch.scores.threshold import youden
from tests.unit.scores.cohorts import cohort, plain_auroc, plain_figures

CASES = [(2, None), (2, 0), (3, None), (5, 1)]


def levels(predictions: Predictions) -> list[Units]:
    return [predictions.windows(), predictions.recordings()]


@pytest.mark.parametrize(("classes", "digits"), CASES)
@pytest.mark.parametrize("library", [True, False], ids=["scikit-learn", "resample"])
def test_every_figure_is_what_plain_formulas_give(
    classes: int, digits: int | None, library: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if library:
        pytest.importorskip("sklearn")
    else:  # as where only the monitor is installed
        monkeypatch.setattr(by_sklearn, "find_spec", lambda _: None)
    for seed in range(4):
        for units in levels(cohort(seed, classes=classes, digits=digits)):
            threshold = youden(units) or 0.0
            ours = metrics_of(units, threshold)
            theirs = plain_figures(units.label, units.logits, threshold)
            assert ours.values == pytest.approx(theirs, abs=1e-9) and ours.problem is None
            assert np.sum(ours.confusion) == len(units)


def test_a_recordings_score_is_the_mean_of_its_windows() -> None:
    predictions = cohort(1)
    recordings = predictions.recordings()
    for number in (0, 5, 11):
        mine = predictions.recording == number
        assert recordings.score[number] == pytest.approx(predictions.score[mine].mean(), abs=1e-12)
        assert recordings.label[number] == predictions.label[mine][0]
    assert len(recordings) == len(set(predictions.recording))


@pytest.mark.parametrize("classes", [2, 4])
def test_weights_of_subjects_are_repetitions_of_their_windows(classes: int) -> None:
    predictions = cohort(3, subjects=12, classes=classes, digits=1)
    weights = np.random.default_rng(0).multinomial(12, np.full(12, 1 / 12), size=20)
    for units in levels(predictions):
        drawn = Resampled(units, 0.3).values(weights.astype(float))
        for number, counts in enumerate(weights):
            rows = np.repeat(np.arange(len(units)), counts[units.subject])
            label, logits = units.label[rows], units.logits[rows]
            if len(set(label)) < classes:
                continue
            for name, value in plain_figures(label, logits, 0.3).items():
                if name != "threshold":
                    assert drawn[name][number] == pytest.approx(value, abs=1e-9), name


def test_a_missing_class_leaves_out_what_needs_it_and_says_which() -> None:
    predictions = cohort(2)
    one = predictions.windows()
    keep = one.label == 0
    found = metrics_of(Units("window", one.subject[keep], one.label[keep], one.logits[keep]), 0.0)
    assert not {"auroc", "average_precision", "balanced_accuracy", "sensitivity"} & set(found.values)
    assert "no window has label 1" in str(found.problem) and "auroc" in str(found.problem)
    assert found.values["specificity"] == pytest.approx((one.score[keep] <= 0).mean())


def test_scores_that_are_not_finite_give_no_figure() -> None:
    units = cohort(2).windows()
    units.logits[3, 1] = math.nan
    found = metrics_of(units, 0.0)
    assert found.values == {} and found.problem == f"1 of {len(units)} window scores are not finite"
    with pytest.raises(ValueError, match="not finite"):
        Resampled(units)


def test_nothing_to_score_is_said() -> None:
    empty = Units("recording", *(np.empty(0, np.int64) for _ in range(2)), np.empty((0, 2)))
    assert metrics_of(empty, None).problem == "there is no recording" and youden(empty) is None


# ---- the threshold ----------------------------------------------------------------------------------------------------


def test_the_threshold_is_where_balanced_accuracy_is_highest() -> None:
    for seed in range(6):
        for units in levels(cohort(seed, digits=1)):
            threshold = youden(units)
            assert threshold is not None
            best = max(
                ((units.score > t)[units.label == 1].mean() + (units.score <= t)[units.label == 0].mean()) / 2
                for t in np.unique(units.score)
            )
            yes, no = units.label == 1, units.label == 0
            ours = ((units.score > threshold)[yes].mean() + (units.score <= threshold)[no].mean()) / 2
            assert ours == pytest.approx(best, abs=1e-12)


def test_no_threshold_is_invented() -> None:
    units = cohort(0).windows()
    keep = units.label == 1
    assert youden(Units("window", units.subject[keep], units.label[keep], units.logits[keep])) is None
    assert youden(Units("window", units.subject, units.label, np.zeros_like(units.logits))) is None
    assert youden(cohort(0, classes=3).windows()) is None


def test_neighbouring_floats_are_still_told_apart() -> None:
    low = 1.0
    high = np.nextafter(low, 2.0)
    logits = np.array([[0.0, low], [0.0, high]])
    threshold = youden(Units("window", np.array([0, 1]), np.array([0, 1]), logits))
    assert threshold is not None and low <= threshold < high


def test_scores_so_far_out_that_their_probability_is_one_are_still_told_apart() -> None:
    logits = np.array([[0.0, 40.0], [0.0, 42.0], [0.0, 41.0], [0.0, 43.0], [9.0, 0.0], [8.0, 0.0]])
    label = np.array([0, 1, 0, 1, 0, 0])
    units = Units("window", np.arange(6), label, logits)
    assert metrics_of(units, 0.0).values["auroc"] == plain_auroc(margin(logits), label == 1) == 1.0
