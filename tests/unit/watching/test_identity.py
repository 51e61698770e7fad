"""Watched training is the same training, bit by bit, and no failure of the watcher ends it."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from eegwatch import RunLog
from tests.unit.watching.loops import silent, small


def plain(model: Any, optimizer: Any, number: int) -> None:
    optimizer.zero_grad()
    model(torch.randn(4, 8)).pow(2).mean().backward()
    optimizer.step()


def closure(model: Any, optimizer: Any, number: int) -> None:
    def loss() -> Any:
        optimizer.zero_grad()
        value = model(torch.randn(4, 8)).pow(2).mean()
        value.backward()
        return value

    optimizer.step(loss)


def accumulated(model: Any, optimizer: Any, number: int) -> None:
    optimizer.zero_grad(set_to_none=False)
    for _ in range(3):
        (model(torch.randn(4, 8)).pow(2).mean() / 3).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    optimizer.step()


def copied(model: Any, optimizer: Any, number: int) -> None:
    plain(model, optimizer, number)
    other = copy.deepcopy((model, optimizer))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pickle.loads(pickle.dumps(model))
        torch.save({"model": model, "optimizer": optimizer.state_dict()}, io.BytesIO())
    plain(*other, number)  # the copies go on alone


def recomputed(model: Any, optimizer: Any, number: int) -> None:
    from torch.utils.checkpoint import checkpoint

    optimizer.zero_grad()
    checkpoint(model, torch.randn(4, 8, requires_grad=True), use_reentrant=number % 2 == 0).pow(2).mean().backward()
    optimizer.step()


def twice_differentiated(model: Any, optimizer: Any, number: int) -> None:
    optimizer.zero_grad()
    loss = model(torch.randn(4, 8)).pow(2).mean()
    loss.backward(create_graph=True, inputs=list(model.parameters()))
    sum(p.grad.pow(2).sum() for p in model.parameters()).backward()
    optimizer.step()
    for parameter in model.parameters():
        parameter.grad = None


def scaled(model: Any, optimizer: Any, number: int) -> None:
    scaler = optimizer.__dict__.setdefault("_scaler", torch.amp.GradScaler("cpu", init_scale=2.0**10))
    optimizer.zero_grad()
    loss = model(torch.randn(4, 8)).pow(2).mean()
    scaler.scale(loss * (torch.inf if number == 3 else 1.0)).backward()
    scaler.step(optimizer)
    scaler.update()


STEPS: dict[str, tuple[Callable[[Any, Any, int], None], Callable[[Any], Any]]] = {
    "AdamW": (plain, lambda p: torch.optim.AdamW(p, lr=1e-2)),
    "fused": (plain, lambda p: torch.optim.AdamW(p, lr=1e-2, fused=True)),
    "tensor rate": (plain, lambda p: torch.optim.SGD(p, lr=torch.tensor(0.1), momentum=0.9)),
    "closure": (closure, lambda p: torch.optim.Adam(p, lr=1e-2)),
    "L-BFGS": (closure, lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3)),
    "accumulated": (accumulated, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, foreach=True)),
    "copied and pickled": (copied, lambda p: torch.optim.AdamW(p, lr=1e-2)),
    "recomputed": (recomputed, lambda p: torch.optim.AdamW(p, lr=1e-2)),
    "double backward": (twice_differentiated, lambda p: torch.optim.SGD(p, lr=1e-2)),
    "scaled": (scaled, lambda p: torch.optim.AdamW(p, lr=1e-2)),
    "scaled and fused": (scaled, lambda p: torch.optim.AdamW(p, lr=1e-2, fused=True)),
}


def trained(
    step: Callable[[Any, Any, int], None], optimizer_of: Callable[[Any], Any], log_in: Path | None, model: Any = None
) -> tuple[list[Any], RunLog | None]:
    model = model if model is not None else small()
    optimizer = optimizer_of(model.parameters())
    log = None
    if log_in is not None:
        log = RunLog(log_in, optimizer=optimizer, control=False)
        log.watch(model, optimizer)
    torch.manual_seed(5)
    for number in range(1, 26):
        step(model, optimizer, number)
        if log is not None:
            log.step()
    state = [torch.get_rng_state(), *model.state_dict().values()]
    for per in optimizer.state.values():
        state += [value for value in per.values() if isinstance(value, torch.Tensor)]
    if log is not None:
        log.end()
    return copy.deepcopy(state), log


@pytest.mark.parametrize("name", STEPS)
def test_watched_training_is_bit_identical_and_clean(tmp_path: Path, name: str) -> None:
    step, optimizer = STEPS[name]
    alone, _ = trained(step, optimizer, None)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="eegwatch")
        watched, log = trained(step, optimizer, tmp_path)
    assert len(alone) == len(watched) and all(torch.equal(a, b) for a, b in zip(alone, watched))
    assert log is not None and [f for f in silent(log.folder) if f.severity == "error"] == []


def test_sparse_gradients_and_odd_tensors_are_left_out_and_said(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(10, 4, sparse=True)
            self.empty = nn.Parameter(torch.zeros(0))
            self.complex = nn.Parameter(torch.ones(2, dtype=torch.complex64))

        def forward(self) -> Any:
            return self.table(torch.tensor([1, 2])).pow(2).sum() + self.complex.abs().sum() + self.empty.sum()

    torch.manual_seed(0)
    model = Odd()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    log = RunLog(tmp_path, optimizer=optimizer, control=False)
    log.watch(model, optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        model().backward()
        optimizer.step()
        log.step()
    log.end()
    assert [f for f in silent(log.folder) if f.severity == "error" or f.rule == "watcher_failed"] == []
    looks = [r.values for r in log.history.watched if r.look == "step"]
    assert looks[0]["unread"] == {"empty": 1, "complex": 1}


def test_a_watcher_that_fails_switches_itself_off_and_training_goes_on(tmp_path: Path) -> None:
    model, alone = small(), small()
    optimizer, other = torch.optim.SGD(model.parameters(), 0.1), torch.optim.SGD(alone.parameters(), 0.1)
    log = RunLog(tmp_path, optimizer=optimizer, control=False)

    def fails(step: int, group: int) -> float:
        raise ArithmeticError("the user's own function")

    log.watch(model, optimizer, scheduled={"weight_decay": fails})

    def steps() -> None:
        for number in range(3):
            torch.manual_seed(number)
            plain(model, optimizer, number)
            torch.manual_seed(number)
            plain(alone, other, number)
            log.step()

    with pytest.warns(UserWarning, match="the watcher failed and is switched off"):
        steps()
    log.end()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), alone.parameters()))
    assert {f.rule for f in silent(log.folder)} == {"watcher_failed"}
    assert not any(p._backward_hooks for p in model.parameters())


def test_what_is_no_model_or_optimizer_is_said_in_one_line(tmp_path: Path) -> None:
    log = RunLog(tmp_path, control=False)
    with pytest.warns(UserWarning, match=r"log.watch: dict is no torch module; nothing is watched"):
        log.watch({}, None)
    with pytest.warns(UserWarning, match=r"log.watch: int has no register_step_pre_hook"):
        log.watch(small(), 3)
    log.step(loss=1.0)
    log.end()


def test_hooks_are_gone_after_the_end(tmp_path: Path) -> None:
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    log = RunLog(tmp_path, control=False)
    log.watch(model, optimizer)
    plain(model, optimizer, 1)
    log.end()
    assert not optimizer._optimizer_step_pre_hooks and not optimizer._optimizer_step_post_hooks
    assert all(p._backward_hooks is None and p._post_accumulate_grad_hooks is None for p in model.parameters())
    plain(model, optimizer, 2)
