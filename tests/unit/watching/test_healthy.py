"""Healthy trainings of unusual make: each of them broke an equality that it does not have."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from eegwatch import RunLog
from eegwatch.check import open_run
from tests.unit.watching.loops import Loop, rules, silent, small

SGD = lambda p: torch.optim.SGD(p, lr=0.01)  # noqa: E731
Step = Callable[[int], Any]


def loss_of(model: Any) -> Any:
    return model(torch.randn(4, 8)).pow(2).mean()


class Own(torch.optim.Optimizer):
    """An optimizer of the script's own, whose step is a function of its parameters."""

    def __init__(self, parameters: Any, move: Callable[[Any], None]) -> None:
        super().__init__(parameters, {"lr": 0.1})
        self.move = move

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        for parameter in self.param_groups[0]["params"]:
            self.move(parameter)


def test_a_log_of_every_micro_batch_is_no_missing_step(tmp_path: Path) -> None:
    loop = Loop(tmp_path)

    def step(number: int) -> None:
        (loss_of(loop.model) / 8).backward()
        if number % 8 == 0:
            loop.optimizer.step()
            loop.optimizer.zero_grad()

    assert loop.run(40, step) == []


def test_a_log_of_every_step_of_an_environment_is_no_missing_step(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    assert loop.run(60, lambda number: loop.step(number) if number > 40 and number % 5 == 0 else None) == []


@pytest.mark.parametrize("clears", ["before", "after"])
def test_a_scaler_that_skips_many_steps_is_clean(tmp_path: Path, clears: str) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=5)
    loop = Loop(tmp_path, scaler=scaler, clip=0.5)

    def step(number: int) -> None:
        if clears == "before":
            loop.optimizer.zero_grad()
        scaler.scale(loss_of(loop.model) * 1e6).backward()
        scaler.unscale_(loop.optimizer)
        nn.utils.clip_grad_norm_(loop.model.parameters(), 0.5)
        scaler.step(loop.optimizer)
        scaler.update()
        if clears == "after":
            loop.optimizer.zero_grad()

    assert loop.run(50, step) == []


def test_gradients_that_are_clipped_in_half_precision_are_clipped(tmp_path: Path) -> None:
    loop = Loop(tmp_path, SGD, small().bfloat16(), clip=0.3)

    def step(number: int) -> None:
        loop.optimizer.zero_grad()
        (loop.model(torch.randn(4, 8).bfloat16()).float().pow(2).mean() * 50).backward()
        nn.utils.clip_grad_norm_(loop.model.parameters(), 0.3)
        loop.optimizer.step()

    assert loop.run(20, step) == []


def test_a_gradient_of_the_same_numbers_that_was_made_anew_is_not_applied_twice(tmp_path: Path) -> None:
    loop = Loop(tmp_path, SGD, nn.Linear(8, 1))
    x = torch.randn(16, 8)

    def step(number: int) -> None:
        found = torch.autograd.grad(loop.model(x).mean(), list(loop.model.parameters()))
        for parameter, gradient in zip(loop.model.parameters(), found):
            parameter.grad = gradient
        loop.optimizer.step()

    assert loop.run(5, step) == []


def test_gradients_that_an_optimizer_of_ones_own_keeps_elsewhere_are_not_dropped(tmp_path: Path) -> None:
    def move(parameter: Any) -> None:
        parameter.sub_(0.1 * parameter.kept)

    loop = Loop(tmp_path, lambda parameters: Own(parameters, move), watch=False)

    def keep(parameter: Any) -> None:
        parameter.kept, parameter.grad = parameter.grad, None

    for parameter in loop.model.parameters():
        parameter.register_post_accumulate_grad_hook(keep)
    loop.log.watch(loop.model, loop.optimizer)
    assert loop.run(4, lambda _: (loss_of(loop.model).backward(), loop.optimizer.step())) == []


def test_evolution_without_gradients_moves_what_requires_none(tmp_path: Path) -> None:
    model = small().requires_grad_(False)
    loop = Loop(tmp_path, lambda parameters: Own(parameters, lambda p: p.add_(torch.randn_like(p))), model)
    assert loop.run(4, lambda _: loop.optimizer.step()) == []


def test_master_weights_are_held_for_the_model(tmp_path: Path) -> None:
    model = small().bfloat16()
    masters = [p.detach().float().clone().requires_grad_() for p in model.parameters()]
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

    assert loop.run(4, step) == []


def test_tensors_in_one_memory_and_tensors_put_in_anothers_place_are_not_judged(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[1].weight.data = model[0].weight.data  # one memory, two parameters
    assert Loop(tmp_path, model=model).run(3) == []
    loop = Loop(tmp_path)

    def step(number: int) -> None:
        if number == 3:
            loop.model[2] = nn.Linear(16, 3)  # type: ignore[index, operator]
            loop.optimizer.param_groups[0]["params"][2:] = list(loop.model[2].parameters())  # type: ignore[index]
        if number == 5:
            loop.model.double()
        loop.optimizer.zero_grad()
        loop.model(torch.randn(4, 8).to(loop.model[0].weight.dtype)).pow(2).mean().backward()  # type: ignore[index, arg-type, union-attr]
        if number != 5:
            loop.optimizer.step()

    assert loop.run(5, step) == []


def test_a_backward_pass_for_something_else_before_the_tail_of_an_epoch_is_clean(tmp_path: Path) -> None:
    loop = Loop(tmp_path, accumulate=3)

    def step(number: int) -> None:
        loop.optimizer.zero_grad()
        loss_of(loop.model).backward()
        loss_of(loop.model).backward()
        loop.optimizer.zero_grad()
        for _ in range(3 if number % 4 else 1):
            (loss_of(loop.model) / 3).backward()
        loop.optimizer.step()

    assert loop.run(9, step) == []


def test_averages_put_back_behind_the_evaluation_and_sampling_dropouts_are_clean(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    loop = Loop(tmp_path, model=model)

    def step(number: int) -> None:
        loop.step(number)
        kept = copy.deepcopy(model.state_dict())
        with loop.log.evaluating(), torch.no_grad():
            model.eval()
            model[2].train()
            model[3].weight.mul_(0.5)
            model(torch.randn(4, 8))
        model.load_state_dict(kept)
        model.train()

    assert loop.run(4, step) == []


def test_a_sampler_of_ones_own_may_keep_its_order(tmp_path: Path) -> None:
    class Fixed(RandomSampler):
        def __iter__(self) -> Any:
            yield from torch.randperm(32, generator=torch.Generator().manual_seed(0)).tolist()

    data = TensorDataset(torch.randn(32, 8))
    loader = DataLoader(data, batch_size=8, sampler=Fixed(data))
    loop = Loop(tmp_path, watch=False)
    loop.log.watch(loop.model, loop.optimizer, loader=loader)

    def epoch(number: int) -> None:
        for (x,) in loader:
            loop.optimizer.zero_grad()
            loop.model(x).pow(2).mean().backward()
            loop.optimizer.step()
            loop.log.step()

    for number in range(3):
        epoch(number)
    assert [(one.rule, one.severity) for one in loop.judged()] == [("order_repeated", "warning")]  # a fact


def test_optimizers_of_a_second_stage_and_in_another_order_are_no_lost_state(tmp_path: Path) -> None:
    first, second = nn.Linear(8, 8), nn.Linear(8, 2)
    optimizers: list[Any] = [torch.optim.Adam(one.parameters(), lr=1e-3) for one in (first, second)]

    def train(log: RunLog) -> None:
        for _ in range(3):
            for optimizer in optimizers:
                optimizer.zero_grad()
            second(first(torch.randn(4, 8))).pow(2).mean().backward()
            for optimizer in optimizers:
                optimizer.step()
            log.step()
        log.checkpoint("c.pt")
        log.end()

    log = RunLog(tmp_path, control=False)
    log.watch([first, second], optimizers)
    train(log)
    optimizers.reverse()
    log = RunLog(tmp_path, control=False, resume=log.folder, step=3)
    log.watch([first, second], optimizers)
    train(log)
    optimizers = [SGD([*first.parameters(), *second.parameters()])]
    log = RunLog(tmp_path, control=False, resume=log.folder, step=6)
    log.watch([first, second], optimizers)
    train(log)
    assert silent(log.folder) == []


def test_an_optimizer_in_the_backward_pass_and_one_within_another_are_watched(tmp_path: Path) -> None:
    model = small()
    each = {p: torch.optim.SGD([p], lr=0.1, momentum=0.9) for p in model.parameters()}
    log = RunLog(tmp_path, control=False)
    log.watch(model, list(each.values()))

    def hook(parameter: Any) -> None:
        each[parameter].step()
        each[parameter].zero_grad()

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(hook)
    for _ in range(25):
        loss_of(model).backward()
        log.step()
    log.end()
    assert silent(log.folder) == []


class Slow(torch.optim.Optimizer):
    """An optimizer by its class alone, as Lookahead is written by hand: the base class's constructor is not called."""

    def __init__(self, base: Any) -> None:
        self.base, self.param_groups, self.state, self.defaults = base, base.param_groups, base.state, base.defaults

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.base.zero_grad(set_to_none)

    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        return self.base.step()


def test_a_wrapper_without_hooks_is_watched_by_what_it_holds(tmp_path: Path) -> None:
    loop = Loop(tmp_path, lambda parameters: Slow(torch.optim.AdamW(parameters, lr=1e-2)))
    assert loop.run(3) == []
    assert loop.log.history.watched[0].values["optimizers"][0]["name"] == "AdamW"


def test_an_optimizer_whose_step_was_replaced_is_not_said_to_rest(tmp_path: Path) -> None:
    loop = Loop(tmp_path, SGD)

    @torch.no_grad()
    def own() -> None:
        for parameter in loop.model.parameters():
            assert parameter.grad is not None
            parameter.sub_(0.01 * parameter.grad)

    loop.optimizer.step = own  # type: ignore[assignment, method-assign]
    assert rules(loop.run(6)) == set()


def test_zero_gradients_of_a_first_micro_batch_were_not_cleared(tmp_path: Path) -> None:
    class Adapted(nn.Module):
        """The gradient of `down` is zero as long as `up` is (LoRA)."""

        def __init__(self) -> None:
            super().__init__()
            self.base, self.down, self.up = nn.Linear(8, 8), nn.Linear(8, 2, bias=False), nn.Linear(2, 8, bias=False)
            self.base.requires_grad_(False)
            nn.init.zeros_(self.up.weight)

        def forward(self, x: Any) -> Any:
            return self.base(x) + self.up(self.down(x))

    loop = Loop(tmp_path, model=Adapted(), accumulate=2)

    def step(number: int) -> None:
        loop.optimizer.zero_grad(set_to_none=False)
        for _ in range(2):
            (loss_of(loop.model) / 2).backward()
        loop.optimizer.step()

    assert not [finding for finding in loop.run(3, step) if finding.severity == "error"]


@pytest.mark.parametrize("after", [3, 45])
def test_an_evaluation_between_two_micro_batches_does_not_make_the_first_ones_gradient_an_old_one(
    tmp_path: Path, after: int
) -> None:
    loop = Loop(tmp_path)

    def step(number: int) -> None:
        (loss_of(loop.model) / 2).backward()
        if number == after:
            loop.model.eval()
            with loop.log.evaluating(), torch.no_grad():
                loss_of(loop.model)
            loop.model.train()
        (loss_of(loop.model) / 2).backward()
        loop.optimizer.step()
        loop.optimizer.zero_grad()

    assert loop.run(after + 5, step) == []


@pytest.mark.parametrize("set_to_none", [True, False])
def test_micro_batches_of_a_step_that_was_left_out_are_not_those_of_the_next(tmp_path: Path, set_to_none: bool) -> None:
    loop = Loop(tmp_path)

    def step(number: int) -> None:
        for left_out in (True, False) if number == 4 else (False,):
            loop.optimizer.zero_grad(set_to_none=set_to_none)
            items = (6, 2) if left_out else (4, 4)
            for n in items:
                loss = loop.model(torch.randn(n, 8)).pow(2).mean()
                (loop.log.micro(loss, items=n) * (n / 8)).backward()
        loop.optimizer.step()

    assert loop.run(6, step) == []


@pytest.mark.parametrize("set_to_none", [True, False])
def test_a_closure_that_is_called_twice_makes_one_step_of_each_call(tmp_path: Path, set_to_none: bool) -> None:
    experts = nn.ModuleList([nn.Linear(8, 2), nn.Linear(8, 2), nn.Linear(8, 2)])
    loop = Loop(tmp_path, lambda p: torch.optim.LBFGS(p, max_iter=2), experts)
    turns = iter(range(100))

    def closure() -> Any:
        loop.optimizer.zero_grad(set_to_none=set_to_none)
        made = experts[next(turns) % 2](torch.ones(4, 8)) + 0 * experts[2](
            torch.ones(4, 8)
        )  # one whose gradient is zero
        loss = loop.log.micro(made.pow(2).mean(), items=4)
        loss.backward()
        return loss

    assert "microbatch_weights" not in rules(loop.run(4, lambda _: loop.optimizer.step(closure)))


def test_a_step_that_fails_and_the_tail_of_an_epoch_are_no_two_micro_batches(tmp_path: Path) -> None:
    loop = Loop(tmp_path, accumulate=2)

    def step(number: int) -> None:
        loop.optimizer.zero_grad()
        (loss_of(loop.model) / 2).backward()
        if number == 4:  # the second one is out of memory, the next step is the last of an epoch and has but one
            loop.optimizer.zero_grad()
            (loss_of(loop.model) / 2).backward()
        else:
            (loss_of(loop.model) / 2).backward()
        loop.optimizer.step()

    assert loop.run(8, step) == []


def test_what_a_second_call_of_watch_declares_is_so_of_its_own_optimizer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    one, other = small(), small()
    first, second = torch.optim.AdamW(one.parameters(), weight_decay=0.3), torch.optim.AdamW(other.parameters())
    log = RunLog(tmp_path, optimizer=first, control=False)
    log.watch(one, first, clip=0.1, accumulate=2, scheduled={"weight_decay": lambda *_: 0.3})
    log.watch(other, second)
    for _ in range(4):
        first.zero_grad()
        second.zero_grad()
        for _ in range(2):
            (loss_of(one) * 10).backward()
        nn.utils.clip_grad_norm_(one.parameters(), 0.1)
        (loss_of(other) * 10).backward()
        first.step()
        second.step()
        log.step()
    log.end()
    assert silent(log.folder) == []


def test_a_clip_that_an_earlier_call_of_watch_declared_is_still_held_against_its_optimizer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    one, other = small(), small()
    first, second = SGD(one.parameters()), SGD(other.parameters())
    log = RunLog(tmp_path, optimizer=first, control=False)
    log.watch(one, first, clip=0.1)
    log.watch(other, second)
    for _ in range(2):
        for model, optimizer in ((one, first), (other, second)):
            optimizer.zero_grad()
            (loss_of(model) * 50).backward()
            optimizer.step()
        log.step()
    log.end()
    found = silent(log.folder)
    assert rules(found) == {"clip_missing"} and "optimizer 0" in found[0].message


def test_a_state_that_torch_loads_in_another_type_is_no_other_state(tmp_path: Path) -> None:
    def make(parameters: Any) -> Any:
        return torch.optim.ASGD(parameters, lr=0.01)

    first = Loop(tmp_path, make, small().double())

    def step(loop: Loop) -> None:
        loop.optimizer.zero_grad()
        loop.model(torch.randn(4, 8).double()).pow(2).mean().backward()
        loop.optimizer.step()
        loop.log.step()

    step(first)
    torch.save(first.model.state_dict(), tmp_path / "c.pt")
    first.log.checkpoint(tmp_path / "c.pt")
    first.log.end("stopped")
    again = Loop(tmp_path, make, small().double(), watch=False, resume=first.log.folder, step=1)
    again.model.load_state_dict(first.model.state_dict())
    again.optimizer.load_state_dict(first.optimizer.state_dict())
    again.log.watch(again.model, again.optimizer)
    step(again)
    assert again.judged() == []


def test_an_optimizer_in_whose_place_another_steps_is_no_missing_step(tmp_path: Path) -> None:
    class Around(torch.optim.Optimizer):
        """Steps by an optimizer inside, as sharpness-aware minimisation does; its own step() is never called."""

        def __init__(self, parameters: Any) -> None:
            super().__init__(parameters, {"lr": 0.1})
            self.inner = torch.optim.SGD(self.param_groups, lr=0.1)

    def judged(loop: Loop, optimizer: Any) -> list[tuple[str, str]]:
        def step(number: int) -> None:
            optimizer.zero_grad()
            loop.backward()
            optimizer.step()

        return [(f.rule, f.severity) for f in loop.run(30, step)]

    wrapped = Loop(tmp_path / "inside", Around)
    assert judged(wrapped, wrapped.optimizer.inner) == []  # type: ignore[attr-defined]
    beside = Loop(tmp_path / "beside", SGD)
    other = torch.optim.SGD(beside.model.parameters(), lr=0.1)
    assert judged(beside, other) == [("step_not_taken", "warning")]


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_weights_that_go_to_their_average_and_back_for_an_evaluation_are_not_changed_by_it(
    tmp_path: Path, kind: torch.dtype
) -> None:
    """As schedule-free optimizers do: the way back rounds."""
    loop = Loop(tmp_path, SGD, small().to(kind))
    averages = [torch.randn_like(parameter) * 0.1 for parameter in loop.model.parameters()]

    def step(number: int) -> None:
        loop.optimizer.zero_grad()
        loop.model(torch.randn(4, 8, dtype=kind)).float().pow(2).mean().backward()
        loop.optimizer.step()
        if number != 3:
            return
        before = [parameter.detach().clone() for parameter in loop.model.parameters()]
        loop.model.eval()
        with loop.log.evaluating(), torch.no_grad():
            for parameter, average in zip(loop.model.parameters(), averages):
                parameter.lerp_(average, 1 - 1 / 0.9)
            loop.model(torch.randn(4, 8, dtype=kind))
        loop.model.train()
        with torch.no_grad():
            for parameter, average in zip(loop.model.parameters(), averages):
                parameter.lerp_(average, 1 - 0.9)
        assert any(not torch.equal(a, b) for a, b in zip(before, loop.model.parameters()))

    assert loop.run(6, step) == []


@pytest.mark.parametrize(
    "part", [nn.InstanceNorm1d(4), nn.BatchNorm1d(4, track_running_stats=False), nn.Dropout(0.0)], ids=repr
)
def test_a_layer_that_has_no_modes_is_evaluated_in_either(tmp_path: Path, part: nn.Module) -> None:
    model = nn.Sequential(
        nn.Unflatten(1, (1, 8)), nn.Conv1d(1, 4, 3), copy.deepcopy(part), nn.Flatten(), nn.Linear(24, 2)
    )
    loop = Loop(tmp_path, SGD, model)

    def step(number: int) -> None:
        loop.step(number)
        with loop.log.evaluating(), torch.no_grad():
            loss_of(model)

    assert loop.run(3, step) == []


def test_nothing_is_claimed_of_weights_that_processes_share(tmp_path: Path) -> None:
    loop = Loop(tmp_path, SGD, small().share_memory())
    assert loop.run(3) == []
    run = open_run(loop.log.folder, None, None)
    remarks = run.read_to_end().watched
    run.close()
    assert any("4 in memory that processes share" in remark for remark in remarks)


@pytest.mark.parametrize("declared", [True, False])
def test_an_average_that_moves_at_skipped_steps_too_is_clean(tmp_path: Path, declared: bool) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=3)
    loop = Loop(tmp_path, **({"scaler": scaler} if declared else {}))
    average = copy.deepcopy(loop.model)
    loop.log.ema(average, 0.9)

    def step(number: int) -> None:
        loop.optimizer.zero_grad()
        scaler.scale(loss_of(loop.model) * 1e6).backward()
        scaler.step(loop.optimizer)
        scaler.update()
        with torch.no_grad():
            for a, p in zip(average.parameters(), loop.model.parameters()):
                a.mul_(0.9).add_(p, alpha=0.1)

    assert loop.run(40, step) == []
