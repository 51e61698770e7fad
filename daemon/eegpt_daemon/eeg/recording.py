"""One EDF recording, read with mne: (channels, samples), float32, in the wanted channel order, at 256 Hz.

Only the wanted channels are read: three annotation channels at 1 Hz make mne 40 times slower. What mne repairs in
silence (a file cut short, a header that claims more) is caught as a warning and reported with the recording.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import mne
import numpy as np
from numpy.typing import NDArray

from eegwatch.run.config import Data

# The 19 channels that every TUAB file has, in EEGPT's order
TUAB_CHANNELS: tuple[str, ...] = (
    "FP1", "FP2", "F7", "F3", "FZ", "F4", "F8", "T7", "C3", "CZ",
    "C4", "T8", "P7", "P3", "PZ", "P4", "P8", "O1", "O2",
)  # fmt: skip
TWENTIETH = "FPZ"  # the official list's 20th, which no TUAB file has: `data.missing` says what stands there
OLD_NAMES = {"T3": "T7", "T4": "T8", "T5": "P7", "T6": "P8"}
LEAST_SHARE = 17 / 19  # of the wanted channels must be in the file
FLAT_UV, CLIPPED_UV = 0.1, 1000.0
SANE_STD_UV = (1.0, 500.0)


class Unusable(ValueError):
    """A recording that must not be trained on, with the reason."""


@dataclass
class Recording:
    """`data`: (channels, samples) float32, scaled as configured. `repairs`: what was done to it, in words."""

    data: NDArray[np.float32]
    channels: list[str]
    rate: float
    repairs: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return float(self.data.shape[1] / self.rate)


def wanted_channels(data: Data) -> list[str]:
    """`data.channels`, or the 19 of TUAB, or these and FPZ where `n_channels` is 20."""
    if data.channels:
        return [name.upper() for name in data.channels]
    wanted = list(TUAB_CHANNELS)
    if data.n_channels == 20 and data.missing != "drop":
        wanted.insert(1, TWENTIETH)
    return wanted


def canonical(name: str) -> str:
    """`EEG T3-REF`, `EEG T3-LE`, `T3` -> `T7`: upper case, without prefix and reference, new 10-20 names."""
    name = name.upper().strip().removeprefix("EEG ").strip()
    for suffix in ("-REF", "-LE", "-AR", "_REF"):
        name = name.removesuffix(suffix)
    return OLD_NAMES.get(name, name)


def read(path: Path, data: Data) -> Recording:
    """Read, check, complete and scale one file. Raises Unusable with the reason."""
    wanted = wanted_channels(data)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            raw = _load(path, wanted)
            if raw.info["sfreq"] != data.sampling_rate:
                raw.resample(data.sampling_rate, method="polyphase", verbose="ERROR")
            volts = raw.get_data()
            names = [canonical(name.removesuffix("-0")) for name in raw.ch_names]
        except (ValueError, OSError, RuntimeError, NotImplementedError, MemoryError, IndexError) as error:
            raise Unusable(f"mne cannot read it: {str(error).splitlines()[0] if str(error) else error!r}") from None
    repairs = [str(w.message).splitlines()[0] for w in caught if issubclass(w.category, RuntimeWarning)]
    microvolt = volts[[names.index(name) for name in wanted if name in names]] * 1e6
    present = [name for name in wanted if name in names]
    _check(microvolt, data)
    std = microvolt.std(axis=1)
    flat = {name for name, value in zip(present, std, strict=True) if value < FLAT_UV}
    if flat:
        repairs.append(f"flat, treated as missing: {' '.join(sorted(flat))}")
    good = [name for name in present if name not in flat]
    needed = LEAST_SHARE * len([name for name in wanted if name != TWENTIETH])
    if len(good) < needed:
        missing = [name for name in wanted if name not in good and name != TWENTIETH]
        raise Unusable(f"lacks {' '.join(missing)}: {len(good)} usable channels, at least {needed:.0f} are needed")
    signal = microvolt[[present.index(name) for name in good]]
    if not SANE_STD_UV[0] <= np.median(signal.std(axis=1)) <= SANE_STD_UV[1]:
        raise Unusable(
            f"median channel std {np.median(signal.std(axis=1)):.3g} µV: unit or range in the header is wrong"
        )
    if data.reference == "average":
        signal = signal - signal.mean(axis=0, keepdims=True)
    whole = _complete(signal, good, wanted, data.missing, repairs)
    return Recording(_scale(whole, data.scaling), wanted, float(data.sampling_rate), repairs)


def _load(path: Path, wanted: list[str]) -> mne.io.BaseRaw:
    header = mne.io.read_raw_edf(path, preload=False, verbose="ERROR")
    first: dict[str, str] = {}
    for name in header.ch_names:
        first.setdefault(canonical(name.removesuffix("-0")), name)
    include = [first[name] for name in wanted if name in first]
    if not include:
        raise ValueError(f"none of the channels {' '.join(wanted[:4])} … is in it")
    if any(name.endswith("-0") for name in include):  # duplicate labels are renamed -0, -1 by mne: pick after loading
        return header.load_data(verbose="WARNING").pick(include)
    return mne.io.read_raw_edf(path, include=include, preload=True, verbose="WARNING")


def _check(microvolt: NDArray[np.float64], data: Data) -> None:
    seconds = microvolt.shape[1] / data.sampling_rate
    if seconds < data.min_duration:
        raise Unusable(f"{seconds:.1f} s long, data.min_duration is {data.min_duration:g} s")
    if not np.isfinite(microvolt).all():
        raise Unusable("holds values that are not finite")
    clipped = float((np.abs(microvolt) > CLIPPED_UV).mean())
    if clipped > 0.05:
        raise Unusable(f"{clipped:.0%} of the samples are beyond {CLIPPED_UV:.0f} µV")


@lru_cache(maxsize=1)
def _positions() -> dict[str, NDArray[np.float64]]:
    # mne 1.13 renamed it and drops the old name with 1.14
    renamed = "colin27_1020" in mne.channels.get_builtin_montages()
    montage = mne.channels.make_standard_montage("colin27_1020" if renamed else "standard_1020")
    return {name.upper(): xyz for name, xyz in montage.get_positions()["ch_pos"].items()}


def _complete(
    signal: NDArray[np.float64], have: list[str], wanted: list[str], policy: str, repairs: list[str]
) -> NDArray[np.float64]:
    """Rows in the wanted order; a missing channel is the mean of its two nearest neighbours, or zero."""
    rows = []
    for name in wanted:
        if name in have:
            rows.append(signal[have.index(name)])
        elif policy == "zero":
            rows.append(np.zeros(signal.shape[1]))
            repairs.append(f"{name} missing: zero")
        else:
            place = _positions()
            near = sorted(have, key=lambda other: float(np.linalg.norm(place[other] - place[name])))[:2]
            rows.append(signal[[have.index(other) for other in near]].mean(axis=0))
            repairs.append(f"{name} missing: mean of {' and '.join(near)}")
    return np.stack(rows)


def _scale(microvolt: NDArray[np.float64], scaling: str) -> NDArray[np.float32]:
    """`millivolt`, what EEGPT was trained on; `uv100`, microvolt / 100; `zscore`, each channel over the recording."""
    if scaling == "zscore":
        centred = microvolt - microvolt.mean(axis=1, keepdims=True)
        return np.asarray(centred / (centred.std(axis=1, keepdims=True) + 1e-12), np.float32)
    return np.asarray(microvolt / (100 if scaling == "uv100" else 1000), np.float32)
