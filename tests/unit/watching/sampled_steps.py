"""Real steps of real optimizers, each sampled as the watcher samples it, on gradients that are drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from eegwatch.watching.formulas.formula import Formula
from eegwatch.watching.formulas.known import formula_of
from eegwatch.watching.optimizer_tensors import OptimizerTensors
from eegwatch.watching.step_sample import StepSample

Found = dict[str, Any]


def tensors(kind: torch.dtype, seed: int = 0) -> list[torch.nn.Parameter]:
    """A matrix, a vector, a scalar and a matrix whose memory is not in order."""
    draw = torch.Generator().manual_seed(seed)
    shapes = ((7, 5), (11,), ())
    made = [torch.nn.Parameter(torch.randn(shape, generator=draw).to(kind)) for shape in shapes]
    return [*made, torch.nn.Parameter(torch.randn(4, 6, generator=draw).to(kind).t())]


def steps(
    optimizer: torch.optim.Optimizer,
    count: int,
    *,
    seed: int = 0,
    formula: Formula | None = None,
    scale: Callable[[int], float] = lambda _: 1.0,
    false: dict[str, Any] | None = None,
    since: int = 1,
) -> list[Found]:
    """Take so many steps; what the formula finds of each.

    `scale`: of the gradients of a step. `false`: settings that the groups have while the step runs, from step `since`
    on, and not when they are read.
    """
    formula = formula or formula_of(optimizer)
    assert formula is not None
    draw, table, found = torch.Generator().manual_seed(seed), OptimizerTensors(), []
    held = [p for group in optimizer.param_groups for p in group["params"]]
    for number in range(1, count + 1):
        for parameter in held:
            kept = torch.rand(parameter.shape, generator=draw) > 0.1  # zeros among them, as of a dead unit
            made = torch.randn(parameter.shape, generator=draw) * kept * scale(number)
            # laid out in memory as the parameter, as autograd does: fused kernels count on it
            parameter.grad = torch.empty_like(parameter.detach()).copy_(made)
        table.refresh(optimizer, {})
        chosen = table.chosen(True)
        with torch.no_grad():
            look = StepSample(optimizer, formula, chosen, table.searched(chosen, True), closure=False)
        falsely(optimizer, (false or {}) if number >= since else {}, optimizer.step)
        with torch.no_grad():
            found.append(look.finish(optimizer, {}, set()))
        assert look.count == len(held)
    return found


def falsely(optimizer: torch.optim.Optimizer, false: dict[str, Any], step: Callable[[], Any]) -> None:
    """Take a step with other settings than the groups have."""
    before = [{key: group[key] for key in false} for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group.update(false)
    step()
    for group, own in zip(optimizer.param_groups, before):
        group.update(own)


def updates(found: Sequence[Found]) -> list[Found]:
    """What differs from the formula, of the steps where something does."""
    return [one["update"] for one in found if "update" in one]
