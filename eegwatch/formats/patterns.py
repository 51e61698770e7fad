"""A pattern of the user's: a regular expression whose named groups say what a line holds."""

from __future__ import annotations

import re
from collections.abc import Sequence

from eegwatch.formats.numerals import number, whole
from eegwatch.formats.rows import Row
from eegwatch.wording import UserError

TRAINING = ("lr", "loss", "grad_norm", "samples_per_s")
EVALUATION = {"val_loss": "loss", "auroc": "auroc", "balanced_accuracy": "balanced_accuracy"}
COUNTERS = ("step", "steps", "epoch", "epochs", "batch", "batches")
GROUPS = (*COUNTERS, *TRAINING, *EVALUATION)


class PatternError(UserError):
    """A pattern of the user's that cannot be used: which, and why."""


def compile_patterns(patterns: Sequence[str]) -> list[re.Pattern[str]]:
    """Raises PatternError for what is not a regular expression or names no group that we know.

    Besides the names of GROUPS, `val_NAME`, `test_NAME` and `train_NAME` keep a metric under its own name.
    """
    compiled = []
    for text in patterns:
        try:
            pattern = re.compile(text)
        except re.error as error:
            raise PatternError(f"--pattern {text}: not a regular expression: {error}") from None
        unknown = sorted(name for name in pattern.groupindex if name not in GROUPS and not _metric(name))
        if unknown or not pattern.groupindex:
            what = f"(?P<{unknown[0]}>…) is not a name that is known" if unknown else "it names no group"
            raise PatternError(
                f"--pattern {text}: {what}; write (?P<lr>…), one of {', '.join(GROUPS)}, or val_NAME, train_NAME"
            )
        compiled.append(pattern)
    return compiled


def _metric(name: str) -> tuple[str, str] | None:
    """(split, own name) of `val_f1`, `test_f1`, `train_f1`."""
    for prefix, split in (("val_", "val"), ("test_", "eval"), ("train_", "train")):
        if name.startswith(prefix) and len(name) > len(prefix):
            return split, name[len(prefix) :]
    return None


def row_of_pattern(match: re.Match[str]) -> Row:
    """The row from the groups of a match; a group that is not a number is ignored."""
    values = {name: number(text) for name, text in match.groupdict().items() if text is not None}
    row = Row()
    at = row.at
    at.step, at.epoch, at.batch = values.get("step"), values.get("epoch"), values.get("batch")
    at.steps, at.epochs = whole(values.get("steps")), whole(values.get("epochs"), 1 << 31)
    at.batches = whole(values.get("batches"), 1 << 40)
    for name, value in values.items():
        if value is None or name in COUNTERS:
            continue
        if name in TRAINING:
            row.train[name] = value
        elif name in EVALUATION:
            row.evals.setdefault("val", {})[EVALUATION[name]] = value
        elif (metric := _metric(name)) is not None:
            split, own = metric
            (row.train if split == "train" else row.evals.setdefault(split, {}))[own] = value
    return row
