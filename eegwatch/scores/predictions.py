"""The predictions of a model on a split: one row a window, kept as `predictions-val.npz` and `predictions-eval.npz`.

Recordings and subjects are numbers: their order in the split, never a name. A recording's logits are the mean of its
windows' logits, so for two classes its score is the mean of its windows' scores.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eegwatch.run.folder import write_whole
from eegwatch.wording import UserError

BEST = "best"  # the folder, in a run's, of the model with the highest validation score; the final model's are beside it
WINDOW, RECORDING = "window", "recording"
ROWS = ("recording", "subject", "start", "label", "score", "logits")
Numbers = NDArray[np.int64]
Reals = NDArray[np.float64]


class PredictionsError(UserError):
    """A file of predictions that cannot be used: which, and what is wrong with it."""


@dataclass(frozen=True, eq=False)
class Units:
    """The scored units: windows or recordings. `subject`, `label` (n,); `logits` (n, classes), float64."""

    level: str
    subject: Numbers
    label: Numbers
    logits: Reals

    def __len__(self) -> int:
        return len(self.label)

    @property
    def classes(self) -> int:
        return int(self.logits.shape[1])

    @property
    def score(self) -> Reals:
        """(n,): the margin. Of two classes that of class 1; of more, of the greatest logit over the second."""
        return margin(self.logits)

    def problem(self) -> str | None:
        """The reason why these cannot be scored; None if they can."""
        if not len(self):
            return f"there is no {self.level}"
        bad = int((~np.isfinite(self.logits)).any(axis=1).sum())
        return f"{bad:,} of {len(self):,} {self.level} scores are not finite" if bad else None


@dataclass(frozen=True, eq=False)
class Predictions:
    """Windows of a split. `recording`, `subject` numbers from 0; `start` seconds; `label`; `logits` (n, classes).

    `step`: of the model that predicted; `corpus`: a hash of which recordings the numbers stand for.
    """

    recording: Numbers
    subject: Numbers
    start: Reals
    label: Numbers
    logits: NDArray[np.float32]
    step: int = 0
    corpus: str = ""

    def __len__(self) -> int:
        return len(self.label)

    @property
    def score(self) -> Reals:
        """(n,) float64: the margin of each window."""
        return margin(self.logits.astype(np.float64))

    def windows(self) -> Units:
        return Units(WINDOW, self.subject, self.label, self.logits.astype(np.float64))

    def recordings(self) -> Units:
        """One unit a recording, in the order of their numbers: the mean logits of its windows."""
        _, first, which = np.unique(self.recording, return_index=True, return_inverse=True)
        size = np.bincount(which)
        logits = self.logits.astype(np.float64)
        mean = np.column_stack([np.bincount(which, weights=column) / size for column in logits.T])
        return Units(RECORDING, self.subject[first], self.label[first], mean.reshape(len(first), logits.shape[1]))

    def save(self, path: Path) -> None:
        """Durably and whole, mode 0600. Raises OSError."""
        buffer = io.BytesIO()
        arrays = {name: getattr(self, name) for name in ROWS}
        np.savez(buffer, step=np.int64(self.step), corpus=np.str_(self.corpus), **arrays)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        write_whole(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Raises PredictionsError for a file that is missing, damaged or holds something else."""
        try:
            with np.load(path, allow_pickle=False) as file:
                lacking = [name for name in ROWS if name not in file.files]
                if lacking:
                    raise PredictionsError(f"{path}: no predictions: it lacks {', '.join(lacking)}")
                arrays = {name: np.asarray(file[name]) for name in ROWS}
                step = int(file["step"]) if "step" in file.files else 0
                corpus = str(file["corpus"]) if "corpus" in file.files else ""
        except PredictionsError:
            raise
        except FileNotFoundError:
            raise PredictionsError(f"{path}: no such file; a run writes it at its first evaluation") from None
        except (OSError, ValueError, TypeError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as error:
            raise PredictionsError(f"{path}: cannot be read: {' '.join(str(error).split())[:200]}") from None
        return _checked(path, arrays, step, corpus)


def _checked(path: Path, arrays: dict[str, NDArray[np.generic]], step: int, corpus: str) -> Predictions:
    logits = arrays["logits"]
    rows = len(logits) if logits.ndim == 2 else -1
    if rows < 0 or logits.shape[1] < 2:
        raise PredictionsError(f"{path}: logits must be (windows, classes) with two classes or more")
    for name in ("recording", "subject", "label"):
        if arrays[name].shape != (rows,) or arrays[name].dtype.kind not in "iu":
            raise PredictionsError(f"{path}: {name} must be {rows} integers")
    if arrays["start"].shape != (rows,) or any(arrays[name].dtype.kind not in "fiu" for name in ("start", "logits")):
        raise PredictionsError(f"{path}: start must be {rows} numbers, and logits numbers")
    recording, subject, label = (arrays[name].astype(np.int64) for name in ("recording", "subject", "label"))
    if rows and not (label.min() >= 0 and label.max() < logits.shape[1]):
        raise PredictionsError(f"{path}: label must be from 0 to {logits.shape[1] - 1}")
    if rows:
        _, first, which = np.unique(recording, return_index=True, return_inverse=True)
        for name, values in (("label", label), ("subject", subject)):
            if (values != values[first][which]).any():
                raise PredictionsError(f"{path}: a recording has two values of {name}")
    start = arrays["start"].astype(np.float64)
    return Predictions(recording, subject, start, label, logits.astype(np.float32), step, corpus)


def margin(logits: Reals) -> Reals:
    """(n,) from logits (n, classes): class 1 over class 0; of more classes, the greatest logit over the second."""
    if logits.shape[1] == 2:
        return np.asarray(logits[:, 1] - logits[:, 0])
    ordered = np.partition(logits, -2, axis=1)
    return np.asarray(ordered[:, -1] - ordered[:, -2])


def log_odds(logits: Reals) -> Reals:
    """(n, classes): each class against all others, log p / (1 - p) of the softmax. Of two classes ± the margin."""
    columns = []
    for one in range(logits.shape[1]):
        others = np.delete(logits, one, axis=1)
        columns.append(logits[:, one] - np.logaddexp.reduce(others, axis=1))
    return np.column_stack(columns)


def probabilities(logits: Reals) -> Reals:
    """(n, classes): the softmax."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def corpus_hash(recordings: Sequence[str], labels: Sequence[int]) -> str:
    """A hash of a split's recordings with order and labels; names cannot be recovered from it."""
    digest = hashlib.sha256("\n".join(recordings).encode("utf-8", "surrogateescape"))
    digest.update(np.asarray(labels, np.int64).tobytes())
    return digest.hexdigest()[:16]
