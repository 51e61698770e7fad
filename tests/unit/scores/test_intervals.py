"""Intervals: repeatable from the same predictions, none where nothing can be said, paired where two runs are compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from eegwatch.scores.intervals import (
    DRAWS,
    bca,
    differences,
    draws,
    intervals,
    over_seeds,
    seed_draws,
    student,
    within_range,
)
from eegwatch.scores.resampled_metrics import Resampled
from tests.unit.scores.cohorts import cohort, plain_auroc


def plain_bca(drawn: np.ndarray, whole: float, without: np.ndarray, rarest: int) -> np.ndarray:
    """As docs/evaluation.md defines it, by scipy."""
    from scipy.stats import norm, t

    bias = norm.ppf(((drawn < whole - 1e-12).mean() + (drawn <= whole + 1e-12).mean()) / 2)
    distance = without.mean() - without
    skew = (distance**3).sum() / (6 * (distance**2).sum() ** 1.5)
    z = t.ppf([0.025, 0.975], rarest - 1) * np.sqrt(rarest / (rarest - 1))
    return np.quantile(drawn, norm.cdf(bias + (bias + z) / (1 - skew * (bias + z))))


def test_an_interval_can_be_made_again_by_anyone() -> None:
    recordings = cohort(5, subjects=40).recordings()
    ours = intervals(Resampled(recordings, 0.0))
    counts = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), size=2000)

    def auroc(count: np.ndarray) -> float:
        rows = np.repeat(np.arange(len(recordings)), count[recordings.subject])
        return plain_auroc(recordings.score[rows], recordings.label[rows] == 1)

    drawn = np.array([auroc(count) for count in counts])
    without = np.array([auroc((np.arange(40) != one).astype(int)) for one in range(40)])
    assert ours["auroc"] == pytest.approx(plain_bca(drawn, auroc(np.ones(40, int)), without, 20), abs=1e-9)
    assert len(counts) == DRAWS


def test_every_figure_lies_within_its_interval_and_the_slow_one_can_wait() -> None:
    units = cohort(6, subjects=60).windows()
    found = Resampled(units, 0.2)
    of_all = intervals(found)
    whole = found.values(np.ones((1, 60)))
    assert set(whole) - set(of_all) == {"calibration_error"}  # which resampling raises
    for name in of_all:
        assert of_all[name][0] <= whole[name][0] <= of_all[name][1], name
    assert set(of_all) - set(intervals(found, slow=False)) == {"average_precision"}


def test_few_subjects_in_all_or_of_a_class_have_no_interval() -> None:
    assert intervals(Resampled(cohort(1, subjects=9).recordings())) == {}
    units = cohort(1, subjects=24).recordings()
    for of_class, known in ((4, False), (5, True)):
        units.label[:] = units.subject < of_class
        assert ("auroc" in intervals(Resampled(units))) is known


def test_a_figure_that_many_draws_do_not_have_has_no_interval() -> None:
    drawn = np.linspace(0.7, 0.9, 2000)
    without = np.random.default_rng(0).normal(0.8, 0.01, 40)
    assert bca(drawn, 0.8, without, 20) is not None
    drawn[:101] = np.nan
    assert bca(drawn, 0.8, without, 20) is None


def test_windows_of_one_subject_do_not_count_as_independent() -> None:
    predictions = cohort(7, subjects=40, windows=30)
    windows = predictions.windows()
    low, high = intervals(Resampled(windows), slow=False)["auroc"]
    alone = replace(predictions, subject=np.arange(len(predictions))).windows()
    narrow_low, narrow_high = intervals(Resampled(alone), slow=False)["auroc"]
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
    both = [[r.values(w, ["auroc"])["auroc"] for r in (a, b)] for w in (draws(80), np.ones((1, 80)), 1 - np.eye(80))]
    drawn, (whole,), without = (second - first for first, second in both)
    assert difference.value == pytest.approx(whole) and difference.interval == pytest.approx(
        plain_bca(drawn, whole, without, 40), abs=1e-9
    )


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
    parts = [np.mean([s.values(w, ["auroc"])["auroc"] for s in seeds], axis=0) for w in (draws(60), 1 - np.eye(60))]
    fixed = bca(parts[0], mean, parts[1], 30)
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


def test_students_t_is_scipys() -> None:
    from scipy.stats import t

    for freedom in (*range(1, 40), 100, 125, 1000, 2001):
        assert student(freedom) == pytest.approx(t.ppf(0.975, freedom), rel=1e-8)  # scipy 1.11 is that far off


def test_drawn_seeds_show_the_variance_that_seeds_have() -> None:
    values = np.array([0.81, 0.83, 0.80, 0.85, 0.82])
    drawn = seed_draws(5, 200_000) @ values
    assert drawn.mean() == pytest.approx(values.mean(), abs=1e-4)
    assert drawn.var() == pytest.approx(values.var(ddof=1) / 5, rel=0.02)


def test_an_interval_does_not_depend_on_the_rounding_of_draws_that_equal_the_figure() -> None:
    draw = np.random.default_rng(2)
    drawn, without = np.round(draw.normal(0.7, 0.1, 2000), 1), 0.7 + draw.normal(0, 0.01, 30)  # many equal the figure
    rounded = drawn + draw.choice([-1, 0, 1], 2000) * 1e-16
    assert bca(rounded, 0.7, without, 12) == pytest.approx(bca(drawn, 0.7, without, 12), abs=1e-12)


def test_an_interval_ends_where_its_figure_does() -> None:
    assert within_range("sensitivity", (0.4, 1.002)) == (0.4, 1.0) and within_range("kappa", (-0.2, 0.3)) == (-0.2, 0.3)
    assert within_range("auroc", None) is None
