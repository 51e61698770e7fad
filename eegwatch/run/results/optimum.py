"""The optimum of a run's training loss: `optimum.json` in the run's folder, written by `eegpt-daemon optimum`.

Losses are means over the whole training set, class-weighted as in the run, in nats; `norm` is that of all weights of
the probe, its bias included. `lower` and `upper` bracket the least loss of any linear probe that is no longer: proved.
AUROC along lambda is measured, and bounds nothing.
"""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

from eegwatch.run.results.result_file import read_result, write_result

REACH = "optimum.json"


class ModelGap(msgspec.Struct, kw_only=True):
    """A trained model against the optimum. `role`: "final" or "best"; `lam`: of the certificate of `lower`."""

    role: str
    checkpoint: str
    step: int
    loss: float
    norm: float
    lam: float
    lower: float
    upper: float

    @property
    def within(self) -> float:
        """The loss is at most so much above the best of its norm."""
        return max(0.0, self.loss - max(self.lower, 0.0))

    @property
    def above(self) -> float:
        """The loss is at least so much above the best of its norm."""
        return max(0.0, self.loss - self.upper)


class OptimumPoint(msgspec.Struct, kw_only=True):
    """The optimum at one lambda: P = loss + lam / 2 norm^2 lies at most `gap` above its minimum."""

    lam: float
    objective: float
    gap: float
    loss: float
    norm: float
    val_auroc: float | None = None
    val_recording_auroc: float | None = None
    eval_auroc: float | None = None
    eval_recording_auroc: float | None = None


class OptimumResult(msgspec.Struct, kw_only=True):
    """The whole file. `reason`: why the bound does not apply to this run; all else is empty then.

    `chosen`: the lambda of the best AUROC on validation; the evaluation set was looked at for this one alone.
    """

    version: int = 1
    made: float = 0.0
    reason: str | None = None
    windows: int = 0
    features: int = 0
    classes: int = 2
    class_weighted: bool = False
    models: list[ModelGap] = []
    path: list[OptimumPoint] = []
    chosen: float | None = None
    seconds: float = 0.0

    def best_point(self) -> OptimumPoint | None:
        return next((point for point in self.path if point.lam == self.chosen), None)


def write(folder: Path, reach: OptimumResult) -> Path:
    """Raises OSError."""
    return write_result(folder / REACH, reach)


def read(folder: Path) -> OptimumResult | None:
    """The content of the run's file; None if the file is missing or invalid."""
    return read_result(folder / REACH, OptimumResult)


def sentences(reach: OptimumResult) -> list[str]:
    """The proved bounds of each model, then the measurements."""
    if reach.reason is not None:
        return [f"no bound on what this run could reach: {reach.reason}"]
    sentences = []
    for model in reach.models:
        words = (
            f"proved: the training loss of the {model.role} model (step {model.step:,}), {model.loss:.4f}, is within "
            f"{_up(model.within)} of the best of any linear probe of its norm ({model.norm:.3g})"
        )
        if _down(model.above) != "0.0000":
            words += f", and at least {_down(model.above)} above it"
        sentences.append(words)
    best = reach.best_point()
    if best is not None and best.val_auroc is not None:
        words = (
            f"measured, no bound: the optimum at lambda {best.lam:.2g}, the best of {len(reach.path)} on validation, "
            f"has validation AUROC {best.val_auroc:.3f}"
        )
        if best.eval_auroc is not None:
            words += f" and evaluation AUROC {best.eval_auroc:.3f} (windows; looked at once)"
        sentences.append(words)
    return sentences


def _up(value: float) -> str:
    """Four decimals, never less than the value."""
    return f"{math.ceil(value * 1e4 - 1e-9) / 1e4:.4f}"


def _down(value: float) -> str:
    """Four decimals, never more than the value."""
    return f"{math.floor(value * 1e4 + 1e-9) / 1e4:.4f}"
