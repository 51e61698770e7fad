"""From a configuration to windows: corpus, split, frozen features, standardiser. Long, resumable, with progress."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from eegpt_daemon.data import synthetic
from eegpt_daemon.data.corpus import (
    CorpusError,
    Entry,
    Rejected,
    counts,
    index,
    misnamed,
    reachable,
    with_validation,
    without_eval_subjects,
)
from eegpt_daemon.data.custom_features import ForeignStore
from eegpt_daemon.data.features import FeatureStore, SignalStore, standardiser
from eegpt_daemon.data.recording import header_samples, wanted_channels
from eegpt_daemon.data.windows import Report, Windows, WindowStore
from eegpt_daemon.model import custom_encoder as foreign_encoders
from eegpt_daemon.model.custom_encoder import ForeignEncoder
from eegpt_daemon.model.encoder import Encoder, EncoderError
from eegwatch.run.config import Config

AnyEncoder = Encoder | ForeignEncoder
ENCODER_SEED = 1  # of a preset's random weights: apart from experiment.seed, so that a seed sweep keeps its features


@dataclass
class Plan:
    """The data of a training, from the headers, before the long work. `bytes_to_write`: size of the missing cache."""

    entries: list[Entry]
    windows: dict[str, int]
    bytes_to_write: int
    notes: list[str]
    left_out: list[Rejected]  # known to be unusable without being read


@dataclass
class TrainingData:
    """Windows of the three splits, and the train statistics that standardise features (None: through the backbone)."""

    train: Windows
    val: Windows | None
    test: Windows
    mean: NDArray[np.float32] | None
    std: NDArray[np.float32] | None

    def used(self) -> set[str]:
        """The recordings of all splits, by their paths in the corpus."""
        splits = (self.train, self.val, self.test)
        return {name for windows in splits if windows is not None for name in windows.names}

    def hash(self) -> str:
        return f"{self.train.hash()}-{self.val.hash() if self.val else 'none'}"


def through_backbone(config: Config) -> bool:
    """Whether something before or in the encoder is trained, so that features change at every step."""
    return config.model.probe.use_channel_adapter or not config.model.backbone.freeze


def build_encoder(config: Config) -> tuple[AnyEncoder, list[str]]:
    """The frozen encoder, and what a reader of the log must know about it. Raises EncoderError."""
    backbone, data = config.model.backbone, config.data
    channels = wanted_channels(data)
    if backbone.entry is not None:
        samples, flatten = round(data.window_duration * data.sampling_rate), config.model.probe.pooling == "none"
        foreign = foreign_encoders.load(
            backbone.entry, channels, samples, data.sampling_rate, data.scaling, flatten=flatten
        )
        if config.model.probe.input_dim not in (None, foreign.size):
            raise EncoderError(
                f"model.probe.input_dim: {config.model.probe.input_dim}, {backbone.entry} gives {foreign.size} features"
            )
        return foreign, [f"encoder {foreign.name}, version {foreign.key['version']}: {foreign.size} features a window"]
    if backbone.checkpoint_path:
        return Encoder.from_checkpoint(Path(backbone.checkpoint_path), channels), []
    note = f"encoder preset {backbone.preset}: random weights, not the published EEGPT (model.backbone.checkpoint_path)"
    return Encoder.preset(backbone.preset, channels, ENCODER_SEED), [note]


def store_for(config: Config, encoder: AnyEncoder, device: torch.device) -> WindowStore:
    """Features where the encoder stays as it is, else signals."""
    if isinstance(encoder, ForeignEncoder):
        return ForeignStore(config, encoder, device)
    return SignalStore(config) if through_backbone(config) else FeatureStore(config, encoder, device)


def plan(config: Config, store: WindowStore, report: Report) -> Plan:
    """Make the synthetic corpus if one is asked for, index it, split it, and count the windows from the headers."""
    root, notes, data = Path(config.data.root_dir), list[str](), config.data
    if data.synthetic is not None:
        if not root.exists():
            try:
                synthetic.make_corpus(root, data.synthetic, lambda d, t: report("making the synthetic corpus", d, t))
            except OSError as error:
                raise CorpusError(f"data.root_dir: {root} cannot be made: {error}") from None
        notes.append("corpus: SYNTHETIC signals in real EDF files; its AUROC says nothing about EEGPT or patients")
    names = data.log_file_names or data.synthetic is not None
    entries, left_out = reachable(index(root, data.labels, names=names))
    left_out += misnamed(root, data.labels, names=names)
    entries, dropped = without_eval_subjects(entries)
    if dropped:
        notes.append(f"{dropped} training files left out: their subjects are in the official evaluation set too")
    seed = config.experiment.seed if data.split_seed is None else data.split_seed
    entries = with_validation(entries, data.val_fraction, seed)
    store.open()
    windows, rows, missing = {"train": 0, "val": 0, "eval": 0}, 0, 0
    for done, entry in enumerate(entries, 1):
        of_this = store.known_rows(entry)
        if of_this is None:  # what the header promises
            of_this = store.rows_in(header_samples(entry.path, store.rate))
            missing += of_this
        rows += of_this
        windows[entry.split] += len(store.starts(of_this))
        report("reading EDF headers", done, len(entries))
    for split, table in counts(entries, data.labels).items():
        counts_line = f"{split}: " + ", ".join(f"{table[name]} {name}" for name in data.labels) + " recordings"
        notes.append(f"{counts_line} of {table['subjects']} subjects, {windows[split]:,} windows")
    notes += _as_expected(config, windows)
    bytes_to_write = (missing + (rows if missing else 0)) * store.store.width * 2
    return Plan(entries, windows, bytes_to_write, notes, left_out)


def _as_expected(config: Config, windows: dict[str, int]) -> list[str]:
    notes = []
    official = {"train_windows": windows["train"] + windows["val"], "eval_windows": windows["eval"]}
    for key, number in official.items():
        planned = getattr(config.expected, key)
        if planned is not None:
            verdict = "as expected" if planned == number else f"but expected.{key} is {planned:,}"
            notes.append(f"official {key.replace('_', ' ')}: {number:,}, {verdict}")
    return notes


def windows(
    config: Config, store: WindowStore, planned: Plan, report: Report, note: Callable[[str], None]
) -> TrainingData:
    """Compute what is missing and gather all splits. Raises CorpusError: too many faulty files, a full disk."""
    try:
        return _windows(config, store, planned, report, note)
    except OSError as error:
        where = error.filename or store.folder
        raise CorpusError(
            f"{where}: {error.strerror or error}: free some space or repair it; finished parts are kept"
        ) from None


def _windows(
    config: Config, store: WindowStore, planned: Plan, report: Report, note: Callable[[str], None]
) -> TrainingData:
    entries = planned.entries
    free = shutil.disk_usage(store.folder).free
    if planned.bytes_to_write > free:
        raise CorpusError(
            f"data.cache_dir: {store.folder.parent}: {free / 1e9:.1f} GB free, the cache needs "
            f"{planned.bytes_to_write / 1e9:.1f} GB; write a folder on a larger disk"
        )
    what = "signals" if isinstance(store, SignalStore) else "features"
    rejected = store.prepare(entries, lambda done, total: report(what, done, total), note, planned.left_out)
    pack = store.pack(entries, rejected, report, note)
    train = store.gather(pack, entries, "train", rejected)
    test = store.gather(pack, entries, "eval", rejected)
    val = store.gather(pack, entries, "val", rejected) if config.data.val_fraction > 0 else None
    mean, std = (None, None) if isinstance(store, SignalStore) else standardiser(train)
    if rejected:
        note(f"{len(rejected)} recordings are left out, by name in {store.folder / 'recordings.tsv'}")
    return TrainingData(train, val, test, mean, std)


def best_device(local_rank: int = 0) -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda", local_rank % torch.cuda.device_count())
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
