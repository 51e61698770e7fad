"""What is restored and is not: a state_dict that is no copy, running statistics of a model and of its average."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from eegwatch.diagnosis.findings import WARNING
from tests.unit.watching.loops import Loop, rules, small


def normed() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


@pytest.mark.parametrize(
    ("kept", "found"),
    [
        ("state_dict()", {("weights_not_restored", WARNING)}),
        ("a copy", set()),
        ("own tensors and others", set()),
        ("before the first step", set()),
    ],
)
def test_a_state_dict_that_is_no_copy_restores_nothing(tmp_path: Path, kept: str, found: set[Any]) -> None:
    loop = Loop(tmp_path)
    best: Any = loop.model.state_dict()
    if kept == "before the first step":
        loop.model.load_state_dict(best)
    if kept == "a copy":
        best = copy.deepcopy(best)
    for number in range(1, 4):
        loop.step(number)
        loop.log.step()
    if kept == "own tensors and others":  # a part of a pretrained model, say
        best["0.bias"] = torch.zeros(16)
    if kept != "before the first step":
        loop.model.load_state_dict(best)
    assert {(one.rule, one.severity) for one in loop.judged()} == found
    assert not loop.model._load_state_dict_pre_hooks


def test_a_model_whose_loads_are_watched_is_copied_and_saved(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    loop.step(1)
    twin = copy.deepcopy(loop.model)
    twin.load_state_dict(twin.state_dict())
    torch.save(loop.model, tmp_path / "model.pt")
    again = torch.load(tmp_path / "model.pt", weights_only=False)
    again.load_state_dict(again.state_dict())
    assert rules(loop.judged()) == set()


@pytest.mark.parametrize("restored", ["all", "parameters"])
def test_running_statistics_that_a_resume_does_not_restore_are_a_fact(tmp_path: Path, restored: str) -> None:
    first = Loop(tmp_path, model=normed())
    for number in range(1, 4):
        first.step(number)
        first.log.step()
    first.log.checkpoint("c.pt")
    saved = copy.deepcopy((first.model.state_dict(), first.optimizer.state_dict()))
    first.log.end()
    again = Loop(tmp_path, model=normed(), resume=first.log.folder, step=3)
    names = [name for name, _ in again.model.named_parameters()]
    part = saved[0] if restored == "all" else {name: saved[0][name] for name in names}
    again.model.load_state_dict(part, strict=False)
    again.optimizer.load_state_dict(saved[1])
    assert rules(again.run(2)) == (set() if restored == "all" else {"statistics_not_restored"})


@pytest.mark.parametrize(
    ("how", "found"),
    [
        ("parameters alone", {"ema_statistics_stand"}),
        ("torch's average", set()),
        ("update_bn", set()),
        ("in training mode", set()),
        ("never used", set()),
    ],
)
def test_an_average_whose_statistics_stand_is_a_fact_once_it_is_used(tmp_path: Path, how: str, found: set[str]) -> None:
    loop = Loop(tmp_path, lambda p: torch.optim.SGD(p, lr=0.1), model=normed())
    average: Any = copy.deepcopy(loop.model)
    if how == "torch's average":
        average = AveragedModel(loop.model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    loop.log.ema(average)
    for number in range(1, 4):
        loop.step(number)
        if how == "torch's average":
            average.update_parameters(loop.model)
        else:
            with torch.no_grad():
                for a, w in zip(average.parameters(), loop.model.parameters()):
                    a.lerp_(w, 0.1)
        loop.log.step()
    if how == "update_bn":
        update_bn([torch.randn(4, 8)], average)
    if how != "never used":
        average.train(how == "in training mode")(torch.randn(4, 8))
    assert rules(loop.judged()) == found
    assert not average.state_dict(keep_vars=True)["0.weight" if how != "torch's average" else "module.0.weight"].grad


def test_weights_that_are_moved_and_moved_back_before_the_first_step_are_restored(tmp_path: Path) -> None:
    first = Loop(tmp_path)
    first.step(1)
    first.log.step()
    first.log.checkpoint("c.pt")
    saved = copy.deepcopy((first.model.state_dict(), first.optimizer.state_dict()))
    first.log.end()
    again = Loop(tmp_path, resume=first.log.folder, step=1)
    again.model.load_state_dict(saved[0])
    again.optimizer.load_state_dict(saved[1])

    def step(number: int) -> None:  # sharpness-aware minimisation: there and back, up to rounding
        again.optimizer.zero_grad()
        again.backward()
        with torch.no_grad():
            for p in again.model.parameters():
                p.add_(0.3).sub_(0.3)
        again.optimizer.step()

    assert rules(again.run(2, step)) == set()


def test_an_average_of_one_of_two_models_of_the_same_names_is_held_against_that_one(tmp_path: Path) -> None:
    for copied in (True, False):
        loop = Loop(tmp_path, lambda p: torch.optim.SGD(p, lr=0.1))
        other = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))
        optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
        loop.log.watch([other], [optimizer])
        average = copy.deepcopy(other)
        if not copied:  # of which of them it is cannot be known
            torch.nn.init.ones_(average[0].weight)
        loop.log.ema(average, 0.9)

        def step(number: int, other: Any = other, optimizer: Any = optimizer, average: Any = average) -> None:
            optimizer.zero_grad()
            loop.optimizer.zero_grad()
            (loop.model(torch.ones(4, 8)) + other(torch.ones(4, 8))).pow(2).mean().backward()
            loop.optimizer.step()
            optimizer.step()
            with torch.no_grad():
                for a, w in zip(average.parameters(), other.parameters()):
                    a.mul_(0.9).add_(w, alpha=0.1)

        assert rules(loop.run(3, step)) == set(), copied


@pytest.mark.parametrize("copied", ["before the load", "after the load", "and restored"])
def test_copies_of_weights_that_overwrite_what_was_loaded_are_a_fact(tmp_path: Path, copied: str) -> None:
    model = small().bfloat16()
    torch.manual_seed(5)
    loaded = {name: torch.randn_like(tensor) for name, tensor in model.state_dict().items()}
    if copied != "before the load":
        model.load_state_dict(loaded)
    masters = [p.detach().float().clone().requires_grad_() for p in model.parameters()]
    if copied == "and restored":
        for master in masters:  # what bfloat16 rounds away is in the copies alone
            master.data *= 1 + 2**-10
    model.load_state_dict(loaded)
    loop = Loop(tmp_path, lambda _: torch.optim.Adam(masters, lr=1e-2), model)

    def step(number: int) -> None:
        model.zero_grad()
        model(torch.randn(4, 8).bfloat16()).float().pow(2).mean().backward()
        for master, p in zip(masters, model.parameters()):
            assert p.grad is not None
            master.grad = p.grad.float()
        loop.optimizer.step()
        with torch.no_grad():
            for master, p in zip(masters, model.parameters()):
                p.copy_(master)

    assert rules(loop.run(4, step)) == ({"weights_overwritten"} if copied == "before the load" else set())


@pytest.mark.parametrize(
    ("seeds", "dropout", "found"),
    [
        ("in each step", 0.5, {"steps_draw_the_same"}),
        ("in each step", 0.0, set()),  # nothing is drawn within a step
        ("once", 0.5, set()),
        ("for both passes of a step", 0.5, set()),
    ],
)
def test_a_seed_that_is_set_in_every_step_is_a_fact(
    tmp_path: Path, seeds: str, dropout: float, found: set[str]
) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(dropout), nn.Linear(8, 2))
    loop = Loop(tmp_path, model=model)
    batches = torch.randn(8, 4, 8)

    def step(number: int) -> None:
        loop.optimizer.zero_grad()
        if seeds == "in each step":
            torch.manual_seed(7)
        state = torch.get_rng_state()
        for _ in range(2 if seeds == "for both passes of a step" else 1):
            torch.set_rng_state(state)
            model(batches[number]).pow(2).mean().backward()
        loop.optimizer.step()

    assert rules(loop.run(7, step)) == found
