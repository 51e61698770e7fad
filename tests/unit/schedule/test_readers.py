"""Schedules read off real scheduler objects equal, group by group, the rates that real optimizer steps then use."""

from __future__ import annotations

import functools
import importlib.util
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler as S

from eegwatch.schedule import as_dict, parse
from eegwatch.schedule.from_torch import read, read_groups, reading_of

BASES = (0.02, 0.003, 0.0)
TOTAL = 300


def optimizer_of(bases: tuple[float, ...] = BASES) -> torch.optim.Optimizer:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in bases]
    return torch.optim.SGD(groups, lr=bases[0])


def walk(optimizer: Any, scheduler: Any, steps: int = TOTAL) -> np.ndarray[Any, Any]:
    """(steps, groups) rates that the optimizer's steps used."""
    seen = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for n in range(steps):
            seen.append([float(group["lr"]) for group in optimizer.param_groups])
            optimizer.step()
            if n < steps - 1:
                scheduler.step()
    return np.array(seen)


def is_read(make: Callable[[Any], Any], bases: tuple[float, ...] = BASES, within: float = 1e-11) -> list[Any]:
    optimizer = optimizer_of(bases)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = make(optimizer)
    laws = read_groups(scheduler, TOTAL)
    assert len(laws) == len(bases)
    used = walk(optimizer, scheduler)
    for number, law in enumerate(laws):
        assert law is not None, reading_of(scheduler, TOTAL).why
        schedule = parse(law)
        expected = schedule.rate(np.arange(TOTAL))
        assert np.abs(expected - used[:, number]).max() <= within * max(np.abs(used[:, number]).max(), 1e-300)
        assert np.array_equal(parse(as_dict(schedule)).rate(np.arange(TOTAL)), expected)
    return laws


def hf(name: str, **given: Any) -> Callable[[Any], Any]:
    from transformers import get_scheduler

    def make(optimizer: Any) -> Any:
        special = {key: value for key, value in given.items() if not key.startswith("num_w") and key != "T"}
        return get_scheduler(
            name, optimizer, num_warmup_steps=given.get("num_warmup_steps", 30), num_training_steps=given.get("T", TOTAL),
            scheduler_specific_kwargs=special,
        )  # fmt: skip

    return make


def sequence(*parts: Callable[[Any], Any], at: list[int]) -> Callable[[Any], Any]:
    return lambda o: S.SequentialLR(o, [part(o) for part in parts], milestones=at)


def chain(*parts: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda o: S.ChainedScheduler([part(o) for part in parts])


TORCH: dict[str, Callable[[Any], Any]] = {
    "one cycle of its own peak per group": lambda o: S.OneCycleLR(o, [3e-3, 1e-4, 1e-2], total_steps=TOTAL),
    "one cycle of three phases": lambda o: S.OneCycleLR(o, 3e-3, total_steps=TOTAL, three_phase=True),
    "one cycle in epochs": lambda o: S.OneCycleLR(o, 3e-3, epochs=10, steps_per_epoch=30, anneal_strategy="linear"),
    "cosine to an absolute floor": lambda o: S.CosineAnnealingLR(o, TOTAL, eta_min=1e-5),
    "cosine that rises again": lambda o: S.CosineAnnealingLR(o, 40, eta_min=1e-4),
    "cosine built for longer": lambda o: S.CosineAnnealingLR(o, 2 * TOTAL),
    "restarts": lambda o: S.CosineAnnealingWarmRestarts(o, 20, 2, eta_min=1e-6),
    "linear": lambda o: S.LinearLR(o, 1.0, 0.1, total_iters=TOTAL),
    "linear, then held": lambda o: S.LinearLR(o, 0.7, 0.2, total_iters=50),
    "linear up": lambda o: S.LinearLR(o, 0.1, 1.0, total_iters=40),
    "linear up to half": lambda o: S.LinearLR(o, 0.1, 0.5, total_iters=40),
    "linear by default": lambda o: S.LinearLR(o),
    "polynomial past its end": lambda o: S.PolynomialLR(o, 100, 2.0),
    "polynomial by default": lambda o: S.PolynomialLR(o),
    "exponential": lambda o: S.ExponentialLR(o, 0.99),
    "step": lambda o: S.StepLR(o, 50, 0.5),
    "multistep": lambda o: S.MultiStepLR(o, [40, 80, 80], 0.3),
    "constant": lambda o: S.ConstantLR(o, 1.0),
    "constant with its default factor": lambda o: S.ConstantLR(o),
    "cyclic": lambda o: S.CyclicLR(o, 1e-4, 1e-2, 17, 30, cycle_momentum=False),
    "cyclic, triangular2": lambda o: S.CyclicLR(o, 1e-4, [1e-2, 1e-3, 1e-1], 33, mode="triangular2", cycle_momentum=False),
    "cyclic, exp_range": lambda o: S.CyclicLR(o, 1e-4, 1e-2, 7, mode="exp_range", gamma=0.999, cycle_momentum=False),
    "warm-up, cosine": sequence(
        lambda o: S.LinearLR(o, 0.1, total_iters=30), lambda o: S.CosineAnnealingLR(o, TOTAL - 30, 1e-6), at=[30]
    ),
    "warm-up, multistep": sequence(
        lambda o: S.LinearLR(o, 0.1, total_iters=30), lambda o: S.MultiStepLR(o, [50, 100]), at=[30]
    ),
    "warm-up, exponential": sequence(
        lambda o: S.LinearLR(o, 0.1, total_iters=30), lambda o: S.ExponentialLR(o, 0.99), at=[30]
    ),
    "warm-up longer than its milestone": sequence(
        lambda o: S.LinearLR(o, 0.1, total_iters=50), lambda o: S.PolynomialLR(o, 200), at=[30]
    ),
    "constant, cosine, step": sequence(
        lambda o: S.ConstantLR(o, 0.5, total_iters=10), lambda o: S.CosineAnnealingLR(o, 60, 1e-4), lambda o: S.StepLR(o, 20),
        at=[20, 90],
    ),
    "warm restarts after a warm-up": sequence(
        lambda o: S.LinearLR(o, 0.01, total_iters=25), lambda o: S.CosineAnnealingWarmRestarts(o, 30, 2), at=[25]
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", TORCH)
def test_torchs_schedulers_are_read_for_every_group(kind: str) -> None:
    is_read(TORCH[kind], within=1e-9 if "rises" in kind or "cosine, step" in kind else 1e-11)


def test_a_chain_is_read_as_a_product() -> None:
    make = chain(
        lambda o: S.LinearLR(o, 0.1, total_iters=30), lambda o: S.ExponentialLR(o, 0.995), lambda o: S.StepLR(o, 90)
    )
    laws = is_read(make)
    assert laws[0]["name"] == "product"
    is_read(chain(lambda o: S.ConstantLR(o, 0.1, 9), lambda o: S.CosineAnnealingLR(o, TOTAL)), (0.1, 0.2))
    o = optimizer_of((0.1,))
    assert read(S.ChainedScheduler([S.ConstantLR(o), S.CosineAnnealingLR(o, TOTAL, 1e-4)]), TOTAL) is None


HF: dict[str, dict[str, Any]] = {
    "linear": {},
    "cosine": {},
    "cosine, two and a half waves": {"num_cycles": 2.5},
    "cosine_with_restarts": {"num_cycles": 3},
    "polynomial": {"lr_end": 1e-5, "power": 2.0},
    "constant": {},
    "constant_with_warmup": {},
    "inverse_sqrt": {},
    "inverse_sqrt, timescale": {"timescale": 77},
    "cosine_with_min_lr": {"min_lr": 1e-4},
    "cosine_with_min_lr, rate": {"min_lr_rate": 0.1, "num_cycles": 1.5},
    "cosine_warmup_with_min_lr": {"min_lr_rate": 0.1},
    "cosine_warmup_with_min_lr, from": {"min_lr": 1e-4, "warmup_lr_rate": 0.25},
    "cosine_warmup_with_min_lr, one step": {"min_lr_rate": 0.1, "num_warmup_steps": 1},
    "warmup_stable_decay": {"num_decay_steps": 100, "min_lr_ratio": 0.1},
    "warmup_stable_decay, 1-sqrt": {"num_decay_steps": 77, "decay_type": "1-sqrt", "warmup_type": "cosine"},
    "warmup_stable_decay, linear": {"num_decay_steps": 77, "decay_type": "linear", "warmup_type": "1-sqrt"},
    "linear, no warm-up": {"num_warmup_steps": 0},
    "cosine, over before the run": {"T": 200},
    "linear, over before the run": {"T": 200},
    "polynomial, over before the run": {"T": 200},
}


@pytest.mark.parametrize("kind", HF)
def test_transformers_whole_list_is_read_with_its_options(kind: str) -> None:
    is_read(hf(kind.partition(",")[0], **HF[kind]))


def test_a_linear_ramp_before_a_family_that_begins_at_its_top_is_a_warm_up() -> None:
    o = optimizer_of((0.1,))
    law = read_groups(S.SequentialLR(o, [S.LinearLR(o, 0.1, total_iters=10), S.CosineAnnealingLR(o, 90)], [10]), 100)[0]
    assert law is not None
    assert (law["name"], law["warmup_steps"], law["total_steps"]) == ("cosine", 10, 100)
    assert law["initial_lr"] == pytest.approx(0.01) and law["max_lr"] == 0.1
    o = optimizer_of((0.1,))
    constant = S.ConstantLR(o, factor=0.5, total_iters=1000)  # begins below the top of the ramp
    jump = read_groups(S.SequentialLR(o, [S.LinearLR(o, 0.1, total_iters=10), constant], [10]), 100)[0]
    assert jump is not None and jump["name"] == "sequence"


def test_what_is_not_known_is_not_guessed_and_the_reason_is_said() -> None:
    from transformers import get_scheduler, optimization

    o = optimizer_of((0.1,))

    class Mine(S.StepLR):
        def get_lr(self) -> Any:
            return [0.5 for _ in self.base_lrs]

    class Renamed(S.StepLR):
        """No formula of its own."""

    def odd(step: int, *, num_warmup_steps: int, num_training_steps: int, bend: float) -> float:
        return 1.0

    odd.__name__, odd.__module__ = "_get_linear_schedule_with_warmup_lr_lambda", optimization.__name__
    partial = functools.partial(odd, num_warmup_steps=1, num_training_steps=9, bend=2.0)
    for scheduler, words in (
        (S.LambdaLR(o, lambda n: 1 / (n + 1)), "function of your own"),
        (S.LambdaLR(o, partial), "the parameter bend"),
        (S.MultiplicativeLR(o, lambda _: 0.9), "function of your own"),
        (S.ReduceLROnPlateau(o), "follows a metric"),
        (get_scheduler("reduce_lr_on_plateau", o), "follows a metric"),
        (get_scheduler("greedy", o), "follows a metric"),
        (Mine(o, 5), "another formula"),
        (S.CyclicLR(o, 1e-4, 1e-2, scale_fn=lambda _: 1.0, cycle_momentum=False), "function of your own"),
        (object(), "holds no optimizer"),
        (None, "holds no optimizer"),
    ):
        reading = reading_of(scheduler, 100)
        assert not any(reading.groups) and reading.why is not None and words in reading.why, (scheduler, reading)
    o = optimizer_of((0.1,))
    assert read(Renamed(o, 5), 100) == read(S.StepLR(o, 5), 100) is not None
    assert read(S.StepLR(o, 5), None) is None and "total_steps" in str(reading_of(S.StepLR(o, 5)).why)


def test_a_second_scheduler_that_moves_the_same_rate_is_seen_at_the_start() -> None:
    o = optimizer_of((0.1,))
    S.LinearLR(o, 0.1, total_iters=10)
    reading = reading_of(S.CosineAnnealingLR(o, 100), 100)
    assert reading.groups == [None] and "begins at 0.1 and the optimizer stands at 0.01" in str(reading.why)
    assert reading_of(S.CosineAnnealingLR(o, 100), 100, fresh=False).groups[0] is not None


def test_rates_that_are_tensors_are_read_as_they_are() -> None:
    p = torch.nn.Parameter(torch.zeros(1))
    o = torch.optim.Adam([p], lr=torch.tensor(1e-3))
    law = read(S.CosineAnnealingLR(o, 100, 1e-5), 100)
    assert law is not None and law["max_lr"] == float(torch.tensor(1e-3)) and type(law["max_lr"]) is float


def test_accelerates_prepared_scheduler_is_read_through() -> None:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    o = optimizer_of((0.1, 0.01))
    inner = S.CosineAnnealingLR(o, TOTAL, 1e-4)
    prepared_optimizer, prepared = accelerator.prepare(o, inner)
    assert read_groups(prepared, TOTAL) == read_groups(inner, TOTAL)
    used = []
    for _ in range(TOTAL):
        used.append(o.param_groups[1]["lr"])
        prepared_optimizer.step()
        prepared.step()
    law = read_groups(prepared, TOTAL)[1]
    assert law is not None
    np.testing.assert_allclose(used, parse(law).rate(np.arange(TOTAL)), rtol=1e-9)


TWO_PROCESSES = """
import torch
from accelerate import Accelerator
from torch.optim import lr_scheduler as S
import numpy as np
from eegwatch.schedule import parse
from eegwatch.schedule.from_torch import read

accelerator = Accelerator(cpu=True)
o = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
inner = S.OneCycleLR(o, 0.3, total_steps=200)
po, ps = accelerator.prepare(o, inner)
law = read(ps, 100)
assert accelerator.num_processes == 2 and law["name"] == "paced" and law["total_steps"] == 100, law
used = []
for _ in range(100):
    used.append(o.param_groups[0]["lr"])
    po.step(); ps.step()
np.testing.assert_allclose(used, parse(law).rate(np.arange(100)), rtol=1e-12)
if accelerator.is_main_process:
    print("equal")
"""


def test_accelerates_steps_times_processes_are_part_of_the_law(tmp_path: Any) -> None:
    pytest.importorskip("accelerate")
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", str(script)],
        capture_output=True, text=True, env={**__import__("os").environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "equal" in done.stdout


@given(
    T=st.integers(2, 400),
    total=st.integers(1, 600),
    floor=st.floats(0, 0.2),
    which=st.sampled_from(["cosine", "linear", "polynomial"]),
)
@settings(max_examples=60, deadline=None)
def test_a_length_of_its_own_is_read_whatever_the_runs_length(T: int, total: int, floor: float, which: str) -> None:
    o = optimizer_of((0.1,))
    scheduler: Any = {
        "cosine": lambda: S.CosineAnnealingLR(o, T, floor * 0.1),
        "linear": lambda: S.LinearLR(o, 1.0, floor, total_iters=T),
        "polynomial": lambda: S.PolynomialLR(o, T),
    }[which]()
    law = read(scheduler, total)
    assert law is not None and law["total_steps"] == max(T, total)
    used = walk(o, scheduler, total)[:, 0]
    # an oscillating cosine is computed by a recursion that loses digits at each floor
    assert np.abs(parse(law).rate(np.arange(total)) - used).max() <= (1e-8 if which == "cosine" else 1e-11) * 0.1


# ---- timm and ignite, where they are installed -------------------------------------------------------------------------

timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
ignite = pytest.mark.skipif(importlib.util.find_spec("ignite") is None, reason="ignite is not installed")

TIMM: dict[str, tuple[str, dict[str, Any]]] = {
    "cosine": ("CosineLRScheduler", {"t_initial": 100}),
    "cosine, floor, warm-up": ("CosineLRScheduler", {"t_initial": 200, "lr_min": 1e-5, "warmup_t": 9, "warmup_lr_init": 1e-6}),
    "cosine, prefix": ("CosineLRScheduler", {"t_initial": 200, "warmup_t": 9, "warmup_prefix": True}),
    "cosine, cycles": ("CosineLRScheduler", {"t_initial": 40, "cycle_limit": 3, "cycle_decay": 0.5, "lr_min": 1e-5}),
    "cosine, longer cycles": ("CosineLRScheduler", {"t_initial": 30, "cycle_limit": 3, "cycle_mul": 2.0}),
    "poly": ("PolyLRScheduler", {"t_initial": 200, "power": 0.9, "lr_min": 1e-5, "warmup_t": 10}),
    "tanh": ("TanhLRScheduler", {"t_initial": 200, "lr_min": 1e-5, "warmup_t": 10, "warmup_lr_init": 1e-6}),
    "tanh, prefix": ("TanhLRScheduler", {"t_initial": 200, "warmup_t": 10, "warmup_prefix": True}),
    "step": ("StepLRScheduler", {"decay_t": 45, "decay_rate": 0.3, "warmup_t": 5}),
    "multistep": ("MultiStepLRScheduler", {"decay_t": [50, 90], "decay_rate": 0.3, "warmup_t": 5, "warmup_prefix": False}),
    "wsd": ("WSDLRScheduler", {"t_initial": 200, "decay_t": 60, "warmup_t": 5, "lr_min": 1e-5}),
}  # fmt: skip


@timm
@pytest.mark.parametrize("in_epochs", [False, True])
@pytest.mark.parametrize("kind", TIMM)
def test_timms_schedulers(kind: str, in_epochs: bool) -> None:
    import timm.scheduler.scheduler_factory  # noqa: F401
    from timm import scheduler as timm_schedulers
    from timm.scheduler import wsd_lr

    name, given = TIMM[kind]
    o = optimizer_of((0.02, 0.003))
    o.param_groups[1]["lr_scale"] = 0.25
    cls = getattr(timm_schedulers, name, None) or getattr(wsd_lr, name)
    scheduler = cls(o, t_in_epochs=in_epochs, **given)
    reading = reading_of(scheduler, TOTAL)
    assert reading.unit == ("epoch" if in_epochs else "step") and None not in reading.groups, reading.why
    used = []
    for n in range(TOTAL):
        used.append([group["lr"] for group in o.param_groups])
        (scheduler.step if in_epochs else scheduler.step_update)(n + 1)
    for number, law in enumerate(reading.groups):
        assert law is not None
        column = np.array(used)[:, number]
        # at construction timm sets the rate itself, without lr_scale where there is no warm-up: one step of its own
        begin = 0 if number == 0 or given.get("warmup_t") else 1
        ours = parse(law).rate(np.arange(TOTAL))
        assert np.abs(ours - column)[begin:].max() <= 1e-13 * column.max()


@timm
def test_timms_plateau_and_noise_have_no_schedule() -> None:
    from timm.scheduler import CosineLRScheduler, PlateauLRScheduler

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert read(PlateauLRScheduler(optimizer_of((0.1,))), TOTAL) is None
    assert read(CosineLRScheduler(optimizer_of((0.1,)), 100, noise_range_t=(10, 50)), TOTAL) is None


@ignite
@pytest.mark.parametrize("kind", ["cosine", "triangle", "pieces", "concat", "warm-up over torch", "torch", "groups"])
def test_ignites_schedulers(kind: str) -> None:
    from ignite.engine import Engine, Events
    from ignite.handlers import param_scheduler as P

    o = optimizer_of((0.02,))
    made: Any = {
        "cosine": lambda: P.CosineAnnealingScheduler(o, "lr", 0.1, 0.001, 60, cycle_mult=2),
        "triangle": lambda: P.LinearCyclicalScheduler(o, "lr", 0.1, 0.001, 50),
        "pieces": lambda: P.PiecewiseLinear(o, "lr", [(10, 0.5), (20, 0.45), (200, 0.3)]),
        "concat": lambda: P.ConcatScheduler(
            [P.LinearCyclicalScheduler(o, "lr", 0.1, 0.5, 60), P.CosineAnnealingScheduler(o, "lr", 0.5, 0.01, 60)], [30]
        ),
        "warm-up over torch": lambda: P.create_lr_scheduler_with_warmup(S.ExponentialLR(o, 0.98), 0.0, 10),
        "torch": lambda: P.LRScheduler(S.StepLR(o, 40, 0.5)),
        "groups": lambda: P.ParamGroupScheduler(
            [P.CosineAnnealingScheduler(o, "lr", 0.1, 0.01, 50, param_group_index=0)]
        ),
    }[kind]()
    law = read(made, TOTAL)
    assert law is not None, reading_of(made, TOTAL).why
    used: list[float] = []
    engine = Engine(lambda *_: used.append(o.param_groups[0]["lr"]))
    engine.add_event_handler(Events.ITERATION_STARTED, made)
    engine.run(range(TOTAL), max_epochs=1)
    ours = parse(law).rate(np.arange(TOTAL))
    assert np.abs(ours - np.array(used)).max() <= 1e-12 * max(used)
