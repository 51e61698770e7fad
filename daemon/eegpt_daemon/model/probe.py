"""The probe that is trained: standardised features -> two logits (normal, abnormal)."""

from __future__ import annotations

from torch import Tensor, nn

from eegwatch.run.config import Probe as ProbeConfig


class Probe(nn.Module):
    """`linear`: dropout, Linear. `two_layer`: Linear, ReLU, dropout, Linear. Input (batch, features), float32."""

    def __init__(self, config: ProbeConfig, features: int) -> None:
        super().__init__()
        if config.type == "linear":
            self.layers = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(features, config.n_classes))
        else:
            self.layers = nn.Sequential(
                nn.Linear(features, config.hidden_dim),
                nn.ReLU(),
                nn.Dropout(config.dropout),
                nn.Linear(config.hidden_dim, config.n_classes),
            )

    def forward(self, features: Tensor) -> Tensor:
        """(batch, features) -> (batch, classes) logits."""
        out: Tensor = self.layers(features)
        return out
