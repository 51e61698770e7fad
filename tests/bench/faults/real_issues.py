"""Faults of public projects, each reduced to the mechanism that its report describes, on torch's own schedulers.

Sizes are small (hundreds to thousands of steps) where the mechanism does not depend on them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tests.bench.faults.loop import Case, Loop

CASES: dict[str, tuple[str, str, Callable[[], Loop]]] = {}
GITHUB = "https://github.com/"


def case(cause: str, reference: str) -> Callable[[Callable[[], Loop]], Callable[[], Loop]]:
    def register(make: Callable[[], Loop]) -> Callable[[], Loop]:
        CASES[make.__name__] = (cause, GITHUB + reference if reference.count("/") == 3 else reference, make)
        return make

    return register


def cases() -> list[Case]:
    return [Case(name, reference, cause, make().attempts) for name, (cause, reference, make) in CASES.items()]


def one_cycle(total: int, **parameters: Any) -> dict[str, Any]:
    return {"name": "one_cycle", "total_steps": total, "max_lr": 3e-3, "pct_start": 0.2, **parameters}


def linear(total: int, warmup: int) -> dict[str, Any]:
    return {"name": "linear", "total_steps": total, "max_lr": 1e-4, "warmup_steps": warmup, "initial_lr": 0.0}


def hf_cosine(total: int, warmup: int) -> dict[str, Any]:
    return {"name": "cosine", "total_steps": total, "max_lr": 1e-4, "warmup_steps": warmup, "initial_lr": 0.0}


# ---- stepped once an epoch -------------------------------------------------------------------------------------------


@case("scheduler_stepped_per_epoch", "pytorch/pytorch/issues/65417")
def pytorch_65417() -> Loop:
    loop = Loop(one_cycle(2000, max_lr=1e-2), per_epoch=100)
    scheduler = loop.one_cycle()
    loop.train(500, epoch_end=scheduler.step)
    return loop


@case("scheduler_stepped_per_epoch", "Lightning-AI/pytorch-lightning/issues/5631")
def lightning_5631_bare_scheduler_is_stepped_per_epoch() -> Loop:
    loop = Loop(one_cycle(3000), per_epoch=300)
    scheduler = loop.one_cycle()
    loop.train(900, epoch_end=scheduler.step)
    return loop


@case("scheduler_stepped_per_epoch", "Lightning-AI/pytorch-lightning/issues/6948")
def lightning_6948_interval_at_the_wrong_level_of_the_dict() -> Loop:
    loop = Loop({"name": "cosine", "total_steps": 2000, "max_lr": 1e-3}, per_epoch=200)
    scheduler = loop.cosine()
    loop.train(600, epoch_end=scheduler.step)
    return loop


@case("scheduler_stepped_per_epoch", "Lightning-AI/pytorch-lightning/issues/20436")
def lightning_20436() -> Loop:
    loop = Loop(hf_cosine(5000, 500), per_epoch=500)
    scheduler = loop.warm_cosine()
    loop.train(1200, epoch_end=scheduler.step)
    return loop


@case("scheduler_stepped_per_epoch", "espnet/espnet/pull/3319")
def espnet_3319() -> Loop:
    loop = Loop(linear(4000, 400), per_epoch=400)
    scheduler = loop.warm_linear()
    loop.train(1300, epoch_end=scheduler.step)
    return loop


@case("scheduler_stepped_per_epoch", "ageron/handson-mlp/issues/28")
def handson_mlp_28() -> Loop:
    loop = Loop(one_cycle(1100, max_lr=0.1, pct_start=0.3), per_epoch=55)
    scheduler = loop.one_cycle()
    loop.train(300, epoch_end=scheduler.step)
    return loop


@case("scheduler_stepped_per_epoch", "the incident: 16 epochs right, then a resume that steps once an epoch")
def the_incident() -> Loop:
    """A hundredth of its size: 582 steps an epoch, 50 epochs; the first 16 epochs are healthy."""
    loop = Loop(one_cycle(29_100, final_div_factor=1000), per_epoch=582)
    scheduler = loop.one_cycle()
    loop.train(16 * 582, each=lambda _: scheduler.step())
    state = scheduler.state_dict()
    loop.new_process(restored={"step": 16 * 582, "position": float(16 * 582), "total_steps": 29_100})
    restored = loop.one_cycle()
    restored.load_state_dict(state)
    loop.optimizer.param_groups[0]["lr"] = restored.get_last_lr()[0]
    loop.train(1000, epoch_end=restored.step)
    return loop


@case("scheduler_stepped_per_epoch", "the textbook case: stuck at 1.20e-04")
def the_textbook_case() -> Loop:
    loop = Loop(one_cycle(58_285, final_div_factor=1000), per_epoch=11_657)
    scheduler = loop.one_cycle()
    loop.train(12_000, epoch_end=scheduler.step)
    return loop


@case("scheduler_never_stepped", "the reference: scheduler.step() forgotten")
def never_stepped() -> Loop:
    loop = Loop(one_cycle(2000), per_epoch=100)
    loop.one_cycle()
    loop.train(400)
    return loop


# ---- stepped too often -----------------------------------------------------------------------------------------------


def _every_process(declared: dict[str, Any], world: int, make: Callable[[Loop], Any], steps: int) -> Loop:
    """accelerate's AcceleratedScheduler steps num_processes times unless split_batches; a scheduler that was built for
    the steps of one process then runs ahead."""
    loop = Loop(declared, per_epoch=200, world_size=world)
    scheduler = make(loop)

    def step(_: int) -> None:
        for _process in range(world):
            scheduler.step()

    loop.train(steps, each=step)
    return loop


@case("scheduler_stepped_per_process", "huggingface/accelerate/issues/2926")
def accelerate_2926() -> Loop:
    return _every_process(linear(4000, 400), 2, Loop.warm_linear, 900)


@case("scheduler_stepped_per_process", "huggingface/accelerate/issues/2142")
def accelerate_2142() -> Loop:
    return _every_process(hf_cosine(6000, 300), 4, Loop.warm_cosine, 900)


@case("scheduler_stepped_per_process", "huggingface/accelerate/issues/1398")
def accelerate_1398() -> Loop:
    return _every_process(linear(8000, 800), 8, Loop.warm_linear, 900)


@case("scheduler_stepped_per_process", "huggingface/diffusers/issues/3954")
def diffusers_3954() -> Loop:
    return _every_process(hf_cosine(2000, 100), 2, Loop.warm_cosine, 700)


@case("scheduler_stepped_per_process", "Lightricks/LTX-Video-Trainer/issues/67")
def ltx_video_trainer_67() -> Loop:
    return _every_process(linear(2000, 0), 8, Loop.warm_linear, 200)


@case("scheduler_stepped_per_process", "huggingface/transformers/pull/24088")
def transformers_24088() -> Loop:
    return _every_process(one_cycle(4000), 4, Loop.one_cycle, 800)


@case("scheduler_stepped_per_microbatch", "gradient accumulation with the scheduler in the inner loop")
def stepped_per_microbatch() -> Loop:
    loop = Loop(one_cycle(3000), per_epoch=300, accumulate=4)
    scheduler = loop.one_cycle()

    def micro_batches(_: int) -> None:
        for _micro in range(4):
            scheduler.step()

    loop.train(700, each=micro_batches)
    return loop


@case("scheduler_stepped_per_batch_and_epoch", "aimagelab/meshed-memory-transformer/issues/71")
def meshed_memory_71() -> Loop:
    loop = Loop(one_cycle(2000), per_epoch=100)
    scheduler = loop.one_cycle()
    loop.train(900, each=lambda _: scheduler.step(), epoch_end=scheduler.step)
    return loop


def _epoch_schedule_every_batch(declared: dict[str, Any], make: Callable[[Loop], Any]) -> Loop:
    loop = Loop({**declared, "unit": "epoch"}, per_epoch=50)
    scheduler = make(loop)
    loop.train(40, each=lambda _: scheduler.step())
    return loop


@case("epoch_schedule_stepped_per_batch", "pytorch/vision/issues/1261")
def torchvision_1261() -> Loop:
    def step_lr(loop: Loop) -> torch.optim.lr_scheduler.StepLR:
        loop.optimizer.param_groups[0]["lr"] = 0.1
        return torch.optim.lr_scheduler.StepLR(loop.optimizer, step_size=3, gamma=0.5)

    return _epoch_schedule_every_batch(
        {"name": "step", "total_steps": 90, "max_lr": 0.1, "step_size": 3, "gamma": 0.5}, step_lr
    )


@case("epoch_schedule_stepped_per_batch", "ivadomed/ivadomed/pull/55")
def ivadomed_55() -> Loop:
    return _epoch_schedule_every_batch({"name": "cosine", "total_steps": 100, "max_lr": 1e-3}, Loop.cosine)


@case("epoch_schedule_stepped_per_batch", "automl/Auto-PyTorch/issues/211")
def auto_pytorch_211() -> Loop:
    def exponential(loop: Loop) -> torch.optim.lr_scheduler.ExponentialLR:
        loop.optimizer.param_groups[0]["lr"] = 1e-2
        return torch.optim.lr_scheduler.ExponentialLR(loop.optimizer, gamma=0.9)

    return _epoch_schedule_every_batch(
        {"name": "exponential", "total_steps": 50, "max_lr": 1e-2, "gamma": 0.9}, exponential
    )


# ---- after a resume --------------------------------------------------------------------------------------------------


def _half_way(
    declared: dict[str, Any], steps: int = 1000, **record: Any
) -> tuple[Loop, dict[str, Any], dict[str, Any]]:
    """A healthy first attempt of `steps`; returns the loop in its second process, and the states to restore."""
    loop = Loop(declared, per_epoch=150)
    scheduler = loop.one_cycle()
    loop.train(steps, each=lambda _: scheduler.step())
    states = scheduler.state_dict(), loop.optimizer.state_dict()
    loop.new_process(**record)
    return loop, *states


@case("schedule_restarted_on_resume", "Lightning-AI/pytorch-lightning/issues/15462")
def lightning_15462_the_schedule_begins_again() -> Loop:
    loop, _, _ = _half_way(one_cycle(3000))
    scheduler = loop.one_cycle()
    loop.train(600, each=lambda _: scheduler.step())
    return loop


@case("schedule_restarted_on_resume", "ultralytics/yolov5/issues/292")
def yolov5_292() -> Loop:
    loop, _, optimizer_state = _half_way(one_cycle(2400))
    loop.optimizer.load_state_dict(optimizer_state)
    scheduler = loop.one_cycle()  # built after the load: resets the rate and begins at 0
    loop.train(500, each=lambda _: scheduler.step())
    return loop


@case("schedule_restarted_on_resume", "torch-points3d/torch-points3d/pull/630")
def torch_points3d_630() -> Loop:
    loop, _, optimizer_state = _half_way(one_cycle(2400), steps=700)
    loop.optimizer.load_state_dict(optimizer_state)
    scheduler = loop.one_cycle()
    loop.train(300, each=lambda _: scheduler.step())
    return loop


@case("schedule_lags_after_resume", "Lightning-AI/pytorch-lightning/issues/4655")
def lightning_4655_a_step_behind() -> Loop:
    loop, _, _ = _half_way(one_cycle(3000))
    scheduler = loop.one_cycle()
    for _ in range(999):
        scheduler.step()
    loop.train(500, each=lambda _: scheduler.step())
    return loop


@case("schedule_lags_after_resume", "Lightning-AI/pytorch-lightning/issues/1772")
def lightning_1772_the_epoch_is_replayed() -> Loop:
    loop, _, _ = _half_way(one_cycle(3000))
    scheduler = loop.one_cycle()
    for _ in range(1000 - 1000 % 150):
        scheduler.step()
    loop.train(500, each=lambda _: scheduler.step())
    return loop


@case("schedule_frozen_on_resume", "ildoonet/pytorch-gradual-warmup-lr/issues/27")
def gradual_warmup_27_the_nested_scheduler_keeps_the_old_optimizer() -> Loop:
    loop, scheduler_state, optimizer_state = _half_way(one_cycle(3000))
    old = loop.optimizer
    scheduler = loop.one_cycle()
    scheduler.load_state_dict(scheduler_state)
    loop.optimizer = torch.optim.AdamW([loop.weight], lr=1.0)
    loop.optimizer.load_state_dict(optimizer_state)
    assert scheduler.optimizer is old
    loop.train(500, each=lambda _: scheduler.step())
    return loop


@case("schedule_frozen_on_resume", "XPixelGroup/BasicSR/issues/327")
def basicsr_327() -> Loop:
    loop, _, optimizer_state = _half_way(one_cycle(2400), steps=600)
    loop.optimizer.load_state_dict(optimizer_state)
    loop.train(400)
    return loop


@case("rate_reset_on_resume", "pytorch/pytorch/issues/65342")
def pytorch_65342() -> Loop:
    loop, _, _ = _half_way(one_cycle(3000), restored={"step": 1000, "position": 1000.0, "total_steps": 3000})
    loop.optimizer.param_groups[0]["lr"] = 3e-3 / 25
    loop.train(120)  # until the scheduler moves
    return loop


@case("wrong_total_steps", "deepinsight/insightface/pull/2143")
def insightface_2143_load_state_dict_restores_the_old_total() -> Loop:
    loop = Loop(one_cycle(2000), per_epoch=100)
    scheduler = loop.one_cycle()
    loop.train(800, each=lambda _: scheduler.step())
    state = scheduler.state_dict()
    loop.declared = one_cycle(4000)  # the run is made longer, the state is loaded: torch silently keeps 2000
    loop.new_process(restored={"step": 800, "position": 800.0, "total_steps": 2000})
    longer = loop.one_cycle()
    longer.load_state_dict(state)
    loop.optimizer.param_groups[0]["lr"] = longer.get_last_lr()[0]
    loop.train(600, each=lambda _: longer.step())
    return loop


# ---- the wrong curve -------------------------------------------------------------------------------------------------


@case("wrong_total_steps", "huggingface/accelerate/issues/662")
def accelerate_662_total_steps_without_accumulation() -> Loop:
    loop = Loop(one_cycle(2000), per_epoch=200, accumulate=4)
    scheduler = loop.one_cycle(total=8000)
    loop.train(1500, each=lambda _: scheduler.step())
    return loop


@case("wrong_total_steps", "Lightning-AI/pytorch-lightning/issues/3205")
def lightning_3205() -> Loop:
    loop = Loop(one_cycle(3000), per_epoch=300)
    scheduler = loop.one_cycle(total=2400)
    loop.train(2000, each=lambda _: scheduler.step())
    return loop


@case("optimizer_steps_skipped", "Lightning-AI/pytorch-lightning/issues/18828")
def amp_skips_steps_that_the_scheduler_counts() -> Loop:
    loop = Loop(one_cycle(6000), per_epoch=300)
    scheduler = loop.one_cycle()

    def step(n: int) -> None:
        scheduler.step()
        if n in (
            3,
            4,
            9,
            700,
            1400,
            2100,
        ):  # the scaler skipped the optimizer's step: nothing is logged, the schedule moves
            scheduler.step()

    loop.train(2500, each=step)
    return loop


@case("final_div_factor_from_initial", "numenta/nupic.research/pull/360")
def the_floor_from_the_peak() -> Loop:
    loop = Loop(one_cycle(2000, final_div_factor=1000.0), per_epoch=100)
    scheduler = loop.one_cycle(final_div_factor=40)  # the author meant max_lr / 1000
    loop.train(2000, each=lambda _: scheduler.step())
    return loop


@case("rate_scaled", "learning rate x world size, declared without it")
def rate_times_world_size() -> Loop:
    loop = Loop(linear(2000, 200), per_epoch=100, world_size=4)
    scheduler = loop.warm_linear(factor=4.0)
    loop.train(800, each=lambda _: scheduler.step())
    return loop


@case("schedule_overrun", "torch: Tried to step N times")
def past_the_end_a_cosine_rises_again() -> Loop:
    loop = Loop({"name": "cosine", "total_steps": 500, "max_lr": 1e-3, "final_lr": 1e-5}, per_epoch=50)
    scheduler = loop.cosine()
    loop.train(700, each=lambda _: scheduler.step())
    return loop


@case("override_not_honoured", "Interactive Training (EMNLP 2025): a rate written under OneCycleLR lasts one step")
def a_rate_written_under_the_scheduler() -> Loop:
    base = one_cycle(3000)
    loop, scheduler_state, _ = _half_way(base)
    manual = {"name": "manual", "from_step": 1000, "lr": 3e-4, "then": "hold", "total_steps": 3000, "base": base}
    loop.attempts.pop()
    loop.declared = manual
    loop.new_process()
    loop.declared = base
    scheduler = loop.one_cycle()
    scheduler.load_state_dict(scheduler_state)
    loop.optimizer.param_groups[0]["lr"] = 3e-4
    loop.train(400, each=lambda _: scheduler.step())
    return loop


@case("override_not_honoured", "pytorch/pytorch/issues/156846")
def pytorch_156846_the_new_rate_is_ignored_on_resume() -> Loop:
    base = one_cycle(3000)
    loop, scheduler_state, _ = _half_way(base)
    loop.attempts.pop()
    loop.declared = {
        "name": "manual",
        "from_step": 1000,
        "lr": 5e-4,
        "then": "anneal",
        "total_steps": 3000,
        "base": base,
    }
    loop.new_process()
    loop.declared = base
    scheduler = loop.one_cycle()
    scheduler.load_state_dict(scheduler_state)
    loop.optimizer.param_groups[0]["lr"] = scheduler.get_last_lr()[0]
    loop.train(400, each=lambda _: scheduler.step())
    return loop
