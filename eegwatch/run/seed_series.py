"""A series of runs that differ in their seed only: its runs, and the next seed.

All of it stands in the runs' config.yaml: `experiment.seeds` (all, in order), `experiment.seed` (the run's own) and
`experiment.series` (the run_id of the first run).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from eegwatch.run.config import Config
from eegwatch.run.folder import CONFIG, runs, write_whole
from eegwatch.run.yaml_file import ConfigError, text_of, tree_of

SCORES = "series.json"
_NAME = re.compile(r"-seed\d+(\.\d+)?$")  # of a run's folder, in every series


def as_series(config: Config) -> None:
    """A configuration with `seeds` as its first run has it: all named, one split for all. One of a series stays."""
    experiment, seeds = config.experiment, config.experiment.seeds
    if seeds is None or experiment.series is not None:
        return
    experiment.seeds = [experiment.seed + i for i in range(seeds)] if isinstance(seeds, int) else seeds
    experiment.seed = experiment.seeds[0]
    if config.data.split_seed is None:
        config.data.split_seed = experiment.seed


@dataclass(frozen=True)
class SeriesPlace:
    """The position of a run in its series: the name `series`, its `seed` of all `seeds`."""

    series: str
    seed: int
    seeds: tuple[int, ...]


class SeriesScores(msgspec.Struct, kw_only=True):
    """Of the `seeds` that are evaluated, on the official set: each figure's mean, and its 95 % interval or nulls."""

    seeds: list[int]
    figures: dict[str, list[float | None]]

    def text(self, name: str) -> str:
        """0.913 (0.880 to 0.940)."""
        mean, low, high = (*self.figures.get(name, []), None, None, None)[:3]
        if mean is None:
            return ""
        return f"{mean:.3f}" + (f" ({low:.3f} to {high:.3f})" if low is not None and high is not None else "")


def write_scores(first: Path, scores: SeriesScores) -> None:
    """Into the folder of a series' first run. Raises OSError."""
    write_whole(first / SCORES, msgspec.json.encode(scores) + b"\n")


def scores_of(first: Path) -> SeriesScores | None:
    """None where no run of the series was evaluated yet, or the file cannot be read."""
    try:
        return msgspec.json.decode((first / SCORES).read_bytes(), type=SeriesScores)
    except (OSError, msgspec.DecodeError):
        return None


def folder_name(name: str, seed: int) -> str:
    """The name of the folder of one run of a series, after the time."""
    return f"{name}-seed{seed}"


def place_of(folder: Path) -> SeriesPlace | None:
    """None for a run of no series, or whose configuration cannot be read."""
    if not _NAME.search(folder.name):
        return None
    try:
        tree = tree_of(text_of(folder / CONFIG, CONFIG), CONFIG)
    except ConfigError:
        return None
    return _place(tree.get("experiment") if isinstance(tree, dict) else None)


def _place(experiment: Any) -> SeriesPlace | None:
    if not isinstance(experiment, dict):
        return None
    series, seed, seeds = (experiment.get(key) for key in ("series", "seed", "seeds"))
    if not isinstance(series, str) or not isinstance(seed, int) or not isinstance(seeds, list):
        return None
    if not all(isinstance(one, int) for one in seeds):
        return None
    return SeriesPlace(series, seed, tuple(seeds))


def members(folder: Path) -> dict[int, Path]:
    """The runs of a run's series by seed, in the order of the seeds; the newest of a seed that was begun again."""
    place = place_of(folder)
    if place is None:
        return {}
    folders: dict[int, Path] = {}
    for other in runs(folder.parent):
        one = place_of(other)
        if one is not None and one.series == place.series:
            folders[one.seed] = other
    return {seed: folders[seed] for seed in place.seeds if seed in folders}


def next_seed(folder: Path) -> int | None:
    """The first seed of a run's series for which no run was begun; None where all were, or there is no series."""
    place = place_of(folder)
    if place is None:
        return None
    seeds = members(folder)
    return next((seed for seed in place.seeds if seed not in seeds), None)
