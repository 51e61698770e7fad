"""The events of a run as lines with a time: attempts, checkpoints, evaluations, ends, findings."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from eegwatch.diagnosis.findings import RESOLVED, Finding
from eegwatch.run.history import Item, StepBlock
from eegwatch.run.records import Checkpoint, End, Eval, Run
from eegwatch.wording import plain

SPLITS = {"val": "validation", "eval": "test"}
RESULTS = {"auroc": "AUROC", "balanced_accuracy": "balanced accuracy"}


@dataclass(frozen=True)
class Event:
    """One event as a line of text, `time` in seconds since the epoch.

    `command`: the id of the command that it is the final answer to.
    """

    time: float
    text: str
    command: str | None = None


def event_of(item: Item) -> Event | None:
    """The event of a record; None for steps and other records without an event."""
    text = None
    if isinstance(item, Run):
        if item.attempt == 1:
            steps = f", {item.total_steps:,} steps" if item.total_steps else ""
            text = f"run began{steps}" + (f", restarts {item.parent}" if item.parent else "")
        else:
            text = f"attempt {item.attempt} began at step {item.step:,} from {item.checkpoint or 'scratch'}"
    elif isinstance(item, Checkpoint):
        text = f"checkpoint step {item.step:,}" + (" (best)" if item.best else "")
    elif isinstance(item, Eval):
        name = SPLITS.get(item.split, plain(item.split))
        text = f"{name}: {results(item)} at step {item.step:,}"
    elif isinstance(item, End):
        why = plain(item.error or "").replace("the supervisor is gone", "the daemon is gone")  # as logs have it
        text = f"{item.reason} at step {item.step:,}" + (f": {why}" if why else "")
    return None if text is None or isinstance(item, StepBlock) else Event(item.time, text)


def event_of_finding(finding: Finding, item: Item) -> Event:
    """That a finding was raised, changed or resolved by an item."""
    at = finding.step if finding.severity == RESOLVED else finding.since_step
    when = _time_of(item, at) if isinstance(item, StepBlock) else item.time
    return Event(when, announcement(finding))


def announcement(finding: Finding) -> str:
    if finding.severity == RESOLVED:
        return f"{finding.rule} resolved: {finding.message}"
    return f"{finding.severity}: {finding.message}"


def results(item: Eval) -> str:
    """The results of an evaluation in a few words: AUROC and balanced accuracy, or else the first that it has."""
    values = {name: value for name, value in item.values().items() if math.isfinite(value)}
    known = [f"{label} {values[name]:.3f}" for name, label in RESULTS.items() if name in values]
    others = [f"{plain(name)} {value:.4g}" for name, value in values.items() if name != "loss"]
    return ", ".join(known or others[:2] or [f"loss {values['loss']:.4g}" if "loss" in values else "no number"])


def _time_of(block: StepBlock, step: int) -> float:
    """When a step of the block was logged; the nearest one's time where it is not in it."""
    at = int(np.searchsorted(block.step, step))
    return float(block.time[min(at, len(block) - 1)])
