"""One EDF recording, read with mne: (channels, samples), float32, in the wanted channel order, at 256 Hz.

Only the wanted channels are read: three annotation channels at 1 Hz make mne 40 times slower. mne's warnings about
repairs (a truncated file, a wrong length in the header) are caught and reported with the recording.

Memory is bounded whatever the length. A first pass sums the channels' covariance, from which all checks and scales
follow; the second yields blocks. Reference and missing channels are one matrix, and a block is resampled with enough
of its neighbours around it that the blocks put together equal the whole.
"""

from __future__ import annotations

import errno
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import edfio
import mne
import numpy as np
import scipy  # scipy.signal is loaded (a second) when it is first used: not where all features lie in the cache
from numpy.typing import NDArray

from eegpt_daemon.data.edf_header import read_header
from eegpt_daemon.data.signal_fingerprint import Fingerprint
from eegpt_daemon.model.encoder import TUAB_CHANNELS as TWENTY
from eegwatch.run.config import Data

TWENTIETH = "FPZ"  # the official list's 20th, which no TUAB file has: `data.missing` says what stands there
TUAB_CHANNELS: tuple[str, ...] = tuple(name for name in TWENTY if name != TWENTIETH)  # the 19 that every file has
OLD_NAMES = {"T3": "T7", "T4": "T8", "T5": "P7", "T6": "P8"}
LEAST_SHARE = 17 / 19  # of the wanted channels must be in the file
FLAT_UV, CLIPPED_UV = 0.1, 1000.0
MOST_CLIPPED = 0.05
SANE_STD_UV = (1.0, 500.0)
BLOCK_S = 120.0  # 2.3 MB a block as float32: small enough for a pipe between processes, long enough for numpy
SCALES = {"millivolt": 1e-3, "uv100": 1e-2}  # from microvolt; EEGPT was trained on millivolt
SLOWEST_HZ, FASTEST_HZ = 50.0, 20_000.0  # what EEG is sampled at; beyond, a header is wrong
BLOCK_SAMPLES = 1 << 20  # at most: at 20 kHz two minutes of 20 channels would be 384 MB
# a network mount that is away for a moment, no descriptors left: nothing is wrong with the recording itself
PASSING = {errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN}


class Unusable(ValueError):
    """A recording that must not be trained on, with the reason. `lasting`: it will be so the next time too."""

    def __init__(self, reason: str, *, lasting: bool = True) -> None:
        super().__init__(reason)
        self.lasting = lasting


def why(path: Path, error: Exception) -> Unusable:
    """The text of an exception without the recording's file name, which is a patient's id; logs use an alias.

    Any exception of mne for a broken file (assertion, division by zero, decoding error) is a reason to skip the file.
    """
    text = str(error).strip().splitlines()
    words = text[0] if text else repr(error)
    if isinstance(error, OSError) and error.strerror:
        words = error.strerror
    for name in (str(path.absolute()), str(path), path.name, path.stem):
        if len(name) >= 4 or "/" in name:
            words = words.replace(name, "the file")
    kind = "" if isinstance(error, ValueError | OSError | RuntimeError) else f"{type(error).__name__}: "
    passing = isinstance(error, OSError) and error.errno in PASSING
    return Unusable(f"cannot be read: {kind}{words[:300]}", lasting=not passing)


@dataclass
class Recording:
    """A checked recording, still on disk. `repairs`: descriptions of the corrections made to it.

    `montage`: (wanted, present) float64; signal = (montage @ microvolt - offset) * factor.
    """

    path: Path
    raw: mne.io.BaseRaw
    present: list[str]
    channels: list[str]
    rate: float
    montage: NDArray[np.float64]
    offset: NDArray[np.float64]
    factor: NDArray[np.float64]
    repairs: list[str] = field(default_factory=list)
    signal: dict[str, Any] = field(default_factory=dict)  # a fingerprint, see data/signal_fingerprint.py

    @property
    def samples(self) -> int:
        """Samples after resampling."""
        up, down = _ratio(self.raw.info["sfreq"], self.rate)
        return int(-(-self.raw.n_times * up // down))

    @property
    def seconds(self) -> float:
        return float(self.samples / self.rate)

    @property
    def data(self) -> NDArray[np.float32]:
        """All of it, (channels, samples) float32, scaled as configured: for recordings that fit into memory."""
        return np.concatenate(list(self.blocks()), axis=1)

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """(channels, about 2 minutes) float32, in order; put together they are `data`. Raises Unusable."""
        up, down = _ratio(self.raw.info["sfreq"], self.rate)
        length = max(1, round(min(BLOCK_S * self.raw.info["sfreq"], BLOCK_SAMPLES) / down)) * down
        total = self.raw.n_times
        half = -(-10 * max(up, down) // up)  # input samples under half of the filter
        reach = (half // down + 1) * down if up != down else 0
        for begin in range(0, total, length):
            end = min(begin + length, total)
            low, high = max(0, begin - reach), min(total, end + reach)
            microvolt = _read(self.path, self.raw, self.present, low, high)
            signal = ((self.montage @ microvolt - self.offset[:, None]) * self.factor[:, None]).astype(np.float32)
            if up != down:
                signal = scipy.signal.resample_poly(
                    signal, up, down, axis=1, window=_low_pass(up, down), padtype="reflect"
                )
                skip = (begin - low) * up // down
                signal = signal[:, skip : skip + -(-(end - begin) * up // down)]
            yield np.ascontiguousarray(signal, np.float32)


def wanted_channels(data: Data) -> list[str]:
    """`data.channels`, or the 19 of TUAB, or these and FPZ where `n_channels` is 20."""
    if data.channels:
        return [name.upper() for name in data.channels]
    if data.n_channels == 20 and data.missing != "drop":
        return list(TWENTY)
    return list(TUAB_CHANNELS)


def canonical(name: str) -> str:
    """`EEG T3-REF`, `EEG T3-LE`, `T3` -> `T7`: upper case, without prefix and reference, new 10-20 names."""
    name = name.upper().strip().removeprefix("EEG ").strip()
    for suffix in ("-REF", "-LE", "-AR", "_REF"):
        name = name.removesuffix(suffix)
    return OLD_NAMES.get(name, name)


def read(path: Path, data: Data) -> Recording:
    """Open, check and plan one file; its samples are read by `blocks`. Raises Unusable with the reason."""
    wanted = wanted_channels(data)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            raw, names = _open(path, wanted)
        except Unusable:
            raise
        except Exception as error:
            raise why(path, error) from None
        messages = [w.message for w in caught if issubclass(w.category, RuntimeWarning)]
        repairs = [str(why(path, ValueError(str(message)))).removeprefix("cannot be read: ") for message in messages]
        repairs += _continuity(path)
        seconds = raw.n_times / raw.info["sfreq"]
        if seconds < data.min_duration:
            raise Unusable(f"{seconds:.1f} s long, data.min_duration is {data.min_duration:g} s")
        present = [name for name in wanted if name in names]
        mean, covariance, signal = _statistics(path, raw, [names[name] for name in present])
    std = np.sqrt(np.maximum(np.diag(covariance), 0))
    flat = [name for name, value in zip(present, std, strict=True) if value < FLAT_UV]
    if flat:
        repairs.append(f"flat, treated as missing: {' '.join(sorted(flat))}")
    good = [name for name in present if name not in flat]
    needed = LEAST_SHARE * len([name for name in wanted if name != TWENTIETH])
    if len(good) < needed:
        missing = [name for name in wanted if name not in good and name != TWENTIETH]
        raise Unusable(f"lacks {' '.join(missing)}: {len(good)} usable channels, at least {needed:.0f} are needed")
    kept = [present.index(name) for name in good]
    median = float(np.median(std[kept]))
    if not SANE_STD_UV[0] <= median <= SANE_STD_UV[1]:
        raise Unusable(f"median channel std {median:.3g} µV: unit or range in the header is wrong")
    montage = _completion(good, wanted, data.missing, repairs)
    if data.reference == "average":
        montage = montage @ (np.eye(len(good)) - 1 / len(good))
    offset, factor = np.zeros(len(wanted)), np.full(len(wanted), SCALES.get(data.scaling, 1.0))
    if data.scaling == "zscore":  # of the channel over the recording, after reference and completion
        offset = montage @ mean[kept]
        variance = np.einsum("ij,jk,ik->i", montage, covariance[np.ix_(kept, kept)], montage)
        factor = 1 / (np.sqrt(np.maximum(variance, 0)) + 1e-12)
    rate = float(data.sampling_rate)
    return Recording(path, raw, [names[name] for name in good], wanted, rate, montage, offset, factor, repairs, signal)


def header_samples(path: Path, rate: int) -> int:
    """The number of samples at `rate` according to the header; 0 for an unreadable file (`read` raises the reason)."""
    header = read_header(path)
    if header is None:
        return 0
    try:
        whole = (header.file_bytes - header.header_bytes) // (2 * sum(header.samples))
    except ZeroDivisionError:
        return 0
    labels = header.signals["label"]
    wanted = [n for n, name in zip(header.samples, labels, strict=True) if canonical(name) in TWENTY]
    most, seconds = max(wanted or header.samples, default=0), header.record_s
    if not (math.isfinite(seconds) and seconds > 0 and SLOWEST_HZ <= most / seconds <= FASTEST_HZ):
        return 0
    up, down = _ratio(most / seconds, rate)
    return max(0, int(-(-most * (whole if header.records < 0 else min(header.records, whole)) * up // down)))


def _open(path: Path, wanted: list[str]) -> tuple[mne.io.BaseRaw, dict[str, str]]:
    """The raw file with the wanted channels alone, and canonical name -> its name there."""
    header = mne.io.read_raw_edf(path, preload=False, verbose="WARNING")
    _check_rate(header.info["sfreq"])
    first: dict[str, str] = {}
    for name in header.ch_names:  # mne renames duplicate labels -0, -1: the first is taken
        first.setdefault(canonical(name.removesuffix("-0")), name)
    names = {name: first[name] for name in wanted if name in first}
    if not names:
        raise ValueError(f"none of the channels {' '.join(wanted[:4])} … is in it")
    if any(name.endswith("-0") for name in names.values()):
        return header, names  # `include` knows labels, not the new names
    raw = mne.io.read_raw_edf(path, include=list(names.values()), preload=False, verbose="ERROR")
    _check_rate(raw.info["sfreq"])
    return raw, names


def _check_rate(hertz: float) -> None:
    """Raises Unusable for a sampling rate that no EEG has: resampling from it would never end, or need all memory."""
    if not (math.isfinite(hertz) and SLOWEST_HZ <= hertz <= FASTEST_HZ):
        raise Unusable(f"sampled at {hertz:g} Hz by its header; EEG has {SLOWEST_HZ:g} to {FASTEST_HZ:,.0f} Hz")


def _continuity(path: Path) -> list[str]:
    """Raises Unusable for EDF+D with gaps, which mne reads as if it had none: windows would cross them."""
    try:
        with path.open("rb") as file:
            file.seek(192)
            if file.read(5) != b"EDF+D":
                return []
        continuous = edfio.read_edf(path).is_continuous
    except Exception as error:
        cause = why(path, error)
        raise Unusable(f"discontinuous EDF+ (EDF+D), and its gaps {cause}", lasting=cause.lasting) from None
    if not continuous:
        raise Unusable("discontinuous EDF+ (EDF+D): windows would cross its gaps; write its pieces as EDF+C files")
    return ["marked discontinuous (EDF+D), but without gaps"]


def _statistics(
    path: Path, raw: mne.io.BaseRaw, names: list[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64], dict[str, Any]]:
    """(mean, covariance in microvolt, fingerprint) over the whole file, block by block.

    Raises Unusable if the signal is not EEG.
    """
    fingerprint = Fingerprint(raw.info["sfreq"])
    total, square = np.zeros(len(names)), np.zeros((len(names), len(names)))
    clipped, n, length = 0, raw.n_times, max(1, round(min(BLOCK_S * raw.info["sfreq"], BLOCK_SAMPLES)))
    for begin in range(0, n, length):
        microvolt = _read(path, raw, names, begin, min(begin + length, n))
        if not np.isfinite(microvolt).all():
            raise Unusable("holds values that are not finite")
        clipped += int((np.abs(microvolt) > CLIPPED_UV).sum())
        fingerprint.feed(microvolt)
        total += microvolt.sum(axis=1)
        square += microvolt @ microvolt.T
    share = clipped / (n * len(names))
    if share > MOST_CLIPPED:
        raise Unusable(f"{share:.0%} of the samples are beyond {CLIPPED_UV:.0f} µV")
    mean = total / n
    return mean, square / n - np.outer(mean, mean), fingerprint.as_dict()


def _read(path: Path, raw: mne.io.BaseRaw, names: list[str], begin: int, end: int) -> NDArray[np.float64]:
    """(channels, samples) in microvolt, rows in the order of `names`. Raises Unusable."""
    try:
        volts: NDArray[np.float64] = raw.get_data(picks=names, start=begin, stop=end, verbose="ERROR")
    except Exception as error:
        raise why(path, error) from None
    return volts * 1e6


def _ratio(source: float, target: float) -> tuple[int, int]:
    ratio = (Fraction(target) / Fraction(source).limit_denominator(1000)).limit_denominator(1000)
    return ratio.numerator, ratio.denominator


@lru_cache(maxsize=8)
def _low_pass(up: int, down: int) -> NDArray[np.float32]:
    """The filter of scipy's resample_poly and of mne's polyphase method: made once a pair of rates."""
    most = max(up, down)
    return np.asarray(scipy.signal.firwin(20 * most + 1, 1.0 / most, window=("kaiser", 5.0)), np.float32)


@lru_cache(maxsize=1)
def _positions() -> dict[str, NDArray[np.float64]]:
    # mne 1.13 renamed it and drops the old name with 1.14
    renamed = "colin27_1020" in mne.channels.get_builtin_montages()
    montage = mne.channels.make_standard_montage("colin27_1020" if renamed else "standard_1020")
    return {name.upper(): xyz for name, xyz in montage.get_positions()["ch_pos"].items()}


def _completion(have: list[str], wanted: list[str], policy: str, repairs: list[str]) -> NDArray[np.float64]:
    """(wanted, have): identity; a missing channel is the mean of its two nearest neighbours, or zero."""
    matrix = np.zeros((len(wanted), len(have)))
    for row, name in enumerate(wanted):
        if name in have:
            matrix[row, have.index(name)] = 1.0
        elif policy == "zero":
            repairs.append(f"{name} missing: zero")
        else:
            place = _positions()
            near = sorted(have, key=lambda other: float(np.linalg.norm(place[other] - place[name])))[:2]
            matrix[row, [have.index(other) for other in near]] = 0.5
            repairs.append(f"{name} missing: mean of {' and '.join(near)}")
    return matrix
