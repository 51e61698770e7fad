"""Facts from the headers of a corpus: fields that predict the class, patients in two splits, subjects of two sexes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eegpt_daemon.data.corpus import Entry
from eegpt_daemon.data.edf_header import Header
from eegpt_daemon.model.encoder import CHANNELS

TOLD = 0.7  # balanced accuracy from which on a class counts as told by a header
BY_CHANCE = 0.01  # and the share of shuffled labels that are told as well
SHUFFLES = 2_000
SHOWN, SHOWN_VALUES, WIDE = 5, 3, 40
OLD_NAMES = {"T3": "T7", "T4": "T8", "T5": "P7", "T6": "P8"}


def eeg_signals(header: Header) -> list[int]:
    """The signals that are EEG channels by their names; all signals if no name is known."""
    labels = header.signals["label"]
    own = [i for i, label in enumerate(labels) if _channel(label) in CHANNELS]
    return own or list(range(len(labels)))


def _channel(label: str) -> str:
    name = label.upper().removeprefix("EEG ").strip().partition("-")[0].strip()
    return OLD_NAMES.get(name, name)


def _common(header: Header, column: str) -> str:
    """The most frequent value of the EEG channels in a column of the header."""
    values = [" ".join(header.signals[column][i].split()) for i in eeg_signals(header)]
    return max(sorted(set(values)), key=values.count) if values else ""


def _rate(header: Header) -> str:
    rates = [header.rate(i) for i in eeg_signals(header)]
    return f"{max(rates):g} Hz" if rates else ""


def _reference(header: Header) -> str:
    ends = [header.signals["label"][i].upper().partition("-")[2].strip() for i in eeg_signals(header)]
    return max(sorted(set(ends)), key=ends.count) or "none named" if ends else ""


PROPERTIES: dict[str, Callable[[Header], str]] = {
    "sampling rate": _rate,
    "reference": _reference,
    "filter": lambda header: _common(header, "filter") or "none named",
    "unit": lambda header: _common(header, "unit"),
    "range": lambda header: f"{_common(header, 'low')} to {_common(header, 'high')}",
    "channels": lambda header: str(len(eeg_signals(header))),
    "transducer": lambda header: _common(header, "transducer"),
    "equipment": lambda header: header.equipment,
    "year": lambda header: header.year,
}


def headers_look(headers: Sequence[tuple[Entry, Header]], labels: Sequence[str]) -> dict[str, Any]:
    """The values of a `headers` record. Prediction of the class uses one recording per subject and class."""
    firsts = {(entry.subject, entry.label): header for entry, header in reversed(headers)}
    classes = np.array([label for _, label in firsts], np.int64)
    by_class = []
    for what, of_header in PROPERTIES.items():
        values = [of_header(header) for header in firsts.values()]
        told = told_by(values, classes, len(labels))
        if told is not None:
            by_class.append({"what": what, "told": told, "classes": _in_words(values, classes, labels)})
    return {"subjects": len(firsts), "by_class": by_class, "codes": _codes(headers), "sexes": _sexes(headers)}


def told_by(values: Sequence[str], classes: NDArray[np.int64], number: int) -> float | None:
    """The balanced accuracy of the best guess of the class from a value; None where chance does as well."""
    _, which = np.unique(np.array(values, str), return_inverse=True)
    kinds = int(which.max()) + 1 if len(which) else 0
    size = np.bincount(classes, minlength=number)
    if kinds < 2 or not size.all():
        return None

    def accuracy(order: NDArray[np.int64]) -> float:
        table = np.bincount(which * number + order, minlength=kinds * number).reshape(kinds, number)
        return float((table / size).max(axis=1).sum() / number)

    told = accuracy(classes)
    if told < TOLD:
        return None
    draw = np.random.default_rng(0)
    as_well = sum(accuracy(draw.permutation(classes)) >= told - 1e-12 for _ in range(SHUFFLES))
    return told if as_well < BY_CHANCE * SHUFFLES else None


def _in_words(values: Sequence[str], classes: NDArray[np.int64], labels: Sequence[str]) -> dict[str, str]:
    """Of each class: "256 Hz in 40 of 40"."""
    words = {}
    for number, name in enumerate(labels):
        own = [value for value, label in zip(values, classes.tolist(), strict=True) if label == number]
        kinds = sorted(set(own), key=lambda value: (-own.count(value), value))
        parts = [f"{value[:WIDE] or 'none'} in {own.count(value)} of {len(own)}" for value in kinds[:SHOWN_VALUES]]
        words[name] = ", ".join(parts + (["…"] if len(kinds) > SHOWN_VALUES else []))
    return words


def _codes(headers: Sequence[tuple[Entry, Header]]) -> dict[str, Any] | None:
    """Patient codes with subjects in two splits; None if the codes of this corpus do not distinguish subjects."""
    held: dict[str, dict[str, Entry]] = defaultdict(dict)
    for entry, header in headers:
        if header.patient_code:
            held[header.patient_code].setdefault(entry.subject, entry)
    subjects = {entry.subject for entry, _ in headers}
    if len(held) * 2 < len(subjects):
        return None
    both = [list(files.values()) for files in held.values() if len({entry.split for entry in files.values()}) > 1]
    shown = [[f"{entry.alias or entry.relative} ({entry.split})" for entry in files[:3]] for files in both[:SHOWN]]
    return {"n": len(both), "shown": shown}


def _sexes(headers: Sequence[tuple[Entry, Header]]) -> dict[str, Any] | None:
    """Subjects whose headers name both sexes; None where no header names one."""
    held: dict[str, dict[str, Entry]] = defaultdict(dict)
    for entry, header in headers:
        if header.sex:
            held[entry.subject].setdefault(header.sex, entry)
    if not held:
        return None
    both = [files for files in held.values() if len(files) > 1]
    shown = [[f"{entry.alias or entry.relative}: {sex}" for sex, entry in files.items()] for files in both[:SHOWN]]
    return {"n": len(both), "shown": shown}
