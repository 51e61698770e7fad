"""A run's windows, from the cache and split that it was trained on, and the weights in its checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eegpt_daemon.analysis.objective import Array
from eegpt_daemon.data import dataset
from eegpt_daemon.data.windows import WindowStore
from eegpt_daemon.trainer import checkpoint as checkpoints
from eegpt_daemon.trainer.checkpoint import CheckpointError
from eegwatch.run import config as configuration
from eegwatch.run.config import Config, ConfigError
from eegwatch.run.folder import CHECKPOINTS, CONFIG

Say = Callable[[str], None]


@dataclass
class CachedRun:
    """A run of our trainer with its data. `store`: where its features lie."""

    folder: Path
    config: Config
    encoder: dataset.AnyEncoder
    store: WindowStore
    data: dataset.TrainingData
    planned: dataset.Plan

    @property
    def classes(self) -> int:
        return len(self.config.data.labels)


def config_of(folder: Path) -> Config:
    """The configuration that the run was trained with. Raises ConfigError for a folder that has none, or a script."""
    config = configuration.load(folder / CONFIG, expand=False)
    if config.script is not None:
        raise ConfigError(f"{folder.name} is a run of a script of one's own: its data and model are not known here")
    return config


def open_run(folder: Path, config: Config, say: Say) -> CachedRun:
    """Its data as the trainer prepared them; what is missing from the cache is computed again.

    Raises the errors of configuration, corpus and encoder.
    """
    encoder, _ = dataset.build_encoder(config)
    store = dataset.store_for(config, encoder, dataset.best_device())
    planned = dataset.plan(config, store, _quiet)
    data = dataset.windows(config, store, planned, _quiet, say)
    return CachedRun(folder, config, encoder, store, data, planned)


def _quiet(*_: object) -> None:
    """Ignore progress: everything needed is already in the cache."""


def folded(data: dataset.TrainingData) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(shift, scale) of the train statistics, z = x * scale + shift, rounded as the trainer rounds them."""
    assert data.mean is not None and data.std is not None, "features that are cached have statistics"
    mean, std = data.mean.astype(np.float64), data.std.astype(np.float64)
    return (-mean / std).astype(np.float32), (1 / std).astype(np.float32)


@dataclass
class Trained:
    """A linear probe from a checkpoint: `w` (features + 1, classes), and the standardiser that it was trained with.

    `data_hash`: of the windows and features that it was trained on.
    """

    role: str
    name: str
    step: int
    w: Array
    shift: NDArray[np.float32]
    scale: NDArray[np.float32]
    data_hash: str


def trained_models(folder: Path) -> list[Trained]:
    """The final model (of the newest checkpoint) and the best on validation, where that is another one."""
    steps = {n: path for path in (folder / CHECKPOINTS).glob("*.pt") if (n := checkpoints.step_of(path)) is not None}
    for newest in sorted(steps, reverse=True):
        try:
            state = checkpoints.load(steps[newest])
        except CheckpointError:
            continue  # damaged, or pruned meanwhile: the one before it
        models = [_trained("final", checkpoints.name_of(newest), state)]
        best = next((name for _, name in state["ranking"] if (folder / name).is_file()), None)
        if best is not None and best != models[0].name:
            models.append(_trained("best", best, checkpoints.load(folder / best)))
        return models
    return []


def _trained(role: str, name: str, state: dict[str, object]) -> Trained:
    probe: dict[str, object] = state["probe"]  # type: ignore[assignment]
    weight, bias = probe["layers.1.weight"], probe["layers.1.bias"]
    standardiser: dict[str, object] = state["standardiser"]  # type: ignore[assignment]
    return Trained(
        role,
        name,
        int(state["step"]),  # type: ignore[call-overload]
        np.concatenate([_array(weight).T, _array(bias)[None]]).astype(np.float64),
        _array(standardiser["shift"]),
        _array(standardiser["scale"]),
        str(state["data_hash"]),
    )


def _array(tensor: object) -> NDArray[np.float32]:
    values: NDArray[np.float32] = tensor.numpy()  # type: ignore[attr-defined]
    return values
