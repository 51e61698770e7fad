"""A frozen encoder of the user's own: `model.backbone.entry: "package.module:function"`.

What the entry names is either the encoder itself, a callable that has the attributes `rate` (Hz) and `unit`, or a
function that makes one: it is called with the keywords `channels` (names, in order), `samples` (a window's) and `rate`.
The encoder takes (windows, channels, samples), a float32 tensor at its rate and in its unit, and gives features
(windows, F), or tokens (windows, …, F), which are averaged (`model.probe.pooling: none` keeps them all). Its name,
version and weights are part of the cache's key.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from eegpt_daemon.model.encoder import EncoderError
from eegpt_daemon.model.training_mode import behaviour
from eegwatch.diagnosis.silent.data import LARGEST_CHANGE, LARGEST_OF_A_BATCH

KEY = "model.backbone.entry"
UNITS = {"V": 1e6, "mV": 1e3, "uV": 1.0, "uV/100": 100.0}  # in microvolt; "zscore" is the unit of data.scaling: zscore
OF_SCALING = {"millivolt": "mV", "uv100": "uV/100", "zscore": "zscore"}
AT_ONCE = 64  # windows
TRIED = 4  # windows of noise by which the shape of the output is found, and that it is the same each time


class ForeignEncoder:
    """Built by `load`. `size`: features of a window; `key`: what a cache of its features depends on.

    `behaviour`: how far its features move when they are computed again, or with other windows (model/training_mode.py).
    """

    def __init__(
        self, entry: str, encoder: Callable[[Any], Any], factor: float, shape: tuple[int, int], *, flatten: bool
    ) -> None:
        """`factor`: from the cached signals' unit to its own. `shape`: (channels, samples). Raises EncoderError."""
        self.entry, self.encoder, self.factor, self.flatten = entry, encoder, factor, flatten
        self.device = torch.device("cpu")
        if isinstance(encoder, nn.Module):
            encoder.requires_grad_(False).eval()
        self.name = str(getattr(encoder, "name", entry))
        noise = np.random.default_rng(0).standard_normal((TRIED, *shape)).astype(np.float32)
        features = self(noise)
        self.size = int(features.shape[1])
        self.behaviour = behaviour(self, noise, features)
        _refuse_training_mode(entry, self.behaviour)
        self.key = {
            "entry": entry,
            "name": self.name,
            "version": _version(entry, encoder),
            "weights": _weights(encoder),
            "flatten": flatten,
        }

    def to(self, device: torch.device) -> ForeignEncoder:
        if isinstance(self.encoder, nn.Module):
            self.encoder.to(device)
            self.device = device
        return self

    def __call__(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, channels, samples) -> (n, features), float32. Raises EncoderError for any exception of the encoder."""
        parts = []
        with torch.inference_mode():
            for begin in range(0, len(windows), AT_ONCE):
                x = torch.from_numpy(np.ascontiguousarray(windows[begin : begin + AT_ONCE]) * np.float32(self.factor))
                parts.append(self._features(x.to(self.device)))
        return np.concatenate(parts)

    def _features(self, x: torch.Tensor) -> NDArray[np.float32]:
        shape = tuple(x.shape)
        try:
            out = torch.as_tensor(self.encoder(x)).detach().float().cpu().numpy()
        except Exception as error:  # whatever a user's code raises is said with its name, and ends the preparation
            raise EncoderError(f"{KEY}: {self.entry}: failed on windows of shape {shape}: {_words(error)}") from None
        if out.ndim < 2 or len(out) != len(x):
            raise EncoderError(
                f"{KEY}: {self.entry}: gave {out.shape} for windows of shape {shape}; it must give (windows, features) "
                "or (windows, tokens, features)"
            )
        if out.ndim > 2 and not self.flatten:
            out = out.reshape(len(out), -1, out.shape[-1]).mean(1)
        return np.asarray(out.reshape(len(out), -1), np.float32)


def load(
    entry: str, channels: Sequence[str], samples: int, rate: int, scaling: str, *, flatten: bool = False
) -> ForeignEncoder:
    """Import, make and try it. `rate`, `scaling`: of the cached signals. Raises EncoderError, in one line."""
    encoder = _made(entry, _target(entry), channels, samples, rate)
    own_rate, unit = getattr(encoder, "rate", None), getattr(encoder, "unit", None)
    if own_rate is None or unit is None:
        raise EncoderError(
            f"{KEY}: {entry}: the encoder has no attribute rate (Hz) or unit ({', '.join(UNITS)}, zscore)"
        )
    if float(own_rate) != rate:
        raise EncoderError(f"{KEY}: {entry}: takes {own_rate:g} Hz; write data.sampling_rate: {own_rate:g}")
    _refuse_other_channels(entry, getattr(encoder, "channels", None), channels)
    return ForeignEncoder(entry, encoder, _factor(entry, str(unit), scaling), (len(channels), samples), flatten=flatten)


def _refuse_training_mode(entry: str, moved: dict[str, float]) -> None:
    if moved["repeat"] > LARGEST_CHANGE:
        raise EncoderError(
            f"{KEY}: {entry}: gives other features for the same windows when it is asked again (they differ by "
            f"{moved['repeat']:.2g} of their spread): put the model into evaluation mode (.eval())"
        )
    if moved["alone"] > LARGEST_OF_A_BATCH:
        raise EncoderError(
            f"{KEY}: {entry}: the features of a window depend on the other windows of its batch (by "
            f"{moved['alone']:.2g} of their spread): put its batch norms into evaluation mode (.eval())"
        )


def _refuse_other_channels(entry: str, own: Sequence[str] | None, channels: Sequence[str]) -> None:
    """`own`: the encoder's attribute `channels`, the order in which it takes them."""
    takes = [str(name).upper() for name in own] if own is not None else list(channels)
    if takes == [name.upper() for name in channels]:
        return
    how = "in another order" if sorted(takes) == sorted(name.upper() for name in channels) else "others"
    raise EncoderError(
        f"{KEY}: {entry}: takes its channels {how} than the run gives; write data.channels: [{', '.join(takes)}]"
    )


def _target(entry: str) -> Any:
    module, colon, path = entry.partition(":")
    if not (colon and module and path):
        raise EncoderError(f"{KEY}: {entry}: write it as package.module:function")
    try:
        target: Any = importlib.import_module(module)
    except Exception as error:  # an import may raise anything: a missing library is an OSError
        raise EncoderError(f"{KEY}: {module} cannot be imported: {_words(error)}") from None
    for part in path.split("."):
        if not hasattr(target, part):
            raise EncoderError(f"{KEY}: {module} has no {path}")
        target = getattr(target, part)
    if not callable(target):
        raise EncoderError(f"{KEY}: {entry} is not a function")
    return target


def _made(entry: str, target: Any, channels: Sequence[str], samples: int, rate: int) -> Callable[[Any], Any]:
    if hasattr(target, "rate") and hasattr(target, "unit") and not inspect.isclass(target):
        encoder: Callable[[Any], Any] = target
        return encoder
    try:
        encoder = target(channels=list(channels), samples=samples, rate=rate)
    except Exception as error:  # as above
        raise EncoderError(
            f"{KEY}: {entry}(channels=…, samples={samples}, rate={rate}) failed: {_words(error)}"
        ) from None
    if not callable(encoder):
        raise EncoderError(f"{KEY}: {entry} made {type(encoder).__name__}, which cannot be called")
    return encoder


def _factor(entry: str, unit: str, scaling: str) -> float:
    have = OF_SCALING[scaling]
    if unit == have:
        return 1.0
    if unit in UNITS and have in UNITS:
        return UNITS[have] / UNITS[unit]
    if unit == "zscore" or unit in UNITS:
        needed = "zscore" if unit == "zscore" else "millivolt"
        raise EncoderError(f"{KEY}: {entry}: takes {unit}, data.scaling is {scaling}; write data.scaling: {needed}")
    raise EncoderError(f"{KEY}: {entry}: its unit is {unit!r}; known are {', '.join(UNITS)} and zscore")


def _version(entry: str, encoder: object) -> str:
    """The encoder's `version`, else the version of its package, else a hash of the module's source."""
    own = getattr(encoder, "version", None)
    if own is not None:
        return str(own)
    module = entry.partition(":")[0]
    packages = importlib.metadata.packages_distributions().get(module.split(".")[0])
    if packages:
        return f"{packages[0]} {importlib.metadata.version(packages[0])}"
    try:
        source = inspect.getsource(importlib.import_module(module))
    except (OSError, TypeError):
        return "unknown"
    return hashlib.sha256(source.encode()).hexdigest()[:16]


def _weights(encoder: object) -> str:
    if not isinstance(encoder, nn.Module):
        return ""
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _words(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}".rstrip(": ")
