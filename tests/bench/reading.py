"""How fast EDF files become checked, resampled, scaled blocks: ours beside a plain mne loop, on the same files.

    python -m tests.bench.reading [--files 8] [--minutes 22]

The plain loop does what a script does: read_raw_edf(preload=True), pick the 19 channels, resample to 256 Hz, millivolt.
Ours reads only what it needs, checks it twice over (statistics, then samples), in 0, 1 or 2 worker processes.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import mne
import numpy as np

from eegpt_daemon.data.corpus import Entry
from eegpt_daemon.data.reader_processes import blocks
from eegpt_daemon.data.recording import TUAB_CHANNELS, canonical
from eegpt_daemon.data.synthetic import _write_edf, signals
from eegwatch.run.config import Data

WINDOW, STRIDE = 1024, 512


def make_files(folder: Path, files: int, minutes: float) -> list[Path]:
    paths = []
    for i in range(files):
        rng, rate = np.random.default_rng(i), 250 if i % 2 else 256
        path = folder / f"synbench{i:02d}_s001_t000.edf"
        _write_edf(path, signals(rng, rate, minutes * 60, 1.0, abnormal=bool(i % 2), age=50), rate, path.stem, 50, rng)
        paths.append(path)
    return paths


def plain(paths: list[Path], method: str) -> int:
    windows = 0
    for path in paths:
        raw = mne.io.read_raw_edf(path, preload=True, verbose="ERROR")
        raw.pick([name for name in raw.ch_names if canonical(name) in TUAB_CHANNELS])
        raw.resample(256, method=method, verbose="ERROR")
        x = (raw.get_data() * 1e3).astype(np.float32)
        windows += (x.shape[1] - WINDOW) // STRIDE + 1
    return windows


def ours(paths: list[Path], workers: int) -> int:
    entries = [Entry(path, path.name, path.stem, 0, "train") for path in paths]
    samples = [0] * len(paths)
    for part in blocks(entries, Data(root_dir="/", num_workers=workers)):
        assert part.reason is None, part.reason
        samples[part.number] += 0 if part.block is None else part.block.shape[1]
    return sum((n - WINDOW) // STRIDE + 1 for n in samples)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=22.0)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        paths = make_files(Path(scratch), arguments.files, arguments.minutes)
        size = sum(path.stat().st_size for path in paths) / 1e6
        ways = {
            "plain mne loop (fft resampling, its default)": lambda: plain(paths, "fft"),
            "plain mne loop (polyphase)": lambda: plain(paths, "polyphase"),
            "ours, num_workers 0": lambda: ours(paths, 0),
            "ours, num_workers 2": lambda: ours(paths, 2),
        }
        best = dict.fromkeys(ways, float("inf"))
        windows = dict.fromkeys(ways, 0)
        for _ in range(arguments.rounds):
            for name, way in ways.items():
                began = time.perf_counter()
                windows[name] = way()
                best[name] = min(best[name], time.perf_counter() - began)
        assert len(set(windows.values())) == 1, windows
        print(
            f"{arguments.files} files of {arguments.minutes:g} min, 27 channels, {size:.0f} MB, best of {arguments.rounds}"
        )
        slowest = best["plain mne loop (fft resampling, its default)"]
        for name, seconds in best.items():
            print(
                f"{name:46} {windows[name] / seconds:8,.0f} windows/s {size / seconds:7.0f} MB/s  {slowest / seconds:5.1f} x"
            )
        print(f"peak resident size of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
