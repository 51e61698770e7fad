"""Facts of a training step and of its optimizer's groups: each in a real loop, and healthy loops that look like it."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from eegwatch import RunLog
from eegwatch.diagnosis.findings import Finding
from tests.unit.watching.loops import Loop, rules, silent, small


def told(found: list[Finding]) -> set[tuple[str, str]]:
    return {(finding.rule, finding.severity) for finding in found}


# ---- gradients that are cleared unused ----


def inner_passes(folder: Path, between: Callable[[Loop], Any], *, by_input: bool = False) -> set[tuple[str, str]]:
    """Two backward passes a step; `between` stands between them."""
    loop = Loop(folder)

    def step(number: int) -> None:
        loop.optimizer.zero_grad()
        x = torch.randn(4, 8, requires_grad=by_input)
        loop.model(x).pow(2).mean().backward()
        between(loop)
        loop.backward()
        loop.optimizer.step()

    return told(loop.run(5, step))


def test_gradients_that_are_cleared_unused_step_after_step_are_a_fact(tmp_path: Path) -> None:
    found = inner_passes(tmp_path, lambda loop: loop.optimizer.zero_grad())
    assert found == {("micro_gradients_dropped", "warning")}


def perturbed(loop: Loop) -> None:
    loop.optimizer.zero_grad()
    with torch.no_grad():
        for parameter in loop.model.parameters():
            parameter.add_(0.01)


@pytest.mark.parametrize(
    ("between", "by_input"),
    [(id, False), (perturbed, False), (lambda loop: loop.optimizer.zero_grad(), True)],
    ids=["added up", "weights moved between", "for the gradient of the input"],
)
def test_passes_whose_gradients_are_meant_to_go_are_clean(tmp_path: Path, between: Any, by_input: bool) -> None:
    assert inner_passes(tmp_path, between, by_input=by_input) == set()


def test_gradients_that_are_kept_by_hand_and_put_back_are_clean(tmp_path: Path) -> None:
    loop = Loop(tmp_path)

    def step(number: int) -> None:
        total = [torch.zeros_like(p) for p in loop.model.parameters()]
        for _ in range(3):
            loop.optimizer.zero_grad()
            loop.backward()
            for one, parameter in zip(total, loop.model.parameters()):
                one += parameter.grad
        for one, parameter in zip(total, loop.model.parameters()):
            parameter.grad = one
        loop.optimizer.step()

    assert loop.run(5, step) == []


# ---- gradients of another optimizer's pass ----


def gan(folder: Path, *, clears: bool, shares: bool = False) -> set[tuple[str, str]]:
    """`shares`: the second optimizer is to learn from both passes, the second of which reaches the first's too."""
    torch.manual_seed(0)
    maker, critic = nn.Linear(3, 8), nn.Linear(8, 1)
    of_maker, of_critic = (torch.optim.Adam(one.parameters(), lr=1e-3) for one in (maker, critic))
    log = RunLog(folder, control=False)
    log.watch([maker, critic], [of_maker, of_critic])
    for _ in range(24):
        critic(maker(torch.randn(4, 3))).mean().backward()
        of_maker.step()
        of_maker.zero_grad()
        if clears:
            of_critic.zero_grad()
        made = maker(torch.randn(4, 3))
        (critic(made if shares else made.detach()).mean() - critic(torch.randn(4, 8)).mean()).backward()
        of_critic.step()
        of_critic.zero_grad()
        of_maker.zero_grad()
        log.step()
    log.end()
    return told(silent(log.folder))


def test_a_gradient_that_another_optimizers_pass_left_is_a_fact(tmp_path: Path) -> None:
    assert gan(tmp_path / "kept", clears=False) == {("gradients_not_cleared", "warning")}
    assert gan(tmp_path / "cleared", clears=True) == set()
    assert gan(tmp_path / "both", clears=False, shares=True) == set()


@pytest.mark.parametrize(("clears", "found"), [(False, set()), (True, {("micro_gradients_dropped", "warning")})])
def test_one_of_two_passes_of_a_critic_that_is_cleared_is_a_fact(
    tmp_path: Path, clears: bool, found: set[tuple[str, str]]
) -> None:
    torch.manual_seed(0)
    maker, critic = nn.Linear(3, 8), nn.Linear(8, 1)
    of_maker, of_critic = (torch.optim.Adam(one.parameters(), lr=1e-3) for one in (maker, critic))
    log = RunLog(tmp_path, control=False)
    log.watch([maker, critic], [of_maker, of_critic])
    for _ in range(8):
        critic.zero_grad()
        critic(torch.randn(4, 8)).mean().neg().backward()
        if clears:
            critic.zero_grad()
        made = maker(torch.randn(4, 3))
        critic(made.detach()).mean().backward()
        of_critic.step()
        maker.zero_grad()
        critic(made).mean().neg().backward()
        of_maker.step()
        log.step()
    log.end()
    assert told(silent(log.folder)) == found


# ---- windows of micro-batches ----


def windows(folder: Path, lengths: list[int], accumulate: int = 3) -> set[str]:
    loop = Loop(folder, accumulate=accumulate)

    def step(number: int) -> None:
        loop.optimizer.zero_grad()
        for _ in range(lengths[(number - 1) % len(lengths)]):
            loop.backward()
        loop.optimizer.step()

    return rules(loop.run(12, step))


@pytest.mark.parametrize("lengths", [[2], [1], [4], [2, 1]])
def test_steps_that_never_hold_the_declared_number_of_micro_batches_are_a_fact(
    tmp_path: Path, lengths: list[int]
) -> None:
    assert windows(tmp_path, lengths) == {"accumulation_differs"}


@pytest.mark.parametrize("lengths", [[3], [3, 3, 1], [3, 1], [3, 2, 2]])
def test_short_windows_between_full_ones_are_the_ends_of_epochs(tmp_path: Path, lengths: list[int]) -> None:
    assert windows(tmp_path, lengths) == set()


def test_windows_that_are_thrown_away_now_and_then_are_a_fact(tmp_path: Path) -> None:
    loop = Loop(tmp_path, accumulate=3)

    def step(number: int) -> None:
        for micro in range(3):
            if micro == 1 and number in (3, 6, 9):
                loop.optimizer.zero_grad()
            loop.backward()
        loop.optimizer.step()
        loop.optimizer.zero_grad()

    found = loop.run(10, step)
    assert told(found) == {("micro_gradients_dropped", "warning")} and found[0].since_step == 6


def weighed(folder: Path, divisor: Callable[[int], float], items: Callable[[int], int] = lambda _: 4) -> set[str]:
    """Windows of four micro-batches and one of two; `divisor` of a window's length, `items` of a micro-batch."""
    loop, count = Loop(folder), 0

    def step(number: int) -> None:
        nonlocal count
        length = 2 if number % 3 == 0 else 4
        loop.optimizer.zero_grad()
        for part in range(length):
            loss = loop.log.micro(loop.model(torch.randn(items(part), 8)).pow(2).mean(), items=items(part))
            (loss / divisor(length)).backward()
        loop.optimizer.step()

    return rules(loop.run(6, step))


def test_a_short_window_that_is_divided_by_the_length_of_a_full_one_is_a_fact(tmp_path: Path) -> None:
    assert weighed(tmp_path / "full", lambda _: 4) == {"microbatch_weights"}
    assert weighed(tmp_path / "own", lambda length: length) == set()
    assert weighed(tmp_path / "half", lambda _: 8) == set()


# ---- what an optimizer holds ----


def held(folder: Path, *, steps: int = 3, declare: bool = False, change: Callable[[nn.Module, int], Any] | None = None,
         frozen: int = 2) -> set[str]:  # fmt: skip
    """Three layers, the first `frozen` of them frozen in the constructor, all held by the optimizer."""
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2))
    model[:frozen].requires_grad_(False)
    loop = Loop(folder, model=model, **({"frozen": ["0", "1"]} if declare else {}))

    def step(number: int) -> None:
        if change is not None:
            change(model, number)
        loop.step(number)

    return {f.rule for f in loop.run(steps, step) if f.severity != "resolved"}


def unfreezing(model: nn.Module, number: int) -> None:
    if number == 10:
        model.requires_grad_(True)


def averaging(model: nn.Module, number: int) -> None:
    with torch.no_grad():
        for layer in model[:2]:  # type: ignore[index]
            for parameter in layer.parameters():
                parameter.mul_(0.99)


def test_an_optimizer_that_holds_frozen_tensors_beside_others_is_a_fact(tmp_path: Path) -> None:
    assert held(tmp_path / "most") == {"no_gradient"}
    assert held(tmp_path / "declared", declare=True) == set()
    assert held(tmp_path / "one early", frozen=1) == set()
    assert held(tmp_path / "one", frozen=1, steps=20) == {"no_gradient"}
    assert held(tmp_path / "average", change=averaging) == set()


def test_tensors_that_are_unfrozen_in_time_are_no_fact_any_more(tmp_path: Path) -> None:
    loop_rules = held(tmp_path / "one", frozen=1, steps=24, change=unfreezing)
    assert loop_rules == set()


def grouped(folder: Path, groups: Callable[[nn.Module], list[dict[str, Any]]], **watch: Any) -> set[str]:
    model = small()
    loop = Loop(folder, lambda _: torch.optim.AdamW(groups(model), lr=1e-3), model, **watch)
    return rules(loop.run(2))


def test_an_empty_group_whose_tensors_are_in_another_is_a_fact(tmp_path: Path) -> None:
    def matrices(model: nn.Module) -> list[Any]:
        return [p for p in model.parameters() if p.ndim > 1]

    def vectors(model: nn.Module) -> list[Any]:
        return [p for p in model.parameters() if p.ndim < 2]

    bare = {"params": [], "weight_decay": 0.0}
    assert grouped(tmp_path / "a", lambda m: [{"params": m.parameters()}, bare]) == {"empty_group"}
    assert grouped(tmp_path / "b", lambda m: [{"params": [*m.parameters()]}, bare | {"weight_decay": 0.01}]) == set()
    assert grouped(tmp_path / "c", lambda m: [{"params": matrices(m)}, bare | {"params": vectors(m)}]) == set()
    assert grouped(tmp_path / "d", lambda m: [{"params": m.parameters()}, {"params": [], "lr": 1e-5}]) == {
        "empty_group"
    }
    decay = {"weight_decay": lambda _, group: (0.01, 0.0)[group]}
    found = grouped(tmp_path / "e", lambda m: [{"params": m.parameters()}, bare], scheduled=decay)
    assert found == {"off_schedule"}


def test_an_empty_group_for_what_is_frozen_or_not_there_is_clean(tmp_path: Path) -> None:
    adapter = nn.Sequential(nn.Linear(8, 4, bias=False), nn.Linear(4, 2, bias=False))
    groups = [{"params": adapter.parameters()}, {"params": [], "weight_decay": 0.0}]
    assert Loop(tmp_path / "a", lambda _: torch.optim.AdamW(groups, lr=1e-3), adapter).run(2) == []
    model = small()
    model[0].requires_grad_(False)  # type: ignore[index]
    groups = [{"params": model[2].parameters()}, {"params": [], "lr": 1e-5}]  # type: ignore[index]
    assert Loop(tmp_path / "b", lambda _: torch.optim.AdamW(groups, lr=1e-3), model).run(2) == []


# ---- closures ----


@pytest.mark.parametrize("moves", [lambda p: p, lambda p: p.data], ids=["in place", "past autograd"])
def test_a_closure_that_moves_the_weights_and_puts_them_back_is_clean(tmp_path: Path, moves: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1e-2)
    loop = Loop(tmp_path, lambda p: torch.optim.SGD(p, lr=1e-4), model)

    def step(number: int) -> None:
        x = torch.randn(16, 8)

        def closure() -> Any:
            loop.optimizer.zero_grad()
            model(x).pow(2).mean().backward()
            with torch.no_grad():
                moved = [0.05 * p.grad.sign() for p in model.parameters()]  # type: ignore[union-attr]
                for p, by in zip(model.parameters(), moved):
                    moves(p).add_(by)
            loop.optimizer.zero_grad()
            loss = model(x).pow(2).mean()
            loss.backward()
            with torch.no_grad():
                for p, by in zip(model.parameters(), moved):
                    moves(p).sub_(by)
            return loss

        loop.optimizer.step(closure)

    assert loop.run(8, step) == []


def test_a_wrong_update_is_found_behind_a_closure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["torch.optim.sgd"]
    own = module.sgd  # type: ignore[attr-defined]
    monkeypatch.setattr(module, "sgd", lambda *given, **named: own(*given, **(named | {"lr": 2e-2})))
    loop = Loop(tmp_path, lambda p: torch.optim.SGD(p, lr=1e-2))

    def step(number: int) -> None:
        def closure() -> Any:
            loop.optimizer.zero_grad()
            return loop.backward()

        loop.optimizer.step(closure)

    assert rules(loop.run(3, step)) == {"update_differs"}


# ---- forward passes ----


class Listed(nn.Module):
    """Keeps its layers in a list, or as it should."""

    def __init__(self, *, hidden: bool) -> None:
        super().__init__()
        layers = [nn.Linear(8, 8), nn.Linear(8, 8)]
        self.layers: Any = layers if hidden else nn.ModuleList(layers)
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> Any:
        for layer in self.layers:
            x = layer(x).relu()
        return self.head(x)


def test_layers_that_no_model_has_registered_are_a_fact(tmp_path: Path) -> None:
    found = Loop(tmp_path / "hidden", model=Listed(hidden=True)).run(2)
    assert told(found) == {("not_in_optimizer", "warning")} and "a tensor of shape (8, 8)" in found[0].message
    assert Loop(tmp_path / "listed", model=Listed(hidden=False)).run(2) == []


def test_parameters_that_another_model_has_put_into_the_input_are_not_this_models(tmp_path: Path) -> None:
    before = nn.Linear(8, 8)
    loop = Loop(tmp_path)

    def step(number: int) -> None:
        loop.optimizer.zero_grad()
        loop.model(before(torch.randn(4, 8)).relu()).pow(2).mean().backward()
        loop.optimizer.step()

    assert loop.run(3, step) == []


def test_hidden_layers_that_an_optimizer_holds_are_no_fact(tmp_path: Path) -> None:
    model = Listed(hidden=True)
    every = [*model.parameters(), *(p for layer in model.layers for p in layer.parameters())]
    found = Loop(tmp_path, lambda _: torch.optim.AdamW(every, lr=1e-3), model).run(2)
    assert "not_in_optimizer" not in rules(found)


@pytest.mark.parametrize("reentrant", [True, False])
def test_batch_statistics_that_a_recomputation_moves_again_are_a_fact(tmp_path: Path, reentrant: bool) -> None:
    def trained(model: nn.Sequential, *, recompute: bool) -> set[str]:
        loop = Loop(tmp_path, model=model)

        def step(number: int) -> None:
            loop.optimizer.zero_grad()
            x = torch.randn(4, 8, requires_grad=True)
            hidden = checkpoint(model[0], x, use_reentrant=reentrant) if recompute else model[0](x)
            model[1](hidden).pow(2).mean().backward()
            loop.optimizer.step()

        return rules(loop.run(3, step))

    def made(*norm: nn.Module) -> nn.Sequential:
        return nn.Sequential(nn.Sequential(nn.Linear(8, 8), *norm), nn.Linear(8, 2))

    assert trained(made(nn.BatchNorm1d(8)), recompute=True) == {"recomputation_moves_statistics"}
    assert trained(made(nn.BatchNorm1d(8)), recompute=False) == set()
    assert trained(made(nn.BatchNorm1d(8, track_running_stats=False)), recompute=True) == set()
    assert trained(made(nn.LayerNorm(8)), recompute=True) == set()


def test_a_copy_of_a_watched_model_has_no_hooks_that_do_anything(tmp_path: Path) -> None:
    loop = Loop(tmp_path, model=nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)))
    other = copy.deepcopy(loop.model)
    for _ in range(3):
        F.mse_loss(other(torch.randn(4, 8)), torch.zeros(4, 2)).backward()
    assert loop.log.watcher is not None and loop.log.watcher.forwards.passes == 0
    assert loop.run(22) == [] and not loop.model._forward_hooks  # taken off after the first steps


class Scaled(nn.Module):
    """Scales by a tensor that is no nn.Parameter, or by one."""

    def __init__(self, *, bare: bool) -> None:
        super().__init__()
        self.head = nn.Linear(8, 2)
        scale = torch.ones(2, requires_grad=True)
        self.scale = scale if bare else nn.Parameter(scale)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(x) * self.scale


def test_a_bare_tensor_that_should_be_a_parameter_is_a_fact(tmp_path: Path) -> None:
    assert told(Loop(tmp_path / "bare", model=Scaled(bare=True)).run(2)) == {("not_in_optimizer", "warning")}
    assert Loop(tmp_path / "parameter", model=Scaled(bare=False)).run(2) == []


def test_an_input_whose_gradient_is_asked_for_is_no_parameter(tmp_path: Path) -> None:
    loop = Loop(tmp_path)

    def step(number: int) -> None:
        loop.optimizer.zero_grad()
        x = torch.randn(4, 8, requires_grad=True)
        (slope,) = torch.autograd.grad(loop.model(x).sum(), x, create_graph=True)
        (loop.model(x).pow(2).mean() + slope.pow(2).mean()).backward()
        loop.optimizer.step()

    assert loop.run(3, step) == []


@pytest.mark.parametrize("reentrant", [True, False])
def test_masks_that_a_recomputation_draws_anew_are_a_fact(tmp_path: Path, reentrant: bool) -> None:
    def trained(p: float, *, restore: bool) -> set[str]:
        body, head = nn.Sequential(nn.Linear(8, 8), nn.Dropout(p)), nn.Linear(8, 2)
        loop = Loop(tmp_path, model=nn.Sequential(body, head))

        def step(number: int) -> None:
            loop.optimizer.zero_grad()
            x = torch.randn(4, 8, requires_grad=True)
            for _ in range(2):
                hidden = checkpoint(body, x, use_reentrant=reentrant, preserve_rng_state=restore)
                head(hidden).pow(2).mean().backward()
            loop.optimizer.step()

        return rules(loop.run(3, step))

    assert trained(0.5, restore=False) == {"recomputation_draws"}
    assert trained(0.5, restore=True) == set()
    assert trained(0.0, restore=False) == set()


# ---- the state and the steps of an optimizer ----


def test_tensors_that_two_optimizers_step_are_a_fact(tmp_path: Path) -> None:
    def trained(second: Callable[[nn.Module, nn.Module], Any], *, by_turns: bool = True) -> set[str]:
        first, other = nn.Linear(8, 8), nn.Linear(8, 2)
        optimizers = [torch.optim.Adam(first.parameters(), lr=1e-3), torch.optim.Adam(second(first, other), lr=1e-3)]
        log = RunLog(tmp_path, control=False)
        log.watch([first, other], optimizers)
        for number in range(8):
            for optimizer in optimizers if by_turns else optimizers[number // 4 :][:1]:
                optimizer.zero_grad()
                other(first(torch.randn(4, 8))).pow(2).mean().backward()
                optimizer.step()
            log.step()
        log.end()
        return rules(silent(log.folder))

    def every(first: nn.Module, other: nn.Module) -> Any:
        return [*first.parameters(), *other.parameters()]

    assert trained(every) == {"held_twice"}
    assert "held_twice" not in trained(lambda _, other: other.parameters())
    assert "held_twice" not in trained(every, by_turns=False)


def test_a_state_that_is_lost_within_a_run_is_a_fact(tmp_path: Path) -> None:
    def trained(make: Callable[[Any], torch.optim.Optimizer], *, anew: bool, **watch: Any) -> set[tuple[str, str]]:
        loop = Loop(tmp_path, make, **watch)
        for number in range(1, 9):
            if number == 5 and anew:
                loop.optimizer = make(loop.model.parameters())
                loop.log.watch(loop.model, loop.optimizer, **watch)
            elif number == 5:
                loop.optimizer.state.clear()
            loop.step(number)
            loop.log.step()
        return told(loop.judged())

    lost = {("optimizer_state_lost", "warning")}
    adam = lambda p: torch.optim.Adam(p, lr=1e-3)  # noqa: E731
    assert trained(adam, anew=False) == lost
    assert trained(lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9), anew=False) == lost
    assert trained(lambda p: torch.optim.SGD(p, lr=1e-3), anew=False) == set()
    assert trained(adam, anew=True) == lost
    assert trained(adam, anew=True, fresh_optimizer=True) == set()


class Counting(torch.optim.Optimizer):
    """SGD that counts its steps, or says that it does."""

    def __init__(self, params: Any, *, counts: bool, lr: float = 1e-2) -> None:
        super().__init__(params, {"lr": lr})
        self.counts = counts

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for parameter in self.param_groups[0]["params"]:
            state = self.state[parameter]
            state["step"] = state.get("step", 0) + self.counts
            parameter.sub_(parameter.grad, alpha=self.param_groups[0]["lr"])


def test_a_count_of_steps_that_stands_is_a_fact(tmp_path: Path) -> None:
    found = Loop(tmp_path / "stands", lambda p: Counting(p, counts=False)).run(6)
    assert told(found) == {("optimizer_state_stands", "warning")}
    assert Loop(tmp_path / "counts", lambda p: Counting(p, counts=True)).run(6) == []
    assert Loop(tmp_path / "rests", lambda p: Counting(p, counts=False, lr=0.0)).run(6) == []


def test_updates_that_the_type_rounds_away_are_a_fact(tmp_path: Path) -> None:
    def trained(lr: float, kind: torch.dtype, steps: int = 14) -> set[str]:
        loop = Loop(tmp_path, lambda p: torch.optim.AdamW(p, lr=lr), small().to(kind))

        def step(number: int) -> None:
            loop.optimizer.zero_grad()
            loop.model(torch.randn(4, 8, dtype=kind)).float().pow(2).mean().backward()
            loop.optimizer.step()

        return rules(loop.run(steps, step))

    assert trained(1e-6, torch.bfloat16) == {"update_rounded_away"}
    assert trained(1e-6, torch.bfloat16, steps=8) == set()
    assert trained(1e-2, torch.bfloat16) == set()
    assert trained(1e-6, torch.float32) == set()


# ---- values of no parameter group ----


def test_a_value_of_the_loss_is_held_against_its_schedule(tmp_path: Path) -> None:
    loop = Loop(tmp_path, scheduled={"kl_weight": lambda step: min(1.0, 0.1 * step)})
    for number in range(1, 6):
        loop.step(number)
        loop.log.step(metrics={"kl_weight": 0.0 if number == 4 else 0.1 * number})
    (found,) = loop.judged()
    assert (found.rule, found.since_step) == ("off_schedule", 4) and "kl_weight" in found.message
