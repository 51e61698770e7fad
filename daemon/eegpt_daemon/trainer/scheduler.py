"""Schedules in training: the rate as a pure function of the global step, and torch's scheduler of the same name.

The loop assigns `rate_at(schedule, step)` before every optimizer step: there is no stateful scheduler that could be
stepped at the wrong time or restored wrongly. Torch's own schedulers serve the preflight, the tests and the injected
faults, which must be the real thing.
"""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer
from torch.optim import lr_scheduler as torch_schedulers
from torch.optim.lr_scheduler import LRScheduler

from eegwatch.schedule import Schedule, ScheduleError, families, resumed

# parameters of our families that torch's scheduler of that name does not have, with their neutral values
NOT_TORCHS = {"cycles": 0.5, "restarts": 0, "decay_steps": None, "cycle_decay": 1.0, "cycle_limit": None}


def effective(declared: Schedule, overrides: list[dict[str, Any]], steps_per_epoch: int) -> Schedule:
    """The declared schedule after every manual change, in order. An override without `lr` rejoins the declared one."""
    schedule = declared
    for override in overrides:
        schedule = resumed(
            declared,
            int(override["from_step"]),
            override.get("lr"),
            override.get("then", "anneal"),
            steps_per_epoch=steps_per_epoch,
            force=bool(override.get("force")),
        )
    return schedule


def torch_scheduler(schedule: Schedule, optimizer: Optimizer) -> LRScheduler:
    """Torch's scheduler of this name, on an optimizer whose rate it takes over. Momentum is left alone.

    Raises ScheduleError for names that torch does not have (warmup_hold_anneal, manual, warm-ups).
    """
    s = schedule
    for group in optimizer.param_groups:
        group["lr"] = getattr(s, "max_lr", None) or getattr(s, "lr", group["lr"])
    if isinstance(s, families.OneCycle):
        return torch_schedulers.OneCycleLR(
            optimizer,
            max_lr=s.max_lr,
            total_steps=s.total_steps,
            pct_start=s.pct_start,
            div_factor=s.div_factor,
            final_div_factor=s.final_div_factor,
            anneal_strategy=s.anneal_strategy,
            three_phase=s.three_phase,
            cycle_momentum=False,
        )
    if getattr(s, "warmup_steps", 0):
        raise ScheduleError(f"torch has no {type(s).__name__} with warm-up in one scheduler")
    for name, plain in NOT_TORCHS.items():
        if getattr(s, name, plain) != plain:
            raise ScheduleError(f"torch has no {type(s).__name__} with {name} {getattr(s, name)}")
    if isinstance(s, families.Polynomial) and s.final_lr:
        raise ScheduleError("torch's PolynomialLR ends at 0")
    if isinstance(s, families.Cosine):
        return torch_schedulers.CosineAnnealingLR(optimizer, T_max=s.total_steps, eta_min=s.final_lr)
    if isinstance(s, families.Linear):
        if s.final_lr > s.max_lr:
            raise ScheduleError("torch's LinearLR does not rise above the optimizer's rate")
        end = s.final_lr / s.max_lr if s.max_lr else 1.0
        return torch_schedulers.LinearLR(optimizer, 1.0, end, total_iters=s.total_steps)
    if isinstance(s, families.CosineRestarts):
        return torch_schedulers.CosineAnnealingWarmRestarts(optimizer, int(s.T_0), int(s.T_mult), eta_min=s.final_lr)
    if isinstance(s, families.Polynomial):
        return torch_schedulers.PolynomialLR(optimizer, total_iters=s.total_steps, power=s.power)
    if isinstance(s, families.Exponential):
        return torch_schedulers.ExponentialLR(optimizer, gamma=s.gamma)
    if isinstance(s, families.StepDecay):
        return torch_schedulers.StepLR(optimizer, step_size=int(s.step_size), gamma=s.gamma)
    if isinstance(s, families.MultiStep):
        return torch_schedulers.MultiStepLR(optimizer, milestones=[int(m) for m in s.milestones], gamma=s.gamma)
    if isinstance(s, families.Constant):
        return torch_schedulers.ConstantLR(optimizer, factor=1.0, total_iters=s.total_steps)
    raise ScheduleError(f"torch has no scheduler for {type(s).__name__}")
