"""Band power of every window, for a baseline: log10 of the power in five bands of each channel, (windows, 5 channels).

Welch's periodogram (scipy.signal.welch, Hann windows of 2 s or the whole window, half overlapping) of the signals as
the encoder gets them: the same recordings, windows, reference and scaling.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eegpt_daemon.data.recording import wanted_channels
from eegpt_daemon.data.shards import ShardStore
from eegpt_daemon.data.windows import WindowCutter, WindowStore
from eegwatch.run.config import Config

BANDS = {"delta": (0.5, 4.0), "theta": (4.0, 8.0), "alpha": (8.0, 13.0), "beta": (13.0, 30.0), "gamma": (30.0, 45.0)}
SEGMENT_S = 2.0
FLOOR = 1e-20  # power of a channel that is all zero: its logarithm still fits float16


class BandPowerStore(WindowStore):
    """Rows are the band powers of a window."""

    grain = 1  # windows of any length, as a foreign encoder may have

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

    def row_of(self) -> WindowCutter:
        return WindowCutter(self, lambda windows: band_powers(windows, self.rate))


def band_powers(windows: NDArray[np.float32], rate: int) -> NDArray[np.float64]:
    """(windows, channels, samples) -> (windows, 5 channels): log10 of the mean spectral density in each band."""
    from scipy.signal import welch  # loads in a second

    frequency, density = welch(windows, rate, nperseg=min(windows.shape[-1], round(SEGMENT_S * rate)), axis=-1)
    parts = [density[..., (low <= frequency) & (frequency < high)].mean(-1) for low, high in BANDS.values()]
    powers = np.log10(np.maximum(np.stack(parts, axis=-1), FLOOR))
    return np.asarray(powers.reshape(len(windows), -1), np.float64)
