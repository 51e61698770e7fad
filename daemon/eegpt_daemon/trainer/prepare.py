"""From a configuration to tensors: corpus, split, frozen features, standardiser. Long, resumable, with progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mne
import numpy as np
import torch
from numpy.typing import NDArray

from eegpt_daemon.eeg import synthetic
from eegpt_daemon.eeg.corpus import CorpusError, Entry, counts, index, with_validation
from eegpt_daemon.eeg.features import Features, FeatureStore, Rejected, standardiser
from eegpt_daemon.eeg.recording import wanted_channels
from eegpt_daemon.model.encoder import PATCH, Encoder
from eegwatch.run.config import Config, ConfigError

ENCODER_SEED = 1  # of a preset's random weights: apart from experiment.seed, so that a seed sweep keeps its features
Report = Callable[[str, int, int], None]


@dataclass
class Plan:
    """What will be trained on, known from the headers before anything long begins."""

    entries: list[Entry]
    windows: dict[str, int]
    notes: list[str]


@dataclass
class Data:
    """Features of the three splits and the train statistics that standardise them."""

    train: Features
    val: Features
    test: Features
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    rejected: list[Rejected]

    def hash(self) -> str:
        return f"{self.train.hash()}-{self.val.hash()}"


def build_encoder(config: Config) -> tuple[Encoder, list[str]]:
    """The frozen encoder, and what a reader of the log must know about it."""
    backbone = config.model.backbone
    if not backbone.freeze or config.model.probe.use_channel_adapter:
        key = "model.backbone.freeze: false" if not backbone.freeze else "model.probe.use_channel_adapter: true"
        raise ConfigError(f"{key} trains through the backbone, and this version trains on frozen features only")
    channels = wanted_channels(config.data)
    if backbone.checkpoint_path:
        return Encoder.from_checkpoint(Path(backbone.checkpoint_path), channels), []
    note = f"encoder preset {backbone.preset}: random weights, not the published EEGPT (model.backbone.checkpoint_path)"
    return Encoder.preset(backbone.preset, channels, ENCODER_SEED), [note]


def plan(config: Config, store: FeatureStore, report: Report) -> Plan:
    """Make the synthetic corpus if one is asked for, index it, split it, and count the windows from the headers."""
    root, notes = Path(config.data.root_dir), list[str]()
    if config.data.synthetic is not None:
        if not root.exists():
            try:
                synthetic.make_corpus(
                    root, config.data.synthetic, lambda d, t: report("making the synthetic corpus", d, t)
                )
            except OSError as error:
                raise CorpusError(f"data.root_dir: {root} cannot be made: {error}") from None
        notes.append("corpus: SYNTHETIC signals in real EDF files; its AUROC says nothing about EEGPT or patients")
    entries = with_validation(index(root, config.data.labels), config.data.val_fraction, config.experiment.seed)
    windows = {"train": 0, "val": 0, "eval": 0}
    for done, entry in enumerate(entries, 1):
        windows[entry.split] += _count(entry, store)
        report("reading EDF headers", done, len(entries))
    for split, table in counts(entries, config.data.labels).items():
        said = f"{split}: " + ", ".join(f"{table[name]} {name}" for name in config.data.labels) + " recordings"
        notes.append(f"{said} of {table['subjects']} subjects, {windows[split]:,} windows")
    return Plan(entries, windows, notes)


def _count(entry: Entry, store: FeatureStore) -> int:
    """Windows of a recording: exact from its shard, else what its header promises."""
    shard = store.shard(entry)
    if shard.exists():
        try:
            return int(np.load(shard, mmap_mode="r").shape[0])
        except (ValueError, EOFError, OSError):
            pass  # a damaged shard is computed again by prepare; until then the header speaks
    try:
        header = mne.io.read_raw_edf(entry.path, preload=False, verbose="ERROR")
    except (ValueError, OSError, RuntimeError, NotImplementedError, IndexError):
        return 0  # prepare will reject it, by name and reason
    samples = round(header.n_times * store.rate / header.info["sfreq"])
    return int(max(0, (samples // PATCH - store.window // PATCH) // (store.stride // PATCH) + 1))


def features(
    config: Config, store: FeatureStore, entries: list[Entry], report: Report, note: Callable[[str], None]
) -> Data:
    """Compute what is missing and gather all splits. Without a validation share, `val` is empty."""
    rejected = store.prepare(entries, lambda done, total: report("features", done, total), note)
    train = store.gather(entries, "train", rejected)
    test = store.gather(entries, "eval", rejected)
    if config.data.val_fraction > 0:
        val = store.gather(entries, "val", rejected)
    else:
        val = Features(train.x[:0], train.y[:0], train.recording[:0])
    mean, std = standardiser(train.x)
    return Data(train, val, test, mean, std, rejected)


def best_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
