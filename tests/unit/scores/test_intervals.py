"""Intervals: repeatable from the same predictions, none where nothing can be said, paired where two runs are compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from eegwatch.scores.intervals import DRAWS, differences, draws, intervals, over_seeds, percentiles
from eegwatch.scores.resample import Resampled
from tests.unit.scores.cohorts import cohort, plain_auroc


def test_an_interval_can_be_made_again_by_anyone() -> None:
    recordings = cohort(5, subjects=40).recordings()
    ours = intervals(Resampled(recordings, 0.0))
    counts = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), size=2000)
    theirs = []
    for count in counts:
        rows = np.repeat(np.arange(len(recordings)), count[recordings.subject])
        theirs.append(plain_auroc(recordings.score[rows], recordings.label[rows] == 1))
    assert ours["auroc"] == pytest.approx(np.percentile(theirs, [2.5, 97.5]), abs=1e-9)
    assert len(counts) == DRAWS


def test_every_figure_lies_within_its_interval_and_the_slow_one_can_wait() -> None:
    units = cohort(6, subjects=60).windows()
    found = Resampled(units, 0.2)
    of_all = intervals(found)
    whole = found.values(np.ones((1, 60)))
    assert set(of_all) == set(whole)
    for name in set(of_all) - {"calibration_error"}:  # which resampling biases upwards
        assert of_all[name][0] <= whole[name][0] <= of_all[name][1], name
    assert set(of_all) - set(intervals(found, slow=False)) == {"average_precision"}


def test_few_subjects_or_a_class_of_one_subject_have_no_interval() -> None:
    assert intervals(Resampled(cohort(1, subjects=9).recordings())) == {}
    units = cohort(1, subjects=24).recordings()
    units.label[units.subject != 0] = 0
    units.label[units.subject == 0] = 1  # missing from a third of the draws
    found = intervals(Resampled(units))
    assert "auroc" not in found and "brier" in found


def test_windows_of_one_subject_do_not_count_as_independent() -> None:
    predictions = cohort(7, subjects=40, windows=30)
    windows = predictions.windows()
    low, high = intervals(Resampled(windows))["auroc"]
    alone = replace(predictions, subject=np.arange(len(predictions))).windows()
    narrow_low, narrow_high = intervals(Resampled(alone))["auroc"]
    assert high - low > 2 * (narrow_high - narrow_low)


# ---- between two runs -------------------------------------------------------------------------------------------------


def test_a_run_does_not_differ_from_itself() -> None:
    found = Resampled(cohort(1, subjects=40).recordings())
    difference = differences([found], [found], ["auroc"])["auroc"]
    assert (difference.value, difference.interval, difference.told_apart) == (0.0, (0.0, 0.0), False)


def test_two_runs_on_the_same_subjects_are_told_apart_where_single_intervals_overlap() -> None:
    better = cohort(2, subjects=80, shift=0.9)
    noise = np.random.default_rng(1).normal(0, 0.6, better.logits.shape).astype(np.float32)
    worse = replace(better, logits=better.logits + noise)
    a, b = Resampled(worse.windows()), Resampled(better.windows())
    difference = differences([a], [b], ["auroc"])["auroc"]
    assert difference.told_apart and difference.value > 0
    assert intervals(b)["auroc"][0] < intervals(a)["auroc"][1]
    counts = draws(80)
    each = b.values(counts, ["auroc"])["auroc"] - a.values(counts, ["auroc"])["auroc"]
    assert difference.interval == pytest.approx(tuple(np.percentile(each, [2.5, 97.5])), abs=1e-12)


def test_few_subjects_tell_nothing_apart() -> None:
    a, b = (Resampled(cohort(1, subjects=8, shift=shift).recordings()) for shift in (0.0, 3.0))
    difference = differences([a], [b], ["auroc"])["auroc"]
    assert difference.interval is None and not difference.told_apart


def test_seeds_widen_an_interval_by_what_they_vary() -> None:
    base = cohort(3, subjects=60)
    draw = np.random.default_rng(4)
    seeds = []
    for _ in range(5):
        direction = draw.normal(0, 0.5, (60, 2)).astype(np.float32)
        seeds.append(Resampled(replace(base, logits=base.logits + direction[base.subject]).recordings()))
    mean, interval = over_seeds(seeds, ["auroc"])["auroc"]
    each = [float(seed.values(np.ones((1, 60)), ["auroc"])["auroc"][0]) for seed in seeds]
    assert mean == pytest.approx(np.mean(each))
    fixed = percentiles(np.mean([seed.values(draws(60), ["auroc"])["auroc"] for seed in seeds], axis=0))
    assert interval is not None and fixed is not None
    assert interval[1] - interval[0] > fixed[1] - fixed[0]


def test_paired_seeds_compare_more_sharply_than_independent_ones() -> None:
    base = cohort(3, subjects=60, shift=0.6)
    draw = np.random.default_rng(4)
    worse, better = [], []
    for _ in range(6):
        logits = base.logits + draw.normal(0, 1.0, (60, 2)).astype(np.float32)[base.subject]
        worse.append(Resampled(replace(base, logits=logits).recordings()))
        lift = np.eye(2, dtype=np.float32)[base.label] * 0.1
        better.append(Resampled(replace(base, logits=logits + lift).recordings()))
    paired = differences(worse, better, ["auroc"], paired_seeds=True)["auroc"]
    independent = differences(worse, better, ["auroc"])["auroc"]
    assert paired.value == independent.value
    assert paired.interval is not None and independent.interval is not None
    assert paired.interval[1] - paired.interval[0] < independent.interval[1] - independent.interval[0]
