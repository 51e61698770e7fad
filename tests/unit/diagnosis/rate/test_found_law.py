"""The law of an undeclared log, followed: found early, held against what comes, and left only where it is left."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from eegwatch.diagnosis.engine import Diagnosis
from eegwatch.diagnosis.findings import Finding
from eegwatch.run.columns import block_of
from eegwatch.run.records import Run, Step
from eegwatch.schedule import parse

Rates = NDArray[np.float64]
COSINE: dict[str, Any] = {"name": "cosine", "total_steps": 4000, "max_lr": 3e-4, "warmup_steps": 400}


def read(rates: Rates, every: int = 10, printed: int | None = None, total: int | None = None) -> Diagnosis:
    diagnosis = Diagnosis.of_foreign()
    diagnosis.feed(Run(time=0.0, run_id="r", total_steps=total))
    go_on(diagnosis, rates, every, every, printed)
    return diagnosis


def go_on(diagnosis: Diagnosis, rates: Rates, begin: int, every: int, printed: int | None = None) -> None:
    steps = [
        Step(time=float(n), step=n, lr=float(f"{rates[n - 1]:.{printed - 1}e}") if printed else float(rates[n - 1]))
        for n in range(begin, len(rates) + 1, every)
    ]
    for some in np.array_split(np.arange(len(steps)), 13):
        if len(some):
            diagnosis.feed(block_of([steps[i] for i in some]))
    diagnosis.settle()


def told(diagnosis: Diagnosis) -> dict[str, Finding]:
    return {f.rule: f for f in diagnosis.findings}


def rates_of(declared: dict[str, Any], steps: int) -> Rates:
    return parse(declared).rate(np.arange(steps))


def test_a_healthy_log_has_its_law_and_no_finding() -> None:
    for printed in (None, 4):
        diagnosis = read(rates_of(COSINE, 4000), printed=printed, total=4000)
        assert diagnosis.law is not None and diagnosis.law.name == "cosine" and diagnosis.findings == []


def test_a_cosine_that_freezes_is_a_warning_with_the_step() -> None:
    rates = rates_of(COSINE, 4000)
    rates[1607:] = rates[1607]
    finding = told(read(rates))["lr_left_its_law"]
    assert finding.severity == "warning" and finding.since_step == 1610
    assert "followed a cosine from 3e-4 to 0 at step 4,000" in finding.message and "then stays" in finding.message


def test_a_line_that_ends_at_a_floor_is_no_break() -> None:
    rates = np.maximum(rates_of({"name": "linear", "total_steps": 4000, "max_lr": 3e-4}, 4000), 6e-5)
    diagnosis = read(rates)
    assert "lr_left_its_law" not in told(diagnosis) and diagnosis.law is not None


def test_what_follows_a_law_s_end_is_no_break() -> None:
    restarts = rates_of({"name": "cosine_restarts", "total_steps": 4000, "max_lr": 3e-4, "T_0": 1000}, 4000)
    diagnosis = read(restarts)
    assert diagnosis.findings == [] and diagnosis.law is not None and diagnosis.law.name == "cosine_restarts"
    over = np.concatenate([rates_of(COSINE, 4000), np.full(500, 1e-4)])
    assert "lr_left_its_law" not in told(read(over))


def test_skipped_steps_are_an_information() -> None:
    n = np.arange(1, 4001)
    rates = parse(COSINE).rate(n - 1 - np.searchsorted([7, 1503], n))
    finding = told(read(rates, total=4000))["amp_skipped"]
    assert finding.severity == "info" and "harmless" in finding.message
    assert set(told(read(rates, total=4000))) == {"amp_skipped"}


def test_a_length_that_is_not_the_run_s_is_said() -> None:
    finding = told(read(rates_of(COSINE, 3900), total=8000))["law_length"]
    assert finding.severity == "info" and "ends at step 4,000; the run has 8,000 steps" in finding.message


def test_a_length_of_all_processes_is_a_warning() -> None:
    def of_world(world: int) -> dict[str, Finding]:
        diagnosis = Diagnosis()
        diagnosis.feed(Run(run_id="r", total_steps=2000, world_size=world))
        go_on(diagnosis, rates_of(COSINE, 2000), 1, 1)
        diagnosis.settle()
        return told(diagnosis)

    assert "counts the steps of all 2 processes" in of_world(2)["schedule_length"].message
    assert set(of_world(1)) == set(of_world(3)) == {"law_length"}


def test_a_resume_with_another_length_is_named() -> None:
    """A real run was resumed at 95,000 with cosine periods of 100,000 in the place of 250,000."""
    diagnosis = Diagnosis.of_foreign()
    diagnosis.feed(Run(time=0.0, run_id="r"))
    first = {"name": "cosine", "total_steps": 2500, "max_lr": 1e-4}
    go_on(diagnosis, rates_of(first, 950), 1, 1)
    diagnosis.feed(Run(time=1.0, run_id="r", step=950, attempt=2))
    go_on(diagnosis, rates_of(first | {"total_steps": 1000}, 1000), 951, 1)
    finding = told(diagnosis)["lr_left_its_law"]
    assert finding.severity == "warning" and "at the resume at step 950" in finding.message


def test_a_million_records_are_read_in_bounded_memory() -> None:
    rates = rates_of({"name": "cosine", "total_steps": 1_000_000, "max_lr": 3e-4}, 300_000)
    diagnosis = Diagnosis.of_foreign()
    for begin in range(0, 300_000, 50_000):
        diagnosis.feed(
            block_of([Step(time=float(n), step=n + 1, lr=float(rates[n])) for n in range(begin, begin + 50_000)])
        )
    assert diagnosis.law is not None and diagnosis.law.total_steps == 1_000_000
