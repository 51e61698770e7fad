"""What optimizers are set to: settings that a resume puts back, and settings that an optimizer's step does not use."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from eegwatch.diagnosis.findings import Finding
from tests.unit.watching.loops import Loop, rules


def resumed(
    folder: Path, make: Any, changed: dict[str, Any], load: bool = True, after: dict[str, Any] | None = None
) -> list[Finding]:
    """Three steps, a checkpoint, and two steps of a resume whose optimizer is built with other settings."""
    first = Loop(folder, make)
    for number in range(1, 4):
        first.step(number)
        first.log.step()
    first.log.checkpoint("c.pt")
    saved = copy.deepcopy((first.model.state_dict(), first.optimizer.state_dict()))
    first.log.end()
    again = Loop(folder, lambda p: make(p, **changed), resume=first.log.folder, step=3)
    again.model.load_state_dict(saved[0])
    if load:
        again.optimizer.load_state_dict(saved[1])
    for group in again.optimizer.param_groups:
        group.update(after or {})
    return again.run(2)


def adamw(parameters: Any, **changed: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, **({"lr": 1e-2, "weight_decay": 0.1} | changed))


def rmsprop(parameters: Any, **changed: Any) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(parameters, **({"lr": 1e-2, "momentum": 0.9} | changed))


def grouped(parameters: Any, **changed: Any) -> torch.optim.Optimizer:
    """The biases are not decayed, whatever the optimizer is built with."""
    held = list(parameters)
    spared = {"params": [p for p in held if p.ndim < 2], "weight_decay": 0.0}
    return adamw([{"params": [p for p in held if p.ndim > 1]}, spared], **changed)


@pytest.mark.parametrize(
    ("make", "changed", "words"),
    [
        (adamw, {"lr": 1e-3}, "built with lr=0.001 for this resume, and group 0 has lr=0.01"),
        (
            adamw,
            {"betas": (0.9, 0.95)},
            "built with betas=(0.9, 0.95) for this resume, and group 0 has betas=(0.9, 0.999)",
        ),
        (rmsprop, {"momentum": 0.5}, "group 0 has momentum=0.9"),
        (
            grouped,
            {"weight_decay": 0.3},
            "built with weight_decay=0.3 for this resume, and group 0 has weight_decay=0.1",
        ),
    ],
)
def test_settings_that_a_loaded_state_puts_back_are_a_fact(
    tmp_path: Path, make: Any, changed: dict[str, Any], words: str
) -> None:
    found = resumed(tmp_path, make, changed)
    assert rules(found) == {"settings_put_back"} and words in found[0].message and found[0].severity == "warning"


def test_settings_that_a_resume_keeps_or_sets_are_clean(tmp_path: Path) -> None:
    assert resumed(tmp_path / "same", grouped, {}) == []
    assert resumed(tmp_path / "set", adamw, {"lr": 1e-3}, after={"lr": 1e-3}) == []
    assert rules(resumed(tmp_path / "empty", adamw, {"lr": 1e-3}, load=False)) == {"optimizer_state_lost"}


# ---- optimizers of the script's own ----


class Own(torch.optim.Optimizer):
    """SGD or Adam by hand. `fault`: what its step does not do as its settings say."""

    def __init__(self, parameters: Any, fault: str = "", kind: str = "sgd", **settings: Any) -> None:
        super().__init__(parameters, {"lr": 0.05, "weight_decay": 0.1, "warm_up": 1} | settings)
        self.fault, self.kind, self.first_rate, self.taken = fault, kind, self.defaults["lr"], 0

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.taken += 1
        for group in self.param_groups:
            whole = self.first_rate if self.fault == "rate" else group["lr"]
            lr = whole * min(1.0, self.taken / group["warm_up"])
            shorter = 0.02 * self.taken**0.5 if self.fault == "rectified" else 1.0  # as RAdam's steps are at first
            for p in group["params"]:
                decay = 0.0 if self.fault == "decay" else group["weight_decay"]
                gradient = self.clipped(p.grad, group.get("max_norm"))
                if self.fault == "a number":
                    p.sub_(lr * decay)
                    decay = 0.0
                p.mul_(1 - (whole if self.fault == "two rates" else lr) * decay)
                p.sub_(lr * shorter * getattr(self, self.kind)(p, gradient, group))

    def clipped(self, gradient: torch.Tensor, limit: float | None) -> torch.Tensor:
        if limit is None or self.fault == "clip":
            return gradient
        return gradient * min(1.0, limit / float(gradient.norm()))

    def sgd(self, p: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]) -> torch.Tensor:
        if not group.get("momentum") or self.fault == "momentum":
            return gradient
        buffer = self.state[p].setdefault("velocity", torch.zeros_like(p))
        return buffer.mul_(group["momentum"]).add_(gradient)  # type: ignore[no-any-return]

    def adam(self, p: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]) -> torch.Tensor:
        state = self.state[p]
        first = state.setdefault("exp_avg", torch.zeros_like(p)).mul_(0.9).add_(gradient, alpha=0.1)
        second = state.setdefault("exp_avg_sq", torch.zeros_like(p)).mul_(0.999).add_(gradient**2, alpha=0.001)
        if self.kind_of_bert:
            return first / (second.sqrt() + 1e-6)  # type: ignore[no-any-return]
        whole, half = 1 - 0.9**self.taken, 1 - 0.999**self.taken
        return first / whole / ((second / half).sqrt() + 1e-8)  # type: ignore[no-any-return]

    @property
    def kind_of_bert(self) -> bool:
        """Does it leave its averages uncorrected?"""
        return self.fault == "uncorrected"


def of_own(folder: Path, steps: int = 9, **options: Any) -> list[Finding]:
    loop = Loop(folder, lambda p: Own(p, **options))
    rate = loop.optimizer.param_groups[0]["lr"]

    def step(number: int) -> None:
        loop.optimizer.param_groups[0]["lr"] = rate / (1 + number // 3)  # a schedule
        loop.step(number)

    return loop.run(steps, step)


@pytest.mark.parametrize("kind", ["sgd", "adam"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight_decay": 0.0},
        {"momentum": 0.9},
        {"warm_up": 6},
        {"max_norm": 0.01},
        {"fault": "uncorrected"},
        {"fault": "rectified"},
    ],
    ids=str,
)
def test_an_optimizer_of_ones_own_that_uses_its_settings_is_clean(
    tmp_path: Path, kind: str, options: dict[str, Any]
) -> None:
    assert of_own(tmp_path, kind=kind, **options) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fault": "decay"}, "that of plain SGD in all elements that were read: its weight decay of 0.1 had no part"),
        ({"fault": "decay", "momentum": 0.9}, "that of SGD with momentum in all elements"),
        ({"fault": "decay", "kind": "adam"}, "that of Adam in all elements that were read: its weight decay of 0.1"),
        ({"fault": "a number", "momentum": 0.9}, "the decay of 0.1 is taken off every weight as a number"),
        ({"fault": "momentum", "momentum": 0.9}, "its momentum of 0.9 had no part in it"),
        ({"fault": "clip", "max_norm": 0.01}, "its limit max_norm=0.01 had no part in it, though"),
        ({"fault": "rate"}, "the group's rate is 0.025 by now, and it still takes 0.05"),
        ({"fault": "rate", "kind": "adam"}, "the group's rate is 0.025 by now, and it still takes 0.05"),
        ({"fault": "two rates", "warm_up": 20}, "which is warmed up over 20 steps"),
        ({"fault": "two rates", "warm_up": 20, "kind": "adam"}, "which is warmed up over 20 steps"),
    ],
)
def test_a_setting_that_an_optimizer_of_ones_own_does_not_use_is_a_fact(
    tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    found = of_own(tmp_path, **options)
    rule = "update_differs" if options["fault"] == "a number" else "update_ignores_setting"
    assert rules(found) == {rule} and found[0].severity == "warning"
    assert any(words in one.message for one in found), [one.message for one in found]


# ---- an optimizer around another one ----


class Sharpness(torch.optim.Optimizer):
    """Sharpness-aware minimisation in two steps, neither of which is its own step()."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {"rho": 0.05, "lr": 0.1})
        self.base_optimizer = torch.optim.RMSprop(self.param_groups, lr=0.1)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def first_step(self) -> None:
        for p in (p for group in self.param_groups for p in group["params"]):
            self.state[p]["before"] = p.clone()
            p.add_(p.grad, alpha=0.05)

    @torch.no_grad()
    def second_step(self) -> None:
        for p in (p for group in self.param_groups for p in group["params"]):
            p.copy_(self.state[p]["before"])
        self.base_optimizer.step()


def test_the_optimizer_within_another_one_of_the_same_tensors_is_watched(tmp_path: Path) -> None:
    loop = Loop(tmp_path, Sharpness)
    outer: Any = loop.optimizer

    def step(number: int) -> None:
        outer.zero_grad()
        loop.backward()
        outer.first_step()
        outer.zero_grad()
        loop.backward()
        outer.second_step()

    assert loop.run(6, step) == []
    assert {one.values["looked"] for one in loop.log.history.watched if one.look == "step"} == {4}


def test_an_optimizer_that_holds_one_of_other_tensors_is_watched_itself(tmp_path: Path) -> None:
    class Beside(torch.optim.SGD):
        def __init__(self, parameters: Any) -> None:
            super().__init__(parameters, lr=0.1)
            self.of_temperature = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)

    loop = Loop(tmp_path, Beside)
    assert loop.run(3) == []
    assert loop.log.history.watched[0].values["optimizers"][0]["name"] == "Beside"


class Counting(torch.optim.Optimizer):
    """Counts its steps, and moves the weights at one in `every`."""

    def __init__(self, parameters: Any, every: int) -> None:
        super().__init__(parameters, {"lr": 0.1})
        self.every = every

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for p in (p for group in self.param_groups for p in group["params"]):
            state = self.state[p]
            state["step"] = state.get("step", 0) + 1
            state["sum"] = state.get("sum", torch.zeros_like(p)) + p.grad
            if state["step"] % self.every == 0:
                p.sub_(0.1 * state.pop("sum"))


@pytest.mark.parametrize(("every", "found"), [(100, {"update_lost"}), (4, set())])
def test_weights_that_stand_while_an_optimizer_of_ones_own_counts_its_steps_are_a_fact(
    tmp_path: Path, every: int, found: set[str]
) -> None:
    told = Loop(tmp_path, lambda p: Counting(p, every)).run(14)
    assert rules(told) == found and all(one.severity == "warning" for one in told)
