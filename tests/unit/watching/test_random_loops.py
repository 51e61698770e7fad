"""Random training loops, watched and not: the same bits, whatever the loop does, and no proof of what is healthy."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from eegwatch import RunLog
from tests.unit.watching.loops import silent

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-2, amsgrad=True),
    "adamw foreach": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1, foreach=True),
    "adamw fused": lambda p: torch.optim.AdamW(p, lr=1e-2, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2),
}


class Shared(nn.Module):
    """One block that is used twice, and a head whose weight is the first layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.block, self.out = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.out.weight = self.into.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.into(x))
        return self.out(torch.tanh(self.block(torch.tanh(self.block(x)))))  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(8, 6, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.cell(x.unsqueeze(1))[0]  # type: ignore[no-any-return]


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2)),
    "conv": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 8)), nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(24, 2)
    ),
    "shared": Shared,
    "recurrent": Recurrent,
    "bfloat16": lambda: nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 2)).bfloat16(),
    "one element": lambda: nn.Sequential(nn.Linear(8, 1), nn.PReLU()),
}


@dataclass(frozen=True)
class Plan:
    """What a loop does."""

    model: str
    optimizer: str
    accumulate: int
    clip: float | None
    set_to_none: bool
    frozen: bool  # is the first tensor frozen?
    groups: bool  # a group of its own for the last tensor
    closure: bool
    evaluate: frozenset[int]  # steps after which there is an evaluation
    fails: frozenset[int]  # steps whose forward pass raises
    skips: frozenset[int]  # steps whose loss is not finite: the loop leaves them out


PLANS = st.builds(
    Plan,
    model=st.sampled_from(sorted(MODELS)),
    optimizer=st.sampled_from(sorted(OPTIMIZERS)),
    accumulate=st.integers(1, 3),
    clip=st.sampled_from([None, 0.1, 10.0]),
    set_to_none=st.booleans(),
    frozen=st.booleans(),
    groups=st.booleans(),
    closure=st.booleans(),
    evaluate=st.frozensets(st.integers(1, 8), max_size=2),
    fails=st.frozensets(st.integers(1, 8), max_size=2),
    skips=st.frozensets(st.integers(1, 8), max_size=2),
)


class OutOfMemory(RuntimeError):
    """What a step of these loops raises."""


def parts(plan: Plan) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(1)
    model = MODELS[plan.model]()
    tensors = list(model.parameters())
    tensors[0].requires_grad_(not plan.frozen)
    if plan.groups and len(tensors) > 1:
        return model, OPTIMIZERS[plan.optimizer]([{"params": tensors[:-1]}, {"params": tensors[-1:], "lr": 1e-3}])
    return model, OPTIMIZERS[plan.optimizer](tensors)


def trained(plan: Plan, folder: Path | None) -> tuple[list[torch.Tensor], RunLog | None]:
    """(the bits of everything after nine steps, the log)."""
    model, optimizer = parts(plan)
    log = None
    if folder is not None:
        log = RunLog(folder, optimizer=optimizer, accumulate=plan.accumulate, control=False)
        log.watch(model, optimizer, clip=plan.clip)
    kind = next(model.parameters()).dtype
    torch.manual_seed(2)

    def passes(number: int) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=plan.set_to_none)
        total = torch.zeros(())
        for micro in range(plan.accumulate):
            loss = model(torch.randn(4, 8, dtype=kind)).float().pow(2).mean() / plan.accumulate
            if number in plan.fails and micro == plan.accumulate - 1:
                raise OutOfMemory
            loss.backward()  # type: ignore[no-untyped-call]
            total = total + loss.detach()
        if plan.clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), plan.clip)
        return total

    for number in range(1, 10):
        try:
            if plan.closure:
                optimizer.step(lambda number=number: passes(number))  # type: ignore[misc,call-overload]
            else:
                passes(number)
                if number in plan.skips:
                    continue
                optimizer.step()
        except OutOfMemory:
            continue
        if log is not None:
            log.step()
        if number in plan.evaluate:
            model.eval()
            if log is None:
                model(torch.randn(2, 8, dtype=kind))
            else:
                with log.evaluating():
                    model(torch.randn(2, 8, dtype=kind))
            model.train()
    bits = [torch.get_rng_state(), *(value.clone() for value in model.state_dict().values())]
    for state in optimizer.state.values():
        bits += [value.clone() for value in state.values() if isinstance(value, torch.Tensor)]
    bits += [p.grad.clone() for p in model.parameters() if p.grad is not None]
    if log is not None:
        log.end()
    return bits, log


@settings(max_examples=25)
@given(PLANS)
def test_a_random_loop_is_the_same_bit_by_bit_and_nothing_is_proved_of_it(plan: Plan) -> None:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("error", message="eegwatch")
        alone, _ = trained(plan, None)
        watched, log = trained(plan, Path(folder))
        assert len(alone) == len(watched) and all(torch.equal(a, b) for a, b in zip(alone, watched))
        assert log is not None
        wrong = [f for f in silent(log.folder) if f.severity == "error" or f.rule == "watcher_failed"]
        assert not wrong, [(finding.rule, finding.message) for finding in wrong]
