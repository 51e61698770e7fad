"""Refuses a checkpoint that was trained on other features: channels, unit, rate, encoder, windows."""

from __future__ import annotations

from typing import Any

from eegpt_daemon.trainer.checkpoint import CheckpointError

KEYS = {  # of what features depend on: the key of the configuration
    "channels": "data.channels",
    "missing": "data.missing",
    "reference": "data.reference",
    "scaling": "data.scaling",
    "rate": "data.sampling_rate",
    "window": "data.window_duration (samples)",
    "stride": "data.window_stride (samples)",
    "pooling": "model.probe.pooling",
    "precision": "model.backbone.precision",
    "kind": "what is cached",
    "entry": "model.backbone.entry",
    "name": "the encoder",
    "version": "the encoder's version",
    "flatten": "model.probe.pooling (none)",
}


def refuse_other_features(checkpoint: str, was: dict[str, Any] | None, now: dict[str, Any]) -> None:
    """Raises CheckpointError, with the first thing that differs. `was`: None for a checkpoint of an earlier version."""
    if was is None:
        return
    for key, name in KEYS.items():
        if was.get(key) == now.get(key):
            continue
        before, after = was.get(key), now.get(key)
        if isinstance(before, list) and isinstance(after, list):
            alike = sorted(before) == sorted(after)
            number = next((i for i, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]), None)
            where = "" if number is None else f"; number {number + 1} was {before[number]}, is {after[number]}"
            words = "the same ones in another order" if alike else f"{len(before)} then, {len(after)} now"
            raise CheckpointError(f"{checkpoint} was trained on other features: {name}: {words}{where}; {ADVICE}")
        raise CheckpointError(f"{checkpoint} was trained on other features: {name} was {before}, is {after}; {ADVICE}")
    if was.get("weights") != now.get("weights"):
        raise CheckpointError(
            f"{checkpoint} was trained on the features of another encoder: the weights are not the same (the file of "
            f"model.backbone.checkpoint_path was replaced); {ADVICE}"
        )


ADVICE = "restore it, or start a fresh run"
