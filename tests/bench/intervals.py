"""How often the 95 % intervals of an evaluation hold the true figure, in simulated cohorts.

    python -m tests.bench.intervals [--cohorts 1000] [--subjects 20 50 100 253]
    python -m tests.bench.intervals --seeds 5 --subjects 100 253      of a mean over seeds, and a difference of two

A subject has a label, a level of its own, one to three recordings, each with a level and four windows. The true figures
are those of a cohort of 100,000 subjects. The threshold is fixed beforehand, as a validation set fixes it.

With `--seeds K` each cohort is scored by K models that differ in their seed: in how far they separate the classes, and
in how they see a subject. The true figure is the mean over many seeds and subjects. Seeds and subjects are drawn anew in
each cohort. The difference is between two such configurations, the second a little better, on the same subjects.
"""

from __future__ import annotations

import argparse
import multiprocessing
from multiprocessing.pool import Pool

import numpy as np

from eegwatch.scores.intervals import BIASED, differences, intervals, over_seeds
from eegwatch.scores.metrics import metrics_of
from eegwatch.scores.predictions import Predictions
from eegwatch.scores.resampled_metrics import Resampled

THRESHOLD = 0.3
POPULATION = 100_000
PREVALENCE = 0.456  # of abnormal recordings in TUAB's evaluation set
SEED = 20_261_126


def cohort(draw: np.random.Generator, subjects: int) -> Predictions:
    """Logits whose margin has a window AUROC of about 0.85."""
    label = (draw.random(subjects) < PREVALENCE).astype(np.int64)
    recordings = draw.integers(1, 4, subjects)
    person = np.repeat(np.arange(subjects), recordings)
    level = draw.normal(0, 0.8, subjects)[person] + draw.normal(0, 0.4, len(person)) + 1.9 * label[person] - 0.6
    recording = np.repeat(np.arange(len(person)), 4)
    score = level[recording] + draw.normal(0, 0.8, len(recording))
    logits = np.column_stack([np.zeros(len(score)), score]).astype(np.float32)
    people = person[recording]
    return Predictions(recording, people, np.tile(np.arange(4.0), len(person)), label[people], logits)


def truth() -> dict[tuple[str, str], float]:
    """(level, figure) -> its value in the population; AUROC by ranks, since 100,000 subjects have too many pairs."""
    whole = cohort(np.random.default_rng(SEED), POPULATION)
    return {
        (units.level, name): value
        for units in (whole.windows(), whole.recordings())
        for name, value in metrics_of(units, THRESHOLD).values.items()
    }


def held(job: tuple[int, int]) -> dict[tuple[str, str], tuple[float, float] | None]:
    """(level, figure) -> the interval of one cohort."""
    number, subjects = job
    sample = cohort(np.random.default_rng([SEED, number, subjects]), subjects)
    found = {}
    for units in (sample.windows(), sample.recordings()):
        resampled = Resampled(units, THRESHOLD)
        known = intervals(resampled)
        found |= {(units.level, name): known.get(name) for name in resampled.names if name not in BIASED}
    return found


# ---- over seeds ----

SEPARATION, BETTER = 1.9, 0.2  # of the classes, and how much more of the second configuration
OF_A_SEED, OF_A_SUBJECT = 0.15, 0.5  # standard deviations: of a seed's separation, and of how it sees a subject
TRUE_SEEDS, TRUE_SUBJECTS = 400, 1_000
FIGURES = ("auroc", "balanced_accuracy", "brier")


def seen(draw: np.random.Generator, subjects: int, seeds: int) -> list[list[Predictions]]:
    """Of both configurations the predictions of each seed on one cohort."""
    base = cohort(draw, subjects)
    person, label = base.subject, base.label
    level = base.logits[:, 1].astype(np.float64) - SEPARATION * label
    sides = []
    for better in (0.0, BETTER):
        side = []
        for _ in range(seeds):
            apart = SEPARATION + better + draw.normal(0, OF_A_SEED)
            score = level + apart * label + draw.normal(0, OF_A_SUBJECT, subjects)[person]
            logits = np.column_stack([np.zeros(len(score)), score]).astype(np.float32)
            side.append(Predictions(base.recording, person, base.start, label, logits))
        sides.append(side)
    return sides


def _levels(side: list[Predictions]) -> dict[str, list[Resampled]]:
    return {
        "window": [Resampled(one.windows(), THRESHOLD) for one in side],
        "recording": [Resampled(one.recordings(), THRESHOLD) for one in side],
    }


def truth_over_seeds() -> dict[tuple[str, str], list[float]]:
    """(level, figure) -> its mean over many seeds, each on subjects of its own, for both configurations."""
    sums: dict[tuple[str, str], list[float]] = {}
    for number in range(TRUE_SEEDS):
        sides = seen(np.random.default_rng([SEED, 1, number]), TRUE_SUBJECTS, 1)
        for i, side in enumerate(sides):
            for units in (side[0].windows(), side[0].recordings()):
                values = metrics_of(units, THRESHOLD).values
                for name in FIGURES:
                    sums.setdefault((units.level, name), [0.0, 0.0])[i] += values[name] / TRUE_SEEDS
    return sums


def held_over_seeds(job: tuple[int, int, int]) -> dict[tuple[str, str], list[tuple[float, float] | None]]:
    """(level, figure) -> the intervals of one cohort: of the first configuration, and of the difference."""
    number, subjects, seeds = job
    first, second = (
        _levels(side) for side in seen(np.random.default_rng([SEED, 2, number, subjects]), subjects, seeds)
    )
    found: dict[tuple[str, str], list[tuple[float, float] | None]] = {}
    for level in first:
        means = over_seeds(first[level], FIGURES)
        apart = differences(first[level], second[level], FIGURES)
        for name in FIGURES:
            found[level, name] = [means[name][1], apart[name].interval]
    return found


def print_over_seeds(
    pool: Pool, cohorts: int, subjects: int, seeds: int, true: dict[tuple[str, str], list[float]]
) -> None:
    found = pool.map(held_over_seeds, [(n, subjects, seeds) for n in range(cohorts)], chunksize=5)
    print(f"{subjects} subjects, {seeds} seeds, {cohorts} cohorts")
    for key, (one, two) in true.items():
        for kind, value in enumerate((one, two - one)):
            known = [cohort_of[key][kind] for cohort_of in found]
            inside = [low <= value <= high for low, high in (i for i in known if i is not None)]
            what = ("mean", "difference")[kind]
            print(f"  {what:10} {key[0]:9} {key[1]:18} true {value:.4f}  covered {np.mean(inside):.1%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cohorts", type=int, default=1000)
    parser.add_argument("--subjects", type=int, nargs="+", default=[20, 50, 100, 253])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    if given.seeds > 1:
        true_means = truth_over_seeds()
        with multiprocessing.Pool(given.processes) as pool:
            for subjects in given.subjects:
                print_over_seeds(pool, given.cohorts, subjects, given.seeds, true_means)
        return
    true = truth()
    print(f"coverage of 95 % intervals, {given.cohorts} cohorts; 93.6 to 96.4 % is what chance allows of 95 % in 1,000")
    with multiprocessing.Pool(given.processes) as pool:
        for subjects in given.subjects:
            found = pool.map(held, [(n, subjects) for n in range(given.cohorts)], chunksize=10)
            print(f"{subjects} subjects")
            for key in found[0]:
                known = [one[key] for one in found if one[key] is not None]
                inside = sum(low <= true[key] <= high for low, high in known)
                missing = f", none in {len(found) - len(known)}" if len(known) < len(found) else ""
                share = inside / len(known) if known else float("nan")
                print(f"  {key[0]:9} {key[1]:31} true {true[key]:.4f}  covered {share:.1%}{missing}", flush=True)


if __name__ == "__main__":
    main()
