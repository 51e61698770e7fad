"""All detectors over one run, incremental: feed it what the log says, ask it what is wrong.

The monitor, `eegwatch check` and the daemon's guard run this same engine.
"""

from __future__ import annotations

import numpy as np

from eegwatch.diagnosis.findings import ERROR, INFO, RATE, SEVERITIES, WARNING, Cause, Finding
from eegwatch.diagnosis.rate.causes import Situation
from eegwatch.diagnosis.rate.precision import Precision
from eegwatch.diagnosis.rate.undeclared import UndeclaredWatch
from eegwatch.diagnosis.rate.watch import LrWatch
from eegwatch.diagnosis.rules import EvidenceWatch, Settings
from eegwatch.run.config import TUNABLE
from eegwatch.run.history import Item, StepBlock, logged
from eegwatch.run.records import End, Eval, Run
from eegwatch.schedule import Schedule, ScheduleError, declared_base, final_rate, initial_rate, parse, peak_rate
from eegwatch.wording import short_rate

AGREE = 1e-6  # declared and expected rates are typed by hand: 3e-6 and 3.0e-06 must agree, 1.2e-7 must not


class Diagnosis:
    """Findings over a run's records. `feed` returns the findings that changed; `findings` holds the present ones."""

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
        self._present: dict[str, Finding] = {}
        self._settings = settings
        self._evidence = EvidenceWatch(None, self._present, settings or {})
        self._undeclared: UndeclaredWatch | None = UndeclaredWatch(self._present)

    def feed(self, item: Item) -> list[Finding]:
        """Take one item of `history.items`; returns findings raised, changed or resolved by it."""
        if isinstance(item, Run):
            return self._begin(item)
        if isinstance(item, StepBlock) and len(item):
            return self._steps(item)
        if isinstance(item, Eval):
            return self._evidence.evaluation(item)
        if isinstance(item, End) and self._undeclared is not None:
            return self._undeclared.ended()
        return []

    def clock(self, now: float, *, training: bool) -> list[Finding]:
        """What the passing of time shows: a live trainer (`training`) that writes nothing."""
        return self._evidence.clock(now, training=training)

    @property
    def findings(self) -> list[Finding]:
        """What is wrong now, the worst first; a learning-rate fault with the figures of this moment."""
        present = dict(self._present)
        if self.lr is not None and self.lr.fault is not None:
            fault = self.lr.fault.finding()
            present[fault.rule] = fault
        return sorted(present.values(), key=lambda f: (SEVERITIES.index(f.severity), f.family != RATE))

    def _begin(self, run: Run) -> list[Finding]:
        changes: list[Finding] = []
        last = self.lr.last if self.lr else None
        if self.lr is not None and self.lr.fault is not None:
            changes.append(
                self.lr.fault.finding().resolved(run.step, f"a new attempt ({run.attempt}) began at step {run.step:,}")
            )
        for rule in ("loss_nonfinite", "lr_stuck", "lr_zero", "warmup_never_ends", *TUNABLE):
            old = self._present.pop(rule, None)
            if old is not None:
                changes.append(old.resolved(run.step, f"a new attempt ({run.attempt}) began at step {run.step:,}"))
        settings = run.detectors if self._settings is None else self._settings
        self._evidence = EvidenceWatch(run, self._present, settings)
        self.run, self.lr, self.schedule = run, None, None
        self._undeclared = None
        if run.schedule is None:
            self._undeclared = UndeclaredWatch(self._present)
            return changes
        try:
            self.schedule = parse(run.schedule)
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
        return changes + self._declared_against_expected(run, self.schedule)

    def _declared_against_expected(self, run: Run, schedule: Schedule) -> list[Finding]:
        """`config_mismatch`: the declared schedule does not have the rates that `expected:` asks for."""
        base = declared_base(schedule)
        wrong: list[str] = []
        floor_cause = None
        for key, value in (
            ("initial_lr", initial_rate(base)),
            ("peak_lr", peak_rate(base)),
            ("final_lr", final_rate(base)),
        ):
            meant = (run.expected or {}).get(key)
            if meant is None or np.isclose(value, meant, rtol=AGREE, atol=0):
                continue
            wrong.append(f"{key.removesuffix('_lr')} {short_rate(value)}, expected {short_rate(meant)}")
            final_div = getattr(base, "final_div_factor", None)
            if key == "final_lr" and final_div and np.isclose(peak_rate(base) / final_div, meant, rtol=AGREE):
                right = initial_rate(base) / meant
                says = f"final_div_factor divides the initial rate: write final_div_factor: {right:g}"
                floor_cause = Cause("final_div_factor_from_initial", says, says=says)
        if not wrong:
            self._present.pop("config_mismatch", None)
            return []
        message = f"the declared schedule does not have the rates of expected: {'; '.join(wrong)}"
        if floor_cause:
            message += f" ({floor_cause.says})"
        return self._raise(
            Finding(
                "config_mismatch",
                WARNING,
                run.step,
                run.step,
                message,
                floor_cause,
                headline=message,
                remedy=floor_cause.says if floor_cause else "correct training.scheduler or expected:",
            )
        )

    def _steps(self, block: StepBlock) -> list[Finding]:
        changes: list[Finding] = []
        if self._precision is None:
            self._precision = Precision() if np.isnan(block.position).all() else Precision(full=True)
            if self.lr is not None:
                self.lr.precision = self._precision
        if self.lr is not None:
            changes += self.lr.feed(block)
        elif self._undeclared is not None:
            self._precision.learn(block.lr)
            changes += self._undeclared.feed(block, self._precision.cell)
            if self.run is not None and self.run.total_steps and int(block.step[-1]) >= self.run.total_steps:
                changes += self._undeclared.ended()
        changes += self._evidence.steps(block)
        return changes + self._nonfinite(block)

    def _nonfinite(self, block: StepBlock) -> list[Finding]:
        """Where losses cease to be finite, and where they are again."""
        changes: list[Finding] = []
        broken = ~np.isfinite(block.loss)
        if not broken.any() and "loss_nonfinite" not in self._present:
            return changes
        there = np.flatnonzero(logged(block.loss))
        turns = np.flatnonzero(np.diff(broken[there], prepend="loss_nonfinite" in self._present))
        for i in there[turns]:
            step = int(block.step[i])
            if broken[i]:
                message = f"the loss is {float(block.loss[i])} since step {step:,}"
                remedy = "resume from the last checkpoint before it with a lower LR"
                finding = Finding("loss_nonfinite", ERROR, step, step, message, headline=message, remedy=remedy)
                changes += self._raise(finding)
            else:
                old = self._present.pop("loss_nonfinite")
                changes.append(old.resolved(step, f"the loss is finite again since step {step:,}"))
        return changes

    def _raise(self, finding: Finding) -> list[Finding]:
        self._present[finding.rule] = finding
        return [finding]


def worst(findings: list[Finding]) -> str:
    """The highest severity among findings: error, warning, info, or "" for none."""
    severities = {finding.severity for finding in findings}
    return next((s for s in (ERROR, WARNING, INFO) if s in severities), "")
