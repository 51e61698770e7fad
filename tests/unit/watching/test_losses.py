"""The losses that a step was made of: their scale, their number and their parts, each in a real loop beside a right one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from eegwatch import RunLog
from eegwatch.check import open_run
from eegwatch.diagnosis.findings import Finding
from eegwatch.watching.backward_roots import MEAN, SUM, path_of, running_backward, terms_of
from tests.unit.watching.loops import Loop, silent, small

Told = set[tuple[str, str]]


def told(found: list[Finding]) -> Told:
    return {(finding.rule, finding.severity) for finding in found}


def loss_of(loop: Loop) -> torch.Tensor:
    loss: torch.Tensor = F.mse_loss(loop.model(torch.randn(4, 8)), torch.randn(4, 2))
    return loss


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1e-2)


def logged(folder: Path, step: Callable[[Loop, int], Any], *, steps: int = 6, **declared: Any) -> Told:
    """So many steps; `step(loop, number)` returns the loss that is logged."""
    loop = Loop(folder, sgd, **declared)
    for number in range(1, steps + 1):
        loop.optimizer.zero_grad()
        loop.log.step(loss=step(loop, number))
    return told(loop.judged())


# ---- what is read of a call of backward() ----


def test_the_loss_is_found_from_a_hook_and_from_another_thread(tmp_path: Path) -> None:
    model, found = small(), []

    def read() -> None:
        frame = running_backward()
        found.append(None if frame is None else float(frame.f_locals["t_outputs"][0].detach()))

    def hook(gradient: torch.Tensor) -> None:
        read()
        other = threading.Thread(target=read)  # as on a GPU, whose hooks run in a thread of their own
        other.start()
        other.join()

    model[0].weight.register_hook(hook)  # type: ignore[index]
    loss = model(torch.ones(1, 8)).sum()
    loss.backward()
    assert found == [float(loss.detach())] * 2
    assert running_backward() is None


def test_a_loss_is_the_sum_of_its_terms_with_the_factors_above_each() -> None:
    x = torch.randn(4, 3, requires_grad=True)
    loss = (F.mse_loss(x, torch.zeros(4, 3)) + 0.1 * x.abs().mean() - x.sum()) / 2
    terms = {(term.node[0], term.factors, term.reduction) for term in terms_of(loss.grad_fn)}
    assert terms == {("MseLossBackward0", 1, MEAN), ("MeanBackward0", 2, MEAN), ("SumBackward0", 1, SUM)}
    assert [name for name, _ in path_of(loss.grad_fn)] == ["DivBackward0", "SubBackward0"]
    stacked = torch.stack([x.sum(), x.mean()]).sum()
    assert {term.node[0] for term in terms_of(stacked.grad_fn)} == {"SumBackward0", "MeanBackward0"}


# ---- the scale of the loss ----


@pytest.mark.parametrize("given", ["nothing", "one", "a share", "the loss"])
def test_backward_that_is_given_the_loss_itself_is_a_fact(tmp_path: Path, given: str) -> None:
    def step(loop: Loop, number: int) -> torch.Tensor:
        loss = loss_of(loop)
        seeds = {"nothing": None, "one": torch.ones(()), "a share": torch.tensor(0.5), "the loss": loss.detach()}
        loss.backward(seeds[given])  # type: ignore[no-untyped-call]
        loop.optimizer.step()
        return loss

    assert logged(tmp_path, step) == ({("gradient_scale", "warning")} if given == "the loss" else set())


def scaled(folder: Path, step: Callable[[Loop, Any, torch.Tensor], Any], **options: Any) -> Told:
    scaler = torch.amp.GradScaler("cpu", **{"init_scale": 256.0, "growth_interval": 2} | options)

    def whole(loop: Loop, number: int) -> torch.Tensor:
        loss = loss_of(loop)
        step(loop, scaler, loss)
        scaler.update()
        return loss

    return logged(folder, whole, scaler=scaler)


def used_right(loop: Loop, scaler: Any, loss: torch.Tensor) -> None:
    scaler.scale(loss).backward()
    scaler.step(loop.optimizer)


def unscaled_alone(loop: Loop, scaler: Any, loss: torch.Tensor) -> None:
    scaler.scale(loss.detach())
    loss.backward()  # type: ignore[no-untyped-call]
    scaler.step(loop.optimizer)


def test_gradients_that_are_divided_by_the_scale_of_a_loss_without_one_are_proved(tmp_path: Path) -> None:
    assert scaled(tmp_path / "wrong", unscaled_alone) == {("gradient_scale", "error")}
    assert scaled(tmp_path / "right", used_right) == set()
    assert scaled(tmp_path / "turned off", unscaled_alone, enabled=False) == set()


def test_gradients_that_keep_the_scale_of_their_loss_are_proved(tmp_path: Path) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)

    def step(loop: Loop, number: int) -> torch.Tensor:
        loss = loss_of(loop)
        scaler.scale(loss).backward()
        loop.optimizer.step()
        return loss

    assert logged(tmp_path, step, scaler=scaler) == {("gradient_scale", "error")}


@pytest.mark.parametrize("used", [0, 3], ids=["never used", "made anew later"])
def test_a_loss_that_another_scaler_scales_is_a_fact(tmp_path: Path, used: int) -> None:
    made = [torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=2) for _ in range(2)]

    def step(loop: Loop, number: int) -> torch.Tensor:
        loss, scaler = loss_of(loop), made[number > used]
        scaler.scale(loss).backward()
        scaler.step(loop.optimizer)
        scaler.update()
        return loss

    assert logged(tmp_path, step, scaler=made[0]) == {("scaler_not_used", "warning")}


@pytest.mark.parametrize("between", [True, False])
def test_a_scale_that_grows_between_two_optimizers_is_proved(tmp_path: Path, between: bool) -> None:
    models = [small(), small()]
    optimizers = [sgd(model.parameters()) for model in models]
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=3)
    log = RunLog(tmp_path, control=False)
    log.watch(models, optimizers, scaler=scaler)
    for _ in range(6):
        for model, optimizer in zip(models, optimizers):
            optimizer.zero_grad()
            scaler.scale(F.mse_loss(model(torch.randn(4, 8)), torch.zeros(4, 2))).backward()
        for optimizer in optimizers:
            scaler.step(optimizer)
            if between:
                scaler.update()
        if not between:
            scaler.update()
        log.step(loss=0.5)
    log.end()
    assert told(silent(log.folder)) == ({("gradient_scale", "error")} if between else set())


class Wrapped:
    """An optimizer behind another object, as wrappers for a schedule are."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        self.inner, self.param_groups = inner, inner.param_groups

    def step(self) -> None:
        self.inner.step()


def test_a_declared_scaler_that_steps_a_wrapper_is_clean(tmp_path: Path) -> None:
    def step(loop: Loop, scaler: Any, loss: torch.Tensor) -> None:
        scaler.scale(loss).backward()
        scaler.step(Wrapped(loop.optimizer))

    assert scaled(tmp_path, step) == set()


@pytest.mark.parametrize("late", [False, True])
def test_a_scale_that_is_raised_before_the_gradients_are_divided_by_it_is_a_fact(tmp_path: Path, late: bool) -> None:
    scale = 4.0

    def step(loop: Loop, number: int) -> torch.Tensor:
        nonlocal scale
        loss, before = loss_of(loop), scale
        (loss * scale).backward()
        scale *= 2 if number % 2 == 0 else 1
        for parameter in loop.model.parameters():
            parameter.grad /= scale if late else before
        loop.optimizer.step()
        return loss

    assert logged(tmp_path, step) == ({("gradient_scale", "warning")} if late else set())


# ---- the number of losses ----

SHARES = {"added": (1.0, 1.0), "divided": (0.25, 1.0), "divided by hand": (1.0, 0.25), "divided twice": (0.25, 0.25)}


def mean_of_two(loop: Loop) -> torch.Tensor:
    made = loop.model(torch.randn(4, 8))
    return F.mse_loss(made, torch.zeros(4, 2)) + 0.01 * made.abs().mean()


@pytest.mark.parametrize("of", [loss_of, mean_of_two])
@pytest.mark.parametrize("how", SHARES)
def test_means_that_are_added_up_and_not_averaged_are_a_fact(
    tmp_path: Path, how: str, of: Callable[[Loop], torch.Tensor]
) -> None:
    of_loss, of_gradient = SHARES[how]

    def step(loop: Loop, number: int) -> torch.Tensor:
        for _ in range(4):
            loss = of(loop)
            (loss if of_loss == 1 else loss * of_loss).backward()
        for parameter in loop.model.parameters():
            parameter.grad *= of_gradient
        loop.optimizer.step()
        return loss

    wrong = how in ("added", "divided twice")
    assert logged(tmp_path, step, accumulate=4) == ({("microbatch_weights", "warning")} if wrong else set())


def distilled(loop: Loop) -> torch.Tensor:
    made = loop.model(torch.randn(4, 8))
    soft = F.kl_div(made.log_softmax(1), torch.full((4, 2), 0.5), reduction="batchmean")
    return 0.5 * F.mse_loss(made, torch.zeros(4, 2)) + 0.5 * 4 * soft


@pytest.mark.parametrize("of", [mean_of_two, distilled])
@pytest.mark.parametrize("divided", ["after", "before", "no"])
def test_a_micro_batch_whose_loss_has_several_terms_is_weighed(
    tmp_path: Path, divided: str, of: Callable[[Loop], torch.Tensor]
) -> None:
    def step(loop: Loop, number: int) -> torch.Tensor:
        for _ in range(4):
            loss: torch.Tensor = of(loop)
            loss = loop.log.micro(loss / 4 if divided == "before" else loss, items=4)
            (loss / 4 if divided == "after" else loss).backward()
        loop.optimizer.step()
        return loss

    assert logged(tmp_path, step, accumulate=4) == ({("microbatch_weights", "warning")} if divided == "no" else set())


@pytest.mark.parametrize("twice", [True, False])
def test_one_loss_that_backward_is_called_on_twice_is_a_fact(tmp_path: Path, twice: bool) -> None:
    def step(loop: Loop, number: int) -> torch.Tensor:
        loss, other = loss_of(loop), loss_of(loop)
        loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]
        (loss if twice else other).backward()  # type: ignore[no-untyped-call]
        loop.optimizer.step()
        return loss

    assert logged(tmp_path, step) == ({("gradient_applied_twice", "warning")} if twice else set())


def test_two_losses_of_a_step_that_nothing_declares_as_micro_batches_are_clean(tmp_path: Path) -> None:
    def step(loop: Loop, number: int) -> torch.Tensor:
        loss_of(loop).backward()  # type: ignore[no-untyped-call]
        loss = loss_of(loop)
        loss.backward()  # type: ignore[no-untyped-call]
        loop.optimizer.step()
        return loss

    assert logged(tmp_path, step) == set()


# ---- the parts of a loss ----


@pytest.mark.parametrize("how", ["whole", "by turns", "a part", "a part, the rest detached"])
def test_a_logged_loss_of_which_a_part_is_not_trained_is_a_fact(tmp_path: Path, how: str) -> None:
    def step(loop: Loop, number: int) -> torch.Tensor:
        first, second = loss_of(loop), next(loop.model.parameters()).pow(2).mean()
        if how == "whole":
            (first + second).backward()  # type: ignore[no-untyped-call]
        else:
            first.backward()  # type: ignore[no-untyped-call]
        if how == "by turns":
            second.backward()  # type: ignore[no-untyped-call]
        loop.optimizer.step()
        return first + (second.detach() if "detached" in how else second)

    assert logged(tmp_path, step) == ({("loss_not_trained", "warning")} if how == "a part" else set())


def test_the_sum_of_the_losses_so_far_may_be_logged_with_its_graph(tmp_path: Path) -> None:
    losses: list[torch.Tensor] = []

    def step(loop: Loop, number: int) -> torch.Tensor:
        losses.append(loss_of(loop))
        losses[-1].backward()  # type: ignore[no-untyped-call]
        loop.optimizer.step()
        return sum(losses[1:], losses[0])

    assert logged(tmp_path, step) == set()


@pytest.mark.parametrize("how", ["right", "detached", "joint", "whole"])
def test_a_term_of_the_loss_that_only_reaches_another_optimizer_is_a_fact(tmp_path: Path, how: str) -> None:
    torch.manual_seed(0)
    maker, critic = nn.Linear(6, 6), nn.Linear(6, 1)
    of_maker, of_critic = (torch.optim.SGD(one.parameters(), lr=1e-3) for one in (maker, critic))
    log = RunLog(tmp_path, control=False)
    log.watch([maker, critic], [of_maker, of_critic])
    for _ in range(6):
        x = torch.randn(4, 6)
        of_critic.zero_grad()
        made = maker(x)
        if how != "joint":
            (critic(made.detach()).mean() - critic(x).mean()).backward()
            of_critic.step()
        of_maker.zero_grad()
        judged = critic(made if how == "right" else made.detach())
        loss = judged.mean() + (critic(made).mean() if how == "whole" else F.l1_loss(made, x))
        loss.backward()
        of_maker.step()
        if how == "joint":
            of_critic.step()
        log.step(loss=loss)
    log.end()
    assert told(silent(log.folder)) == ({("no_gradient", "warning")} if how == "detached" else set())


# ---- windows of micro-batches ----


@pytest.mark.parametrize("clears", ["before", "after"])
@pytest.mark.parametrize("batches", [12, 14, 122, 124], ids=str)
def test_a_run_that_ends_within_a_window_is_a_fact(tmp_path: Path, clears: str, batches: int) -> None:
    loop = Loop(tmp_path, sgd, accumulate=4)
    for number in range(batches):
        if number % 4 == 0 and clears == "before":
            loop.optimizer.zero_grad()
        loss = loss_of(loop)
        (loss / 4).backward()
        if number % 4 == 3:
            loop.optimizer.step()
            if clears == "after":
                loop.optimizer.zero_grad()
            loop.log.step(loss=loss)
    assert told(loop.judged()) == ({("micro_gradients_dropped", "warning")} if batches % 4 else set())


@pytest.mark.parametrize("kept", [False, True])
def test_the_rest_of_each_epoch_that_is_cleared_unused_is_a_fact(tmp_path: Path, kept: bool) -> None:
    loop = Loop(tmp_path, sgd)
    for _ in range(5):
        loop.optimizer.zero_grad()
        for number in range(1, 6):
            loss = loss_of(loop)
            (loss / 2).backward()
            if number % 2 == 0 or (number == 5 and kept):
                loop.optimizer.step()
                loop.optimizer.zero_grad()
                loop.log.step(loss=loss)
    assert told(loop.judged()) == (set() if kept else {("micro_gradients_dropped", "warning")})


def test_a_gradient_that_is_projected_by_another_is_clean(tmp_path: Path) -> None:
    loop = Loop(tmp_path, sgd)

    def step(number: int) -> None:
        loop.optimizer.zero_grad()
        loss_of(loop).backward()  # type: ignore[no-untyped-call]
        kept = [p.grad.clone() for p in loop.model.parameters()]
        loop.optimizer.zero_grad()
        loss_of(loop).backward()  # type: ignore[no-untyped-call]
        if number % 3 == 2:  # it points against the other one
            for p, one in zip(loop.model.parameters(), kept):
                p.grad -= one
        loop.optimizer.step()

    assert told(loop.run(16, step)) == set()


def test_a_pass_for_another_purpose_that_is_cleared_now_and_then_is_clean(tmp_path: Path) -> None:
    loop = Loop(tmp_path, sgd)
    for number in range(16):
        if number % 3 == 0:
            loss_of(loop).backward()  # type: ignore[no-untyped-call]
        loop.optimizer.zero_grad()
        for _ in range(2):
            loss = loss_of(loop) / 2
            loss.backward()
        loop.optimizer.step()
        loop.log.step(loss=loss)
    assert told(loop.judged()) == set()


def test_the_loss_of_a_critic_whose_passes_are_not_seen_any_more_is_clean(tmp_path: Path) -> None:
    torch.manual_seed(0)
    maker, critic = nn.Linear(6, 6), nn.Linear(6, 1)
    of_maker, of_critic = (torch.optim.SGD(one.parameters(), lr=1e-3) for one in (maker, critic))
    log = RunLog(tmp_path, control=False)
    log.watch([maker, critic], [of_maker, of_critic])
    for number in range(40):
        x = torch.randn(4, 6)
        of_critic.zero_grad()
        loss = critic(maker(x).detach()).mean() - critic(x).mean()
        loss.backward()
        of_critic.step()
        if number % 5 == 4:
            of_maker.zero_grad()
            made = -critic(maker(x)).mean()
            made.backward()
            of_maker.step()
            loss = loss + made
        log.step(loss=loss)
    log.end()
    assert told(silent(log.folder)) == set()


# ---- rates and modes ----


@pytest.mark.parametrize(("rates", "zero"), [((0.1, 0.0), True), ((0.0, 0.1), False), ((0.1, 0.1), False)])
def test_a_rate_that_stays_zero_is_a_fact(tmp_path: Path, rates: tuple[float, float], zero: bool) -> None:
    loop = Loop(tmp_path, sgd)

    def step(number: int) -> torch.Tensor:
        loop.optimizer.param_groups[0]["lr"] = rates[number > 1]
        return loop.step(number)

    assert told(loop.run(8, step)) == ({("lr_stays_zero", "warning")} if zero else set())


@pytest.mark.parametrize(
    ("of_group", "fits"),
    [
        ((0.1,).__getitem__, True),
        ((0.1, 0.1).__getitem__, True),
        ((0.1, 0.3).__getitem__, False),
        ({0: 0.1, 1: 0.0}.__getitem__, False),
        (lambda group: 0.1 * 0.5**group, True),
    ],
    ids=["one", "the same twice", "two", "a dictionary", "a formula"],
)
def test_a_table_of_values_for_more_groups_than_there_are_is_a_fact(tmp_path: Path, of_group: Any, fits: bool) -> None:
    loop = Loop(tmp_path, scheduled={"weight_decay": lambda _, group: of_group(group)})
    assert told(loop.run(3)) == (set() if fits else {("off_schedule", "warning")})


@pytest.mark.parametrize(
    ("layer", "trains", "fact"),
    [
        (nn.Dropout(0.2), False, True),
        (nn.Dropout(0.2), True, False),
        (nn.Dropout(0.0), False, False),
        (nn.Tanh(), False, False),
    ],
)
def test_a_model_that_was_never_in_training_mode_is_a_fact(
    tmp_path: Path, layer: nn.Module, trains: bool, fact: bool
) -> None:
    loop = Loop(tmp_path, sgd, nn.Sequential(nn.Linear(8, 8), layer, nn.Linear(8, 2)).train(trains))
    assert told(loop.run(22)) == ({("train_mode_lost", "warning")} if fact else set())


@pytest.mark.parametrize("anew", [True, False])
def test_a_schedule_of_an_optimizer_that_was_built_anew_is_a_fact(tmp_path: Path, anew: bool) -> None:
    model = small()
    first = sgd(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(first, 3)
    optimizer = sgd(model.parameters()) if anew else first
    log = RunLog(tmp_path, schedule=scheduler, control=False)
    log.watch(model, optimizer)
    for _ in range(4):
        optimizer.zero_grad()
        loss = model(torch.randn(4, 8)).pow(2).mean()
        loss.backward()
        optimizer.step()
        scheduler.step()
        log.step(loss=loss)
    log.end()
    assert told(silent(log.folder)) == ({("schedule_of_another", "warning")} if anew else set())


def test_an_input_that_is_optimized_through_a_model_in_evaluation_mode_is_clean(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 2)).eval()
    made = nn.Parameter(torch.randn(4, 8))
    loop = Loop(tmp_path, lambda _: torch.optim.SGD([made], lr=1e-2), model)

    def step(number: int) -> None:
        loop.optimizer.zero_grad()
        model.zero_grad()
        model(made).pow(2).mean().backward()
        loop.optimizer.step()

    assert ("train_mode_lost", "warning") not in told(loop.run(22, step))


@pytest.mark.parametrize("asks", [True, False])
def test_a_schedule_that_waits_for_steps_that_the_scaler_skips_is_no_fault(tmp_path: Path, asks: bool) -> None:
    model = small()
    optimizer = sgd(model.parameters())
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 9], gamma=0.3)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=1000)
    log = RunLog(tmp_path, schedule=scheduler, control=False)
    log.watch(model, optimizer, scaler=scaler)
    skipped = 0
    for _ in range(20):
        optimizer.zero_grad()
        loss = 100 * model(torch.randn(4, 8)).pow(2).mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        before = scaler.get_scale()
        scaler.update()
        skipped += scaler.get_scale() < before
        if not asks or scaler.get_scale() >= before:
            scheduler.step()
        log.step(loss=loss)
    log.end()
    run = open_run(log.folder, None, None)
    outcome = run.read_to_end()
    run.close()
    assert skipped > 2
    assert not [finding for finding in (*outcome.findings, *outcome.past) if finding.rule.startswith("lr_")]
    steps = [line for line in (log.folder / "run.jsonl").read_text().splitlines() if line.startswith('{"type":"step"')]
    assert f'"skipped":{skipped}' in steps[-1]
