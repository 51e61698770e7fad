"""Encoders of braindecode for `model.backbone.entry`: `eegpt_daemon.model.braindecode_models:labram`, or `:cbramod`.

They work where `import braindecode` does. Beside torch's CPU build it does not today (braindecode 1.8.1 needs
torchaudio, whose wheel loads CUDA libraries): the import's own words are said then. BRAINDECODE_WEIGHTS names a file
with the model's state dict, or is `random`, for trying the path. Both models take 200 Hz and microvolt / 100.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

WEIGHTS = "BRAINDECODE_WEIGHTS"
RATE, UNIT = 200, "uV/100"


class Features(nn.Module):
    """The model's tokens before its head: (windows, channels, samples) -> (windows, tokens, width)."""

    rate, unit = RATE, UNIT

    def __init__(self, name: str, model: nn.Module, **arguments: Any) -> None:
        super().__init__()
        from importlib.metadata import version

        self.name, self.version = name, f"braindecode {version('braindecode')}"
        self.model, self.arguments = model, arguments

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.model(x, return_features=True, **self.arguments)["features"]
        return tokens


def labram(*, channels: Sequence[str], samples: int, rate: int) -> Features:
    """LaBraM-Base (Jiang et al., ICLR 2024). Raises ImportError, OSError, ValueError."""
    from braindecode.models import Labram

    model = Labram(n_chans=len(channels), n_times=samples, sfreq=RATE, n_outputs=2)
    return Features("labram", _with_weights(model), ch_names=list(channels))


def cbramod(*, channels: Sequence[str], samples: int, rate: int) -> Features:
    """CBraMod (Wang et al., ICLR 2025); it was pretrained on all of TUEG, evaluation subjects of TUAB included."""
    from braindecode.models import CBraMod

    return Features("cbramod", _with_weights(CBraMod(n_chans=len(channels), n_times=samples, sfreq=RATE, n_outputs=2)))


def _with_weights(model: nn.Module) -> nn.Module:
    path = os.environ.get(WEIGHTS)
    if path is None:
        raise ValueError(f"set {WEIGHTS} to a file with the model's state dict, or to random")
    if path != "random":
        state = torch.load(path, map_location="cpu", weights_only=True)
        kept = {key: value for key, value in state.items() if not key.startswith("final_layer")}
        missing, unexpected = model.load_state_dict(kept, strict=False)
        wrong = [key for key in [*missing, *unexpected] if not key.startswith("final_layer")]
        if wrong:
            raise ValueError(f"{path}: not weights of this model: {wrong[0]} (and {len(wrong) - 1} more)")
    return model
