"""Whatever fails in the watcher, at whatever place: the training is the same bit by bit, it is said once, and no more."""

from __future__ import annotations

import copy
import gc
import io
import os
import pickle
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.data import DataLoader, Dataset, RandomSampler, TensorDataset

import eegwatch.watching
from eegwatch import RunLog
from tests.unit.watching.loops import Loop, silent, small

ROOM = str(Path(eegwatch.watching.__file__).parent)
TRIED = None if os.environ.get("EEGWATCH_FULL") else 24  # of the watcher's calls of torch, so many fail in turn


def constant(step: int) -> float:
    return 0.01


def resting(step: int) -> None:
    """An average that is not updated."""


class Fails(TorchFunctionMode):
    """Lets one call of torch fail that comes from the watcher: the `at`th. `calls`: how many came."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at, self.calls = at, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if sys._getframe(1).f_code.co_filename.startswith(ROOM):
            self.calls += 1
            if self.calls == self.at:
                raise RuntimeError("torch cannot do this now")
        return func(*args, **(kwargs or {}))


def trained(folder: Path | None, mode: TorchFunctionMode | None = None) -> tuple[list[torch.Tensor], list[str], Any]:
    """(weights after three steps and an evaluation, what was warned of, the log)."""
    model, teacher = small(), small()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    loader = DataLoader(TensorDataset(torch.randn(12, 8)), batch_size=4, shuffle=True)
    said: list[str] = []
    log = None
    torch.manual_seed(5)
    with warnings.catch_warnings(record=True) as caught, mode or Fails(0):
        warnings.simplefilter("always")
        if folder is not None:
            log = RunLog(folder, optimizer=optimizer, control=False)
            frozen = [teacher]
            log.watch(
                [model, teacher],
                optimizer,
                loader=loader,
                accumulate=2,
                clip=1.0,
                frozen=frozen,
                scheduled={"weight_decay": constant},
            )
            log.ema(teacher, resting)
        for (batch,) in loader:
            optimizer.zero_grad(set_to_none=False)
            for half in batch.split(2):
                loss = model(half).pow(2).mean() + 0 * teacher(half).sum()
                (loss if log is None else log.micro(loss, 2) / 2).backward() if log else (loss / 2).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if log is not None:
                log.step(loss=1.0)
        if log is not None:
            with log.evaluating():
                model(batch)
            log.checkpoint("nowhere.pt")
            log.end()
        said = [str(one.message) for one in caught if "eegwatch" in str(one.message)]
    return [p.detach().clone() for p in model.parameters()], said, log


def calls_of_the_watcher(folder: Path) -> int:
    mode = Fails(0)
    _, said, _ = trained(folder, mode)
    assert not said
    return mode.calls


def test_each_call_of_torch_may_fail(tmp_path: Path) -> None:
    alone, _, _ = trained(None)
    calls = calls_of_the_watcher(tmp_path / "whole")
    assert calls > 500
    failed = 0
    for at in range(1, calls + 1, 1 if TRIED is None else calls // TRIED):
        weights, said, log = trained(tmp_path / str(at), Fails(at))
        assert all(torch.equal(a, b) for a, b in zip(alone, weights)), f"call {at} of {calls}"
        assert len(said) <= 1, f"call {at} of {calls}: {said}"
        found = {finding.rule for finding in silent(log.folder)}
        assert ("watcher_failed" in found) == any("switched off" in words for words in said)
        failed += len(said)
    assert failed > 5


class Pictures(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((8,), float(index))


class Unmeasured(RandomSampler):
    """A sampler that does not know how long it is."""

    def __len__(self) -> int:
        raise RuntimeError("nobody knows")


class Far(RandomSampler):
    """A sampler of indices that no machine integer holds."""

    def __iter__(self) -> Iterator[int]:
        yield from (1 << 70, 3, True)  # type: ignore[misc]


@pytest.mark.parametrize("sampler", [Unmeasured, Far])
def test_a_sampler_may_be_odd(tmp_path: Path, sampler: Callable[[Any], RandomSampler]) -> None:
    drawn = []
    for watched in (False, True):
        torch.manual_seed(3)
        order = sampler(Pictures())
        loader = DataLoader(Pictures(), batch_sampler=torch.utils.data.BatchSampler(order, 2, False))
        model = small()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        log = RunLog(tmp_path, optimizer=optimizer, control=False)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="eegwatch")
            if watched:
                log.watch(model, optimizer, loader=loader)
            drawn.append([batch for _ in range(2) for batch in loader.batch_sampler])
            log.end()
        assert type(order) is sampler
    assert drawn[0] == drawn[1]


def test_nothing_of_a_run_that_has_ended_is_held_by_its_log(tmp_path: Path) -> None:
    def run() -> tuple[RunLog, list[weakref.ref[Any]]]:
        model, average = small(), small()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        loader = DataLoader(Pictures(), shuffle=True, batch_size=2)
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        log = RunLog(tmp_path, control=False)  # one that follows the optimizer holds it itself
        log.watch([model, average], optimizer, loader=loader, frozen=[average], scaler=scaler, clip=9.0)
        log.ema(average, 0.9)
        for batch in loader:
            optimizer.zero_grad()
            model(batch).pow(2).mean().backward()
            optimizer.step()
            log.step()
        with log.evaluating():
            model(batch)
        log.end()
        objects = [model, average, optimizer, loader.dataset, scaler, *model.parameters(), *average.parameters()]
        return log, [weakref.ref(one) for one in objects]

    log, references = run()
    gc.collect()
    assert log.watcher is not None and log.watcher.off
    assert [type(ref()).__name__ for ref in references if ref() is not None] == []


def test_whole_objects_are_copied_and_saved_while_they_are_watched(tmp_path: Path) -> None:
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    log = RunLog(tmp_path, optimizer=optimizer, control=False)
    log.watch(model, optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            twin, stepper = copy.deepcopy((model, optimizer))
            file = io.BytesIO()
            torch.save((model, optimizer), file)
            file.seek(0)
            saved, saver = torch.load(file, weights_only=False)
            thawed = pickle.loads(pickle.dumps(model))
            x = torch.randn(4, 8)
            for one, its in ((model, optimizer), (twin, stepper), (saved, saver)):
                its.zero_grad()
                one(x).pow(2).mean().backward()
                its.step()
            log.step()
            for copied in (twin, saved):
                assert all(torch.equal(a, b) for a, b in zip(model.parameters(), copied.parameters()))
            assert not any(p._backward_hooks for other in (thawed, twin, saved) for p in other.parameters())
    log.end()
    assert silent(log.folder) == []


def test_copies_that_an_evaluation_makes_are_trained_in_it(tmp_path: Path) -> None:
    """Test-time adaptation: a copy of the watched model is changed, the model is not."""
    model = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    log = RunLog(tmp_path, optimizer=optimizer, control=False)
    log.watch(model, optimizer)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(4, 8)).pow(2).mean().backward()
        optimizer.step()
        log.step()
        model.eval()
        with log.evaluating():
            file = io.BytesIO()
            torch.save(model, file)
            file.seek(0)
            for twin in (copy.deepcopy(model), torch.load(file, weights_only=False), pickle.loads(pickle.dumps(model))):
                twin.train()
                twin(torch.randn(4, 8)).pow(2).mean().backward()
                twin.load_state_dict(model.state_dict())
            model(torch.randn(4, 8))
        model.train()
    log.end()
    assert silent(log.folder) == []


class Unlisted(nn.Linear):
    """A model whose parameters cannot be listed while it is in evaluation mode."""

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        if not self.training:
            raise RuntimeError("nobody lists them now")
        return super().parameters(recurse)


def test_a_hook_of_an_evaluation_may_fail(tmp_path: Path) -> None:
    model = Unlisted(8, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    log = RunLog(tmp_path, optimizer=optimizer, control=False)
    log.watch(model, optimizer)
    with log.evaluating():
        model.eval()
        with pytest.warns(UserWarning, match="nobody lists them now"):
            made = model(torch.ones(1, 8))
    log.end()
    assert made.shape == (1, 2)
    assert [finding.rule for finding in silent(log.folder)] == ["watcher_failed"]


def test_a_full_disk_ends_neither_training_nor_watching(tmp_path: Path) -> None:
    import resource

    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    log = RunLog(tmp_path, optimizer=optimizer, control=False)
    log.watch(model, optimizer)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def steps() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, ((log.folder / "run.jsonl").stat().st_size, limits[1]))
        try:
            for _ in range(3):
                optimizer.zero_grad()
                model(torch.randn(4, 8)).pow(2).mean().backward()
                optimizer.step()
                log.step()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    with pytest.warns(UserWarning, match="the log cannot be written"):
        steps()
    log.end()
    assert silent(log.folder) == []
    assert [r.values["count"] for r in log.history.watched if r.look == "step"] == [1, 2, 3]


def test_a_loop_may_raise_and_go_on_with_other_objects(tmp_path: Path) -> None:
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    log = RunLog(tmp_path, control=False)
    log.watch(model, optimizer)
    for number in range(6):
        optimizer.zero_grad()
        loss = model(torch.randn(4, 8)).pow(2).mean()
        if number == 2:  # out of memory, say: the script goes on with the next batch
            with pytest.raises(ZeroDivisionError):
                optimizer.step(lambda: 1 / 0)
            continue
        loss.backward()
        if number == 4:  # another fold
            model = small()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            log.watch(model, optimizer)
            model(torch.randn(4, 8)).pow(2).mean().backward()
        optimizer.step()
        log.step()
    log.end()
    assert not [one for one in silent(log.folder) if one.rule == "watcher_failed"]


def test_transforms_of_torch_func_leave_the_watcher_on(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    model = loop.model

    def loss(weights: dict[str, Any], x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = torch.func.functional_call(model, weights, (x,)).pow(2).sum()
        return made

    def step(number: int) -> None:
        of_each = torch.func.vmap(torch.func.grad(loss), (None, 0))
        gradients = of_each(dict(model.named_parameters()), torch.randn(8, 8))
        for name, parameter in model.named_parameters():
            parameter.grad = gradients[name].mean(0)
        loop.optimizer.step()

    assert loop.run(4, step) == []


def test_a_model_that_is_replaced_in_the_loop_is_told_of(tmp_path: Path) -> None:
    loop = Loop(tmp_path)

    def step(number: int) -> None:
        if number == 6:
            loop.model = copy.deepcopy(loop.model)
            loop.optimizer = torch.optim.SGD(loop.model.parameters(), lr=0.1)
        loop.step(number)

    (told,) = loop.run(72, step)
    assert (told.rule, told.severity) == ("step_not_taken", "warning") and "another model" in told.message
