"""A scheduler of torch given without a unit: stepped once an epoch it may be as meant, which is a warning and no error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from torch.optim import SGD, Optimizer, lr_scheduler

from eegwatch import RunLog
from eegwatch.check import open_run
from eegwatch.diagnosis.findings import ERROR, WARNING, Finding

EPOCHS, STEPS = 8, 6
TOTAL = EPOCHS * STEPS
Make = Callable[[Optimizer], Any]
OF_EPOCHS: dict[str, Make] = {
    "step": lambda o: lr_scheduler.StepLR(o, 3, 0.5),
    "multistep": lambda o: lr_scheduler.MultiStepLR(o, [2, 4, 9], 0.1),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, EPOCHS),
    "warm-up": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, 1, 2), lr_scheduler.CosineAnnealingLR(o, 6)], [2]
    ),
}
OF_STEPS: dict[str, Make] = {
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, 0.1, TOTAL),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL),
    "late step": lambda o: lr_scheduler.StepLR(o, 4 * STEPS, 0.5),
}
LENGTHS: list[dict[str, Any]] = [{"steps_per_epoch": STEPS, "epochs": EPOCHS}, {"total_steps": TOTAL}]


def of_rates(folder: Path) -> list[Finding]:
    run = open_run(folder, None, None)
    outcome = run.read_to_end()
    run.close()
    return [one for one in outcome.findings if one.rule.startswith("lr_")]


def found(folder: Path, make: Make, *, every: int = STEPS, rounds: int = EPOCHS, **given: Any) -> list[Finding]:
    """The findings of rates; the scheduler is stepped once in `every` steps."""
    model = nn.Linear(4, 2)
    optimizer = SGD(model.parameters(), lr=0.1)
    scheduler = make(optimizer)
    log = RunLog(folder, schedule=scheduler, control=False, **given)
    for step in range(1, rounds * STEPS + 1):
        optimizer.step()
        if every == 1:
            scheduler.step()
        log.step(loss=1.0)
        if every > 1 and step % every == 0:
            scheduler.step()
    log.end()
    return of_rates(log.folder)


@pytest.mark.parametrize("lengths", LENGTHS, ids=["epochs", "steps"])
@pytest.mark.parametrize("kind", OF_EPOCHS)
def test_a_step_an_epoch_may_be_meant(tmp_path: Path, kind: str, lengths: dict[str, Any]) -> None:
    findings = found(tmp_path, OF_EPOCHS[kind], **lengths)
    assert [one.severity for one in findings] == [WARNING]
    assert 'unit="epoch"' in findings[0].remedy and "nothing is wrong if it counts epochs" in findings[0].message


def test_a_cosine_of_which_nothing_else_is_known(tmp_path: Path) -> None:
    findings = found(tmp_path, OF_EPOCHS["cosine"])
    assert {one.severity for one in findings} <= {WARNING}


@pytest.mark.parametrize("kind", OF_EPOCHS)
def test_declared_in_epochs_nothing_is_said(tmp_path: Path, kind: str) -> None:
    findings = found(tmp_path, OF_EPOCHS[kind], unit="epoch", **LENGTHS[0])
    assert findings == []


@pytest.mark.parametrize("kind", OF_EPOCHS)
def test_declared_in_steps_it_is_an_error(tmp_path: Path, kind: str) -> None:
    findings = found(tmp_path, OF_EPOCHS[kind], unit="step", **LENGTHS[0])
    assert [one.severity for one in findings] == [ERROR]


@pytest.mark.parametrize(
    ("kind", "lengths"),
    [
        *((kind, LENGTHS[0]) for kind in OF_STEPS),
        *((kind, LENGTHS[1]) for kind in OF_STEPS if kind != "late step"),  # 24 epochs of two steps, for all we know
    ],
)
def test_a_law_that_would_not_end_in_the_run_counts_steps(tmp_path: Path, kind: str, lengths: dict[str, Any]) -> None:
    findings = found(tmp_path, OF_STEPS[kind], **lengths)
    assert [one.severity for one in findings] == [ERROR]


@pytest.mark.parametrize("lengths", LENGTHS, ids=["epochs", "steps"])
@pytest.mark.parametrize("kind", ["exponential", "step", "cosine"])
def test_a_scheduler_that_is_never_stepped_is_an_error(tmp_path: Path, kind: str, lengths: dict[str, Any]) -> None:
    findings = found(tmp_path, OF_EPOCHS[kind], every=10 * TOTAL, **lengths)
    assert [one.severity for one in findings] == [ERROR]


@pytest.mark.parametrize("kind", OF_EPOCHS)
def test_stepped_at_each_step_it_is_what_was_read(tmp_path: Path, kind: str) -> None:
    findings = found(tmp_path, OF_EPOCHS[kind], every=1, rounds=1, total_steps=TOTAL)
    assert [one for one in findings if one.severity == ERROR] == []


def test_a_resume_that_steps_once_an_epoch_is_an_error(tmp_path: Path) -> None:
    """The law was stepped at each step before: what it counts is known."""
    given = {"schedule": None, "control": False, **LENGTHS[0]}
    model = nn.Linear(4, 2)
    optimizer = SGD(model.parameters(), lr=0.1)
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.99)
    log = RunLog(tmp_path, **{**given, "schedule": scheduler})
    for _ in range(2 * STEPS):
        optimizer.step()
        log.step(loss=1.0)
        scheduler.step()
    saved = optimizer.state_dict(), scheduler.state_dict()
    log.end()
    optimizer.load_state_dict(saved[0])
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.99)
    scheduler.load_state_dict(saved[1])
    log = RunLog(resume=log.folder, step=2 * STEPS, **{**given, "schedule": scheduler})
    for step in range(1, 3 * STEPS + 1):
        optimizer.step()
        log.step(loss=1.0)
        if step % STEPS == 0:
            scheduler.step()
    log.end()
    findings = of_rates(log.folder)
    assert [one.severity for one in findings] == [ERROR]
