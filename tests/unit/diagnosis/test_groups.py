"""Parameter groups in real torch loops: each by its own law, a fault named with its group, healthy recipes quiet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec import UNSET
from torch.optim import lr_scheduler as S

from eegwatch import RunLog
from eegwatch.check import open_run
from eegwatch.diagnosis.engine import Diagnosis
from eegwatch.diagnosis.findings import RATE, Finding
from eegwatch.run.control import send
from eegwatch.run.folder import RUN_LOG
from eegwatch.run.items import items
from eegwatch.run.log import AppendLog, read_all, run_decoder
from eegwatch.run.records import Run, Step
from eegwatch.schedule import parse

T = 200
SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "cosine to an absolute floor": lambda o: S.CosineAnnealingLR(o, T, eta_min=1e-5),
    "one cycle, a peak each": lambda o: S.OneCycleLR(o, [3e-3, 6e-4, 1e-4], total_steps=T),
    "line": lambda o: S.LinearLR(o, 1.0, 0.01, total_iters=T),
    "a lambda each": lambda o: S.LambdaLR(o, [lambda n: 1 / (1 + n), lambda n: 0.9**n, lambda _: 1.0]),
    "warm-up, then cosine": lambda o: S.SequentialLR(
        o, [S.LinearLR(o, 0.1, total_iters=20), S.CosineAnnealingLR(o, T - 20)], [20]
    ),
}


def run(
    tmp_path: Path, build: Callable[[Any], Any], fault: Callable[[Any, int, list[float]], None] | None = None
) -> list[Finding]:
    """What the log of a loop says about its rates, healed or not. `fault(optimizer, n, rates before the step)`."""
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(3)]
    rates = (1e-3, 2e-4, 3e-5)  # layer-wise decay
    optimizer = torch.optim.AdamW([{"params": [w], "lr": r} for w, r in zip(weights, rates, strict=True)])
    scheduler = build(optimizer)
    log = RunLog(tmp_path, schedule=scheduler, total_steps=T, steps_per_epoch=20, control=False)
    for n in range(1, T + 1):
        for w in weights:
            w.grad = torch.ones(1)
        optimizer.step()
        log.step(loss=1 / n)
        before = [group["lr"] for group in optimizer.param_groups]
        if n < T:
            scheduler.step()
        if fault is not None:
            fault(optimizer, n, before)
    log.end()
    return findings(log.folder)


def findings(folder: Path) -> list[Finding]:
    checked = open_run(folder, None, None)
    checked.read_to_end()
    return [f for f in (*checked.diagnosis.findings, *checked.diagnosis.past) if f.family == RATE and f.bad]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SCHEDULERS)
def test_healthy_groups_raise_nothing(tmp_path: Path, name: str) -> None:
    assert run(tmp_path, SCHEDULERS[name]) == []


def stands(which: int, since: int) -> Callable[[Any, int, list[float]], None]:
    def fault(optimizer: Any, n: int, before: list[float]) -> None:
        if n >= since:
            optimizer.param_groups[which]["lr"] = before[which]

    return fault


@pytest.mark.parametrize("since", [1, 67])
@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("name", ["cosine to an absolute floor", "one cycle, a peak each", "line"])
def test_a_group_that_stands_is_named_at_the_first_record_that_shows_it(
    tmp_path: Path, name: str, which: int, since: int
) -> None:
    found = run(tmp_path, SCHEDULERS[name], stands(which, since))
    assert [f.rule for f in found] == ["lr_stuck"], found
    assert found[0].since_step in (since, since + 1)
    assert (found[0].group or "group 0") == f"group {which}"


def test_a_lost_multiplier_is_named_with_its_group(tmp_path: Path) -> None:
    def fault(optimizer: Any, n: int, before: list[float]) -> None:
        if n >= 50:
            optimizer.param_groups[1]["lr"] = optimizer.param_groups[0]["lr"]

    (found,) = run(tmp_path, SCHEDULERS["one cycle, a peak each"], fault)
    assert found.rule == "lr_off_schedule" and found.group == "group 1" and found.since_step == 51


def test_a_change_of_schedule_within_an_attempt_is_no_fault(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1e-3)
    scheduler = S.CosineAnnealingLR(optimizer, 5000)
    log = RunLog(tmp_path, schedule=scheduler, total_steps=5000)
    sent = ""
    for n in range(1, 5001):
        weight.grad = torch.ones(1)
        optimizer.step()
        log.step(loss=1 / n)
        scheduler.step()
        if n == 100:
            sent = send(tmp_path, "resume", log.folder.name, lr=3e-4, then="hold")
        if n > 100 and sent and log.history.schedules:
            sent, end = "", n + 50
        if n > 100 and not sent and n >= end:
            break
    log.end("stopped")
    assert log.history.schedules and findings(log.folder) == []


@pytest.mark.parametrize("size", [1, 7, T])
@pytest.mark.parametrize("moves", [False, True])
def test_a_group_that_is_added_after_the_scheduler_was_built_and_stands_is_told(
    tmp_path: Path, moves: bool, size: int
) -> None:
    """Read at once or as the log grows: the records before it have no rate of the group."""
    first, later = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    optimizer = torch.optim.SGD([first], lr=1e-3)
    declared = {"name": "cosine", "total_steps": T, "max_lr": 1e-3}
    rates = parse(declared).rate(range(T)).tolist()
    log = RunLog(tmp_path, schedule=declared, optimizer=optimizer, total_steps=T, control=False)
    for n in range(1, T + 1):
        optimizer.param_groups[0]["lr"] = rates[n - 1]
        if n == 60:
            optimizer.add_param_group({"params": [later], "lr": 5e-4})
        if n > 60 and moves:
            optimizer.param_groups[1]["lr"] *= 0.99
        first.grad = later.grad = torch.ones(1)
        optimizer.step()
        log.step(loss=1 / n)
    log.end()
    diagnosis, records = Diagnosis(), read_all(log.folder / RUN_LOG, run_decoder())
    for begin in range(0, len(records), size):
        for item in items(records[begin : begin + size]):
            diagnosis.feed(item)
    told = [(f.rule, f.severity, f.group, f.since_step) for f in (*diagnosis.findings, *diagnosis.past)]
    assert told == ([] if moves else [("lr_stuck", "warning", "group 1", 60)])


def test_a_group_with_the_rate_of_group_0_until_that_one_moves_is_not_called_added(tmp_path: Path) -> None:
    """Two groups of a log that declares none: the first records have one rate for both, and nothing says since when."""
    writer = AppendLog(tmp_path / RUN_LOG)
    writer.append(Run(run_id="theirs", schedule={"name": "linear", "total_steps": T, "max_lr": 1e-3}))
    rates = parse({"name": "linear", "total_steps": T, "max_lr": 1e-3}).rate(range(T)).tolist()
    for n, rate in enumerate(rates, 1):
        writer.append(Step(step=n, lr=rate, lrs=[rate, 1e-3] if rate != 1e-3 else UNSET))
    writer.close()
    diagnosis = Diagnosis()
    for item in items(read_all(tmp_path / RUN_LOG, run_decoder())):
        diagnosis.feed(item)
    assert [(f.rule, f.severity, f.group) for f in diagnosis.findings] == [("lr_stuck", "info", "group 1")]
