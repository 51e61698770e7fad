"""Each run compared with the first: metrics with intervals, paired differences, and the verdict as a sentence."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eegwatch.comparison.arms import Arm, ComparisonError, arm_of, check_comparable, same_units
from eegwatch.scores.intervals import Difference, Interval, differences, over_seeds
from eegwatch.scores.predictions import RECORDING, WINDOW
from eegwatch.wording import count

FIGURES = {
    "auroc": "AUROC",
    "average_precision": "average precision",
    "balanced_accuracy": "balanced accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "f1": "F1",
    "kappa": "kappa",
    "brier": "Brier score",
}
MAIN = "auroc"
SETS = {"eval": "the evaluation set", "val": "the validation set"}


@dataclass(frozen=True)
class Pair:
    """A run against the first. `differences` by level and figure; `configuration`: (key, of the first, of this)."""

    arm: Arm
    differences: dict[str, dict[str, Difference]]
    configuration: list[tuple[str, Any, Any]]
    verdicts: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Comparison:
    """`figures` of each arm, by level and figure: (value, interval or None)."""

    split: str
    model: str
    subjects: int
    arms: list[Arm]
    figures: list[dict[str, dict[str, tuple[float, Interval | None]]]]
    pairs: list[Pair]
    remarks: list[str]


def compare(paths: list[Path], split: str, model: str, *, all_seeds: bool) -> Comparison:
    """Raises UserError for runs that cannot be compared."""
    arms = [arm_of(path, split, model, all_seeds=all_seeds) for path in paths]
    check_comparable(arms)
    remarks: list[str] = []
    levels = [WINDOW, RECORDING]
    different = [arm.name for arm in arms[1:] if not same_units(arms[0], arm, WINDOW)]
    if different:
        levels = [RECORDING]
        remarks.append(f"windows are not the same in {', '.join(different)}: only recordings are compared")
    resampled = [{level: arm.resampled(level) for level in levels} for arm in arms]
    figures = [
        {level: over_seeds(runs, [n for n in FIGURES if n in runs[0].names]) for level, runs in one.items()}
        for one in resampled
    ]
    subjects = len(resampled[0][levels[0]][0].subjects)
    pairs = []
    for arm, one in zip(arms[1:], resampled[1:], strict=True):
        paired = len(arm.seeds) > 1 and arm.seeds == arms[0].seeds
        apart = {
            level: differences(resampled[0][level], runs, list(figures[0][level]), paired_seeds=paired)
            for level, runs in one.items()
        }
        verdicts = [verdict(arm.name, arms[0].name, level, apart[level][MAIN], subjects, split) for level in levels]
        pairs.append(Pair(arm, apart, _configuration(arms[0], arm), verdicts))
    remarks += _looks(arms) if split == "eval" else []
    if len(pairs) > 1:
        remarks.append(f"{len(pairs)} comparisons: each interval has a level of 95 %, all of them together have less")
    return Comparison(split, model, subjects, arms, figures, pairs, remarks)


def verdict(name: str, first: str, level: str, difference: Difference, subjects: int, split: str) -> str:
    """A sentence: whether this set distinguishes the two runs."""
    value, interval, where = difference.value, difference.interval, SETS[split]
    head = f"{level} AUROC of {name} is {abs(value):.4f} {'higher' if value >= 0 else 'lower'} than of {first}"
    if interval is None:
        return f"{head}: {count(subjects, 'subject')} are too few to say whether that is chance"
    between = f"95 % interval {interval[0]:+.4f} to {interval[1]:+.4f}, {count(subjects, 'subject')}"
    if difference.told_apart:
        return f"{head} ({between}): {where} tells them apart"
    resolved = (interval[1] - interval[0]) / 2
    return f"{head} ({between}): {where} cannot tell them apart; it resolves differences of about {resolved:.3f}"


def _configuration(first: Arm, other: Arm) -> list[tuple[str, Any, Any]]:
    keys = dict.fromkeys([*first.config, *other.config])
    ignored = ("experiment.seed", "experiment.seeds") if len(first.seeds) > 1 and first.seeds == other.seeds else ()
    missing = object()
    return [
        (key, first.config.get(key), other.config.get(key))
        for key in keys
        if key not in ignored and first.config.get(key, missing) != other.config.get(key, missing)
    ]


def _looks(arms: list[Arm]) -> list[str]:
    known = [arm for arm in arms if arm.looks is not None]
    if not known:
        return []
    each = ", ".join(f"{arm.name} {arm.looks}" for arm in known)
    total = sum(arm.looks or 0 for arm in known)
    return [f"the evaluation set was looked at {count(total, 'time')} by these runs and commands about them ({each})"]


__all__ = ["FIGURES", "Comparison", "ComparisonError", "Pair", "compare"]
