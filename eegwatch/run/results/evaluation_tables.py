"""The trainer's evaluations as a section of a page: the newest of each model and set, with intervals and confusion."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from eegwatch.run.records import Eval, number
from eegwatch.run.results import page_sections
from eegwatch.run.results.evaluation_set_uses import uses_beside, uses_in_words
from eegwatch.run.results.page_sections import Section
from eegwatch.wording import count

FIGURES = {
    "auroc": "AUROC",
    "average_precision": "average precision",
    "balanced_accuracy": "balanced accuracy",
    "threshold": "threshold, fixed on validation",
    "balanced_accuracy_at_threshold": "balanced accuracy at the threshold",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "f1": "F1",
    "weighted_f1": "F1, weighted by support",
    "kappa": "kappa",
    "brier": "Brier score",
    "calibration_error": "calibration error",
}
LEVELS = (("window", ""), ("recording", "recording_"))


def section(evals: Sequence[Eval], folder: Path | None = None) -> Section | None:
    """None for a log without evaluations by the daemon's trainer."""
    newest = _newest(evals)
    if not newest:
        return None
    return Section(
        title="evaluation",
        sentences=lines(evals, folder),
        tables=[table for name, record in newest.items() for table in _tables(name, record)],
    )


def sections(evals: Sequence[Eval], folder: Path | None) -> list[Section]:
    """The evaluations, then what commands of the daemon have computed afterwards; `folder`: None for foreign logs."""
    scores = section(evals, folder)
    return [*([scores] if scores is not None else []), *(page_sections.sections(folder) if folder is not None else [])]


def lines(evals: Sequence[Eval], folder: Path | None = None) -> list[str]:
    """The official evaluation in sentences, the final model's first; nothing before it was made.

    `folder`: the run's, whose commands have looked at the set too.
    """
    newest = _newest(evals)
    sentences = [
        f"{name}: {_size(record)}: AUROC {_figure(record, 'auroc')} of windows, "
        f"{_figure(record, 'recording_auroc')} of recordings"
        for name, record in newest.items()
        if record.split == "eval"
    ]
    looks = [record.looks for record in newest.values() if isinstance(record.looks, int)]
    if looks:
        beside = uses_in_words(uses_beside(folder)) if folder is not None else ""
        words = f"this run has looked at the official evaluation set {count(max(looks), 'time')}"
        sentences.append(words + (f", and it was looked at {beside}" if beside else ""))
    return sentences


def _newest(evals: Sequence[Eval]) -> dict[str, Eval]:
    """By words: the final and the best model on the official set, the newest on the validation set."""
    ours = [record for record in evals if isinstance(record.confusion, dict) and isinstance(record.metrics, dict)]
    records: dict[str, Eval] = {}
    for model in ("final", "best"):
        of_model = [record for record in ours if record.split == "eval" and record.model == model]
        if of_model:
            newest = of_model[-1]
            records[f"{model} model (step {newest.step:,}) on the official evaluation set"] = newest
    val = [record for record in ours if record.split == "val"]
    if val:
        records[f"model of step {val[-1].step:,} on the validation set"] = val[-1]
    return records


def _size(record: Eval) -> str:
    if isinstance(record.recordings, msgspec.UnsetType) or isinstance(record.subjects, msgspec.UnsetType):
        return count(record.n, "window")
    parts = count(record.recordings, "recording"), count(record.subjects, "subject")
    return f"{count(record.n, 'window')} in {parts[0]} of {parts[1]}"


def _figure(record: Eval, name: str) -> str:
    """0.913 (0.880 to 0.940); "–" for a figure that is not defined."""
    metrics = record.metrics if isinstance(record.metrics, dict) else {}
    if metrics.get(name) is None:
        return "–"
    between = record.ci95.get(name) if isinstance(record.ci95, dict) else None
    words = f"{number(metrics[name]):.3f}"
    if between is None or len(between) != 2:
        return words
    return f"{words} ({number(between[0]):.3f} to {number(between[1]):.3f})"


def _tables(name: str, record: Eval) -> list[tuple[str, list[str], list[list[str]]]]:
    metrics = record.metrics if isinstance(record.metrics, dict) else {}
    rows = [
        [words, *(_figure(record, prefix + figure) for _, prefix in LEVELS)]
        for figure, words in FIGURES.items()
        if any(prefix + figure in metrics for _, prefix in LEVELS)
    ]
    intervals = "; in brackets 95 % intervals by a bootstrap over subjects" if isinstance(record.ci95, dict) else ""
    tables = [(f"{name}: {_size(record)}{intervals}", ["", "windows", "recordings"], rows)]
    for level, _ in LEVELS:
        table = record.confusion.get(level) if isinstance(record.confusion, dict) else None
        if table:
            header = [f"true class of a {level}", *(f"called {one}" for one in range(len(table)))]
            cells = [[str(one), *(f"{value:,}" for value in row)] for one, row in enumerate(table)]
            tables.append((f"{name}: confusion matrix of {level}s", header, cells))
    return tables
