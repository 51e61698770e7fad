"""The EEGPT encoder (Wang et al., NeurIPS 2024): (batch, channels, samples) in millivolt -> (batch, patches, 4, D).

Each 64-sample patch (250 ms at 256 Hz) is encoded by itself: its channel tokens and 4 learned summary tokens go
through pre-norm transformer blocks, and the summary tokens are the output. There is no time embedding and no
attention between patches, so a patch's features do not depend on the window that it is in.
State-dict keys are those of the published checkpoint (`eegpt_mcae_58chs_4s_large4E.ckpt`, under `target_encoder.`).
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PATCH = 64  # samples a patch, kernel and stride of the embedding
PREFIX = "target_encoder."
# 62 rows though 58 channels were pretrained: the published table has them all (AF7, AF8, PO5, PO6 untrained)
CHANNELS: tuple[str, ...] = (
    "FP1", "FPZ", "FP2", "AF7", "AF3", "AF4", "AF8",
    "F7", "F5", "F3", "F1", "FZ", "F2", "F4", "F6", "F8",
    "FT7", "FC5", "FC3", "FC1", "FCZ", "FC2", "FC4", "FC6", "FT8",
    "T7", "C5", "C3", "C1", "CZ", "C2", "C4", "C6", "T8",
    "TP7", "CP5", "CP3", "CP1", "CPZ", "CP2", "CP4", "CP6", "TP8",
    "P7", "P5", "P3", "P1", "PZ", "P2", "P4", "P6", "P8",
    "PO7", "PO5", "PO3", "POZ", "PO4", "PO6", "PO8",
    "O1", "OZ", "O2",
)  # fmt: skip
# the 20 of the official TUAB protocol, in its order
TUAB_CHANNELS: tuple[str, ...] = (
    "FP1", "FPZ", "FP2", "F7", "F3", "FZ", "F4", "F8", "T7", "C3",
    "CZ", "C4", "T8", "P7", "P3", "PZ", "P4", "P8", "O1", "O2",
)  # fmt: skip
PRESETS = {"large": (512, 8, 8), "small": (64, 8, 4)}  # width, depth, heads; small is the paper's tiny3


class EncoderError(ValueError):
    """A checkpoint or channel list that this encoder cannot take: one line, with the file or name."""


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, tokens, dim))
        return out


class Mlp(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class PatchEmbed(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, dim, (1, PATCH), stride=(1, PATCH))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, samples) -> (batch, patches, channels, D)."""
        out: Tensor = self.proj(x.unsqueeze(1)).permute(0, 3, 2, 1)
        return out


class Encoder(nn.Module):
    """The encoder for a given list of channels; build it with `preset`, `from_checkpoint` or `from_state_dict`."""

    channel_ids: Tensor

    def __init__(
        self, channels: Sequence[str], dim: int, depth: int, heads: int, summary: int = 4, rows: int = len(CHANNELS)
    ) -> None:
        """Raises EncoderError for a channel that EEGPT does not know, or heads that do not divide the width."""
        super().__init__()
        unknown = [name for name in channels if name.upper() not in CHANNELS]
        if unknown:
            raise EncoderError(f"channel {unknown[0]} is none of EEGPT's 62 (FP1, FZ, T7, …)")
        if dim % heads:
            raise EncoderError(f"{heads} heads do not divide a width of {dim}")
        self.dim, self.summary = dim, summary
        ids = torch.tensor([CHANNELS.index(name.upper()) for name in channels])
        self.register_buffer("channel_ids", ids, persistent=False)
        self.patch_embed = PatchEmbed(dim)
        self.chan_embed = nn.Embedding(rows, dim)
        self.summary_token = nn.Parameter(torch.zeros(1, summary, dim))
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, samples), float32, millivolt, 256 Hz -> (batch, samples // 64, summary tokens, D)."""
        tokens = self.patch_embed(x) + self.chan_embed(self.channel_ids)
        batch, patches, channels, dim = tokens.shape
        summary = self.summary_token.expand(batch * patches, -1, -1)
        h = torch.cat([tokens.reshape(batch * patches, channels, dim), summary], dim=1)
        for block in self.blocks:
            h = block(h)
        out: Tensor = self.norm(h[:, -self.summary :]).view(batch, patches, self.summary, dim)
        return out

    @classmethod
    def preset(cls, name: str, channels: Sequence[str], seed: int) -> Encoder:
        """A randomly initialised encoder: no pretrained weights are shipped. Weights depend on `seed` alone."""
        return cls._random(channels, *PRESETS[name], seed)

    @classmethod
    def random_like(cls, other: Encoder, channels: Sequence[str], seed: int) -> Encoder:
        """One of the same size as another, with random weights."""
        heads = int(other.blocks[0].attn.heads)  # type: ignore[union-attr, arg-type]
        return cls._random(channels, other.dim, len(other.blocks), heads, seed)

    @classmethod
    def _random(cls, channels: Sequence[str], dim: int, depth: int, heads: int, seed: int) -> Encoder:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder = cls(channels, dim, depth, heads)
            nn.init.trunc_normal_(encoder.summary_token, std=0.02)
        return encoder.frozen()

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], channels: Sequence[str], num_heads: int) -> Encoder:
        """An encoder with exactly these weights; width and depth are read off them. Raises EncoderError."""
        missing = [key for key in ("summary_token", "patch_embed.proj.weight", "chan_embed.weight") if key not in state]
        if missing:
            raise EncoderError(f"no EEGPT encoder: the weights lack {missing[0]}")
        depth = 1 + max((int(key.split(".")[1]) for key in state if key.startswith("blocks.")), default=-1)
        _, summary, dim = state["summary_token"].shape
        encoder = cls(channels, dim, depth, num_heads, summary, rows=len(state["chan_embed.weight"]))
        try:
            encoder.load_state_dict(dict(state))
        except RuntimeError as error:
            raise EncoderError(f"no EEGPT encoder: {' '.join(str(error).split())[:300]}") from None
        return encoder.frozen()

    @classmethod
    def from_checkpoint(cls, path: str | Path, channels: Sequence[str] = TUAB_CHANNELS, num_heads: int = 8) -> Encoder:
        """The published checkpoint, or any with `target_encoder.*` in its state_dict; loaded weights-only.

        Raises EncoderError, in one line, for a file that is not one.
        """
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except FileNotFoundError:
            raise EncoderError(
                f"{path}: no such file; model.backbone.checkpoint_path must be the EEGPT .ckpt"
            ) from None
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
            reason = str(error).strip().splitlines()
            raise EncoderError(
                f"{path}: not a checkpoint that loads weights-only: {reason[0] if reason else error!r}"
            ) from None
        state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else {}
        own = {key[len(PREFIX) :]: value for key, value in state.items() if key.startswith(PREFIX)}
        if not own:
            raise EncoderError(f"{path}: holds no keys under {PREFIX}; it is not an EEGPT checkpoint")
        try:
            return cls.from_state_dict(own, channels, num_heads)
        except EncoderError as error:
            raise EncoderError(f"{path}: {error}") from None

    def frozen(self) -> Encoder:
        """In evaluation mode, without gradients."""
        self.requires_grad_(False)
        return self.eval()
