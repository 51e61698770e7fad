"""The coverage of a diagnosis: the rules that had records to judge, and those that had none, with the reason."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from eegwatch.run.config import TUNABLE
from eegwatch.run.history import StepBlock, logged, logged_nan
from eegwatch.run.records import Eval

Skipped = dict[str, str]  # {"rule": …, "why": …}

LOSS, NORM, RATE, SPEED, METRIC, EVAL_LOSS = "loss", "grad_norm", "lr", "samples_per_s", "metric", "eval_loss"
MISSING = {
    LOSS: "no loss is logged",
    NORM: "no gradient norm is logged",
    RATE: "no learning rate is logged",
    SPEED: "no samples per second are logged",
    METRIC: "no evaluation with a metric is logged",
    EVAL_LOSS: "no evaluation with a loss is logged",
}
# what a rule of evidence looks at; one that is not named here needs training records alone
NEEDS = {
    "loss_spike": LOSS,
    "loss_diverging": LOSS,
    "loss_plateau": LOSS,
    "loss_unstable": LOSS,
    "loss_nonfinite": LOSS,
    "grad_zero": NORM,
    "grad_exploding": NORM,
    "grad_nonfinite": NORM,
    "lr_nonfinite": RATE,
    "throughput_drop": SPEED,
    "metric_stuck": METRIC,
    "overfitting": EVAL_LOSS,
}


@dataclass
class Inputs:
    """The kinds of numbers in the log so far."""

    steps: int = 0
    held: set[str] = field(default_factory=set)

    def feed(self, block: StepBlock) -> None:
        self.steps += len(block)
        if len(self.held) == len(MISSING):
            return
        columns = (
            (LOSS, logged(block.loss)),
            (NORM, ~np.isnan(block.grad_norm) | logged_nan(block.grad_norm)),
            (RATE, ~np.isnan(block.lr) | logged_nan(block.lr)),
            (SPEED, ~np.isnan(block.samples_per_s)),
        )
        self.held |= {name for name, known in columns if name not in self.held and known.any()}

    def evaluation(self, record: Eval) -> None:
        names = {name for name, value in record.values().items() if np.isfinite(value)}
        if "loss" in names:
            self.held.add(EVAL_LOSS)
        if names - {"loss"}:
            self.held.add(METRIC)

    def why_not(self, rule: str) -> str | None:
        """Why this rule could not judge anything; None where it could."""
        if not self.steps and NEEDS.get(rule) not in (METRIC, EVAL_LOSS):
            return "no training record was read"
        need = NEEDS.get(rule)
        return MISSING[need] if need is not None and need not in self.held else None


def evidence_coverage(inputs: Inputs, silenced: set[str]) -> tuple[list[str], list[Skipped]]:
    """(rules of evidence that could judge, those that could not and why)."""
    checked: list[str] = []
    skipped: list[Skipped] = []
    for rule in ("loss_nonfinite", "grad_nonfinite", "lr_nonfinite", *TUNABLE):
        why = "silenced under detectors:" if rule in silenced else inputs.why_not(rule)
        if why is None:
            checked.append(rule)
        else:
            skipped.append({"rule": rule, "why": why})
    return checked, skipped
