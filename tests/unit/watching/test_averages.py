"""Averages of weights: the objects of several libraries are read, each error of an update is found, and what is not known."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from eegwatch.diagnosis.findings import Finding
from tests.unit.watching.loops import Loop, rules, small

Update = Callable[[Any, nn.Module, int], None]


def followed(
    folder: Path, make: Callable[[nn.Module], Any], update: Update, decay: Any = 0.9, steps: int = 4, **said: Any
) -> list[Finding]:
    """A run whose average is made by `make` and moved by `update(average, model, step)`."""
    loop = Loop(folder, lambda p: torch.optim.SGD(p, lr=0.1))
    average = make(loop.model)
    loop.log.ema(average, decay, **said)

    def step(number: int) -> None:
        loop.step(number)
        with torch.no_grad():
            update(average, loop.model, number)

    return loop.run(steps, step)


class Shadow:
    """An average that keeps a list of tensors (torch_ema, diffusers); its decay is warmed up, where that is asked for."""

    def __init__(self, model: nn.Module, decay: float = 0.9, warmed_up: bool = False) -> None:
        self.shadow_params = [p.detach().clone() for p in model.parameters() if p.requires_grad]
        self.decay, self.warmed_up, self.updates = decay, warmed_up, 0

    def update(self, model: nn.Module, times: int = 1) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.warmed_up else self.decay
        for _ in range(times):
            for a, w in zip(self.shadow_params, (p for p in model.parameters() if p.requires_grad)):
                a.lerp_(w, 1 - decay)


class Wrapped(nn.Module):
    """An average that is a module around its copy (ema_pytorch)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.ema_model = copy.deepcopy(model)
        self.initted = nn.Parameter(torch.zeros(1), requires_grad=False)

    def update(self, model: nn.Module) -> None:
        for a, w in zip(self.ema_model.parameters(), model.parameters()):
            a.lerp_(w, 0.1)


class Named:
    """An average that keeps a dictionary of tensors."""

    def __init__(self, model: nn.Module) -> None:
        self.shadow = {name: p.detach().clone() for name, p in model.named_parameters()}

    def update(self, model: nn.Module) -> None:
        for name, w in model.named_parameters():
            self.shadow[name].lerp_(w, 0.1)


def once(average: Any, model: nn.Module, _: int) -> None:
    average.update(model)


@pytest.mark.parametrize("make", [Shadow, Wrapped, Named])
def test_an_average_is_read_wherever_it_keeps_its_tensors(tmp_path: Path, make: Any) -> None:
    assert followed(tmp_path / "right", make, once) == []
    assert rules(followed(tmp_path / "still", make, lambda *_: None)) == {"ema_not_updated"}


def test_the_decay_that_an_average_was_made_with_is_told(tmp_path: Path) -> None:
    ramped = followed(tmp_path / "ramped", lambda model: Shadow(model, warmed_up=True), once)
    assert rules(ramped) == {"ema_differs"} and "made with a decay of 0.181818" in ramped[0].message
    at = lambda step: min(0.9, (1 + step) / (10 + step))  # noqa: E731
    assert followed(tmp_path / "told", lambda model: Shadow(model, warmed_up=True), once, at) == []
    turned = followed(tmp_path / "turned", lambda model: Shadow(model, 0.1), once)
    assert rules(turned) == {"ema_differs"} and "made with a decay of 0.1" in turned[0].message
    twice = followed(tmp_path / "twice", Shadow, lambda average, model, _: average.update(model, 2))
    assert rules(twice) == {"ema_updated_twice"} and "updated twice in step 1" in twice[0].message
    each = followed(tmp_path / "each", Shadow, lambda average, model, _: average.update(model, 4))
    assert rules(each) == {"ema_updated_twice"} and "updated 4 times in step 1" in each[0].message


def swa(model: nn.Module, **options: Any) -> Any:
    return torch.optim.swa_utils.AveragedModel(model, **options)


@pytest.mark.parametrize("buffers", [True, False])
def test_the_averages_of_torch_are_clean(tmp_path: Path, buffers: bool) -> None:
    mean = lambda step: (step - 1) / step  # noqa: E731 - of all weights so far; the first update is a copy
    move = lambda average, model, _: average.update_parameters(model)  # noqa: E731
    assert followed(tmp_path / "mean", lambda model: swa(model, use_buffers=buffers), move, mean) == []
    decay = torch.optim.swa_utils.get_ema_avg_fn(0.9)
    assert followed(tmp_path / "each", lambda model: swa(model, avg_fn=decay, use_buffers=buffers), move) == []
    halved = followed(tmp_path / "other", lambda model: swa(model, use_buffers=buffers), move, 0.9)
    assert rules(halved) == {"ema_differs"}


# ---- of which model it is ----


def of_two(folder: Path, trained: str, **said: Any) -> tuple[set[str], list[str]]:
    """Two models of the same shapes, watched both; the average is of the second, and a resume has moved it."""
    loop = Loop(folder, lambda p: torch.optim.SGD(p, lr=0.1))
    other = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    if trained == "both":
        loop.log.watch(other, optimizer)
    average = copy.deepcopy(other)
    with torch.no_grad():
        average[0].weight.add_(0.01)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop.log.ema(average, 0.9, **({"of": other} if said else {}))

    def step(number: int) -> None:
        loop.step(number)
        optimizer.zero_grad()
        other(torch.ones(4, 8)).pow(2).mean().backward()
        optimizer.step()
        with torch.no_grad():
            for a, w in zip(average.parameters(), other.parameters()):
                a.lerp_(w, 0.5 if said else 0.1)

    return rules(loop.run(3, step)), [str(one.message) for one in caught]


@pytest.mark.parametrize("watched", ["both", "the first"])
def test_an_average_of_which_it_is_not_known_what_it_averages_is_not_compared(tmp_path: Path, watched: str) -> None:
    found, said = of_two(tmp_path, watched)
    assert found == set() and "of=MODEL" in said[0]


def test_what_an_average_is_of_can_be_told(tmp_path: Path) -> None:
    found, said = of_two(tmp_path, "both", of=True)
    assert found == {"ema_differs"} and not said


def test_a_teacher_that_is_watched_too_is_held_against_its_student(tmp_path: Path) -> None:
    loop = Loop(tmp_path, lambda p: torch.optim.SGD(p, lr=0.1))
    teacher = small().requires_grad_(False)
    loop.log.watch([teacher], [])
    loop.log.ema(teacher, 0.9)
    assert rules(loop.run(3)) == {"ema_not_updated"}


# ---- running statistics ----


@pytest.mark.parametrize("buffers", [True, False])
def test_statistics_that_stand_are_told_once_the_average_was_updated(tmp_path: Path, buffers: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    loop = Loop(tmp_path, lambda p: torch.optim.SGD(p, lr=0.1), model)
    teacher = copy.deepcopy(model).requires_grad_(False).eval()
    loop.log.ema(teacher, 0.9)

    def step(number: int) -> None:
        x = torch.randn(4, 8)
        loop.optimizer.zero_grad()
        F.mse_loss(model(x), teacher(x + 0.1)).backward()  # the teacher is used before its first update
        loop.optimizer.step()
        with torch.no_grad():
            for a, w in zip(teacher.parameters(), model.parameters()):
                a.lerp_(w, 0.1)
            for a, w in zip(teacher.buffers(), model.buffers()):
                if buffers and a.is_floating_point():
                    a.lerp_(w, 0.1)

    assert rules(loop.run(3, step)) == (set() if buffers else {"ema_statistics_stand"})
