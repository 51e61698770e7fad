"""A finding: what is seen (`rule`), how bad, since when, what it costs, why, and what to do about it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from eegwatch.run.records import Finding as FindingRecord
from eegwatch.run.records import Intent

INFO, WARNING, ERROR, RESOLVED = "info", "warning", "error", "resolved"
SEVERITIES = (ERROR, WARNING, INFO, RESOLVED)

# What a rule is about. Rates, numbers, the configuration and the equalities of a training step are proved by the
# records; the rest is evidence. A FACT is true and may be meant: it is told as a warning, and not held against a run
# once it is over.
RATE, NUMBER, CONFIG, EQUALITY, FACT, EVIDENCE = "rate", "number", "config", "equality", "fact", "evidence"
FAMILIES = {
    "lr_stuck": RATE,
    "lr_off_schedule": RATE,
    "lr_jump": RATE,
    "no_warmup": RATE,
    "lr_zero": RATE,
    "warmup_never_ends": RATE,
    "lr_left_its_law": RATE,
    "amp_skipped": RATE,
    "law_length": RATE,
    "loss_nonfinite": NUMBER,
    "grad_nonfinite": NUMBER,
    "lr_nonfinite": NUMBER,
    "config_mismatch": CONFIG,
    "schedule_length": CONFIG,
    "gradients_not_cleared": EQUALITY,
    "gradient_applied_twice": EQUALITY,
    "micro_gradients_dropped": EQUALITY,
    "update_lost": EQUALITY,
    "update_differs": EQUALITY,
    "frozen_moves": EQUALITY,
    "frozen_changed": EQUALITY,
    "off_schedule": EQUALITY,
    "clip_missing": EQUALITY,
    "clip_before_unscale": EQUALITY,
    "optimizer_holds_strangers": EQUALITY,
    "step_not_taken": EQUALITY,
    "optimizer_state_lost": EQUALITY,
    "optimizer_state_differs": EQUALITY,
    "weights_not_restored": EQUALITY,
    "order_repeated": EQUALITY,
    "order_restarted": FACT,
    "optimizer_state_carried": FACT,
    "epoch_length": FACT,
    "ranks_draw_the_same": FACT,
    "order_unshuffled": FACT,
    "sampler_leaves_out": FACT,
    "workers_stale": FACT,
    "weights_overwritten": FACT,
    "steps_draw_the_same": FACT,
    "statistics_not_restored": FACT,
    "ema_statistics_stand": FACT,
    "order_lost": EQUALITY,
    "ranks_leave_out": FACT,
    "splits_overlap": EQUALITY,
    "signal_in_two_splits": EQUALITY,
    "signal_in_two_classes": EQUALITY,
    "labels_disagree": EQUALITY,
    "encoder_in_train_mode": EQUALITY,
    "evaluation_in_train_mode": EQUALITY,
    "evaluation_changed_model": EQUALITY,
    "microbatch_weights": EQUALITY,
    "ema_aliased": EQUALITY,
    "ema_not_updated": EQUALITY,
    "ema_updated_twice": EQUALITY,
    "ema_differs": EQUALITY,
    "tying_lost": EQUALITY,
    "replicas_differ": EQUALITY,
    "ranks_overlap": EQUALITY,
    "ranks_read_the_same": EQUALITY,
    "workers_yield_the_same": EQUALITY,
    "workers_draw_the_same": EQUALITY,
    "epochs_draw_the_same": EQUALITY,
    "signal_twice": FACT,
    "class_in_header": FACT,
    "patient_in_two_splits": FACT,
    "subject_is_two_people": FACT,
    "evaluation_draws": FACT,
    "not_in_optimizer": FACT,
    "nothing_to_train": FACT,
    "micro_gradients_shrunk": FACT,
    "accumulation_differs": FACT,
    "held_twice": FACT,
    "update_rounded_away": FACT,
    "optimizer_state_stands": FACT,
    "gradient_scale": EQUALITY,
    "scaler_not_used": FACT,
    "loss_not_trained": FACT,
    "lr_stays_zero": FACT,
    "schedule_of_another": FACT,
    "recomputation_draws": FACT,
    "empty_group": FACT,
    "recomputation_moves_statistics": FACT,
    "scaler_state_lost": FACT,
    "settings_put_back": FACT,
    "update_ignores_setting": FACT,
    "ema_not_restored": FACT,
    "no_gradient": FACT,
    "train_mode_lost": FACT,
    "frozen_batchnorm_moves": FACT,
    "frozen_draws": FACT,
}  # every other rule is evidence


@dataclass(frozen=True)
class Cause:
    """Why (docs/detection.md): the likeliest cause, the numbers behind it, what explains the records equally well."""

    name: str
    evidence: str
    position: float | list[float] | None = None
    alternatives: tuple[str, ...] = ()
    says: str = ""
    separates_at: int | None = None
    killed: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "evidence": self.evidence,
            "position": self.position,
            "alternatives": list(self.alternatives),
            "separates_at": self.separates_at,
            "killed": self.killed,
        }


@dataclass(frozen=True)
class Finding:
    """A finding of a detector. `message` is a complete sentence; the other texts are its parts for a screen.

    `headline` what and since when, `here` what was expected, `cost` now and if nothing is done, `why` the cause,
    `remedy` the change in the training loop or the configuration.
    """

    rule: str
    severity: str
    step: int
    since_step: int
    message: str
    cause: Cause | None = None
    headline: str = ""
    here: str = ""
    cost: str = ""
    why: str = ""
    remedy: str = ""
    group: str | None = None  # the parameter group it is about; None where there is one group, or all are meant
    intent: Intent | None = None  # a person's word that this is as it should be
    until_step: int | None = None  # of a finding of the past: the step at which it had resolved
    resolves: Finding | None = field(default=None, repr=False, compare=False)  # of a resolved one: as it was before

    @property
    def family(self) -> str:
        """The subject of the rule: RATE, NUMBER, CONFIG, EQUALITY, FACT or EVIDENCE."""
        family = FAMILIES.get(self.rule, EVIDENCE)
        return FACT if family == EQUALITY and self.severity == WARNING else family  # true, and it may be meant

    @property
    def is_fact(self) -> bool:
        """Whether the records prove it."""
        return self.family not in (EVIDENCE, FACT)

    @property
    def bad(self) -> bool:
        return self.severity in (WARNING, ERROR)

    def resolved(self, step: int, message: str) -> Finding:
        """The finding with severity "resolved"; `resolves` holds the original."""
        return replace(self, severity=RESOLVED, step=step, message=message, why="", remedy="", resolves=self)

    def renamed(self, step: int, message: str) -> Finding:
        """The resolution of a finding whose fault continues under another rule: it does not count as resolved."""
        return replace(self.resolved(step, message), resolves=None)

    def as_meant(self, intents: Iterable[Intent]) -> Finding:
        """This finding as information, if a person dismissed it (the same rule and first step)."""
        for intent in intents:
            if self.severity == RESOLVED or intent.rule != self.rule or intent.since_step != self.since_step:
                continue
            when = time.strftime("%d %b %Y", time.localtime(intent.time))
            because = f": {intent.reason}" if intent.reason else ""
            return replace(self, severity=INFO, intent=intent, remedy=f"meant, says {intent.by} on {when}{because}")
        return self

    def past(self) -> Finding | None:
        """For a resolved finding: the original with the step at which it ended."""
        return None if self.resolves is None else replace(self.resolves, until_step=self.step)

    def as_dict(self) -> dict[str, Any]:
        """The interface of `eegwatch check --json`."""
        about: dict[str, Any] = {"group": self.group} if self.group is not None else {}
        if self.intent is not None:
            about["meant"] = {"by": self.intent.by, "time": self.intent.time, "reason": self.intent.reason}
        ended = {"until_step": self.until_step} if self.until_step is not None else {}
        return {
            **about,
            **ended,
            "rule": self.rule,
            "severity": self.severity,
            "step": self.step,
            "since_step": self.since_step,
            "message": self.message,
            "cause": self.cause.as_dict() if self.cause else None,
            "remedy": self.remedy or None,
        }

    def record(self, time: float) -> FindingRecord:
        """As it is written into the run log."""
        cause = self.cause.as_dict() if self.cause else None
        return FindingRecord(
            time=time,
            rule=self.rule,
            severity=self.severity,
            step=self.step,
            since_step=self.since_step,
            message=self.message,
            cause=cause,
        )
