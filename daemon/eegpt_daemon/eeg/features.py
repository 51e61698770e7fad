"""Frozen EEGPT features, computed once and kept on disk: one float16 `.npy` a recording, (windows, features).

Patches never see each other and the scaling is per recording, so each patch is encoded once and averaged into every
window that holds it. The cache folder's name is a hash of all that the features depend on (encoder weights, channels,
scaling, windows, pooling); a shard's name holds its file's path, size and time. Any change makes a new one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from eegpt_daemon.eeg.corpus import CorpusError, Entry
from eegpt_daemon.eeg.recording import Unusable, read, wanted_channels
from eegpt_daemon.model.encoder import PATCH, Encoder
from eegwatch.run.config import Config

VERSION = 1  # of the way from file to features: raise it when that changes, and old caches are left alone
PATCHES_A_BATCH = 256  # 16 windows' worth: the fastest on a CPU (measured 8-32 windows)
LEAST_STD = 1e-3  # features that vary less are constant: volts were fed as millivolts, or a dead encoder


@dataclass
class Features:
    """Windows of one split: `x` (n, features) float16, `y` labels, `recording` index into `names`, all aligned."""

    x: NDArray[np.float16]
    y: NDArray[np.int64]
    recording: NDArray[np.int32]
    names: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.y)

    def hash(self) -> str:
        """What a resume must find unchanged: windows a recording, labels and names, in order."""
        digest = hashlib.sha256("\n".join(self.names).encode())
        digest.update(self.recording.tobytes() + self.y.tobytes())
        return digest.hexdigest()[:16]


@dataclass
class Rejected:
    relative: str
    reason: str


def pooling_of(config: Config, dim: int, summary: int, patches: int) -> tuple[str, int]:
    """(pooling, number of features). `model.probe.input_dim` names it too: D, 4 D or patches * 4 D."""
    sizes = {"patches": summary * dim, "patches_and_tokens": dim, "none": patches * summary * dim}
    probe = config.model.probe
    if probe.pooling is None and probe.input_dim is None:
        return "patches", sizes["patches"]
    named: str | None = probe.pooling
    pooling = named or next((name for name, size in sizes.items() if size == probe.input_dim), None)
    if pooling is None or (probe.input_dim is not None and sizes[pooling] != probe.input_dim):
        options = ", ".join(f"{size} ({name})" for name, size in sizes.items())
        raise CorpusError(f"model.probe.input_dim: {probe.input_dim} does not fit this encoder; write one of {options}")
    return pooling, sizes[pooling]


class FeatureStore:
    """Features of a corpus under one configuration and encoder; computes what is not there yet."""

    def __init__(self, config: Config, encoder: Encoder, device: torch.device) -> None:
        self.config, self.encoder, self.device = config, encoder.to(device), device
        data = config.data
        self.rate = data.sampling_rate
        self.window = round(data.window_duration * self.rate)
        self.stride = round(data.window_stride * self.rate)
        if self.window % PATCH or self.stride % PATCH:
            raise CorpusError(
                f"data.window_duration and window_stride must be whole patches of {PATCH} samples at {self.rate} Hz "
                f"({PATCH / self.rate:g} s): {data.window_duration:g} and {data.window_stride:g} s are not"
            )
        patches = self.window // PATCH
        self.pooling, self.size = pooling_of(config, encoder.dim, encoder.summary, patches)
        self.folder = Path(data.cache_dir) / self._key()

    def _key(self) -> str:
        weights = hashlib.sha256()
        for name, tensor in sorted(self.encoder.state_dict().items()):
            weights.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        data = self.config.data
        depends = {
            "version": VERSION,
            "weights": weights.hexdigest(),
            "channels": wanted_channels(data),
            "missing": data.missing,
            "reference": data.reference,
            "scaling": data.scaling,
            "rate": self.rate,
            "window": self.window,
            "stride": self.stride,
            "pooling": self.pooling,
            "min_duration": data.min_duration,
        }
        self.manifest = depends
        return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:16]

    def shard(self, entry: Entry) -> Path:
        status = entry.path.stat()
        name = f"{entry.path.resolve()}|{status.st_size}|{status.st_mtime_ns}"
        return self.folder / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.npy"

    def prepare(
        self, entries: list[Entry], report: Callable[[int, int], None], note: Callable[[str], None]
    ) -> list[Rejected]:
        """Compute every missing shard; `report(done, total)` after each recording, `note` for each repair.

        A shard is written aside and renamed, so a killed preparation goes on where it was. Returns the files that
        cannot be used. Raises CorpusError when more than `data.max_rejected` of them cannot.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        manifest = self.folder / "manifest.json"
        if not manifest.exists():
            _write_aside(manifest, json.dumps(self.manifest, indent=1).encode())
        rejected: list[Rejected] = []
        most = self.config.data.max_rejected * len(entries)
        for done, entry in enumerate(entries, 1):
            shard = self.shard(entry)
            if self._load(shard) is None:
                try:
                    recording = read(entry.path, self.config.data)
                    for repair in recording.repairs:
                        note(f"{entry.relative}: {repair}")
                    self._save(shard, self.windows(recording.data))
                except Unusable as error:
                    rejected.append(Rejected(entry.relative, str(error)))
                    note(f"{entry.relative}: skipped: {error}")
                    if len(rejected) > most:
                        raise CorpusError(
                            f"{len(rejected)} of {len(entries)} recordings cannot be used, more than data.max_rejected "
                            f"({self.config.data.max_rejected:.0%}); the last: {entry.relative}: {error}"
                        ) from None
            report(done, len(entries))
        return rejected

    def gather(self, entries: list[Entry], split: str, rejected: list[Rejected]) -> Features:
        """All windows of a split, in the order of the entries. Raises CorpusError if it has no window."""
        skipped = {r.relative for r in rejected}
        xs, ys, recordings = [], [], []
        names: list[str] = []
        for entry in entries:
            if entry.split != split or entry.relative in skipped:
                continue
            x = self._load(self.shard(entry))
            if x is None:
                raise CorpusError(f"the feature shard of {entry.relative} is gone from {self.folder}; start again")
            xs.append(x)
            ys.append(np.full(len(x), entry.label, np.int64))
            recordings.append(np.full(len(x), len(names), np.int32))
            names.append(entry.relative)
        if not xs:
            raise CorpusError(f"no usable recording in the {split} split")
        return Features(np.concatenate(xs), np.concatenate(ys), np.concatenate(recordings), names)

    def windows(self, signal: NDArray[np.float32]) -> NDArray[np.float16]:
        """(channels, samples) -> (windows, features): every patch encoded once, then pooled over each window."""
        channels, samples = signal.shape
        if samples < self.window:
            raise Unusable(f"{samples / self.rate:.1f} s long, shorter than one window")
        patches = samples // PATCH
        cut = signal[:, : patches * PATCH].reshape(channels, patches, PATCH).swapaxes(0, 1)
        encoded = np.concatenate(list(self._encode(np.ascontiguousarray(cut))))  # (patches, summary, D)
        wide, apart = self.window // PATCH, self.stride // PATCH
        view = np.lib.stride_tricks.sliding_window_view(encoded, wide, axis=0)[::apart]  # (windows, summary, D, wide)
        if self.pooling == "none":
            out = view.transpose(0, 3, 1, 2).reshape(len(view), -1)
        else:
            out = view.mean(axis=-1, dtype=np.float32)
            out = out.mean(axis=1) if self.pooling == "patches_and_tokens" else out.reshape(len(out), -1)
        if not np.isfinite(out).all():
            raise Unusable("its features are not finite")
        return out.astype(np.float16)

    def _encode(self, cut: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        with torch.inference_mode():
            for begin in range(0, len(cut), PATCHES_A_BATCH):
                x = torch.from_numpy(cut[begin : begin + PATCHES_A_BATCH]).to(self.device)
                yield self.encoder(x)[:, 0].float().cpu().numpy()

    def _save(self, shard: Path, x: NDArray[np.float16]) -> None:
        aside = shard.with_name(f"{shard.stem}.{os.getpid()}.tmp.npy")
        np.save(aside, x)
        os.replace(aside, shard)

    def _load(self, shard: Path) -> NDArray[np.float16] | None:
        """A shard, or None if it is not there or damaged (then it is computed again)."""
        try:
            x: NDArray[np.float16] = np.load(shard)
        except (FileNotFoundError, ValueError, EOFError):
            return None
        return x if x.dtype == np.float16 and x.ndim == 2 and x.shape[1] == self.size else None


def standardiser(x: NDArray[np.float16]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(mean, std) of the train features, float64 sums in blocks. Raises CorpusError for constant features."""
    n, total, square = len(x), 0.0, 0.0
    for begin in range(0, n, 65536):
        part = x[begin : begin + 65536].astype(np.float64)
        total, square = total + part.sum(0), square + (part**2).sum(0)
    mean = total / n
    std = np.sqrt(np.maximum(square / n - mean**2, 0))
    if np.median(std) < LEAST_STD:
        raise CorpusError(
            f"the features hardly vary (median std {np.median(std):.1e}): check data.scaling and the header's unit"
        )
    return np.asarray(mean, np.float32), np.maximum(std, LEAST_STD).astype(np.float32)


def _write_aside(path: Path, content: bytes) -> None:
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    aside.write_bytes(content)
    os.replace(aside, path)
