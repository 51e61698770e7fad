"""What the watcher proves of an optimizer step: each fault in a real loop, and the healthy loop beside it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from eegwatch import RunLog
from eegwatch.check import open_run
from tests.unit.watching.loops import Loop, rules, silent, since, small

ADAM = sys.modules["torch.optim.adam"]  # torch.optim hides the module behind the class
of_one_kernel = pytest.mark.skipif(
    not issubclass(torch.optim.AdamW, torch.optim.Adam), reason="before torch 2.7 AdamW has a kernel of its own"
)
OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.1, weight_decay=0.01),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, maximize=True),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-2, weight_decay=0.1, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1),
    "foreach": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1, foreach=True, maximize=True),
    "fused": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1, fused=True, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-2, momentum=0.9, centered=True),
    "rprop": lambda p: torch.optim.Rprop(p, lr=1e-2),
    "tensor rate": lambda p: torch.optim.Adam(p, lr=torch.tensor(1e-2)),
    "fused sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, fused=True, nesterov=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_right_step_is_found_right_in_every_form_of_the_optimizers(tmp_path: Path, name: str) -> None:
    loop = Loop(tmp_path, OPTIMIZERS[name])
    assert loop.run(25) == []
    looked = [r.values for r in loop.log.history.watched if r.look == "step"]
    assert len(looked) >= 20 and all(values["looked"] == 4 for values in looked)


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16, torch.float16])
def test_other_types_of_numbers_are_within_their_bound(tmp_path: Path, kind: torch.dtype) -> None:
    loop = Loop(tmp_path, OPTIMIZERS["adamw"], small().to(kind), watch=False)
    loop.log.watch(loop.model, loop.optimizer)

    def step(number: int) -> None:
        loop.optimizer.zero_grad()
        loop.model(torch.randn(4, 8, dtype=kind)).float().pow(2).mean().backward()
        loop.optimizer.step()

    assert loop.run(22, step) == []


def test_gradients_that_are_not_cleared_are_found_at_the_second_step(tmp_path: Path) -> None:
    loop = Loop(tmp_path)

    def step(number: int) -> None:
        loop.backward()
        loop.optimizer.step()

    found = loop.run(4, step)
    assert rules(found) == {"gradients_not_cleared"} and since(found, "gradients_not_cleared") == 2
    assert "zero_grad" in found[0].remedy


def test_accumulated_and_zeroed_gradients_are_clean(tmp_path: Path) -> None:
    loop = Loop(tmp_path, accumulate=3)

    def step(number: int) -> None:
        loop.optimizer.zero_grad(set_to_none=number % 2 == 0)
        for _ in range(3 if number % 5 else 2):
            loop.backward()
        loop.optimizer.step()

    assert loop.run(12, step) == []


def test_micro_batches_that_are_cleared_each_time_are_found(tmp_path: Path) -> None:
    loop = Loop(tmp_path, accumulate=3)

    def step(number: int) -> None:
        for _ in range(3):
            loop.optimizer.zero_grad()
            loop.backward()
        loop.optimizer.step()

    found = loop.run(3, step)
    assert rules(found) == {"micro_gradients_dropped"} and since(found, "micro_gradients_dropped") == 1


def test_a_gradient_that_is_applied_twice_is_found(tmp_path: Path) -> None:
    loop = Loop(tmp_path)

    def step(number: int) -> None:
        loop.step(number)
        if number > 2:
            loop.optimizer.step()

    found = loop.run(4, step)
    assert rules(found) == {"gradient_applied_twice"} and since(found, "gradient_applied_twice") == 3


def test_gradients_cleared_between_backward_and_step_are_found(tmp_path: Path) -> None:
    loop = Loop(tmp_path)

    def step(number: int) -> None:
        loop.backward()
        loop.optimizer.zero_grad()
        loop.optimizer.step()

    assert "micro_gradients_dropped" in rules(loop.run(2, step))


def test_a_gan_whose_losses_reach_each_others_tensors_is_clean(tmp_path: Path) -> None:
    torch.manual_seed(0)
    makes, judges = nn.Linear(3, 8), nn.Linear(8, 1)
    first, second = torch.optim.Adam(makes.parameters(), 1e-3), torch.optim.Adam(judges.parameters(), 1e-3)
    log = RunLog(tmp_path, optimizer=first, control=False)
    log.watch([makes, judges], [first, second])
    for _ in range(6):
        second.zero_grad()
        (judges(torch.randn(4, 8)).mean() - judges(makes(torch.randn(4, 3))).mean()).backward()
        second.step()
        first.zero_grad()
        judges(makes(torch.randn(4, 3))).mean().backward()
        first.step()
        log.step()
    log.end()
    assert silent(log.folder) == []


class Halving(torch.optim.AdamW):
    """An optimizer that is not torch's own: nothing is claimed of its update."""

    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.mul_(0.5)


def test_nothing_is_claimed_of_an_update_whose_formula_is_not_known(tmp_path: Path) -> None:
    loop = Loop(tmp_path, lambda p: Halving(p, lr=1e-2))
    assert loop.run(3) == []
    assert loop.log.history.watched[1].values["formula"] == "Halving: not known"


@of_one_kernel
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lr": 1.001e-2}, "at a rate of 0.01001, not 0.01"),
        ({"weight_decay": 0.0}, "without its weight decay"),
        ({"maximize": True}, "with the sign of the gradient turned"),
    ],
)
def test_a_kernel_that_does_not_do_what_the_group_says_is_found_with_what_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], words: str
) -> None:
    own = ADAM.adam
    monkeypatch.setattr(ADAM, "adam", lambda *given, **named: own(*given, **(named | change)))
    found = Loop(tmp_path).run(2)
    assert rules(found) == {"update_differs"} and since(found, "update_differs") == 1
    assert words in found[0].message


@of_one_kernel
def test_a_kernel_that_leaves_tensors_out_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = ADAM.adam
    short = lambda *given, **named: own(*[one[1:] for one in given[:6]], **named)  # noqa: E731
    monkeypatch.setattr(ADAM, "adam", short)
    found = Loop(tmp_path).run(2)
    assert rules(found) == {"update_lost"} and "0.weight" in found[0].message


def test_hooks_of_the_user_that_change_the_step_are_no_fault_of_it(tmp_path: Path) -> None:
    loop = Loop(tmp_path, watch=False)

    def clamp(optimizer: Any, args: Any, kwargs: Any) -> None:
        with torch.no_grad():
            for parameter in loop.model.parameters():
                parameter.clamp_(-0.1, 0.1)

    def slower(optimizer: Any, args: Any, kwargs: Any) -> None:
        optimizer.param_groups[0]["lr"] = 1e-3

    loop.optimizer.register_step_post_hook(clamp)
    loop.log.watch(loop.model, loop.optimizer)
    loop.optimizer.register_step_pre_hook(slower)  # behind ours: no claim until the hooks are put last again
    assert loop.run(5) == []


def test_a_frozen_tensor_that_momentum_goes_on_moving_is_found(tmp_path: Path) -> None:
    loop = Loop(tmp_path, OPTIMIZERS["momentum"])

    def step(number: int) -> None:
        loop.optimizer.zero_grad(set_to_none=False)
        if number == 3:
            loop.model[0].requires_grad_(False)  # type: ignore[index]
        loop.backward()
        loop.optimizer.step()

    found = loop.run(4, step)
    assert rules(found) == {"frozen_moves"} and since(found, "frozen_moves") == 3


def test_what_is_declared_frozen_stays_or_is_found(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    model[:2].requires_grad_(False)
    found = Loop(tmp_path, model=model, frozen=["0", "1"]).run(2)
    assert rules(found) == {"frozen_changed", "frozen_batchnorm_moves"} and since(found, "frozen_changed") == 2
    model[1].eval()
    assert Loop(tmp_path, model=model, frozen=[model[0], model[1]]).run(2) == []


def test_any_scheduled_value_of_any_group_is_held_against_its_schedule(tmp_path: Path) -> None:
    model = small()
    groups = [{"params": [model[0].weight]}, {"params": [model[2].weight], "weight_decay": 0.0}]  # type: ignore[index, union-attr]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, weight_decay=0.1)
    log = RunLog(tmp_path, optimizer=optimizer, control=False)
    decay = lambda step, group: 0.0 if group else 0.1 + 0.01 * step  # noqa: E731
    log.watch(model, optimizer, scheduled={"weight_decay": decay, "beta1": lambda _: 0.9})
    for step in range(1, 6):
        optimizer.param_groups[0]["weight_decay"] = 0.1 + 0.01 * step
        if step == 4:
            optimizer.param_groups[1]["weight_decay"] = 0.1
        optimizer.zero_grad()
        model(torch.randn(4, 8)).mean().backward()
        optimizer.step()
        log.step()
    log.end()
    found = silent(log.folder)
    assert {"off_schedule"} <= rules(found) and since(found, "off_schedule") == 4
    assert "weight_decay of group 1 is 0.1 at step 4, its schedule says 0" in found[0].message


@pytest.mark.parametrize("order", ["before", "after"])
def test_an_optimizer_that_is_built_anew_in_the_loop_is_found(tmp_path: Path, order: str) -> None:
    loop = Loop(tmp_path)

    def step(number: int) -> None:
        other = torch.optim.AdamW(loop.model.parameters())
        other.zero_grad()
        loop.backward()
        other.step()

    assert "step_not_taken" in rules(loop.run(5, step))


def test_steps_that_a_scaler_skips_are_no_missing_steps(tmp_path: Path) -> None:
    loop = Loop(tmp_path)

    def step(number: int) -> None:
        loop.optimizer.zero_grad()
        loop.backward()
        if number < 9:
            loop.model[0].weight.grad.fill_(torch.inf)  # type: ignore[index, union-attr, operator]
        else:
            loop.optimizer.step()

    assert loop.run(12, step) == []


def test_an_optimizer_that_holds_the_tensors_of_another_copy_is_found(tmp_path: Path) -> None:
    old, model = small(), small()
    optimizer = torch.optim.AdamW(old.parameters())
    log = RunLog(tmp_path, optimizer=optimizer, control=False)
    log.watch(model, optimizer)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(4, 8)).mean().backward()
        optimizer.step()
        log.step()
    log.end()
    assert rules(silent(log.folder)) == {"optimizer_holds_strangers", "not_in_optimizer", "no_gradient"}


def test_facts_are_warnings_and_are_not_held_against_a_run_once_they_are_over(tmp_path: Path) -> None:
    loop = Loop(tmp_path)

    def step(number: int) -> None:
        if number == 2:
            loop.model.eval()
        if number == 4:
            loop.model.train()
        loop.step(number)

    found = loop.run(5, step)
    assert [(f.rule, f.severity, f.since_step, f.until_step) for f in found] == [("train_mode_lost", "warning", 2, 4)]
    assert not open_run(loop.log.folder, None, None).read_to_end().wrong


def test_clips_are_held_against_the_norm_that_the_step_used(tmp_path: Path) -> None:
    def stepper(loop: Loop, scale: float, clip: bool) -> Any:
        def step(number: int) -> None:
            loop.optimizer.zero_grad()
            (loop.model(torch.randn(4, 8)).pow(2).mean() * scale).backward()
            if clip:
                nn.utils.clip_grad_norm_(loop.model.parameters(), 0.1)

            loop.optimizer.step()

        return step

    loop = Loop(tmp_path, clip=0.1)
    assert loop.run(3, stepper(loop, 100.0, True)) == []
    loop = Loop(tmp_path, clip=0.1)
    assert rules(loop.run(3, stepper(loop, 100.0, False))) == {"clip_missing"}


def test_a_clip_of_scaled_gradients_is_found(tmp_path: Path) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    loop = Loop(tmp_path, OPTIMIZERS["sgd"], clip=0.1, scaler=scaler)

    def step(number: int) -> None:
        loop.optimizer.zero_grad()
        scaler.scale(loop.model(torch.randn(4, 8)).pow(2).mean() * 10).backward()
        nn.utils.clip_grad_norm_(loop.model.parameters(), 0.1)
        scaler.step(loop.optimizer)
        scaler.update()

    assert rules(loop.run(3, step)) == {"clip_before_unscale"}


def test_check_says_what_the_watcher_did_and_what_it_did_not_read(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    loop.run(3)
    outcome = open_run(loop.log.folder, None, None).read_to_end()
    assert any("the watcher looked at 3 of 3 steps" in line for line in outcome.covered())
    assert {"update_differs", "gradients_not_cleared", "step_not_taken"} <= set(outcome.checked)
    assert {"rule": "clip_missing", "why": "no clip= is declared to log.watch()"} in outcome.skipped


def test_check_and_the_log_say_what_watching_costs(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    for number in range(600):
        loop.step(number)
        loop.log.step()
        if number == 500:
            loop.log.eval(loss=1.0)  # the next step is looked at, whatever the interval
    while_it_runs = [r.values for r in loop.log.history.watched if r.look == "cost"]
    loop.judged()
    outcome = open_run(loop.log.folder, None, None).read_to_end()
    cost = outcome.as_dict()["watcher"]
    assert while_it_runs and 0 < while_it_runs[0]["share"] < 1
    assert cost["steps"] == 600 and 20 < cost["looks"] < 100 and 0 < cost["per_1000"] <= 110
    assert any("% of a step's time" in line and "looks per 1,000 steps" in line for line in outcome.covered())


def test_micro_batches_that_are_logged_cost_a_look_at_the_first_of_them_alone(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    for number in range(1, 81):
        loop.backward()
        if number % 4 == 0:
            loop.optimizer.step()
            loop.optimizer.zero_grad()
        loop.log.step()
    assert loop.judged() == []
    records = [r.step for r in loop.log.history.watched if r.look == "calls"]
    assert records and max(records) <= 8

    loop = Loop(tmp_path / "stops")
    for number in range(1, 81):
        loop.optimizer.zero_grad()
        loop.backward()
        if number % 4 == 0 and number < 40:
            loop.optimizer.step()
        loop.log.step()
    assert "step_not_taken" in rules(loop.judged())


def test_a_group_that_is_added_before_a_step_is_held_at_that_step(tmp_path: Path) -> None:
    loop = Loop(tmp_path, lambda parameters: torch.optim.SGD(list(parameters)[:2], lr=0.1), watch=False)
    later = loop.model[2]  # type: ignore[index]
    later.requires_grad_(False)
    loop.log.watch(loop.model, loop.optimizer)

    def step(number: int) -> None:
        if number == 3:
            later.requires_grad_(True)
            loop.optimizer.add_param_group({"params": list(later.parameters())})
        loop.step(number)

    assert loop.run(5, step) == []


def test_experts_that_have_their_turn_later_are_no_fact(tmp_path: Path) -> None:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.all, self.turn, self.out = nn.ModuleList(nn.Linear(8, 8) for _ in range(3)), 0, nn.Linear(8, 2)
            self.mix = nn.Linear(8, 8)

        def forward(self, x: Any) -> Any:
            self.turn += 1
            return self.out(self.all[self.turn % 2](self.mix(x)))

    torch.manual_seed(0)
    assert Loop(tmp_path, model=Experts()).run(5) == []
    found = Loop(tmp_path, model=Experts()).run(25)  # the third is never used
    assert rules(found) == {"no_gradient"} and since(found, "no_gradient") == 20


def test_gradients_that_are_asked_for_and_not_added_are_no_backward_pass(tmp_path: Path) -> None:
    loop = Loop(tmp_path)

    def step(number: int) -> None:
        loss = loop.model(torch.randn(4, 8)).pow(2).mean()
        gradients = torch.autograd.grad(loss, list(loop.model.parameters()))
        for parameter, gradient in zip(loop.model.parameters(), gradients):
            parameter.grad = gradient
        loop.optimizer.step()

    assert loop.run(4, step) == []


def test_a_part_that_stays_in_evaluation_mode_is_a_fact(tmp_path: Path) -> None:
    loop = Loop(tmp_path, model=nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.1)), nn.Linear(8, 2)))

    def step(number: int) -> None:
        if number == 3:
            loop.model[0].eval()  # type: ignore[index]
        loop.step(number)

    found = loop.run(4, step)
    assert rules(found) == {"train_mode_lost"} and "0" in found[0].message


def test_an_optimizer_that_takes_the_watched_ones_place_is_found(tmp_path: Path) -> None:
    loop = Loop(tmp_path)

    def step(number: int) -> None:
        if number == 9:
            loop.optimizer = torch.optim.AdamW(loop.model.parameters(), lr=1e-2)
        loop.step(number)

    found = loop.run(14, step)
    assert rules(found) == {"step_not_taken"} and found[0].step <= 12


def test_a_frozen_tensor_that_an_optimizer_of_any_class_moves_is_found(tmp_path: Path) -> None:
    class Decaying(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:  # type: ignore[override]
            for parameter in self.param_groups[0]["params"]:
                parameter.data.mul_(0.9)  # whether it has a gradient or not

    loop = Loop(tmp_path, lambda parameters: Decaying(parameters, lr=0.1))
    loop.model[0].requires_grad_(False)  # type: ignore[index]
    assert rules(loop.run(2)) == {"frozen_moves"}
