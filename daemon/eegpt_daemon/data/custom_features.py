"""Features of a user's frozen encoder: one row per window, cached under the encoder's name and version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from eegpt_daemon.data.shards import ShardStore
from eegpt_daemon.data.windows import WindowCutter, WindowStore
from eegpt_daemon.model.custom_encoder import ForeignEncoder
from eegwatch.run.config import Config


class ForeignStore(WindowStore):
    """Rows are its features of a window. Windows may begin at any sample: it has no patches that it shares."""

    grain = 1

    def __init__(self, config: Config, encoder: ForeignEncoder, device: torch.device) -> None:
        super().__init__(config)
        self.encoder = encoder.to(device)
        settings = self._signal_settings()
        settings["versions"]["torch"] = str(torch.__version__)
        depends_on = settings | {"kind": "foreign", "window": self.window, "stride": self.stride} | encoder.key
        self.store = ShardStore(Path(config.data.cache_dir), depends_on, encoder.size)

    def rows_in(self, samples: int) -> int:
        return self.windows_in(samples)

    def starts(self, rows: int) -> NDArray[np.int64]:
        return np.arange(rows, dtype=np.int64)

    def row_of(self) -> WindowCutter:
        return WindowCutter(self, self.encoder)
