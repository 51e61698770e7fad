"""Frozen EEGPT features, computed once and kept on disk: float16, (windows, features); or the signals themselves.

Patches never see each other and the scaling is per recording, so each patch is encoded once and averaged into every
window that holds it. The cache folder's name is a hash of all that the rows depend on (encoder weights, channels,
scaling, windows, pooling, versions); a shard's name holds its file's path, size and time. Any change makes a new one.

Where something trainable stands before the frozen encoder (a channel adapter), or the encoder itself is trained,
features change at every step: then a SignalStore keeps the resampled, scaled signals, and windows are cut from them.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from eegpt_daemon.data.corpus import CorpusError
from eegpt_daemon.data.recording import wanted_channels
from eegpt_daemon.data.shards import Rows, ShardStore
from eegpt_daemon.data.windows import Windows, WindowStore
from eegpt_daemon.model.encoder import PATCH, Encoder
from eegpt_daemon.model.pooling import pool, pooling_of
from eegwatch.run.config import Config
from eegwatch.run.folder import write_whole

PATCHES_A_BATCH = 256  # 16 windows' worth: the fastest on a CPU (measured 8-32 windows)
LEAST_STD = 1e-3  # features that vary less are constant: volts were fed as millivolts, or a dead encoder
STATISTICS_BLOCK = 1 << 16


class FeatureStore(WindowStore):
    """Rows are the frozen encoder's features of a window, pooled over its patches."""

    def __init__(self, config: Config, encoder: Encoder, device: torch.device) -> None:
        super().__init__(config)
        self.encoder, self.device = encoder.to(device), device
        self.pooling, self.size = pooling_of(config, encoder.dim, encoder.summary, self.window // PATCH)
        weights = hashlib.sha256()
        for name, tensor in sorted(encoder.state_dict().items()):
            weights.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        settings = self._signal_settings()
        settings["versions"]["torch"] = str(torch.__version__)
        depends_on = settings | {
            "kind": "features",
            "weights": weights.hexdigest(),
            "precision": config.model.backbone.precision,
            "window": self.window,
            "stride": self.stride,
            "pooling": self.pooling,
        }
        self.store = ShardStore(Path(config.data.cache_dir), depends_on, self.size)
        if config.model.backbone.compile:
            encoder.compile()

    def rows_in(self, samples: int) -> int:
        return self.windows_in(samples)

    def starts(self, rows: int) -> NDArray[np.int64]:
        return np.arange(rows, dtype=np.int64)

    def row_of(self) -> PatchPooler:
        return PatchPooler(self)

    def windows(self, signal: NDArray[np.float32]) -> Rows:
        """(channels, samples) of a complete recording -> (windows, features)."""
        return self.row_of().feed(signal)

    def encode(self, cut: NDArray[np.float32]) -> NDArray[np.float32]:
        """(patches, channels, 64) -> (patches, summary tokens, D), every patch by itself."""
        pinned = self.config.data.pin_memory and self.device.type == "cuda"
        bf16 = self.config.model.backbone.precision == "bfloat16"
        out = []
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            for begin in range(0, len(cut), PATCHES_A_BATCH):
                x = torch.from_numpy(cut[begin : begin + PATCHES_A_BATCH])
                x = x.pin_memory().to(self.device, non_blocking=True) if pinned else x.to(self.device)
                out.append(self.encoder(x)[:, 0].float().cpu().numpy())
        return np.concatenate(out) if out else np.zeros((0, self.encoder.summary, self.encoder.dim), np.float32)


class PatchPooler:
    """Encodes one recording: takes patches as they are read, returns windows as soon as they are complete."""

    def __init__(self, store: FeatureStore) -> None:
        self.store = store
        self.problem: str | None = f"shorter than one window of {store.config.data.window_duration:g} s"
        self._finite = True
        self._left: NDArray[np.float32] | None = None  # samples short of a patch
        self._encoded: NDArray[np.float32] | None = None  # patches that windows to come still need
        self._skip = 0  # patches before the next window begins, where windows lie further apart than they are wide

    def feed(self, block: NDArray[np.float32]) -> Rows:
        """(channels, samples) -> (windows completed by these samples, features)."""
        store = self.store
        signal = block if self._left is None else np.concatenate([self._left, block], axis=1)
        channels, samples = signal.shape
        patches = samples // PATCH
        self._left = signal[:, patches * PATCH :]
        cut = signal[:, : patches * PATCH].reshape(channels, patches, PATCH).swapaxes(0, 1)
        encoded = store.encode(np.ascontiguousarray(cut))
        encoded = encoded if self._encoded is None else np.concatenate([self._encoded, encoded])
        wide, apart = store.window // PATCH, store.stride // PATCH
        skipped = min(self._skip, len(encoded))
        encoded, self._skip = encoded[skipped:], self._skip - skipped
        if len(encoded) < wide:
            self._encoded = encoded
            return np.zeros((0, store.size), np.float16)
        view = np.lib.stride_tricks.sliding_window_view(encoded, wide, axis=0)[::apart]  # (windows, summary, D, wide)
        self._encoded, self._skip = encoded[len(view) * apart :], max(0, len(view) * apart - len(encoded))
        out = pool(view.transpose(0, 3, 1, 2), store.pooling)
        rows = out.astype(np.float16)  # checked as it is kept: 65,504 is the largest that fits
        self._finite &= bool(np.isfinite(rows).all())
        self.problem = None if self._finite else "its features are not finite, or too large for float16"
        return rows


class SignalStore(WindowStore):
    """Rows are samples, (channels,) each: resampled, referenced and scaled; windows are cut from them when needed."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        depends_on = self._signal_settings() | {"kind": "signals"}
        self.store = ShardStore(Path(config.data.cache_dir), depends_on, len(wanted_channels(config.data)))

    def rows_in(self, samples: int) -> int:
        return samples

    def starts(self, rows: int) -> NDArray[np.int64]:
        return np.arange(self.windows_in(rows), dtype=np.int64) * self.stride

    def row_of(self) -> SampleRows:
        return SampleRows(self)


class SampleRows:
    """One recording's samples as rows."""

    def __init__(self, store: SignalStore) -> None:
        self._least, self._seen = store.window, 0
        self.problem: str | None = f"shorter than one window of {store.config.data.window_duration:g} s"

    def feed(self, block: NDArray[np.float32]) -> Rows:
        """(channels, samples) -> (samples, channels)."""
        self._seen += block.shape[1]
        self.problem = self.problem if self._seen < self._least else None
        return np.ascontiguousarray(block.T, np.float16)


def standardiser(x: Windows) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(mean, std) of the train features, float64 sums in blocks; kept beside the pack. Raises CorpusError.

    Constant features are refused: without this check a wrong unit trains for days at chance.
    """
    kept = x.pack.path.with_name(f"statistics-{x.hash()}.npz")
    if kept.exists():
        try:
            with np.load(kept) as stored:
                return stored["mean"], stored["std"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            kept.unlink()  # damaged: computed again
    n, total, square = len(x), 0.0, 0.0
    for begin in range(0, n, STATISTICS_BLOCK):
        part = x.pack.rows[x.rows[begin : begin + STATISTICS_BLOCK]].astype(np.float64)
        total, square = total + part.sum(0), square + (part**2).sum(0)
        x.pack.trim()
    mean, std = statistics_of(n, total, square)
    buffer = io.BytesIO()
    np.savez(buffer, mean=mean, std=std)
    write_whole(kept, buffer.getvalue())
    return mean, std


def statistics_of(n: int, total: Any, square: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(mean, std) from sums. Raises CorpusError for features that hardly vary."""
    mean = np.asarray(total / n)
    std = np.sqrt(np.maximum(np.asarray(square) / n - mean**2, 0))
    if np.median(std) < LEAST_STD:
        raise CorpusError(
            f"the features hardly vary (median std {np.median(std):.1e}): check data.scaling and the header's unit"
        )
    return np.asarray(mean, np.float32), np.maximum(std, LEAST_STD).astype(np.float32)
