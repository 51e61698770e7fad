"""All detectors over one run, incremental: feed it what the log says, ask it what is wrong.

The monitor, `eegwatch check` and the daemon's guard run this same engine.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from eegwatch.diagnosis import coverage
from eegwatch.diagnosis.declared import against_expected
from eegwatch.diagnosis.findings import ERROR, INFO, RATE, RESOLVED, SEVERITIES, WARNING, Finding
from eegwatch.diagnosis.isolation import Isolation
from eegwatch.diagnosis.numbers import NumberWatch
from eegwatch.diagnosis.rate.causes import Situation
from eegwatch.diagnosis.rate.precision import Precision
from eegwatch.diagnosis.rate.undeclared import UndeclaredWatch
from eegwatch.diagnosis.rate.watch import LrWatch
from eegwatch.diagnosis.rules import EvidenceWatch, Settings
from eegwatch.run.config import TUNABLE
from eegwatch.run.history import Item, StepBlock
from eegwatch.run.records import End, Eval, Run
from eegwatch.schedule import Schedule, ScheduleError, parse, rate_at
from eegwatch.schedule.found import Law

RATE_RULES = ("lr_stuck", "lr_off_schedule", "lr_jump", "no_warmup")
UNDECLARED_RULES = ("lr_zero", "warmup_never_ends", "law_length")
# findings that a new attempt ends: what it says is judged anew
OF_AN_ATTEMPT = (*NumberWatch.RULES, "lr_stuck", *UNDECLARED_RULES, *TUNABLE)
PAST_OF_A_RULE = 100  # findings of the past kept for each rule; later ones extend the last


class Diagnosis:
    """Findings over a run's records. `feed` returns the findings that changed; `findings` holds the present ones.

    `past`: findings that have resolved, in the order in which they did, each with its `until_step`.
    """

    @classmethod
    def of_foreign(cls) -> Diagnosis:
        """For a log of unknown digits, which may write the rate before or after the scheduler moved."""
        return cls(Precision(), lags=(0, 1, -1))

    def __init__(
        self,
        precision: Precision | None = None,
        lags: tuple[int, ...] = (0,),
        settings: Settings | None = None,
    ) -> None:
        """`precision`, `lags`: how somebody else's log prints its rates and which rate it logs (see LrWatch).

        Without a `precision`, a log that carries positions keeps the contract and its full float64; the digits of
        any other are found from its values.
        `settings`: rules silenced or scaled; by default those of the run's own record.
        """
        self._precision = precision
        self._lags = lags
        self.run: Run | None = None
        self.schedule: Schedule | None = None
        self.lr: LrWatch | None = None
        self.past: list[Finding] = []
        self.isolation = Isolation()
        self._inputs = coverage.Inputs()
        self._present: dict[str, Finding] = {}
        self._settings = settings
        self._evidence = EvidenceWatch(None, self._present, settings or {})
        self._numbers = NumberWatch(self._present, 0)
        self._undeclared: UndeclaredWatch | None = UndeclaredWatch(self._present)

    def feed(self, item: Item) -> list[Finding]:
        """Take one item of `history.items`; returns findings raised, changed or resolved by it."""
        if isinstance(item, Run):
            changes = self._begin(item)
        elif isinstance(item, StepBlock) and len(item):
            changes = self._steps(item)
        elif isinstance(item, Eval):
            self._inputs.evaluation(item)
            changes = self.isolation.call("evidence", item.step, lambda: self._evidence.evaluation(item))
        elif isinstance(item, End) and self._undeclared is not None:
            changes = self.isolation.call("rates", item.step, self._undeclared.ended)
        else:
            return []
        return self._kept(changes)

    def clock(self, now: float, *, training: bool) -> list[Finding]:
        """What the passing of time shows: a live trainer (`training`) that writes nothing."""
        changes = self.isolation.call("evidence", 0, lambda: self._evidence.clock(now, training=training))
        if self._undeclared is not None:
            changes = [*changes, *self.isolation.call("rates", 0, self._undeclared.idle)]
        return self._kept(changes)

    def settle(self) -> list[Finding]:
        """For who has read a log to its end: what was waiting for more records is decided by those that there are."""
        if self._undeclared is None:
            return []
        return self._kept(self.isolation.call("rates", 0, self._undeclared.settle))

    @property
    def law(self) -> Law | None:
        """The law found in an undeclared log's rates, if they decide one."""
        return self._undeclared.laws.law if self._undeclared is not None else None

    @property
    def findings(self) -> list[Finding]:
        """What is wrong now, the worst first; a learning-rate fault with the figures of this moment."""
        present = dict(self._present)
        if self.lr is not None and self.lr.fault is not None:
            fault = self.lr.fault.finding()
            present[fault.rule] = fault
        return sorted(present.values(), key=lambda f: (SEVERITIES.index(f.severity), f.family != RATE))

    def coverage(self) -> tuple[list[str], list[coverage.Skipped]]:
        """(rules that had records to judge, [{"rule", "why"}] of those that had none)."""
        settings = self._active_settings
        silenced = {rule for rule in TUNABLE if settings.get(rule, 1.0) is False}
        checked, skipped = coverage.of_evidence(self._inputs, silenced)
        why = self._no_proof_of_rates()
        if why is None:
            checked = [*RATE_RULES, *checked]
        else:
            skipped = [*({"rule": rule, "why": why} for rule in RATE_RULES), *skipped]
        if self.run is not None and self.run.expected and self.schedule is not None:
            checked.append("config_mismatch")
        else:
            skipped.append({"rule": "config_mismatch", "why": "no expected: rates are declared"})
        for part, rules in (("evidence", TUNABLE), ("numbers", NumberWatch.RULES)):
            reason = self.isolation.reasons.get(part)
            if reason is not None:
                checked = [rule for rule in checked if rule not in rules]
                skipped = [one for one in skipped if one["rule"] not in rules]
                skipped += [{"rule": rule, "why": reason} for rule in rules]
        return checked, skipped

    def _no_proof_of_rates(self) -> str | None:
        if "rates" in self.isolation.reasons:
            return self.isolation.reasons["rates"]
        if self.lr is None:
            return "no schedule is declared" if self.run is None or self.run.schedule is None else "it is no schedule"
        return self._inputs.why_not("lr_nonfinite")

    @property
    def _active_settings(self) -> Settings:
        if self._settings is not None:
            return self._settings
        return self.run.detectors if self.run is not None else {}

    def _kept(self, changes: list[Finding]) -> list[Finding]:
        """Note what has resolved."""
        for change in changes:
            before = change.past() if change.severity == RESOLVED else None
            if before is None:
                continue
            alike = [i for i, one in enumerate(self.past) if one.rule == before.rule]
            if len(alike) >= PAST_OF_A_RULE:
                before = replace(self.past.pop(alike[-1]), until_step=change.step)
            self.past.append(before)
        return changes

    # ---- a new attempt ----

    def _begin(self, run: Run) -> list[Finding]:
        changes: list[Finding] = []
        began = f"a new attempt ({run.attempt}) began at step {run.step:,}"
        last = self.lr.last if self.lr else None
        if self.lr is not None and self.lr.fault is not None:
            changes.append(self.lr.fault.finding().resolved(run.step, began))
        for rule in OF_AN_ATTEMPT:
            old = self._present.pop(rule, None)
            if old is not None:
                changes.append(old.resolved(run.step, began))
        self.run, self.lr, self.schedule = run, None, None
        self._evidence = EvidenceWatch(run, self._present, self._active_settings)
        self._numbers = NumberWatch(self._present, run.step)
        before, self._undeclared = self._undeclared, None
        if run.lr_precision == "float64":
            self._precision = Precision(full=True)
        if run.schedule is None:
            goes_on = run.step > 0 and run.attempt > 1
            self._undeclared = UndeclaredWatch(self._present, run, before if goes_on else None)
            return changes
        try:
            schedule = parse(run.schedule)
            rate_at(schedule, 1, run.steps_per_epoch)  # what has no rate at its first step is no schedule
            self.schedule = schedule
        except ScheduleError as error:
            return [*changes, *self._raise(Finding("config_mismatch", ERROR, run.step, run.step, str(error)))]
        restored = run.restored or {}
        situation = Situation(
            schedule=self.schedule,
            steps_per_epoch=run.steps_per_epoch,
            accumulate=run.accumulate,
            world_size=run.world_size,
            epochs=run.epochs,
            start=run.step,
            restored_position=restored.get("position"),
            restored_total=restored.get("total_steps"),
        )
        self.lr = LrWatch(situation, self._precision or Precision(full=True), self._lags)
        self.lr.last = last
        self._present.pop("config_mismatch", None)
        return [*changes, *(f for found in against_expected(run, self.schedule) for f in self._raise(found))]

    # ---- steps ----

    def _steps(self, block: StepBlock) -> list[Finding]:
        self._inputs.feed(block)
        step = int(block.step[-1])
        call = self.isolation.call
        return [
            *call("rates", step, lambda: self._rates(block)),
            *call("evidence", step, lambda: self._evidence.steps(block)),
            *call("numbers", step, lambda: self._numbers.feed(block)),
        ]

    def _rates(self, block: StepBlock) -> list[Finding]:
        if self._precision is None:
            self._precision = Precision() if np.isnan(block.position).all() else Precision(full=True)
            if self.lr is not None:
                self.lr.precision = self._precision
        if self.lr is not None:
            return self.lr.feed(block)
        if self._undeclared is None:
            return []
        self._precision.learn(block.lr)
        changes = self._undeclared.feed(block, self._precision.cell)
        if self.run is not None and self.run.total_steps and int(block.step[-1]) >= self.run.total_steps:
            changes += self._undeclared.ended()
        return changes

    def _raise(self, finding: Finding) -> list[Finding]:
        self._present[finding.rule] = finding
        return [finding]


def worst(findings: list[Finding]) -> str:
    """The highest severity among findings: error, warning, info, or "" for none."""
    severities = {finding.severity for finding in findings}
    return next((s for s in (ERROR, WARNING, INFO) if s in severities), "")
