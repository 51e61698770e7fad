"""The rate of each step is the one that the step used, in every order of calls, with skipped steps and closures."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler as S

from eegwatch import RunLog
from eegwatch.check import open_run

STEPS = 40
ORDERS = [
    "step, schedule, log",
    "step, log, schedule",
    "log, step, schedule",
    "schedule, step, log",
    "log, schedule, step",
    "schedule, log, step",
]


def train(
    tmp_path: Path, order: str, *, clear: str = "first", to_none: bool = True, skips: tuple[int, ...] = (), **given: Any
) -> tuple[RunLog, list[float]]:
    """A real loop; returns the log and the rate that each step of the optimizer used (of a skipped one: would have)."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = S.CosineAnnealingLR(optimizer, STEPS)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16, enabled=bool(skips))
    log = RunLog(tmp_path, schedule=scheduler, total_steps=STEPS, **given)
    used: list[float] = []

    def step() -> None:
        used.append(optimizer.param_groups[0]["lr"])
        scaler.step(optimizer)
        scaler.update()

    def schedule() -> None:
        if len(used) < STEPS:
            scheduler.step()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of scheduler.step() before optimizer.step()
        for n in range(1, STEPS + 1):
            if clear == "first":
                optimizer.zero_grad(set_to_none=to_none)
            loss = model(torch.randn(8, 4)).square().mean()
            scaler.scale(loss).backward()
            if n in skips:
                model.weight.grad.fill_(float("inf"))  # type: ignore[union-attr]
            for call in order.split(", "):
                {"step": step, "schedule": schedule, "log": lambda: log.step(loss=loss)}[call]()
            if clear == "last":
                optimizer.zero_grad(set_to_none=to_none)
    log.end()
    return log, used


@pytest.mark.parametrize("skips", [(), (1,), (1, 2), (7, 8), (1, 5)])
@pytest.mark.parametrize("to_none", [True, False])
@pytest.mark.parametrize("clear", ["first", "last"])
@pytest.mark.parametrize("order", ORDERS)
def test_every_record_holds_the_rate_that_its_step_used(
    tmp_path: Path, order: str, clear: str, to_none: bool, skips: tuple[int, ...]
) -> None:
    if skips and order in ("log, schedule, step", "schedule, log, step"):
        pytest.skip("a skipped step leaves no trace between two records of these orders: its rate cannot be known")
    log, used = train(tmp_path, order, clear=clear, to_none=to_none, skips=skips)
    assert log.history.step.tolist() == list(range(1, STEPS + 1))
    assert log.history.lr.tolist() == used


@pytest.mark.parametrize("order", ORDERS[:3])
def test_in_every_right_order_of_calls_nothing_is_wrong(tmp_path: Path, order: str) -> None:
    log, _ = train(tmp_path, order)
    outcome = open_run(log.folder, None, None).read_to_end()
    assert not [f for f in outcome.findings if f.rule.startswith("lr_")], outcome.text()


def test_a_record_that_waits_is_written_before_what_follows_it(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    log = RunLog(tmp_path, optimizer=optimizer)
    for _ in range(3):
        weight.grad = torch.ones(2)
        log.step(loss=1.0)
        optimizer.step()
        log.eval({"f1": 0.5})
    weight.grad = torch.ones(2)
    log.step(loss=1.0)
    log.end()  # its step was never taken
    kinds = [line.split('"type":"')[1].split('"')[0] for line in (log.folder / "run.jsonl").read_text().splitlines()]
    assert kinds == ["run", "step", "eval", "step", "eval", "step", "eval", "step", "end"]
    assert log.history.lr.tolist() == [0.5] * 4


def test_closures_two_steps_a_record_and_an_optimizer_without_hooks(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.tensor([3.0]))
    optimizer = torch.optim.LBFGS([weight], lr=0.5)
    scheduler = S.ExponentialLR(optimizer, 0.9)
    log = RunLog(tmp_path / "closure", schedule=scheduler, total_steps=10)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (weight**2).sum()
        loss.backward()
        return loss

    for _ in range(10):
        optimizer.step(closure)
        scheduler.step()
        log.step(loss=1.0)
    log.end()
    np.testing.assert_allclose(log.history.lr, 0.5 * 0.9 ** np.arange(10), rtol=1e-12)

    class Plain:
        """An optimizer of one's own: parameter groups and nothing else."""

        param_groups = [{"params": [weight], "lr": 0.25}]

    log = RunLog(tmp_path / "plain", optimizer=Plain())
    log.step(loss=1.0)
    log.end()
    assert log.history.lr.tolist() == [0.25]

    log = RunLog(tmp_path / "never stepped", optimizer=torch.optim.SGD([weight], lr=0.25))
    for _ in range(50):
        log.step(loss=1.0)
    assert len(log.history.lr) == 50  # they do not wait for ever
    log.end()


def test_the_rates_of_all_groups_are_logged_with_their_laws(tmp_path: Path) -> None:
    groups = [
        {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.0, "name": "backbone"},
        {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 1e-3},
    ]
    optimizer = torch.optim.AdamW(groups)
    scheduler = S.CosineAnnealingLR(optimizer, 20, eta_min=0.0)
    log = RunLog(tmp_path, schedule=scheduler, total_steps=20)
    seen = []
    for n in range(20):
        if n == 10:
            optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.5, "initial_lr": 0.5})
            scheduler.base_lrs.append(0.5)
        seen.append([g["lr"] for g in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
        log.step(loss=0.1)
    log.end()
    history = log.history
    run = history.run
    assert run is not None and run.groups is not None and run.lr_precision == "float64"
    assert [g["name"] for g in run.groups] == ["backbone", None] and run.groups[0]["schedule"] == run.schedule
    assert run.groups[1]["schedule"]["max_lr"] == 1e-3 and run.groups[0]["schedule"]["max_lr"] == 0.0
    assert history.lrs is not None and history.lrs.shape == (20, 3)
    assert history.lrs[:10, :2].tolist() == seen[:10] and history.lrs[10:].tolist() == seen[10:]


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float64])
def test_the_type_of_the_rates_is_said(tmp_path: Path, kind: torch.dtype) -> None:
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=torch.tensor(1e-3, dtype=kind))
    log = RunLog(tmp_path, schedule=S.CosineAnnealingLR(optimizer, 20), total_steps=20)
    log.end()
    run = log.history.run
    assert run is not None and run.lr_precision == str(kind).removeprefix("torch.")


def test_a_rate_given_by_the_script_counts_by_its_type(tmp_path: Path) -> None:
    for name, rate, precision in (("python", 1e-3, "float64"), ("numpy", np.float32(1e-3), "float32")):
        log = RunLog(tmp_path / name, total_steps=5)
        log.step(loss=1.0, lr=rate)
        log.step(loss=1.0, lrs=[rate, rate / 2])
        log.end()
        history = log.history
        assert history.run is not None and history.run.lr_precision == precision
        assert history.lr.tolist() == [float(rate)] * 2 and history.lrs is not None
        assert history.lrs[1].tolist() == [float(rate), float(rate / 2)]


def test_the_optimizer_is_copied_and_pickled_as_ever_and_the_hooks_leave_with_the_end(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    scheduler = S.StepLR(optimizer, 2)
    log = RunLog(tmp_path, schedule=scheduler, total_steps=5)
    twin, again = copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))
    for other in (twin, again, optimizer):
        other.param_groups[0]["params"][0].grad = torch.ones(2)
        other.step()
    log.step(loss=1.0)
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.param_groups[0]["lr"] = 0.125
    optimizer.step()
    log.step(loss=1.0)
    log.end()
    assert log.history.lr.tolist() == [0.5, 0.125]
    assert not optimizer._optimizer_step_pre_hooks and not optimizer._optimizer_step_post_hooks


def test_accelerates_prepared_pair_is_followed(tmp_path: Path) -> None:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model, prepared, scheduler = accelerator.prepare(model, optimizer, S.CosineAnnealingLR(optimizer, 10))
    log = RunLog(tmp_path, schedule=scheduler, total_steps=10, accumulate=2)
    used = []
    for _ in range(20):
        with accelerator.accumulate(model):
            loss = model(torch.randn(4, 2)).mean()
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                used.append(optimizer.param_groups[0]["lr"])
            prepared.step()
            scheduler.step()
            prepared.zero_grad()
        if accelerator.sync_gradients:
            log.step(loss=loss)
    log.end()
    history = log.history
    assert history.lr.tolist() == used and len(used) == 10
    assert history.run is not None and history.run.schedule is not None and history.run.schedule["name"] == "cosine"
    outcome = open_run(log.folder, None, None).read_to_end()
    assert not outcome.wrong, outcome.text()
