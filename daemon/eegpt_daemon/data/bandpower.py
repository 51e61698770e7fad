"""Band power of every window, for a baseline: log10 of the power in five bands of each channel, (windows, 5 channels).

Welch's periodogram (scipy.signal.welch, Hann windows of 2 s or the whole window, half overlapping) of the signals as
the encoder gets them: the same recordings, windows, reference and scaling.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eegpt_daemon.data.recording import wanted_channels
from eegpt_daemon.data.shards import Rows, ShardStore
from eegpt_daemon.data.windows import WindowStore
from eegwatch.run.config import Config

BANDS = {"delta": (0.5, 4.0), "theta": (4.0, 8.0), "alpha": (8.0, 13.0), "beta": (13.0, 30.0), "gamma": (30.0, 45.0)}
SEGMENT_S = 2.0
FLOOR = 1e-20  # power of a channel that is all zero: its logarithm still fits float16


class BandPowerStore(WindowStore):
    """Rows are the band powers of a window."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        bands = {name: list(edges) for name, edges in BANDS.items()}
        depends_on = self._signal_settings() | {
            "kind": "bandpower",
            "window": self.window,
            "stride": self.stride,
            "bands": bands,
        }
        width = len(BANDS) * len(wanted_channels(config.data))
        self.store = ShardStore(Path(config.data.cache_dir), depends_on, width)

    def rows_in(self, samples: int) -> int:
        return self.windows_in(samples)

    def starts(self, rows: int) -> NDArray[np.int64]:
        return np.arange(rows, dtype=np.int64)

    def row_of(self) -> BandPower:
        return BandPower(self)


class BandPower:
    """One recording's windows, as soon as they are whole."""

    def __init__(self, store: BandPowerStore) -> None:
        self._store = store
        self._left: NDArray[np.float32] | None = None
        self.problem: str | None = f"shorter than one window of {store.config.data.window_duration:g} s"

    def feed(self, block: NDArray[np.float32]) -> Rows:
        """(channels, samples) -> (windows that became whole, 5 channels)."""
        store = self._store
        signal = block if self._left is None else np.concatenate([self._left, block], axis=1)
        wide, apart = store.window, store.stride
        if signal.shape[1] < wide:
            self._left = signal
            return np.zeros((0, store.store.width), np.float16)
        view = np.lib.stride_tricks.sliding_window_view(signal, wide, axis=1)[:, ::apart].swapaxes(0, 1)
        self._left = signal[:, len(view) * apart :]
        self.problem = None
        return band_powers(view, store.rate).astype(np.float16)


def band_powers(windows: NDArray[np.float32], rate: int) -> NDArray[np.float64]:
    """(windows, channels, samples) -> (windows, 5 channels): log10 of the mean spectral density in each band."""
    from scipy.signal import welch  # loads in a second

    frequency, density = welch(windows, rate, nperseg=min(windows.shape[-1], round(SEGMENT_S * rate)), axis=-1)
    parts = [density[..., (low <= frequency) & (frequency < high)].mean(-1) for low, high in BANDS.values()]
    powers = np.log10(np.maximum(np.stack(parts, axis=-1), FLOOR))
    return np.asarray(powers.reshape(len(windows), -1), np.float64)
