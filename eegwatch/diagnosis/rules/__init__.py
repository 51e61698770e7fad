"""The rules of evidence: loss, gradients, pace and metrics. Evidence, not proof, and therefore quiet.

A new rule is one file and one row of `RULES`. Each looks at blocks of steps, not at single batches, and says when it is
over. `tests/bench/false_alarms.py` measures how often each fires on healthy noisy runs. A person silences a rule, or
scales its threshold, under `detectors:`.
"""

from __future__ import annotations

import msgspec
import numpy as np

from eegwatch.diagnosis.alarm import Alarm
from eegwatch.diagnosis.findings import Finding
from eegwatch.diagnosis.rules.blocks import Blocks
from eegwatch.diagnosis.rules.diverging import LossDiverging
from eegwatch.diagnosis.rules.gradients import GradExploding, GradZero
from eegwatch.diagnosis.rules.metric import MetricStuck, Overfitting
from eegwatch.diagnosis.rules.objective import Objective
from eegwatch.diagnosis.rules.plateau import LossPlateau
from eegwatch.diagnosis.rules.rule import Attempt, Rule, Settings
from eegwatch.diagnosis.rules.spike import LossSpike
from eegwatch.diagnosis.rules.stalled import Stalled
from eegwatch.diagnosis.rules.throughput import ThroughputDrop
from eegwatch.diagnosis.rules.trend import Trend
from eegwatch.diagnosis.rules.unstable import LossUnstable
from eegwatch.run.history import StepBlock
from eegwatch.run.records import Eval, Run

__all__ = ["RULES", "EvidenceWatch", "Settings"]

RULES: tuple[type[Rule], ...] = (
    LossSpike,
    GradZero,
    GradExploding,
    LossDiverging,
    LossPlateau,
    ThroughputDrop,
    MetricStuck,
    Overfitting,
    LossUnstable,
    Stalled,
)


LEAST_RECORDS, MOST_RECORDS = 8, 128  # in a block that the rules are shown


class EvidenceWatch:
    """All rules over one attempt. `present` is the engine's table of findings that are up."""

    def __init__(self, run: Run | None, present: dict[str, Finding], settings: Settings) -> None:
        """`settings`: rule -> False (it is not asked) or a factor on its threshold."""
        self._attempt = Attempt(run, Objective(run), Trend())
        self._blocks = Blocks(LEAST_RECORDS)
        self.rules = [
            rule(self._attempt, Alarm(rule.name, present), _factor(settings.get(rule.name, 1.0)))
            for rule in RULES
            if settings.get(rule.name, 1.0) is not False
        ]

    def steps(self, block: StepBlock) -> list[Finding]:
        changes: list[Finding] = []
        attempt = self._attempt
        attempt.objective.see_metrics(block.metrics)
        for part, whole in self._blocks.feed(block):
            for rule in self.rules:
                changes += rule.look(part)
            if whole is not None:
                attempt.grew = attempt.course.feed(whole.step, whole.loss.astype(np.float64), whole.lr)
                # blocks grow with those of the course: a short log is looked at often, a long one cheaply
                self._blocks.size = min(max(attempt.course.size, LEAST_RECORDS), MOST_RECORDS)
                for rule in self.rules:
                    changes += rule.learn(whole)
        return changes

    def evaluation(self, record: Eval) -> list[Finding]:
        for rule in self.rules:
            rule.pause()
        if record.split != "val":
            return []
        if record.confusion is not msgspec.UNSET:  # the trainer's further figures are of the same predictions
            record = msgspec.structs.replace(record, metrics=msgspec.UNSET)
        self._attempt.objective.see_evaluation(record)
        return [change for rule in self.rules for change in rule.evaluation(record)]

    def ended(self, step: int) -> list[Finding]:
        """Clear the findings that only a live run can have."""
        return [change for rule in self.rules for change in rule.ended(step)]

    def clock(self, now: float, *, training: bool) -> list[Finding]:
        """Judge the time without records."""
        return [change for rule in self.rules for change in rule.clock(now, training=training)]


def _factor(setting: object) -> float:
    return float(setting) if isinstance(setting, int | float) and not isinstance(setting, bool) else 1.0
