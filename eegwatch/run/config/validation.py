"""Validation of a configuration: unknown keys, and values that no run can have."""

from __future__ import annotations

import difflib
import math
import types
import typing
from typing import Any

from eegwatch.run.config.schedule import schedule_name
from eegwatch.run.config.schema import Config, Part
from eegwatch.run.yaml_file import ConfigError

# rules of evidence, which a person may silence or scale; facts (learning rate, non-finite numbers) are not tuned
TUNABLE = (
    "loss_spike",
    "loss_diverging",
    "loss_plateau",
    "loss_unstable",
    "grad_zero",
    "grad_exploding",
    "throughput_drop",
    "metric_stuck",
    "overfitting",
    "stalled",
)
MOST_EPOCHS = 1_000_000_000


def reject_unknown(tree: dict[str, Any], part: type[Part], where: str, prefix: str) -> None:
    hints = typing.get_type_hints(part)
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, 1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(hints)}"
            raise ConfigError(f"{where}: {name} is not a key; {hint}")
        inner = _part_of(hints[key])
        if inner is not None and isinstance(value, dict):
            reject_unknown(value, inner, where, f"{name}.")


def _part_of(hint: Any) -> type[Part] | None:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for option in options:
        if isinstance(option, type) and issubclass(option, Part):
            return option
    return None


MOST_SEEDS = 1000


def _check_seeds(config: Config, where: str) -> None:
    seeds = config.experiment.seeds
    if seeds is None:
        return
    if config.script is not None:
        raise ConfigError(f"{where}: experiment.seeds: a script sets its own seed; start it once for each")
    number = seeds if isinstance(seeds, int) else len(seeds)
    if not 1 <= number <= MOST_SEEDS:
        raise ConfigError(f"{where}: experiment.seeds: from 1 to {MOST_SEEDS:,} seeds, not {number:,}")
    if isinstance(seeds, list) and len(set(seeds)) < len(seeds):
        raise ConfigError(f"{where}: experiment.seeds: a seed stands twice in {seeds}")


def check(config: Config, where: str) -> None:
    """Values that no run can have, raised as ConfigError. What a run should not have is the preflight's business."""
    _check_seeds(config, where)
    _check_ranges(config, where)
    _check_processes(config, where)
    _check_labels(config, where)
    _check_entry(config, where)
    _check_detectors(config, where)
    if config.inject and schedule_name(config.training.scheduler.name) != "one_cycle":
        raise ConfigError(f"{where}: inject: {config.inject} needs training.scheduler.name: one_cycle")


def _check_ranges(config: Config, where: str) -> None:
    """Single numbers, each within the range of its kind."""
    data, training = config.data, config.training
    at_least_one = {
        "data.batch_size": data.batch_size,
        "data.sampling_rate": data.sampling_rate,
        "training.max_epochs": training.max_epochs,
        "training.gradient_accumulation_steps": training.gradient_accumulation_steps,
        "logging.log_every_n_steps": config.logging.log_every_n_steps,
        "logging.save_top_k": config.logging.save_top_k,
        "distributed.nproc_per_node": config.distributed.nproc_per_node,
        "distributed.nnodes": config.distributed.nnodes,
    }
    for key, value in at_least_one.items():
        if value < 1:
            raise ConfigError(f"{where}: {key}: must be at least 1, not {value}")
    if training.max_epochs > MOST_EPOCHS:
        raise ConfigError(f"{where}: training.max_epochs: at most {MOST_EPOCHS:,}, not {training.max_epochs:,}")
    above_zero = {
        "data.window_duration": data.window_duration,
        "data.window_stride": data.window_stride,
        "training.val_check_interval": training.val_check_interval,
        "training.checkpoint_minutes": training.checkpoint_minutes,
    }
    for key, number in above_zero.items():
        if not math.isfinite(number) or number <= 0:
            raise ConfigError(f"{where}: {key}: must be above 0, not {number}")
    for key, number in {"data.val_fraction": data.val_fraction, "data.max_rejected": data.max_rejected}.items():
        if not 0 <= number < 1:
            raise ConfigError(f"{where}: {key}: is a fraction, 0 or more and below 1, not {number}")
    if training.pace_steps_per_s is not None and training.pace_steps_per_s <= 0:
        raise ConfigError(f"{where}: training.pace_steps_per_s: must be above 0, or null for no pace")
    if not 0 <= config.model.probe.dropout < 1:
        raise ConfigError(f"{where}: model.probe.dropout: must be 0 or more and below 1")


def _check_processes(config: Config, where: str) -> None:
    workers, distributed = config.data.num_workers, config.distributed
    if workers < 0:
        raise ConfigError(f"{where}: data.num_workers: must be 0 (no worker processes) or more, not {workers}")
    if distributed.nnodes > 1 and not distributed.rdzv_endpoint:
        raise ConfigError(
            f"{where}: distributed.rdzv_endpoint: {distributed.nnodes} nodes need the host:port at which they meet"
        )


def _check_labels(config: Config, where: str) -> None:
    labels, classes = config.data.labels, config.model.probe.n_classes
    if len(labels) < 2 or len({label.lower() for label in labels}) < len(labels):
        raise ConfigError(f"{where}: data.labels: two or more different folder names, not {labels}")
    if classes not in (None, len(labels)):
        raise ConfigError(f"{where}: model.probe.n_classes: data.labels names {len(labels)} classes, not {classes}")


def _check_detectors(config: Config, where: str) -> None:
    unknown = sorted(set(config.detectors) - set(TUNABLE))
    if unknown:
        near = difflib.get_close_matches(unknown[0], TUNABLE, 1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(TUNABLE)}"
        raise ConfigError(f"{where}: detectors.{unknown[0]} is not a rule that can be tuned; {hint}")


def _check_entry(config: Config, where: str) -> None:
    """A user's own encoder: it is used frozen, is not a checkpoint of EEGPT, and names its own width."""
    backbone, probe = config.model.backbone, config.model.probe
    if backbone.entry is None:
        return
    if not backbone.freeze or probe.use_channel_adapter:
        raise ConfigError(f"{where}: model.backbone.entry: it is used frozen: freeze: true and no channel adapter")
    if backbone.checkpoint_path is not None:
        raise ConfigError(f"{where}: model.backbone.entry: it loads its own weights: remove checkpoint_path")
    if probe.pooling not in (None, "none"):
        raise ConfigError(f"{where}: model.probe.pooling: with model.backbone.entry null (mean of tokens) or none")
