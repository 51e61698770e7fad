"""The cases: healthy loops that must be quiet, and loops with one fault each that must be named."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from torch.optim import lr_scheduler as S

from tests.bench.abroad import loops, trainers
from tests.bench.abroad.judge import Case
from tests.bench.abroad.loops import PER_EPOCH, TOTAL, transformers, warmed

Make = Callable[[Any], Any]

TORCH: dict[str, Make] = {
    "one cycle": lambda o: S.OneCycleLR(o, 1e-2, total_steps=TOTAL),
    "one cycle, linear, three phases": lambda o: S.OneCycleLR(
        o, 1e-2, total_steps=TOTAL, anneal_strategy="linear", three_phase=True
    ),
    "cosine": lambda o: S.CosineAnnealingLR(o, TOTAL, eta_min=1e-5),
    "cosine that oscillates": lambda o: S.CosineAnnealingLR(o, 30),
    "warm restarts": lambda o: S.CosineAnnealingWarmRestarts(o, 20, 2),
    "linear": lambda o: S.LinearLR(o, 1.0, 0.1, total_iters=TOTAL),
    "linear warm-up alone": lambda o: S.LinearLR(o, 0.1, 1.0, total_iters=30),
    "polynomial": lambda o: S.PolynomialLR(o, TOTAL, 2.0),
    "exponential": lambda o: S.ExponentialLR(o, 0.98),
    "step": lambda o: S.StepLR(o, 40, 0.5),
    "multistep": lambda o: S.MultiStepLR(o, [40, 80], 0.3),
    "constant": lambda o: S.ConstantLR(o, 1.0),
    "constant, default factor": lambda o: S.ConstantLR(o),
    "cyclic": lambda o: S.CyclicLR(o, 1e-4, 1e-2, 15, cycle_momentum=False),
    "warm-up, cosine": warmed(lambda o: S.CosineAnnealingLR(o, TOTAL - 15, 1e-6)),
    "warm-up, multistep": warmed(lambda o: S.MultiStepLR(o, [40, 80])),
    "warm-up, exponential": warmed(lambda o: S.ExponentialLR(o, 0.98)),
    "chain": lambda o: S.ChainedScheduler([S.LinearLR(o, 0.1, total_iters=20), S.ExponentialLR(o, 0.99)]),
    "a function of one's own": lambda o: S.LambdaLR(o, lambda n: 1 / (1 + n)),
}
HF = {
    "linear": {},
    "cosine": {},
    "cosine_with_restarts": {"num_cycles": 3},
    "polynomial": {"lr_end": 1e-5, "power": 2.0},
    "constant_with_warmup": {},
    "inverse_sqrt": {},
    "cosine_with_min_lr": {"min_lr_rate": 0.1},
    "warmup_stable_decay": {"num_decay_steps": 40},
}
FAULTY_LOOPS = (
    loops.torch_loop,
    loops.accelerate_loop,
    loops.timm_loop,
)  # the others have the fault in what they are given
ORDERS = ("step, schedule, log", "step, log, schedule", "log, step, schedule")


def installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def case(framework: str, name: str, run: Callable[..., Path], *causes: str, fault: str = "", **given: Any) -> Case:
    if fault and run in FAULTY_LOOPS:
        given["fault"] = fault
    return Case(framework, f"{name}, {fault}" if fault else name, partial(run, **given), causes, fault)


# ---- healthy ---------------------------------------------------------------------------------------------------------


def healthy() -> Iterator[Case]:
    yield from _healthy_loops()
    yield from _healthy_trainers()
    for name, make in (("cosine", TORCH["cosine"]), ("one cycle", TORCH["one cycle"]), ("step", TORCH["step"])):
        for accumulate in (1, 3):
            yield case("accelerate", name, loops.accelerate_loop, make=make, accumulate=accumulate)
    if installed("timm"):
        yield from _healthy_timm()
    if installed("ignite"):
        yield from _healthy_ignite()
    for which, module in (("schedule-free", "schedulefree"), ("Prodigy", "prodigyopt")):
        if installed(module):
            yield case(which, "without a scheduler", loops.without_a_scheduler, which=which)


def _healthy_loops() -> Iterator[Case]:
    loop = loops.torch_loop
    for name, make in TORCH.items():
        for order in ORDERS:
            yield case("torch", f"{name} ({order})", loop, make=make, order=order)
    for name, given in HF.items():
        yield case("torch", f"transformers' {name}", loop, make=transformers(name, **given))
        yield case(
            "torch", f"transformers' {name}, two groups", loop, make=transformers(name, **given), groups=(1e-2, 3e-4)
        )
    for name in ("cosine", "one cycle", "warm-up, cosine", "exponential", "multistep", "cyclic", "chain"):
        make = TORCH[name]
        yield case("torch", f"{name}, layer-wise rates", loop, make=make, groups=(1e-2, 1e-3, 1e-4))
        yield case("torch", f"{name}, first group frozen", loop, make=make, groups=(0.0, 1e-3))
    for name in ("cosine", "one cycle", "linear", "multistep", "exponential", "step", "warm-up, cosine"):
        yield case("torch", f"{name}, tensor rates", loop, make=TORCH[name], tensor=True)
    for name in ("cosine", "one cycle", "exponential", "warm-up, cosine"):
        for at in (PER_EPOCH, 2 * PER_EPOCH + 7):
            yield case("torch", f"{name}, resumed rightly at {at}", loop, make=TORCH[name], resume_at=at)
        yield case("torch", f"{name}, micro-batches", loop, make=TORCH[name], accumulate=3)
    for total in (TOTAL, 105, 13, 5):
        epochs = -(-total // PER_EPOCH)
        for name, make in {
            "cosine": lambda o, e=epochs: S.CosineAnnealingLR(o, e, 1e-5),
            "step": lambda o: S.StepLR(o, 2),
            "exponential": lambda o: S.ExponentialLR(o, 0.9),
        }.items():
            given = {"make": make, "total": total, "unit": "epoch"}
            yield case("torch", f"{name} per epoch, {total} steps", loop, **given)


def _healthy_trainers() -> Iterator[Case]:
    hf, lightning = trainers.transformers_run, trainers.lightning_run
    special = HF | {"constant": {}, "warmup_stable_decay": {"num_decay_steps": 10}}
    for name, given in special.items():
        for warm in (0, 5):
            if name == "warmup_stable_decay" and warm == 0:
                continue
            settings = {"lr_scheduler_type": name, "lr_scheduler_kwargs": given, "warmup_steps": warm}
            yield case("transformers", f"{name}, warm-up {warm}", hf, **settings)
    for extra in ({"gradient_accumulation_steps": 5}, {"max_steps": 7}, {"max_steps": 1}, {"num_train_epochs": 0.5}):
        yield case("transformers", f"linear, {extra}", hf, lr_scheduler_type="linear", warmup_steps=2, **extra)
    plateau = {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "epoch", "metric_for_best_model": "loss"}
    yield case("transformers", "plateau", hf, **plateau)
    yield case(
        "transformers", "own cosine, two groups", hf, scheduler=lambda o: S.CosineAnnealingLR(o, 36), groups=True
    )
    each: dict[str, Any] = {
        "StepLR, default interval": lambda o: S.StepLR(o, 2),
        "ExponentialLR, default interval": lambda o: S.ExponentialLR(o, 0.9),
        "MultiStepLR, default interval": lambda o: S.MultiStepLR(o, [1, 2]),
        "cosine over epochs": lambda o: S.CosineAnnealingLR(o, 3),
        "one cycle, interval step": lambda o: {"scheduler": S.OneCycleLR(o, 1e-2, total_steps=36), "interval": "step"},
        "cosine, interval step": lambda o: {"scheduler": S.CosineAnnealingLR(o, 36), "interval": "step"},
        "frequency 10": lambda o: {"scheduler": S.StepLR(o, 1), "interval": "step", "frequency": 10},
        "frequency 2 of epochs": lambda o: {"scheduler": S.StepLR(o, 1), "frequency": 2},
        "plateau": lambda o: {"scheduler": S.ReduceLROnPlateau(o), "monitor": "val_loss"},
        "no scheduler": None,
    }
    for name, build in each.items():
        for groups in (False, True):
            yield case("Lightning", f"{name}{', two groups' if groups else ''}", lightning, build=build, groups=groups)
    yield case(
        "Lightning", "max_steps 5", lightning, build=each["StepLR, default interval"], max_steps=5, max_epochs=-1
    )
    yield case(
        "Lightning", "training_step returns None", lightning, build=each["ExponentialLR, default interval"], skip=True
    )
    yield case("Lightning", "fast_dev_run", lightning, build=each["StepLR, default interval"], fast_dev_run=True)
    yield case("Lightning", "averaging", _averaged)
    for name, build in {
        "cosine and exponential": lambda a, b: [S.CosineAnnealingLR(a, 36), S.ExponentialLR(b, 0.9)],
        "one scheduler of two": lambda _, b: [S.ExponentialLR(b, 0.95)],
        "none": lambda *_: [],
    }.items():
        yield case("Lightning", f"two optimizers by hand, {name}", trainers.lightning_gan, build=build)


def _averaged(folder: Path) -> Path:
    from lightning.pytorch.callbacks import StochasticWeightAveraging

    swa = StochasticWeightAveraging(swa_lrs=1e-4, swa_epoch_start=2, annealing_epochs=2)
    return trainers.lightning_run(folder, lambda o: S.ExponentialLR(o, 0.9), max_epochs=6, callbacks=[swa])


def _timm(name: str, **given: Any) -> Make:
    def make(optimizer: Any) -> Any:
        from timm import scheduler

        return getattr(scheduler, name)(optimizer, **given)

    return make


def _healthy_timm() -> Iterator[Case]:
    for in_epochs in (True, False):
        length = 12 if in_epochs else 120
        for name, given in (
            (
                "CosineLRScheduler",
                {"t_initial": length, "lr_min": 1e-5, "warmup_t": length // 6, "warmup_lr_init": 1e-6},
            ),
            ("CosineLRScheduler", {"t_initial": length // 3, "cycle_limit": 3, "cycle_decay": 0.5}),
            ("PolyLRScheduler", {"t_initial": length, "power": 0.9, "warmup_t": 2}),
            ("TanhLRScheduler", {"t_initial": length, "warmup_t": 2}),
            ("StepLRScheduler", {"decay_t": length // 4, "decay_rate": 0.3}),
            ("MultiStepLRScheduler", {"decay_t": [length // 3, length // 2], "decay_rate": 0.3}),
        ):
            words = f"{name} {given}, {'epochs' if in_epochs else 'updates'}"
            yield case("timm", words, loops.timm_loop, make=_timm(name, t_in_epochs=in_epochs, **given))


def _healthy_ignite() -> Iterator[Case]:
    from ignite.handlers import param_scheduler as P

    for name, make in {
        "cosine": lambda o: P.CosineAnnealingScheduler(o, "lr", 1e-2, 1e-4, TOTAL),
        "triangle": lambda o: P.LinearCyclicalScheduler(o, "lr", 1e-2, 1e-4, 40),
        "pieces": lambda o: P.PiecewiseLinear(o, "lr", [(10, 1e-2), (50, 5e-3), (110, 1e-4)]),
        "torch's, wrapped": lambda o: P.LRScheduler(S.StepLR(o, 30)),
        "warm-up over torch's": lambda o: P.create_lr_scheduler_with_warmup(S.ExponentialLR(o, 0.98), 1e-4, 10),
    }.items():
        yield case("ignite", name, loops.ignite_loop, make=make)


# ---- broken ----------------------------------------------------------------------------------------------------------

MOVING = {
    "one cycle": TORCH["one cycle"],
    "cosine": TORCH["cosine"],
    "exponential": TORCH["exponential"],
    "warm-up, cosine": TORCH["warm-up, cosine"],
    "transformers' linear": transformers("linear"),
    "transformers' inverse_sqrt": transformers("inverse_sqrt"),
}
FAULTS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "never": (("scheduler_never_stepped",), {}),
    "per epoch": (("scheduler_stepped_per_epoch",), {}),
    "batch and epoch": (("scheduler_stepped_per_batch_and_epoch",), {}),
    "per micro-batch": (("scheduler_stepped_per_microbatch",), {"accumulate": 3}),
    "in every process": (("scheduler_stepped_per_process",), {}),
    "scheduler lost": (("schedule_restarted_on_resume", "unknown"), {"resume_at": 50}),
    "nothing restored": (("schedule_restarted_on_resume",), {"resume_at": 50}),
    "frozen on resume": (("schedule_frozen_on_resume",), {"resume_at": 50}),
    "frozen from the middle": (("any",), {}),
    "new scheduler each epoch": (("any",), {}),
}


def broken() -> Iterator[Case]:
    loop = loops.torch_loop
    for fault, (causes, given) in FAULTS.items():
        for name, make in MOVING.items():
            if fault == "scheduler lost" and name == "exponential":
                continue  # it goes on from the rate that the optimizer restored: nothing is wrong with the rate
            yield case("torch", name, loop, *causes, fault=fault, make=make, **given)
    for fault in ("a group frozen", "a group scaled"):
        for name in ("one cycle", "cosine", "transformers' linear", "exponential"):
            if fault == "a group scaled" and name in ("cosine", "exponential"):
                continue  # schedulers that go on from the rate they find: it would be scaled again at each step
            yield case("torch", name, loop, "any", fault=fault, make=MOVING[name], groups=(1e-2, 1e-3))
    for name in ("one cycle", "transformers' linear"):
        yield case("torch", name, loop, "rate_scaled", fault="scaled", make=MOVING[name])
    early = {"one cycle": lambda o: S.OneCycleLR(o, 1e-2, total_steps=TOTAL - 1), "linear": transformers("linear", 80)}
    yield case(
        "torch",
        "linear",
        loop,
        "schedule_overrun",
        "wrong_total_steps",
        "any",
        fault="built for 80 of 120",
        make=early["linear"],
    )
    for name, make in {
        "one cycle": lambda o: S.OneCycleLR(o, 1e-2, total_steps=4 * TOTAL),
        "cosine": lambda o: S.CosineAnnealingLR(o, 4 * TOTAL),
        "linear": transformers("linear", 4 * TOTAL),
    }.items():
        yield case("torch", name, loop, "any", fault="built for the micro-batches", make=make, accumulate=4)
    for name in ("one cycle", "transformers' linear"):
        yield Case(
            "torch",
            f"{name}, schedule, then step",
            partial(loop, make=MOVING[name], order="schedule, step, log"),
            ("any",),
            "off by one",
        )
    for name, make in (("cosine", lambda o: S.CosineAnnealingLR(o, 6)), ("step", lambda o: S.StepLR(o, 2))):
        yield case(
            "torch", name, loop, "epoch_schedule_stepped_per_batch", fault="every batch", make=make, unit="epoch"
        )
    for fault in ("never", "per epoch", "inner too"):
        yield case(
            "accelerate", "cosine", loops.accelerate_loop, "any", fault=fault, make=lambda o: S.CosineAnnealingLR(o, 60)
        )
    yield from _broken_trainers()
    if installed("timm"):
        for fault in ("never", "epochs for updates"):
            make = _timm("CosineLRScheduler", t_initial=120, t_in_epochs=False)
            yield case("timm", "cosine of updates", loops.timm_loop, "any", fault=fault, make=make)
        for fault in ("no step at the epoch", "an epoch behind"):
            make = _timm("CosineLRScheduler", t_initial=12)
            yield case("timm", "cosine of epochs", loops.timm_loop, "any", fault=fault, make=make)
    if installed("ignite"):
        from ignite.handlers import param_scheduler as P

        make = lambda o: P.LRScheduler(S.CosineAnnealingWarmRestarts(o, 200))  # noqa: E731
        yield case(
            "ignite", "cosine", loops.ignite_loop, "any", fault="attached to epochs", make=make, event="EPOCH_STARTED"
        )


def _broken_trainers() -> Iterator[Case]:
    hf, lightning = trainers.transformers_run, trainers.lightning_run
    for name, build in {
        "one cycle": lambda o: S.OneCycleLR(o, 1e-2, total_steps=36),
        "cosine": lambda o: S.CosineAnnealingLR(o, 36),
        "linear": lambda o: S.LinearLR(o, 1.0, 0.0, total_iters=36),
    }.items():
        for groups in (False, True):
            words = f"{name}{', two groups' if groups else ''}"
            fault = "default interval"
            yield case(
                "Lightning", words, lightning, "scheduler_stepped_per_epoch", fault=fault, build=build, groups=groups
            )
    for name, build in {
        "one cycle": lambda o: {"scheduler": S.OneCycleLR(o, 1e-2, total_steps=36), "interval": "step"},
        "cosine": lambda o: {"scheduler": S.CosineAnnealingLR(o, 36), "interval": "step"},
    }.items():
        fault = "built for the micro-batches"
        yield case("Lightning", name, lightning, "any", fault=fault, build=build, accumulate_grad_batches=4)
        yield case("transformers", name, hf, "any", fault=fault, scheduler=lambda o, b=build: b(o)["scheduler"],
                   gradient_accumulation_steps=4)  # fmt: skip
    yield case(
        "transformers",
        "cosine over epochs",
        hf,
        "any",
        fault="T_max in epochs",
        scheduler=lambda o: S.CosineAnnealingLR(o, 3),
    )
    yield case("transformers", "warm-up alone", hf, "any", fault="a warm-up that never ends",
               lr_scheduler_type="constant_with_warmup", warmup_steps=36)  # fmt: skip
