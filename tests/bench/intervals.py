"""How often the 95 % intervals of an evaluation hold the true figure, in simulated cohorts.

    python -m tests.bench.intervals [--cohorts 1000] [--subjects 20 50 100 253]

A subject has a label, a level of its own, one to three recordings, each with a level and four windows. The true figures
are those of a cohort of 100,000 subjects. The threshold is fixed beforehand, as a validation set fixes it.
"""

from __future__ import annotations

import argparse
import multiprocessing

import numpy as np

from eegwatch.scores.intervals import BIASED, intervals
from eegwatch.scores.predictions import Predictions
from eegwatch.scores.resample import Resampled

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
    from eegwatch.scores.figures import figures

    whole = cohort(np.random.default_rng(SEED), POPULATION)
    return {
        (units.level, name): value
        for units in (whole.windows(), whole.recordings())
        for name, value in figures(units, THRESHOLD).values.items()
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cohorts", type=int, default=1000)
    parser.add_argument("--subjects", type=int, nargs="+", default=[20, 50, 100, 253])
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
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
