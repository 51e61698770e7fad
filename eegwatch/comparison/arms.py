"""One side of a comparison: the predictions of a run, or of all seeds of a series, and how it was configured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eegwatch.run.folder import CONFIG, RUN_LOG
from eegwatch.run.results.evaluation_set_uses import uses_beside, uses_of
from eegwatch.run.seed_series import members, place_of
from eegwatch.run.yaml_file import ConfigError, text_of, tree_of, without_secrets
from eegwatch.scores.predictions import BEST, RECORDING, WINDOW, Predictions, Units
from eegwatch.scores.resampled_metrics import Resampled
from eegwatch.scores.threshold import youden
from eegwatch.wording import UserError

# where a run was written and how it is watched: no difference between two models
NOT_COMPARED = ("experiment.name", "experiment.description", "experiment.series", "notify", "logging", "supervision")


class ComparisonError(UserError):
    """Runs that cannot be compared: which, and why."""


@dataclass(frozen=True, eq=False)
class Arm:
    """`predictions` one a seed; `thresholds` of each, by level.

    `looks` at the official set, by the runs and by commands about them; None: not known.
    """

    name: str
    folders: list[Path]
    seeds: list[int | None]
    predictions: list[Predictions]
    thresholds: list[dict[str, float | None]]
    config: dict[str, Any]
    looks: int | None

    def resampled(self, level: str) -> list[Resampled]:
        """Of windows or of recordings, one a seed.

        Raises ComparisonError for scores that are not finite, or a class that is missing.
        """
        resampled_units = []
        for folder, one, threshold in zip(self.folders, self.predictions, self.thresholds, strict=True):
            units = units_of(one, level)
            problem = units.problem()
            if problem is not None:
                raise ComparisonError(f"{folder}: {problem}: nothing can be computed from its predictions")
            absent = [str(label) for label in range(units.classes) if not (units.label == label).any()]
            if absent:
                raise ComparisonError(f"{folder}: no {level} has label {', '.join(absent)}: nothing to tell apart")
            resampled_units.append(Resampled(units, threshold[level]))
        return resampled_units


def units_of(predictions: Predictions, level: str) -> Units:
    return predictions.windows() if level == WINDOW else predictions.recordings()


def arm_of(path: Path, split: str, model: str, *, all_seeds: bool, partial: bool = False) -> Arm:
    """The run at a path, or with `all_seeds` all runs of its series. Raises UserError.

    `partial`: those of a series that have predictions.
    """
    folder = path.parent if path.name == RUN_LOG else path
    if not folder.is_dir():
        what = "is a file" if path.exists() else "no such folder"
        raise ComparisonError(f"{path}: {what}; give a run's folder, which holds predictions-{split}.npz")
    by_seed = members(folder.resolve()) if all_seeds else {}
    if all_seeds and not by_seed:
        raise ComparisonError(f"{path}: is not a run of a series (experiment.seeds); leave --seeds out")
    if partial:
        kept_where = BEST if model == BEST else ""
        by_seed = {s: f for s, f in by_seed.items() if (f / kept_where / f"predictions-{split}.npz").exists()}
    place = place_of(folder.resolve())
    folders: list[Path] = list(by_seed.values()) or [folder]
    predictions, thresholds = [], []
    for one in folders:
        kept = one / BEST if model == BEST else one
        _refuse_without_predictions(one, kept / f"predictions-{split}.npz", split)
        predictions.append(Predictions.load(kept / f"predictions-{split}.npz"))
        thresholds.append(_thresholds(kept, predictions[-1]))
    looks = [uses_of(one / RUN_LOG) + uses_beside(one).total() for one in folders if (one / RUN_LOG).is_file()]
    return Arm(
        name=place.series if by_seed and place is not None else folder.resolve().name,
        folders=folders,
        seeds=list(by_seed) or [place.seed if place is not None else None],
        predictions=predictions,
        thresholds=thresholds,
        config=_config(folders[0]),
        looks=sum(looks) if len(looks) == len(folders) else None,
    )


def _refuse_without_predictions(folder: Path, path: Path, split: str) -> None:
    """Raises ComparisonError with the reason for a folder without the file."""
    if path.exists():
        return
    if not (folder / RUN_LOG).exists():
        raise ComparisonError(f"{folder}: holds no run; give the folder of one run of eegpt-daemon's trainer")
    when = "when its training has ended; --split val compares what is there before"
    words = when if split == "eval" else "at its first evaluation"
    raise ComparisonError(f"{path}: no such file; a run of eegpt-daemon's trainer writes it {words}")


def _thresholds(folder: Path, predictions: Predictions) -> dict[str, float | None]:
    """Fixed on the same model's validation predictions; None (0) where there is no validation set."""
    path = folder / "predictions-val.npz"
    if not path.exists():
        return {WINDOW: None, RECORDING: None}
    val = Predictions.load(path)
    if val.step != predictions.step:
        raise ComparisonError(f"{path}: is of step {val.step:,}, the other predictions of step {predictions.step:,}")
    return {level: youden(units_of(val, level)) for level in (WINDOW, RECORDING)}


def _config(folder: Path) -> dict[str, Any]:
    """The keys of config.yaml by their dotted names; empty where there is none that can be read."""
    try:
        tree = tree_of(without_secrets(text_of(folder / CONFIG, CONFIG)), CONFIG)
    except ConfigError:
        return {}
    values: dict[str, Any] = {}

    def walk(part: Any, name: str) -> None:
        if isinstance(part, dict) and part:
            for key, value in part.items():
                walk(value, f"{name}.{key}" if name else str(key))
        else:
            values[name] = part

    walk(tree, "")
    return {key: value for key, value in values.items() if not key.startswith(NOT_COMPARED)}


def same_units(first: Arm, other: Arm, level: str) -> bool:
    """Whether both scored the same windows (or recordings) of the same subjects under the same labels."""
    a, b = first.predictions[0], other.predictions[0]
    if level == WINDOW:
        names = ("recording", "subject", "start", "label")
        return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)
    ours, theirs = a.recordings(), b.recordings()
    same = np.array_equal(ours.subject, theirs.subject) and np.array_equal(ours.label, theirs.label)
    return same and ours.classes == theirs.classes


def check_comparable(arms: list[Arm]) -> None:
    """Raises ComparisonError where two did not score the same recordings."""
    first = arms[0]
    for arm in arms:
        for folder, one in zip(arm.folders, arm.predictions, strict=True):
            alike = not (one.corpus and first.predictions[0].corpus) or one.corpus == first.predictions[0].corpus
            if not alike or not same_units(first, Arm(arm.name, [folder], [], [one], [], {}, None), RECORDING):
                raise ComparisonError(
                    f"{folder} and {first.folders[0]} were not scored on the same recordings and subjects: for "
                    "validation sets give both runs one data.split_seed; else one of them left files out"
                )
