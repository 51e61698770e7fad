"""The scores of a series of seeds on the official evaluation set, kept as `series.json` beside its first run."""

from __future__ import annotations

from pathlib import Path

from eegwatch.comparison.arms import Arm, ComparisonError, arm_of
from eegwatch.run.seed_series import SeriesScores, place_of, write_scores
from eegwatch.scores.intervals import over_seeds
from eegwatch.scores.predictions import RECORDING, WINDOW

FIGURES = ("auroc", "balanced_accuracy", "brier")


def keep_scores(folder: Path) -> SeriesScores | None:
    """Of the seeds that are evaluated so far, over seeds and subjects; None for a run of no series.

    Raises UserError for predictions that cannot be used, OSError where the file cannot be written.
    """
    place = place_of(folder)
    if place is None:
        return None
    arm = arm_of(folder, "eval", "final", all_seeds=True, partial=True)
    scores = SeriesScores(seeds=[seed for seed in arm.seeds if seed is not None], figures=_figures(arm))
    write_scores(folder.parent / place.series, scores)
    return scores


def _figures(arm: Arm) -> dict[str, list[float | None]]:
    figures: dict[str, list[float | None]] = {}
    for level, prefix in ((WINDOW, ""), (RECORDING, "recording_")):
        runs = arm.resampled(level)
        if any(list(run.subjects) != list(runs[0].subjects) for run in runs):
            raise ComparisonError(f"the runs of {arm.name} were not scored on the same subjects: no mean is made")
        for name, (mean, interval) in over_seeds(runs, FIGURES).items():
            figures[prefix + name] = [mean, *(interval or (None, None))]
    return figures
