"""Rates set in a live optimizer, proved by the step that plain SGD takes: (p before - p after) / gradient."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from eegwatch.optimizer_hooks import StepHooks
from eegwatch.schedule import parse, rate_at
from eegwatch.steering.rates import SetRates
from eegwatch.steering.steered_schedule import Refused, SteeredSchedule, course_for

TOTAL = 40
LAWS = [
    {"name": "cosine", "total_steps": TOTAL, "max_lr": 1e-3, "final_lr": 1e-5},
    {"name": "cosine", "total_steps": TOTAL, "max_lr": 1e-4, "final_lr": 1e-5},  # an absolute floor: no fixed ratio
]


class Loop:
    """Plain SGD on two groups with gradient 1: the step that a parameter takes is the rate that was used."""

    def __init__(self, dtype: torch.dtype | None = None, scheduler: bool = True, **options: Any) -> None:
        self.weights = [torch.nn.Parameter(torch.zeros(1, dtype=torch.float64)) for _ in LAWS]
        rates: list[Any] = [law["max_lr"] for law in LAWS]
        if dtype is not None:
            rates = [torch.tensor(r, dtype=dtype) for r in rates]
        groups = [{"params": [w], "lr": r} for w, r in zip(self.weights, rates, strict=True)]
        self.optimizer = torch.optim.SGD(groups, lr=rates[0], **options)
        self.scheduler = None
        if scheduler:
            self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, TOTAL, eta_min=1e-5)
        self.step_done = 0
        self.hooks = StepHooks(self.optimizer)
        self.setter = SetRates(lambda: self.step_done + 1)
        self.hooks.listeners.append(self.setter)

    def step(self) -> list[float]:
        before = [w.item() for w in self.weights]
        for w in self.weights:
            w.grad = torch.ones_like(w)
        self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()
        self.step_done += 1
        return [b - w.item() for b, w in zip(before, self.weights, strict=True)]

    def now(self) -> list[float]:
        return [float(g["lr"]) for g in self.optimizer.param_groups]

    def course(self, lr: float | None = None, then: str = "anneal", **changed: Any) -> SteeredSchedule:
        given: dict[str, Any] = {
            "from_step": self.step_done, "lr": lr, "then": then, "force": False,
            "laws": [parse(law) for law in LAWS], "now": self.now(), "steps_per_epoch": None, "total": TOTAL,
        }  # fmt: skip
        return course_for(**(given | changed))


def expected(step: int) -> list[float]:
    return [float(rate_at(parse(law), step)) for law in LAWS]


def test_a_rejoined_run_takes_the_declared_step_in_every_group() -> None:
    loop = Loop()
    loop.scheduler = None  # the fault: nobody steps it
    for _ in range(10):
        np.testing.assert_allclose(loop.step(), [1e-3, 1e-4], rtol=1e-12)
    loop.setter.begin(loop.course())
    for step in range(11, TOTAL + 1):
        np.testing.assert_allclose(loop.step(), expected(step), rtol=1e-9)
        assert loop.now() == [1e-3, 1e-4]  # what the script left is there again
        assert loop.setter.taken == {step: pytest.approx(expected(step), rel=1e-15)}


@pytest.mark.parametrize("options", [{"foreach": False}, {"foreach": True}, {"fused": True}], ids=str)
@pytest.mark.parametrize("dtype", [None, torch.float32], ids=str)
def test_each_implementation_of_the_step_takes_the_rate_that_was_set(dtype: Any, options: dict[str, bool]) -> None:
    loop = Loop(dtype, scheduler=False, **options)
    np.testing.assert_allclose(loop.step(), [1e-3, 1e-4], rtol=1e-7)
    loop.setter.begin(loop.course())
    for step in range(2, 12):
        want = expected(step) if dtype is None else [float(torch.tensor(r, dtype=dtype)) for r in expected(step)]
        assert loop.step() == pytest.approx(want, rel=1e-9)


def test_the_scripts_own_scheduler_goes_on_as_if_nothing_had_happened() -> None:
    alone, steered = Loop(), Loop()
    for _ in range(10):
        alone.step()
        steered.step()
    steered.setter.begin(steered.course(lr=3e-4, then="hold"))
    for _ in range(10):
        alone.step()
        np.testing.assert_allclose(steered.step(), [3e-4, 3e-5], rtol=1e-9)
        assert steered.now() == alone.now()
    steered.setter.end()
    for _ in range(10):
        assert steered.step() == pytest.approx(alone.step(), rel=1e-9)
    assert steered.scheduler.state_dict() == alone.scheduler.state_dict()  # type: ignore[union-attr]


def test_a_rate_of_ones_own_anneals_to_the_floor_of_each_group() -> None:
    loop = Loop(scheduler=False)
    for _ in range(4):
        loop.step()
    loop.setter.begin(loop.course(lr=5e-4))
    taken = [loop.step() for _ in range(5, TOTAL + 1)]
    np.testing.assert_allclose(taken[0], [5e-4, 5e-5], rtol=1e-12)
    floors = [float(rate_at(parse(law), TOTAL)) for law in LAWS]
    np.testing.assert_allclose(taken[-1], floors, rtol=1e-9)


def test_past_the_end_the_last_rate_holds() -> None:
    loop = Loop(scheduler=False)
    loop.step_done = TOTAL - 1
    loop.setter.begin(loop.course())
    steps = [loop.step() for _ in range(3)]
    np.testing.assert_allclose(steps, [expected(TOTAL)] * 3, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_tensor_rate_gets_the_nearest_value_of_its_type_in_a_tensor_of_its_own(dtype: torch.dtype) -> None:
    loop = Loop(dtype)
    shared = loop.optimizer.param_groups[0]["lr"]
    loop.optimizer.param_groups[1]["lr"] = shared  # both groups hold one tensor
    loop.setter.begin(loop.course())
    loop.step_done = 10
    want = [float(torch.tensor(rate, dtype=dtype)) for rate in expected(11)]
    assert loop.step() == pytest.approx(want, rel=1e-12)
    assert loop.setter.taken == {11: want}
    assert loop.optimizer.param_groups[0]["lr"] is shared and loop.optimizer.param_groups[1]["lr"] is shared


def test_a_step_that_raised_leaves_no_rate_of_ours_behind() -> None:
    loop = Loop(scheduler=False)
    loop.setter.begin(loop.course(lr=2e-4, then="hold"))
    broken = {"on": True}

    def closure() -> None:
        if broken["on"]:
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        loop.optimizer.step(closure)  # type: ignore[arg-type]
    broken["on"] = False
    np.testing.assert_allclose(loop.step(), [2e-4, 2e-5], rtol=1e-12)
    assert loop.now() == [1e-3, 1e-4]


def test_what_the_script_sets_within_a_step_stays() -> None:
    loop = Loop(scheduler=False)
    loop.setter.begin(loop.course(lr=2e-4, then="hold"))
    loop.optimizer.register_step_post_hook(lambda *_: None)
    group = loop.optimizer.param_groups[0]

    def closure() -> None:
        group["lr"] = 7.0

    loop.optimizer.step(closure)  # type: ignore[arg-type]
    assert group["lr"] == 7.0


@pytest.mark.parametrize("momentum", ["betas", "momentum"])
def test_momentum_that_one_cycle_moves_rejoins_too(momentum: str) -> None:
    def made() -> tuple[Any, Any]:
        weight = torch.nn.Parameter(torch.ones(1))
        weight.grad = torch.ones(1)
        cls = torch.optim.AdamW if momentum == "betas" else torch.optim.SGD
        extra = {} if momentum == "betas" else {"momentum": 0.9}
        optimizer = cls([weight], lr=1e-3, **extra)
        return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=TOTAL)

    def value(optimizer: Any) -> float:
        group = optimizer.param_groups[0]
        return group["betas"][0] if momentum == "betas" else group["momentum"]

    right, scheduler = made()
    wanted = []
    for _ in range(TOTAL):
        wanted.append((right.param_groups[0]["lr"], value(right)))
        right.step()
        scheduler.step() if len(wanted) < TOTAL else None
    stuck, _ = made()
    seen: list[tuple[float, float]] = []
    done = {"step": 0}
    hooks, setter = StepHooks(stuck), SetRates(lambda: done["step"] + 1)
    hooks.listeners.append(setter)

    class Reader:
        def before(self, optimizer: Any) -> None:
            seen.append((optimizer.param_groups[0]["lr"], value(optimizer)))

        def after(self, optimizer: Any) -> None: ...

        def abandoned(self, optimizer: Any) -> None: ...

    hooks.listeners.append(Reader())
    law = {"name": "one_cycle", "total_steps": TOTAL, "max_lr": 1e-2, "pct_start": 0.3, "final_div_factor": 1e4}
    moves = {
        "name": "one_cycle",
        "total_steps": TOTAL,
        "max_lr": 0.85,
        "div_factor": 0.85 / 0.95,
        "final_div_factor": 1,
    }
    setter.begin(
        course_for(
            from_step=0, lr=None, then="anneal", force=False, laws=[parse(law)], now=[4e-4], steps_per_epoch=None,
            total=TOTAL, momenta=[parse(moves)],
        )
    )  # fmt: skip
    before = value(stuck)
    for step in range(TOTAL):
        stuck.step()
        done["step"] = step + 1
        assert value(stuck) == before
    np.testing.assert_allclose(seen, wanted, rtol=1e-12)


def test_without_a_declared_schedule_a_rate_can_only_be_held_and_groups_keep_their_ratio() -> None:
    loop = Loop(scheduler=False)
    with pytest.raises(Refused, match="declares no schedule to rejoin"):
        loop.course(laws=[None, None])
    with pytest.raises(Refused, match="anneal needs a declared schedule"):
        loop.course(lr=3e-4, laws=[None, None])
    loop.setter.begin(loop.course(lr=3e-4, then="hold", laws=[None, None]))
    np.testing.assert_allclose(loop.step(), [3e-4, 3e-5], rtol=1e-12)


def test_a_group_without_a_law_follows_the_script_and_a_frozen_group_stays_frozen() -> None:
    loop = Loop(scheduler=False)
    course = loop.course(laws=[parse(LAWS[0]), None])
    assert "group 1 has no declared schedule and follows the script's" in course.words
    loop.setter.begin(course)
    np.testing.assert_allclose(loop.step(), [1e-3, 1e-4], rtol=1e-12)
    zero = parse({"name": "constant", "lr": 0.0, "total_steps": TOTAL})
    assert loop.course(lr=5e-4, laws=[parse(LAWS[0]), zero]).rates(2) == [pytest.approx(5e-4), 0.0]


@pytest.mark.parametrize("lr", [0.0, -1e-3, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(lr: float) -> None:
    with pytest.raises(Refused, match="finite number above 0"):
        Loop().course(lr=lr)


def test_above_the_declared_peak_is_refused_unless_forced() -> None:
    loop = Loop()
    with pytest.raises(Refused, match="above the declared peak"):
        loop.course(lr=2e-3)
    assert loop.course(lr=2e-3, force=True, then="hold").rates(1) == pytest.approx([2e-3, 2e-4])


def test_grad_scaler_and_fused_steps_work() -> None:
    loop = Loop(scheduler=False)
    loop.setter.begin(loop.course(lr=2e-4, then="hold"))
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for w in loop.weights:
        w.grad = torch.full_like(w, float("inf"))
    scaler.scale(torch.ones(1))
    scaler.step(loop.optimizer)  # skipped: the optimizer is not called
    scaler.update()
    assert loop.setter.taken == {} and loop.now() == [1e-3, 1e-4]
    for w in loop.weights:
        w.grad = torch.full_like(w, scaler.get_scale())
    before = [w.item() for w in loop.weights]
    scaler.step(loop.optimizer)
    np.testing.assert_allclose([b - w.item() for b, w in zip(before, loop.weights, strict=True)], [2e-4, 2e-5])


def test_an_optimizer_copied_in_mid_step_holds_the_rates_of_that_step() -> None:
    loop = Loop(scheduler=False)
    loop.setter.begin(loop.course(lr=2e-4, then="hold"))
    copies: list[Any] = []
    loop.optimizer.step(lambda: copies.append(copy.deepcopy(loop.optimizer)))  # type: ignore[arg-type]
    assert copies[0].param_groups[0]["lr"] == 2e-4 and loop.now() == [1e-3, 1e-4]
