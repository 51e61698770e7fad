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
