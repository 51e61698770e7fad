"""All detectors over one run, incremental: feed it what the log says, ask it what is wrong.

The monitor, `eegwatch check` and the daemon's guard run this same engine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from eegwatch.diagnosis import contradictions, coverage
from eegwatch.diagnosis.expected_rates import against_expected
from eegwatch.diagnosis.findings import ERROR, INFO, RATE, RESOLVED, SEVERITIES, WARNING, Finding
from eegwatch.diagnosis.isolation import Isolation
from eegwatch.diagnosis.non_finite import NumberWatch
from eegwatch.diagnosis.rate.causes import Situation
from eegwatch.diagnosis.rate.detector import LrWatch
from eegwatch.diagnosis.rate.groups import Group, GroupWatch
from eegwatch.diagnosis.rate.precision import DECIMALS_OF_A_TEXT, Precision
from eegwatch.diagnosis.rate.undeclared import UndeclaredWatch
from eegwatch.diagnosis.rules import EvidenceWatch, Settings
from eegwatch.diagnosis.silent.watch import SilentWatch
from eegwatch.run.config import TUNABLE
from eegwatch.run.history import Item, StepBlock
from eegwatch.run.records import End, Eval, Intent, Run, ScheduleChange, Watch
from eegwatch.schedule import Schedule, ScheduleError, parse, rate_at
from eegwatch.schedule.inference import Law

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
    def of_foreign(cls, format: str = "") -> Diagnosis:
        """For a log of unknown digits, which may write the rate before or after the scheduler moved.

        `format`: that of `ForeignLog`; a text may print no more than four decimals of a rate that is nearly 0.
        """
        precision = Precision(fewest_decimals=DECIMALS_OF_A_TEXT) if format == "text" else Precision()
        return cls(precision, lags=(0, 1, -1))

    def __init__(
        self,
        precision: Precision | None = None,
        lags: tuple[int, ...] = (0, 1),
        settings: Settings | None = None,
    ) -> None:
        """`precision`, `lags`: how somebody else's log prints its rates and which rate it logs (see LrWatch).

        Records that carry a position have no lag; without one a script may log the rate that is used or the next.
        Without a `precision`, a log that carries positions keeps the contract and its full float64; the digits of
        any other are found from its values.
        `settings`: rules silenced or scaled; by default those of the run's own record.
        """
        self._precision = precision
        self._lags = lags
        self.run: Run | None = None
        self.schedule: Schedule | None = None
        self.rates: GroupWatch | None = None
        self._start = 0  # optimizer steps done when the present law began to hold
        self._steps_seen = False  # of this attempt
        self.intents: list[Intent] = []
        self._past: list[Finding] = []
        self.isolation = Isolation()
        self._inputs = coverage.Inputs()
        self._present: dict[str, Finding] = {}
        self._settings = settings
        self._evidence = EvidenceWatch(None, self._present, settings or {})
        self._numbers = NumberWatch(self._present, 0)
        self.silent = SilentWatch()
        self._ended_at = 0  # the step at which an undeclared run was last taken for ended
        self._undeclared: UndeclaredWatch | None = UndeclaredWatch(self._present)

    def feed(self, item: Item) -> list[Finding]:
        """Take one item of `history.items`; returns findings raised, changed or resolved by it."""
        if isinstance(item, Run):
            changes = self._begin(item)
        elif isinstance(item, StepBlock) and len(item):
            changes = self._steps(item)
        elif isinstance(item, ScheduleChange):
            changes = self._change(item)
        elif isinstance(item, Eval):
            self._inputs.evaluation(item)
            changes = self.isolation.call("evidence", item.step, lambda: self._evidence.evaluation(item))
        elif isinstance(item, End):
            changes = self.isolation.call("evidence", item.step, lambda: self._evidence.ended(item.step))
            if self._undeclared is not None:
                changes += self.isolation.call("rates", item.step, self._undeclared.ended)
        elif isinstance(item, Watch):
            changes = self.isolation.call("silent", item.step, lambda: self.silent.feed(item))
        elif isinstance(item, Intent):
            return self.intend([item])
        else:
            return []
        return self._kept(changes)

    def intend(self, intents: Iterable[Intent]) -> list[Finding]:
        """Take a person's dismissals; returns the present findings among them, which are information from now on."""
        before = sum(finding.intent is not None for finding in self.findings)
        self.intents += intents
        intended = [finding for finding in self.findings if finding.intent is not None]
        return intended if len(intended) > before else []

    def clock(self, now: float, *, training: bool) -> list[Finding]:
        """Judge the time without records, while a live trainer is `training`."""
        changes = self.isolation.call("evidence", 0, lambda: self._evidence.clock(now, training=training))
        if self._undeclared is not None:
            changes = [*changes, *self.isolation.call("rates", 0, self._undeclared.idle)]
        return self._kept(changes)

    def settle(self, *, over: bool = False) -> list[Finding]:
        """For who has read a log to its end: what was waiting for more records is decided by those that there are.

        `over`: nothing has been written for so long that the run has ended, whether its log says so or not.
        """
        if self._undeclared is None:
            return []
        look = self._undeclared.ended if over else self._undeclared.settle
        return self._kept(self.isolation.call("rates", 0, look))

    @property
    def law(self) -> Law | None:
        """The law found in an undeclared log's rates, if they decide one."""
        return self._undeclared.laws.law if self._undeclared is not None else None

    @property
    def lr(self) -> LrWatch | None:
        """The detector of group 0's rates; None if no schedule is declared."""
        return None if self.rates is None else self.rates.watches.get(0)

    @property
    def findings(self) -> list[Finding]:
        """The present findings, the worst first; a learning-rate fault with its present figures."""
        of_rates = [] if self.rates is None else self.isolation.call("rates", 0, self.rates.findings)
        known = [
            finding.as_meant(self.intents) for finding in [*of_rates, *self._present.values(), *self.silent.findings]
        ]
        return sorted(known, key=lambda f: (SEVERITIES.index(f.severity), f.family != RATE))

    @property
    def past(self) -> list[Finding]:
        """The resolved findings, in the order of their resolution."""
        return [finding.as_meant(self.intents) for finding in self._past]

    def coverage(self) -> tuple[list[str], list[coverage.Skipped]]:
        """(rules that had records to judge, [{"rule", "why"}] of those that had none)."""
        settings = self._active_settings
        silenced = {rule for rule in TUNABLE if settings.get(rule, 1.0) is False}
        checked, skipped = coverage.evidence_coverage(self._inputs, silenced)
        why = self._no_proof_of_rates()
        if why is None:
            checked = [*RATE_RULES, *checked]
        else:
            skipped = [*({"rule": rule, "why": why} for rule in RATE_RULES), *skipped]
        if self.run is not None and self.run.expected and self.schedule is not None:
            checked.append("config_mismatch")
        else:
            skipped.append({"rule": "config_mismatch", "why": "no expected: rates are declared"})
        seen, unseen = self.silent.coverage()
        checked, skipped = [*checked, *seen], [*skipped, *unseen]
        for part, rules in (("evidence", TUNABLE), ("numbers", NumberWatch.RULES), ("silent", tuple(seen))):
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
            return (
                "no schedule is declared" if self.run is None or self.run.schedule is None else "it is not a schedule"
            )
        return self._inputs.why_not("lr_nonfinite")

    @property
    def _active_settings(self) -> Settings:
        if self._settings is not None:
            return self._settings
        return self.run.detectors if self.run is not None else {}

    def _kept(self, changes: list[Finding]) -> list[Finding]:
        """Record resolved findings; turn dismissed ones into information."""
        for change in changes:
            before = change.past() if change.severity == RESOLVED else None
            if before is None:
                continue
            alike = [i for i, one in enumerate(self._past) if one.rule == before.rule]
            if len(alike) >= PAST_OF_A_RULE:
                before = replace(self._past.pop(alike[-1]), until_step=change.step)
            self._past.append(before)
        return [change.as_meant(self.intents) for change in changes] if self.intents else changes

    # ---- a new attempt ----

    def _begin(self, run: Run) -> list[Finding]:
        if (
            self.run is not None
            and self._steps_seen
            and (run.run_id, run.attempt) == (self.run.run_id, self.run.attempt)
        ):
            return self._go_on(run)
        began = f"a new attempt ({run.attempt}) began at step {run.step:,}"
        changes = self._end_rates(run.step, began)
        for rule in OF_AN_ATTEMPT:
            old = self._present.pop(rule, None)
            if old is not None:
                changes.append(old.resolved(run.step, began))
        self.run, self._start, self._steps_seen = run, run.step, False
        self._evidence = EvidenceWatch(run, self._present, self._active_settings)
        self._numbers = NumberWatch(self._present, run.step)
        changes += self.isolation.call("silent", run.step, lambda: self.silent.begin(run))
        return [*changes, *self._declare(run, run.schedule, run.groups)]

    def _go_on(self, run: Run) -> list[Finding]:
        """The same attempt says more of itself: its length has become known, the course of its steps goes on."""
        assert self.run is not None
        changed = run.schedule != self.run.schedule or run.groups != self.run.groups
        old, self.run = self.run, run
        self._evidence = EvidenceWatch(run, self._present, self._active_settings)
        if self._undeclared is not None:
            self._undeclared.laws.learn(run)
        if changed or old.steps_per_epoch != run.steps_per_epoch:
            self._end_rates(run.step, "")
            return self._declare(run, run.schedule, run.groups)
        return []

    def _change(self, change: ScheduleChange) -> list[Finding]:
        """Within an attempt another schedule holds from the next step on."""
        run = self.run or Run()
        says = f"another schedule holds since step {change.step + 1:,}"
        changes = self._end_rates(change.step, says)
        before, self._start = self.schedule, change.step
        return [*changes, *self._declare(run, change.schedule, change.groups, before)]

    def _end_rates(self, step: int, message: str) -> list[Finding]:
        return [] if self.rates is None else self.rates.end(step, message)

    def _declare(
        self,
        run: Run,
        schedule: dict[str, Any] | None,
        groups: list[dict[str, Any]] | None,
        before: Schedule | None = None,
    ) -> list[Finding]:
        """From here on these laws hold."""
        earlier, self.rates, self.schedule = self.rates, None, None
        self._precision = Precision.named(run.lr_precision) or self._precision
        if schedule is None:
            goes_on = run.step > 0 and run.attempt > 1
            self._undeclared = UndeclaredWatch(self._present, run, self._undeclared if goes_on else None)
            return []
        self._undeclared = None
        try:
            law = self.schedule = self._law(schedule, run)
            others = [group.get("schedule") for group in (groups or [])[1:]]
            laws = [law, *(None if other is None else self._law(other, run) for other in others)]
        except ScheduleError as error:
            self.schedule = None
            return self._raise(Finding("config_mismatch", ERROR, run.step, run.step, str(error)))
        names = [group.get("name") for group in groups or [{}]]
        named = [Group(f"group {i}" if not name else f"group {i} ({name})", self._situation(run, law, before, i))
                 for i, (name, law) in enumerate(zip(names, laws))]  # fmt: skip
        precision = self._precision or Precision(full=True)
        self.rates = GroupWatch(named, precision, self._lags, earlier)
        for rule in ("config_mismatch", contradictions.RULE):
            self._present.pop(rule, None)
        findings = [*against_expected(run, law), *contradictions.contradictory_lengths(run, law)]
        return [change for finding in findings for change in self._raise(finding)]

    def _law(self, declared: Any, run: Run) -> Schedule:
        """Raises ScheduleError if the schedule has no rate at its first step."""
        schedule = parse(declared)
        rate_at(schedule, 1, run.steps_per_epoch)
        return schedule

    def _situation(self, run: Run, law: Schedule | None, before: Schedule | None, group: int) -> Situation | None:
        if law is None:
            return None
        restored = {} if before is not None else run.restored or {}
        return Situation(
            schedule=law,
            steps_per_epoch=run.steps_per_epoch,
            accumulate=run.accumulate,
            world_size=run.world_size,
            epochs=run.epochs,
            start=self._start,
            restored_position=_count(restored.get("position")),
            restored_total=_count(restored.get("total_steps")),
            run_total=run.total_steps,
            before=before if group == 0 else None,
            unit_assumed=run.unit_assumed is True and before is None,
        )

    # ---- steps ----

    def _steps(self, block: StepBlock) -> list[Finding]:
        self._inputs.feed(block)
        self._steps_seen = True
        step = int(block.step[-1])
        call = self.isolation.call
        return [
            *call("rates", step, lambda: self._of_rates(block)),
            *call("evidence", step, lambda: self._evidence.steps(block)),
            *call("numbers", step, lambda: self._numbers.feed(block)),
        ]

    def _of_rates(self, block: StepBlock) -> list[Finding]:
        if self._precision is None:
            self._precision = Precision() if np.isnan(block.position).all() else Precision(full=True)
            if self.rates is not None:
                self.rates.measured_by(self._precision)
        if self.rates is not None:
            return self.rates.feed(block)
        if self._undeclared is None:
            return []
        self._precision.learn(block.lr)
        changes = self._undeclared.feed(block, self._precision.cell)
        total, last = self.run.total_steps if self.run is not None else None, int(block.step[-1])
        if total and last >= max(total, 2 * self._ended_at):  # a log far beyond its total is searched a few times more
            self._ended_at = last
            changes += self._undeclared.ended()
        return changes

    def _raise(self, finding: Finding) -> list[Finding]:
        self._present[finding.rule] = finding
        return [finding]


def worst(findings: list[Finding]) -> str:
    """The highest severity among findings: error, warning, info, or "" for none."""
    severities = {finding.severity for finding in findings}
    return next((s for s in (ERROR, WARNING, INFO) if s in severities), "")


def _count(value: Any) -> int | None:
    """A position or a length of another writer's `restored`; None where it is none."""
    return int(value) if isinstance(value, int | float) and 0 <= value < 1 << 62 else None
