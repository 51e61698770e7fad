"""The batches of a step: a stateless sampler, and tensors gathered from the packed rows.

The order of an epoch is a permutation of (seed, epoch), cut at the batch, so a resume in the middle of an epoch needs
no replay and no saved iterator.
"""

from __future__ import annotations

import torch
from torch import Tensor

from eegpt_daemon.data.windows import Windows

DEVICE_SHARE = 0.5  # of a GPU's free memory that cached features may take


def permutation(n: int, seed: int, epoch: int) -> Tensor:
    """(n,) int64: the order of the windows in this epoch."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(n, generator=generator)


class BatchReader:
    """The windows of a split as tensors. `span`: samples a window where rows are samples, None where they are features.

    Features that fit into half of a GPU's free memory lie there; else they are read from the pack, batch by batch.
    """

    def __init__(self, windows: Windows, device: torch.device, span: int | None = None) -> None:
        self.pack, self.device, self.span = windows.pack, device, span
        self.table = torch.from_numpy(windows.pack.rows)
        if device.type == "cuda" and span is None:
            free, _ = torch.cuda.mem_get_info(device)
            if windows.pack.nbytes < DEVICE_SHARE * free:
                self.table = self.table.to(device)
        self.starts = torch.from_numpy(windows.rows).to(self.table.device)
        self.y = torch.from_numpy(windows.y).to(self.table.device)

    def __len__(self) -> int:
        return len(self.y)

    def labels(self, which: Tensor) -> Tensor:
        """(batch,) int64 on the device."""
        return self._on_device(self.y.index_select(0, which))

    def at(self, which: Tensor) -> Tensor:
        """(batch, features), or (batch, channels, samples) where rows are samples; float32 on the device."""
        starts = self.starts.index_select(0, which)
        if self.pack.mapped and self.table.device.type == "cpu":
            rows = torch.from_numpy(self.pack.take(starts.numpy(), self.span or 1))
        elif self.span is None:
            return self._on_device(self.table.index_select(0, starts)).float()
        else:
            places = (starts[:, None] + torch.arange(self.span)).flatten()
            rows = self.table.index_select(0, places).view(len(starts), self.span, -1)
        x = self._on_device(rows).float()
        return x.squeeze(1) if self.span is None else x.transpose(1, 2).contiguous()

    def _on_device(self, x: Tensor) -> Tensor:
        return x if x.device == self.device else x.to(self.device)
