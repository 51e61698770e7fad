"""The layer of optimizer hooks: each step once, whatever the optimizer's class, and nothing ends the training."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch

from eegwatch.optimizer_hooks import StepHooks, unwrapped


class Recorder:
    def __init__(self) -> None:
        self.events: list[str] = []

    def before(self, optimizer: Any) -> None:
        self.events.append(f"before {optimizer.param_groups[0]['lr']}")

    def after(self, optimizer: Any) -> None:
        self.events.append("after")

    def abandoned(self, optimizer: Any) -> None:
        self.events.append("abandoned")


class Outer(torch.optim.SGD):
    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        return super().step(closure)


class Raising(torch.optim.SGD):
    fail = False

    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        if self.fail:
            raise RuntimeError("out of memory")
        return super().step(closure)


def made(kind: type[torch.optim.Optimizer] = torch.optim.SGD) -> tuple[Any, Recorder, StepHooks]:
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    optimizer = kind([weight], lr=0.1)  # type: ignore[call-arg]
    hooks, recorder = StepHooks(optimizer), Recorder()
    hooks.listeners.append(recorder)
    return optimizer, recorder, hooks


def test_a_step_is_told_once_before_and_once_after() -> None:
    optimizer, recorder, _ = made()
    optimizer.step()
    optimizer.step()
    assert recorder.events == ["before 0.1", "after"] * 2


def test_a_step_that_calls_its_parents_step_is_one_step() -> None:
    made()[0].step()  # the parent class is patched by torch once an instance of it exists
    optimizer, recorder, _ = made(Outer)
    optimizer.step()
    optimizer.step()
    assert recorder.events == ["before 0.1", "after"] * 2


def test_a_step_that_raised_is_said_before_the_next_one() -> None:
    optimizer, recorder, _ = made(Raising)
    optimizer.fail = True
    with pytest.raises(RuntimeError, match="out of memory"):
        optimizer.step()
    optimizer.fail = False
    optimizer.step()
    assert recorder.events == ["before 0.1", "abandoned", "before 0.1", "after"]


def test_removal_after_a_step_that_raised_says_so_too() -> None:
    optimizer, recorder, hooks = made(Raising)
    optimizer.fail = True
    with pytest.raises(RuntimeError):
        optimizer.step()
    hooks.remove()
    assert recorder.events == ["before 0.1", "abandoned"]
    optimizer.fail = False
    optimizer.step()
    assert len(recorder.events) == 2


def test_a_listener_that_raises_is_switched_off_and_the_training_goes_on() -> None:
    optimizer, recorder, hooks = made()

    class Broken(Recorder):
        def before(self, optimizer: Any) -> None:
            raise ValueError("a slip of ours")

    hooks.listeners.insert(0, Broken())
    with pytest.warns(UserWarning, match="Broken failed and is switched off: ValueError: a slip of ours"):
        optimizer.step()
    optimizer.step()
    assert recorder.events == ["before 0.1", "after"] * 2


def test_an_optimizer_with_hooks_is_copied_and_pickled_as_ever() -> None:
    optimizer, recorder, hooks = made()
    twin = copy.deepcopy(optimizer)
    again = pickle.loads(pickle.dumps(optimizer))
    for other in (twin, again):
        other.param_groups[0]["params"][0].grad = torch.ones(2)
        other.step()
    assert recorder.events == []
    assert copy.deepcopy({"hooks": hooks}) == {"hooks": None} == pickle.loads(pickle.dumps({"hooks": hooks}))


def test_closures_are_steps() -> None:
    weight = torch.nn.Parameter(torch.tensor([3.0]))
    optimizer = torch.optim.LBFGS([weight], lr=0.5)
    hooks, recorder = StepHooks(optimizer), Recorder()
    hooks.listeners.append(recorder)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (weight**2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert recorder.events == ["before 0.5", "after"]


def test_accelerates_wrapper_is_seen_through_and_what_is_no_optimizer_is_refused() -> None:
    accelerate = pytest.importorskip("accelerate")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    wrapped = accelerate.Accelerator(cpu=True).prepare(optimizer)
    assert wrapped is not optimizer
    assert unwrapped(wrapped) is optimizer
    assert StepHooks(wrapped).optimizer is optimizer
    with pytest.raises(TypeError, match="dict has no register_step_pre_hook: it is not a torch optimizer"):
        StepHooks({})


def test_the_hooks_hold_no_optimizer_alive_and_can_be_moved_behind_others() -> None:
    optimizer, recorder, hooks = made()
    optimizer.register_step_pre_hook(lambda opt, *_: opt.param_groups[0].update(lr=0.7))
    optimizer.step()
    hooks.attach_last()
    optimizer.step()
    assert recorder.events == ["before 0.1", "after", "before 0.7", "after"]
    optimizer.param_groups[0]["lr"] = 0.1
    del optimizer
    recorder.events.clear()
    import gc

    gc.collect()
    assert hooks.optimizer is None
    hooks.attach_last()
