"""A small corpus of real EDF files with synthetic EEG in TUAB layout, so that everything runs without any data.

The signals follow the model of a background EEG (1/f sources, alpha, beta, drowsy theta, blinks, muscle, line noise)
with slowing, focal delta or spike-and-wave in the abnormal class. It says nothing about EEGPT or about patients; every
header, the folder's README and the run log call it SYNTHETIC. Old channel names, extra channels, annotation channels
at 1 Hz and 250 Hz in half of the files exercise the real reader.
"""

from __future__ import annotations

import datetime
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import edfio
import numpy as np
from numpy.typing import NDArray

from eegwatch.run.config import Synthetic

Floats = NDArray[np.float64]
Report = Callable[[int, int], None]
README = "README-SYNTHETIC.txt"

# 10-20 positions on the unit disc (x to the right, y to the front), old names as TUAB writes them
SCALP: dict[str, tuple[float, float]] = {
    "FP1": (-0.31, 0.95), "FP2": (0.31, 0.95), "F7": (-0.81, 0.59), "F3": (-0.45, 0.55), "FZ": (0.0, 0.5),
    "F4": (0.45, 0.55), "F8": (0.81, 0.59), "T3": (-1.0, 0.0), "C3": (-0.5, 0.0), "CZ": (0.0, 0.0),
    "C4": (0.5, 0.0), "T4": (1.0, 0.0), "T5": (-0.81, -0.59), "P3": (-0.45, -0.55), "PZ": (0.0, -0.5),
    "P4": (0.45, -0.55), "T6": (0.81, -0.59), "O1": (-0.31, -0.95), "O2": (0.31, -0.95),
}  # fmt: skip
EXTRA = ("A1", "A2", "T1", "T2")
SLOW = ("IBI", "BURSTS", "SUPPR")


def make_corpus(root: Path, config: Synthetic, report: Report | None = None) -> None:
    """Write the corpus at `root`, all of it or nothing: it is made beside and renamed when complete."""
    making = root.with_name(f"{root.name}.making-{os.getpid()}")
    making.mkdir(parents=True)
    try:
        total = config.train_recordings + config.eval_recordings
        done = 0
        for split, number in (("train", config.train_recordings), ("eval", config.eval_recordings)):
            for i in range(number):
                _write_recording(making, config, split, i)
                done += 1
                if report is not None:
                    report(done, total)
        (making / README).write_text(
            "SYNTHETIC EEG. Made by eegwatch for demonstration and tests; no person was recorded.\n"
            f"train {config.train_recordings}, eval {config.eval_recordings} recordings of {config.seconds:g} s, "
            f"contrast {config.contrast:g}, seed {config.seed}.\n"
        )
        making.rename(root)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def subject_name(split: str, number: int) -> str:
    """`synaaaab`: eight letters as in TUAB v3, never a real patient's; every fourth subject has two sessions."""
    offset = 0 if split == "train" else 500_000
    value, letters = number + offset, ""
    for _ in range(5):
        value, digit = divmod(value, 26)
        letters = chr(ord("a") + digit) + letters
    return "syn" + letters


def _write_recording(root: Path, config: Synthetic, split: str, i: int) -> None:
    label = "abnormal" if i % 2 else "normal"
    rng = np.random.default_rng([config.seed, split == "eval", i])
    # recordings 6 and 8 of every 8 are second sessions of the subjects of 2 and 4 (same label)
    session = 2 if i % 8 in (6, 7) else 1
    subject = subject_name(split, i - 4 if session == 2 else i)
    folder = root / "edf" / split / label / "01_tcp_ar"
    folder.mkdir(parents=True, exist_ok=True)
    rate = 250 if (i // 2) % 2 else 256
    k = config.contrast
    severity = (
        np.clip(rng.normal(0.62 * k, 0.33 * np.sqrt(k)), 0, 2.2) if i % 2 else np.clip(rng.normal(0.1, 0.13), 0, 0.5)
    )
    age = float(np.clip(rng.normal(55 if i % 2 else 45, 16), 18, 90))
    eeg = signals(rng, rate, config.seconds, float(severity), abnormal=bool(i % 2), age=age)
    _write_edf(folder / f"{subject}_s{session:03d}_t000.edf", eeg, rate, subject, age, rng)


def signals(
    rng: np.random.Generator, rate: int, seconds: float, severity: float, *, abnormal: bool, age: float
) -> Floats:
    """(19, samples) in microvolt, rows in the order of SCALP."""
    n = round(rate * seconds)
    t = np.arange(n) / rate
    place = np.array(list(SCALP.values()))

    def topography(x: float, y: float, width: float) -> Floats:
        return np.asarray(np.exp(-((place - (x, y)) ** 2).sum(1) / (2 * width**2)))

    def coloured(slope: float) -> Floats:
        """1/f^slope noise of unit variance, flat below 0.5 Hz."""
        spectrum = rng.standard_normal(n // 2 + 1) + 1j * rng.standard_normal(n // 2 + 1)
        f = np.maximum(np.fft.rfftfreq(n, 1 / rate), 0.5)
        noise = np.fft.irfft(spectrum * f ** (-slope / 2), n)
        return np.asarray(noise / noise.std())

    def narrow(f0: float, width: float) -> Floats:
        """Noise around f0 (Hz), unit variance: a rhythm with a wandering amplitude and phase."""
        spectrum = rng.standard_normal(n // 2 + 1) + 1j * rng.standard_normal(n // 2 + 1)
        f = np.fft.rfftfreq(n, 1 / rate)
        wave = np.fft.irfft(spectrum * np.exp(-((f - f0) ** 2) / (2 * width**2)), n)
        return np.asarray(wave / (wave.std() + 1e-12))

    def bouts(duty: float, length: float) -> Floats:
        """A slow on/off envelope in 0 … 1 that is on for about `duty` of the time."""
        slow = narrow(0.0, 1 / (2 * length))
        threshold = np.quantile(slow, 1 - duty)
        return 1 / (1 + np.exp(-(slow - threshold) * 6))

    eeg = np.zeros((len(SCALP), n))
    for _ in range(24):
        x, y = rng.uniform(-1, 1, 2)
        source = coloured(float(rng.normal(1.0, 0.12)))
        eeg += np.outer(topography(x, y, rng.uniform(0.35, 0.7)), source) * rng.uniform(2.0, 4.0)
    eeg += rng.standard_normal(eeg.shape) * 1.2

    alpha_hz = 10.2 - 0.02 * (age - 45) - 0.9 * severity + rng.normal(0, 0.4)
    alpha = narrow(alpha_hz, 0.5) * bouts(0.55, 2.0) * rng.lognormal(np.log(9.0), 0.4) * (1 - 0.18 * severity)
    eeg += np.outer(topography(-0.3, -0.9, 0.45) + topography(0.3, -0.9, 0.45), alpha)
    eeg += np.outer(topography(0.0, 0.4, 0.6), narrow(20.0, 3.0)) * rng.lognormal(np.log(2.5), 0.4)
    drowsy = narrow(rng.uniform(5, 6.5), 0.6) * bouts(rng.uniform(0.05, 0.3), 3.0) * rng.lognormal(np.log(6.0), 0.4)
    eeg += np.outer(topography(0.0, 0.0, 0.8), drowsy)

    if abnormal:
        _abnormality(rng, eeg, t, severity, topography, narrow, bouts)

    blinks = np.zeros(n)
    for onset in rng.uniform(0, seconds, rng.poisson(seconds / 60 * rng.uniform(4, 14))):
        blinks += rng.uniform(50, 110) * np.exp(-((t - onset) ** 2) / (2 * 0.09**2))
    eeg += np.outer(topography(-0.31, 1.0, 0.3) + topography(0.31, 1.0, 0.3), blinks)
    side = 1.0 if rng.random() < 0.5 else -1.0
    eeg += np.outer(topography(side, 0.1, 0.35), narrow(45.0, 12.0) * bouts(0.12, 1.5)) * rng.uniform(2, 8)
    eeg += np.sin(2 * np.pi * 60 * t + rng.uniform(0, 6)) * rng.uniform(0.2, 1.5)
    gain = rng.lognormal(0, 0.2)
    return np.asarray(eeg * gain)


def _abnormality(
    rng: np.random.Generator,
    eeg: Floats,
    t: Floats,
    severity: float,
    topography: Callable[[float, float, float], Floats],
    narrow: Callable[[float, float], Floats],
    bouts: Callable[[float, float], Floats],
) -> None:
    """Add one of three abnormal patterns, intermittent: on for 0.2 + 0.5 severity of the time."""
    duty = float(np.clip(0.2 + 0.5 * severity, 0.05, 0.95))
    kind = rng.random()
    side = 1.0 if rng.random() < 0.5 else -1.0
    if kind < 0.45:  # generalised slowing
        slow = narrow(rng.uniform(4.0, 6.0), 0.8) + 0.8 * narrow(rng.uniform(1.5, 3.0), 0.6)
        eeg += np.outer(topography(0.0, 0.1, 1.2), slow * bouts(duty, 3.0)) * 9.0 * severity
    elif kind < 0.80:  # focal temporal polymorphic delta
        delta = narrow(rng.uniform(1.0, 2.6), 0.5)
        eeg += np.outer(topography(side * 0.95, 0.0, 0.5), delta * bouts(duty, 3.0)) * 20.0 * severity
    else:  # temporal spike-and-wave
        waves = np.zeros(len(t))
        for onset in rng.uniform(0, t[-1], rng.poisson(t[-1] / 60 * 10 * max(severity, 0.1))):
            height = rng.uniform(60, 140)
            waves -= height * np.exp(-((t - onset) ** 2) / (2 * 0.018**2))
            waves += 0.6 * height * np.exp(-((t - onset - 0.16) ** 2) / (2 * 0.075**2))
        eeg += np.outer(topography(side * 0.95, 0.15, 0.4), waves)
        eeg += np.outer(topography(side * 0.95, 0.0, 0.5), narrow(2.5, 0.6) * bouts(duty, 3.0)) * 8.0 * severity


def _write_edf(path: Path, eeg: Floats, rate: int, subject: str, age: float, rng: np.random.Generator) -> None:
    n = eeg.shape[1]

    def channel(label: str, values: Floats, fs: float, limit: float = 3276.7) -> edfio.EdfSignal:
        return edfio.EdfSignal(
            np.clip(values, -limit, limit),
            fs,
            label=label,
            physical_dimension="uV",
            physical_range=(-limit, limit),
            digital_range=(-32767, 32767),
        )

    names = list(SCALP)
    order = rng.permutation(len(names)) if rng.random() < 0.5 else np.arange(len(names))  # files differ in order
    channels = [channel(f"EEG {names[i]}-REF", eeg[i], rate) for i in order]
    channels += [channel(f"EEG {name}-REF", np.asarray(rng.normal(0, 5, n)), rate) for name in EXTRA]
    beat = np.asarray(np.sin(2 * np.pi * 1.2 * np.arange(n) / rate) ** 63 * 400)
    channels.append(channel("EEG EKG1-REF", beat, rate))
    channels += [channel(name, rng.uniform(0, 100, n // rate), 1) for name in SLOW]
    edf = edfio.Edf(
        channels,
        patient=edfio.Patient(code=subject, sex="X", additional=("SYNTHETIC", f"Age:{age:.0f}")),
        recording=edfio.Recording(startdate=datetime.date(2001, 1, 1), additional=("SYNTHETIC", "eegwatch")),
        data_record_duration=1,
    )
    edf.write(path)
