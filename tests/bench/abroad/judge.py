"""A case, its run through the diagnosis record by record, and the verdict."""

from __future__ import annotations

import contextlib
import io
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from eegwatch.check import open_run
from eegwatch.diagnosis.engine import Diagnosis
from eegwatch.run.columns import block_of
from eegwatch.run.log import read_all, run_decoder
from eegwatch.run.records import Run, Step
from eegwatch.schedule import parse, rate_at

# rules that speak of the learning rate, its schedule, or of a schedule and a run that contradict each other
OF_RATES = ("lr_", "no_warmup", "schedule_", "config_mismatch", "group_")


@dataclass
class Case:
    """`run` trains below a folder and returns the run's folder. `causes`: names that are right; empty where healthy."""

    framework: str
    name: str
    run: Callable[[Path], Path]
    causes: tuple[str, ...] = ()
    fault: str = ""


@dataclass
class Verdict:
    """What the diagnosis said. `crashed` holds a traceback; `decides` is the first step whose rate shows the fault."""

    case: Case
    rules: list[str] = field(default_factory=list)
    words: str = ""
    named: str | None = None
    at: int | None = None
    decides: int | None = None
    crashed: str | None = None

    @property
    def right(self) -> bool:
        if self.crashed is not None:
            return False
        if not self.case.causes:
            return not self.rules
        return bool(self.rules) and ("any" in self.case.causes or self.named in self.case.causes)


def judged(case: Case, folder: Path) -> Verdict:
    """Train, then read the log as `eegwatch check` does, and once more record by record for the step of detection."""
    verdict = Verdict(case)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # trainers print each log line
            warnings.simplefilter("ignore")
            run = case.run(folder)
        outcome = open_run(run, None, None).read_to_end()
        found = [f for f in [*outcome.findings, *outcome.past] if f.bad and f.rule.startswith(OF_RATES)]
        verdict.rules = [f.rule for f in found]
        verdict.words = "; ".join(f.message for f in found)[:300]
        causes = [f.cause.name for f in found if f.cause is not None]
        verdict.named = next((c for c in causes if c in case.causes), causes[0] if causes else None)
        verdict.at, verdict.decides = detected_at(run), shown_at(run)
    except Exception:
        verdict.crashed = traceback.format_exc(limit=-3)
    return verdict


def detected_at(run: Path) -> int | None:
    """The step of the first record after which a finding on the rate stood."""
    diagnosis, step = Diagnosis(), 0
    for record in read_all(run / "run.jsonl", run_decoder()):
        if isinstance(record, Step):
            step = record.step
            changes = diagnosis.feed(block_of([record]))
        else:
            changes = diagnosis.feed(record)
        if any(f.bad and f.rule.startswith(OF_RATES) for f in changes):
            return max(step, 1)
    return None


def shown_at(run: Path) -> int | None:
    """The first step of which a group's rate differs from its declared law by more than a rounding; None if none does."""
    declared: Run | None = None
    for record in read_all(run / "run.jsonl", run_decoder()):
        if isinstance(record, Run):
            declared = record
        elif isinstance(record, Step) and declared is not None and declared.schedule is not None:
            laws = [g["schedule"] for g in declared.groups] if declared.groups else [declared.schedule]
            rates = record.lrs if isinstance(record.lrs, list) else [record.lr] * len(laws)
            for law, rate in zip(laws, rates):
                if law is None or rate is None:
                    continue
                schedule = parse(law)
                expected = float(rate_at(schedule, record.step, declared.steps_per_epoch))
                slack = 1e-9 if declared.lr_precision == "float64" else 1e-2
                if not np.isclose(float(rate), expected, rtol=slack, atol=1e-12 * max(schedule.peak(), 1e-300)):
                    return record.step
    return None
