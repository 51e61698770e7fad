"""Small corpora of real EDF files whose faults are known, for the tests of what a corpus proves."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import edfio
import numpy as np
import torch

from eegpt_daemon.data import dataset
from eegpt_daemon.data.corpus_records import corpus_looks
from eegpt_daemon.model.encoder import TUAB_CHANNELS
from eegwatch.diagnosis.findings import Finding
from eegwatch.diagnosis.silent.watch import SilentWatch
from eegwatch.run.config import Config, load
from eegwatch.run.records import Watch


def parts_of(x: torch.Tensor) -> torch.Tensor:
    """The logarithm of each channel's standard deviation in four parts of a window, as an encoder."""
    return torch.log(x.unflatten(2, (4, -1)).std(3) + 1e-3).flatten(1)


def parts_of_zscores(x: torch.Tensor) -> torch.Tensor:
    return parts_of(x)


parts_of.rate, parts_of.unit, parts_of.version = 256, "uV", "1"  # type: ignore[attr-defined]
parts_of_zscores.rate, parts_of_zscores.unit, parts_of_zscores.version = 256, "zscore", "1"  # type: ignore[attr-defined]

NAMES = [name for name in TUAB_CHANNELS if name != "FPZ"]
SECONDS = 12


def signal_of(seed: int, seconds: int = SECONDS, hertz: int = 256) -> np.ndarray:
    """(channels, samples) of noise in microvolt."""
    return np.random.default_rng(seed).standard_normal((len(NAMES), seconds * hertz)) * 20


def write_edf(path: Path, signal: np.ndarray, **header: Any) -> None:
    """`header`: hertz, reference, filter, patient, sex, equipment, order of the channels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hertz, order = header.get("hertz", 256), header.get("order", range(len(NAMES)))
    channels = [
        edfio.EdfSignal(
            np.clip(signal[i], -500, 500),
            hertz,
            label=f"EEG {NAMES[i]}-{header.get('reference', 'REF')}",
            physical_dimension="uV",
            physical_range=(-500, 500),
            prefiltering=header.get("filter", ""),
        )
        for i in order
    ]
    patient = edfio.Patient(code=header.get("patient", "X"), sex=header.get("sex", "X"))
    recording = edfio.Recording(
        startdate=datetime.date(2001, 1, 1), equipment_code=header.get("equipment", "X"), additional=()
    )
    edfio.Edf(channels, patient=patient, recording=recording, data_record_duration=1).write(path)


def corpus(root: Path, subjects: int = 4, **header: Any) -> Path:
    """As TUAB lays it out: so many subjects of each class for training, three for evaluation; one recording each."""
    seed = 0
    for split, number in (("train", subjects), ("eval", 3)):
        for label in ("normal", "abnormal"):
            for one in range(number):
                seed += 1
                subject = f"{split[0]}{label[0]}{one:04d}"
                own = {"patient": subject} | header.get(label, header.get("both", {}))
                hertz = own.get("hertz", 256)
                write_edf(root / split / label / f"{subject}_s001_t000.edf", signal_of(seed, hertz=hertz), **own)
    return root


def config_of(root: Path, cache: Path, **data: Any) -> Config:
    import yaml

    path = cache.with_name(f"{cache.name}.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    encoder = "parts_of_zscores" if data.get("scaling") == "zscore" else "parts_of"
    tree = {
        "data": {"root_dir": str(root), "cache_dir": str(cache), "min_duration": 8.0, "val_fraction": 0.25, **data},
        "model": {"backbone": {"entry": f"tests.unit.daemon.corpora:{encoder}"}},
        "training": {"max_epochs": 1, "scheduler": {"name": "constant", "lr": 1e-3}},
    }
    path.write_text(yaml.safe_dump(tree))
    return load(path)


def looks_of(config: Config, *, signals: bool = True) -> dict[str, dict[str, Any]]:
    """The values of each record. `signals`: prepare the features as a run does, which reads all recordings."""
    encoder, _ = dataset.build_encoder(config)
    store = dataset.store_for(config, encoder, dataset.best_device())
    planned = dataset.plan(config, store, lambda *_: None)
    used = {entry.relative for entry in planned.entries}
    if signals:
        used = dataset.windows(config, store, planned, lambda *_: None, lambda _: None).used()
    return dict(corpus_looks(config, store, planned.entries, used))


def findings_of(config: Config, *, signals: bool = True) -> dict[str, Finding]:
    watch = SilentWatch()
    for look, values in looks_of(config, signals=signals).items():
        watch.feed(Watch(time=0.0, step=0, look=look, values=values))
    return {finding.rule: finding for finding in watch.findings}
