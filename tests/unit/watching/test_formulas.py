"""The formulas of torch's optimizers: every option of each is found right, and each setting that is not used is found."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

from eegwatch.watching.formulas.known import formula_of
from eegwatch.watching.optimizer_tensors import OptimizerTensors
from eegwatch.watching.step_sample import StepSample
from tests.unit.watching.sampled_steps import steps, tensors, updates

KINDS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
SIZES = [1.0, 1e-3, 1e-10, 1e4, 1.0, 0.0, 1e-25, 1.0]  # of the gradients of steps
FORMS: list[dict[str, Any]] = [{"foreach": False}, {"foreach": True}, {"maximize": True, "weight_decay": 0.1}]
AS_ADAMW = [{"decoupled_weight_decay": True}] if issubclass(torch.optim.AdamW, torch.optim.Adam) else []  # torch 2.7
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "SGD": [{"momentum": 0.9, "nesterov": True}, {"momentum": 0.8, "dampening": 0.3}, {"fused": True, "momentum": 0.5}],
    "Adam": [{"amsgrad": True}, {"betas": (0.5, 0.9), "eps": 1e-3}, {"fused": True}, *AS_ADAMW],
    "AdamW": [{"amsgrad": True, "foreach": True}, {"fused": True}, {"betas": (0.0, 0.95)}],
    "RMSprop": [
        {"momentum": 0.9},
        {"centered": True},
        {"centered": True, "momentum": 0.5, "weight_decay": 0.2, "foreach": True},
        {"alpha": 0.5, "eps": 1e-2},
    ],
    "Adagrad": [
        {"lr_decay": 0.1, "initial_accumulator_value": 0.1},
        {"fused": True, "weight_decay": 0.1},
        {"eps": 1e-2},
    ],
    "Adadelta": [{"rho": 0.5}, {"lr": 10.0, "weight_decay": 0.3, "foreach": True}, {"eps": 1e-3}],
    "Adamax": [{"betas": (0.5, 0.7)}, {"eps": 1e-2, "weight_decay": 0.1, "foreach": True}],
    "NAdam": [
        {"decoupled_weight_decay": True, "weight_decay": 0.1},
        {"decoupled_weight_decay": True, "weight_decay": 0.1, "foreach": True},
        {"momentum_decay": 0.3, "betas": (0.7, 0.99)},
    ],
    "RAdam": [
        {"decoupled_weight_decay": True, "weight_decay": 0.1},
        {"betas": (0.8, 0.9), "eps": 1e-3},
        {"betas": (0.5, 0.7), "foreach": True},
    ],
    "ASGD": [{"t0": 3.0, "lambd": 0.1}, {"alpha": 0.3, "weight_decay": 0.1, "foreach": True}],
    "Rprop": [{"etas": (0.3, 1.7)}, {"step_sizes": (1e-3, 2e-2), "foreach": True}, {"lr": 0.5}],
}
CASES = [(name, {}) for name in OPTIONS] + [(name, one) for name, own in OPTIONS.items() for one in own]
CASES += [
    (name, form)
    for name in OPTIONS
    for form in FORMS
    if not (name == "Rprop" and "weight_decay" in form)  # it has none
]


def named(case: tuple[str, dict[str, Any]]) -> str:
    return " ".join([case[0], *(f"{key}={value}" for key, value in case[1].items())])


@pytest.mark.parametrize("case", CASES, ids=named)
def test_each_form_of_each_optimizer_is_found_right_in_every_type_of_number(case: tuple[str, dict[str, Any]]) -> None:
    name, options = case
    for kind in KINDS[:2] if "fused" in options else KINDS:
        optimizer = getattr(torch.optim, name)(tensors(kind), **({"lr": 1e-2} | options))
        assert updates(steps(optimizer, 14, scale=lambda step: SIZES[step % len(SIZES)])) == []


@pytest.mark.parametrize("name", ["RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "ASGD", "Rprop"])
def test_a_rate_that_is_a_tensor_and_changes_is_read(name: str) -> None:
    optimizer = getattr(torch.optim, name)(tensors(torch.float32), lr=torch.tensor(1e-2), foreach=False)
    assert updates(steps(optimizer, 3)) == []
    optimizer.param_groups[0]["lr"] = torch.tensor(5e-3)
    assert updates(steps(optimizer, 3, seed=1)) == []


FALSE: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("SGD", {"momentum": 0.9}, {"lr": 1.001e-2}, "at a rate of 0.01001, not 0.01"),
    ("SGD", {"momentum": 0.9}, {"momentum": 0.8}, "with a momentum of 0.8, not 0.9"),
    ("SGD", {"weight_decay": 0.1}, {"weight_decay": 0.05}, "with a weight decay of 0.05, not 0.1"),
    ("AdamW", {"weight_decay": 0.1}, {"weight_decay": 0.2}, "with a weight decay of 0.2, not 0.1"),
    ("AdamW", {}, {"betas": (0.8, 0.999)}, "with beta1 of 0.8, not 0.9"),
    ("AdamW", {}, {"betas": (0.9, 0.95)}, "with beta2 of 0.95, not 0.999"),
    ("AdamW", {}, {"eps": 1e-2}, "with eps of 0.01, not 1e-08"),
    ("RMSprop", {}, {"lr": 1.01e-2}, "at a rate of 0.0101, not 0.01"),
    ("RMSprop", {}, {"alpha": 0.9}, "with alpha of 0.9, not 0.99"),
    ("RMSprop", {"momentum": 0.9}, {"momentum": 0.5}, "with a momentum of 0.5, not 0.9"),
    ("RMSprop", {"weight_decay": 0.1}, {"weight_decay": 0.0}, "without its weight decay"),
    ("RMSprop", {"eps": 1e-4}, {"eps": 1e-1}, "with eps of 0.1, not 0.0001"),
    ("RMSprop", {"centered": True}, {"centered": False}, "as if it were not centered"),
    ("Adagrad", {}, {"lr": 1.01e-2}, "at a rate of 0.0101, not 0.01"),
    ("Adagrad", {"weight_decay": 0.1}, {"weight_decay": 0.3}, "with a weight decay of 0.3, not 0.1"),
    ("Adadelta", {"lr": 1.0}, {"lr": 1.1}, "at a rate of 1.1, not 1"),
    ("Adadelta", {"lr": 1.0}, {"rho": 0.5}, "with rho of 0.5, not 0.9"),
    ("Adamax", {}, {"betas": (0.8, 0.999)}, "with beta1 of 0.8, not 0.9"),
    ("Adamax", {}, {"maximize": True}, "with the sign of the gradient turned"),
    ("NAdam", {}, {"lr": 1.01e-2}, "at a rate of 0.0101, not 0.01"),
    ("NAdam", {}, {"betas": (0.9, 0.95)}, "with beta2 of 0.95, not 0.999"),
    ("NAdam", {"weight_decay": 0.1}, {"decoupled_weight_decay": True}, "with its decay decoupled from the gradient"),
    ("RAdam", {}, {"lr": 1.01e-2}, "at a rate of 0.0101, not 0.01"),
    ("RAdam", {"weight_decay": 0.1}, {"weight_decay": 0.2}, "with a weight decay of 0.2, not 0.1"),
    ("ASGD", {"lambd": 0.1}, {"lambd": 0.2}, "with lambd of 0.2, not 0.1"),
    ("Rprop", {}, {"etas": (0.5, 1.5)}, "with a second eta of 1.5, not 1.2"),
]


@pytest.mark.parametrize(("name", "options", "false", "words"), FALSE)
def test_a_setting_that_the_step_does_not_use_is_found_with_what_it_used(
    name: str, options: dict[str, Any], false: dict[str, Any], words: str
) -> None:
    optimizer = getattr(torch.optim, name)(tensors(torch.float32), **({"lr": 1e-2} | options))
    found = steps(optimizer, 12, false=false, since=8)
    assert not updates(found[:7]) and "update" in found[7]
    assert words in found[7]["update"]["as_if"]


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1}, {"weight_decay": 1e-3, "decoupled_weight_decay": True}])
def test_the_lion_of_lion_pytorch_is_found_right_and_each_setting_that_it_does_not_use(options: dict[str, Any]) -> None:
    package = pytest.importorskip("lion_pytorch")
    if not set(options) <= set(inspect.signature(package.Lion).parameters):
        pytest.skip("an older version has no such option")
    for kind in KINDS:
        optimizer = package.Lion(tensors(kind), lr=1e-2, **options)
        assert updates(steps(optimizer, 14, scale=lambda step: SIZES[step % len(SIZES)])) == []
    for false, words in LION_FALSE:
        found = steps(package.Lion(tensors(torch.float32), lr=1e-2, **options), 8, false=false, since=8)[7]
        assert words in found["update"]["as_if"]


LION_FALSE = [
    ({"lr": 1.01e-2}, "at a rate of 0.0101, not 0.01"),
    ({"weight_decay": 0.4}, "a weight decay of"),
]


def of_one(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What is found of one step of an optimizer whose gradients are there."""
    table = OptimizerTensors()
    table.refresh(optimizer, {})
    with torch.no_grad():
        look = StepSample(optimizer, formula_of(optimizer), table.readable, set(), closure=False)
        optimizer.step()
        return look.finish(optimizer, {}, set())


def test_a_fused_kernel_that_takes_a_gradient_in_another_order_is_found() -> None:
    parameter = torch.nn.Parameter(torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).t())
    parameter.grad = torch.arange(24.0).reshape(6, 4)  # of another layout: torch 2.13 moves other elements by it
    right = parameter.detach() - 1e-2 * parameter.grad
    found = of_one(torch.optim.SGD([parameter], lr=1e-2, fused=True))
    assert ("update" in found) == (not torch.allclose(parameter, right))


def test_a_fused_kernel_that_leaves_half_precision_as_it_is_is_found() -> None:
    parameter = torch.nn.Parameter(torch.ones(40, dtype=torch.bfloat16))
    parameter.grad = torch.full((40,), 50.0, dtype=torch.bfloat16)
    found = of_one(torch.optim.SGD([parameter], lr=1e-2, fused=True))
    assert ("update" in found) == bool((parameter == 1).any())  # torch 2.13 on the CPU moves the last few alone
