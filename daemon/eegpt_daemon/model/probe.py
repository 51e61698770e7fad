"""The trained network: a probe on standardised features, optionally with channel adapter and backbone at every step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eegpt_daemon.model.encoder import Encoder
from eegpt_daemon.model.pooling import pool
from eegwatch.run.config import Probe as ProbeConfig


class Probe(nn.Module):
    """`linear`: dropout, Linear. `two_layer`: Linear, ReLU, dropout, Linear. Input (batch, features), float32."""

    def __init__(self, config: ProbeConfig, features: int, classes: int) -> None:
        super().__init__()
        if config.type == "linear":
            self.layers = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(features, classes))
        else:
            self.layers = nn.Sequential(
                nn.Linear(features, config.hidden_dim),
                nn.ReLU(),
                nn.Dropout(config.dropout),
                nn.Linear(config.hidden_dim, classes),
            )

    def forward(self, features: Tensor) -> Tensor:
        """(batch, features) -> (batch, classes) logits."""
        out: Tensor = self.layers(features)
        return out


class ChannelAdapter(nn.Module):
    """A linear mix of the channels before the encoder, trained with the probe; begins as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv1d(channels, channels, 1)
        with torch.no_grad():
            self.mix.weight.copy_(torch.eye(channels).unsqueeze(-1))
            nn.init.zeros_(self.mix.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, samples) -> the same shape."""
        out: Tensor = self.mix(x)
        return out


class Backbone(nn.Module):
    """Windows -> features, every step: an adapter or None, the encoder, its patches pooled as the cache pools them."""

    def __init__(self, encoder: Encoder, adapter: ChannelAdapter | None, pooling: str, *, bf16: bool) -> None:
        super().__init__()
        self.adapter, self.encoder, self.pooling, self.bf16 = adapter, encoder, pooling, bf16

    def train(self, mode: bool = True) -> Backbone:
        """As any module; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.encoder.parameters()):
            self.encoder.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, samples) -> (batch, features), float32."""
        if self.adapter is not None:
            x = self.adapter(x)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            encoded: Tensor = self.encoder(x)
        return pool(encoded.float(), self.pooling)


class Network(nn.Module):
    """All of it: [backbone,] standardise, probe. Input features, or windows where there is a backbone."""

    def __init__(self, probe: Probe, features: int, backbone: Backbone | None, device: torch.device) -> None:
        super().__init__()
        self.backbone, self.probe = backbone, probe
        # no buffers: DistributedDataParallel would send them round with every step
        self.shift, self.scale = torch.zeros(features, device=device), torch.ones(features, device=device)
        self.to(device)

    def standardise(self, mean: Tensor, std: Tensor) -> None:
        """Set the train statistics, (features,) each: x -> x / std - mean / std, in one kernel."""
        self.shift.copy_(-mean.double() / std.double())
        self.scale.copy_(1 / std.double())

    def forward(self, x: Tensor) -> Tensor:
        """-> (batch, classes) logits."""
        x = x if self.backbone is None else self.backbone(x)
        out: Tensor = self.probe(torch.addcmul(self.shift, x, self.scale))
        return out
