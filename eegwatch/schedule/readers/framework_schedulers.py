"""Schedulers of accelerate, timm and ignite, read off their attributes."""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import Any

from eegwatch.schedule.readers.common import Law, LawOf, NotRead, Reader, float_of, known_total, module_of, whole
from eegwatch.schedule.spec import parse

# ---- accelerate ------------------------------------------------------------------------------------------------------


def is_accelerated(scheduler: Any) -> bool:
    return module_of(scheduler).startswith("accelerate.") and hasattr(scheduler, "scheduler")


def accelerated(s: Any, group: int, total: int | None, law_of: LawOf) -> Law:
    """`AcceleratedScheduler`: steps its scheduler once a process and optimizer step, unless batches are split.

    accelerate means a scheduler built for steps x processes; the law says where the rate really goes.
    """
    processes = 1
    if s.step_with_optimizer and not s.split_batches:
        state = sys.modules.get("accelerate.state")
        processes = int(state.AcceleratorState().num_processes) if state is not None else 1
    if processes == 1:
        return law_of(s.scheduler, group, total)
    inner = law_of(s.scheduler, group, None if total is None else total * processes)
    return {"name": "paced", "total_steps": whole(inner["total_steps"] / processes), "of": inner, "steps": processes}


# ---- timm ------------------------------------------------------------------------------------------------------------


def _timm(s: Any, group: int) -> tuple[float, float, Law]:
    """(base, lr_scale, warm-up) of a group. Raises NotRead for noise."""
    if getattr(s, "noise_range_t", None) is not None:
        raise NotRead("noise is added to its rate")
    if s.param_group_field != "lr":
        raise NotRead(f"it moves {s.param_group_field}, not the learning rate")
    scale = float_of(s.optimizer.param_groups[group].get("lr_scale", 1.0))
    warm: Law = {}
    if s.warmup_t:
        mode = "reset" if getattr(s, "warmup_prefix", True) else "overlay"
        warm = {"warmup_steps": s.warmup_t, "initial_lr": float(s.warmup_lr_init) * scale, "warmup_mode": mode}
    return float_of(s.base_values[group]) * scale, scale, warm


def _timm_length(s: Any, total: int | None) -> Law:
    own = s.t_initial + (s.warmup_t if s.warmup_prefix else 0)
    if total is not None and total > own:
        return {"total_steps": total, "decay_steps": s.t_initial}
    return {"total_steps": whole(own)} | ({} if own == whole(own) else {"decay_steps": s.t_initial})


def _one_timm_cycle(s: Any) -> bool:
    if getattr(s, "k_decay", 1.0) != 1.0:
        raise NotRead("k_decay is not known here")
    return int(s.cycle_limit) == 1


def timm_cosine(s: Any, group: int, total: int | None, _: LawOf) -> Law:
    base, scale, warm = _timm(s, group)
    ends = {"max_lr": base, "final_lr": float(s.lr_min) * scale}
    if _one_timm_cycle(s):
        return {"name": "cosine"} | _timm_length(s, total) | ends | warm
    if s.cycle_mul < 1:
        raise NotRead("cycles that become shorter are not known here")
    cycles = {"T_0": s.t_initial, "T_mult": s.cycle_mul, "cycle_decay": float(s.cycle_decay)}
    length = known_total(total)
    return {"name": "cosine_restarts", "total_steps": length, "cycle_limit": int(s.cycle_limit)} | ends | cycles | warm


def timm_polynomial(s: Any, group: int, total: int | None, _: LawOf) -> Law:
    base, scale, warm = _timm(s, group)
    if not _one_timm_cycle(s):
        raise NotRead("a polynomial in cycles is not known here")
    ends = {"max_lr": base, "final_lr": float(s.lr_min) * scale, "power": float(s.power)}
    return {"name": "polynomial"} | _timm_length(s, total) | ends | warm


def timm_tanh(s: Any, group: int, total: int | None, _: LawOf) -> Law:
    base, scale, warm = _timm(s, group)
    if not _one_timm_cycle(s):
        raise NotRead("a tanh in cycles is not known here")
    ends = {"max_lr": base, "final_lr": float(s.lr_min) * scale, "lower": float(s.lb), "upper": float(s.ub)}
    if warm.get("warmup_mode") == "overlay":
        warm["warmup_mode"] = "join"  # without a prefix timm's warm-up leads to where the tanh then is
    return {"name": "tanh"} | _timm_length(s, total) | ends | warm


def timm_step(s: Any, group: int, total: int | None, _: LawOf) -> Law:
    base, _scale, warm = _timm(s, group)
    shape = {"max_lr": base, "step_size": s.decay_t, "gamma": float(s.decay_rate)}
    return {"name": "step", "total_steps": known_total(total)} | shape | warm


def timm_multistep(s: Any, group: int, total: int | None, _: LawOf) -> Law:
    base, _scale, warm = _timm(s, group)
    milestones = [max(int(m) - 1, 0) for m in s.decay_t]  # timm counts a milestone from the position before it
    shape = {"max_lr": base, "milestones": milestones, "gamma": float(s.decay_rate)}
    return {"name": "multistep", "total_steps": known_total(total)} | shape | warm


def timm_wsd(s: Any, group: int, _: int | None, __: LawOf) -> Law:
    if s.stable_fn != "constant" or s.decay_fn not in ("linear", "cosine", "1-sqrt"):
        raise NotRead(f"stable_fn {s.stable_fn!r} with decay_fn {s.decay_fn!r} is not known here")
    base, scale, warm = _timm(s, group)
    ends = {"max_lr": base, "final_lr": float(s.lr_min) * scale}
    spans = {"stable_steps": s.t_initial - s.decay_t, "decay_steps": s.decay_t, "decay_type": s.decay_fn}
    total = whole(s.warmup_t + s.t_initial)
    return {"name": "warmup_stable_decay", "total_steps": total} | ends | spans | warm


def adaptive(_: Any, __: int, ___: int | None, ____: LawOf) -> Law:
    raise NotRead("its rate follows a metric, no schedule")


TIMM: dict[str, Reader] = {
    "CosineLRScheduler": timm_cosine,
    "PolyLRScheduler": timm_polynomial,
    "TanhLRScheduler": timm_tanh,
    "StepLRScheduler": timm_step,
    "MultiStepLRScheduler": timm_multistep,
    "WSDLRScheduler": timm_wsd,
    "PlateauLRScheduler": adaptive,
}

# ---- ignite: attached to ITERATION_STARTED, iteration n uses position n - 1 ------------------------------------------


def _moves(s: Any, group: int) -> None:
    if s.param_name != "lr":
        raise NotRead(f"it moves {s.param_name}, not the learning rate")
    if getattr(s, "param_group_index", None) not in (None, group):
        raise NotRead(f"it moves parameter group {s.param_group_index} alone")


def ignite_cosine(s: Any, group: int, total: int | None, _: LawOf) -> Law:
    _moves(s, group)
    if s.warmup_duration or s.end_value_mult != 1 or s.cycle_mult != int(s.cycle_mult) or s.cycle:
        raise NotRead("cycles with a warm-up or with multipliers of the values are not known here")
    shape = {"T_0": s.cycle_size, "T_mult": int(s.cycle_mult), "max_lr": float_of(s.start_value)}
    if s.start_value_mult != 1:
        raise NotRead("cycles with multipliers of the values are not known here")
    return {"name": "cosine_restarts", "total_steps": known_total(total), "final_lr": float_of(s.end_value)} | shape


def ignite_triangle(s: Any, group: int, total: int | None, _: LawOf) -> Law:
    _moves(s, group)
    plain = s.start_value_mult == s.end_value_mult == s.cycle_mult == 1 and not s.warmup_duration and not s.cycle
    if not plain or getattr(s, "monotonic", False):
        raise NotRead("cycles with multipliers, a warm-up or one slope are not known here")
    ends = {"base_lr": float_of(s.start_value), "max_lr": float_of(s.end_value)}
    return {"name": "cyclic", "total_steps": known_total(total), "step_size_up": s.cycle_size / 2} | ends


def ignite_pieces(s: Any, group: int, total: int | None, _: LawOf) -> Law:
    """PiecewiseLinear: straight lines through (milestone, value), constant before the first and after the last."""
    _moves(s, group)
    at = [int(m) for m in s.milestones]
    values = [float_of(v) for v in s.values]
    if len(set(at)) != len(at):
        raise NotRead("two milestones at one iteration")
    parts: list[Law] = []
    starts: list[int] = []
    if at[0] > 0:
        parts.append({"name": "constant", "total_steps": at[0], "lr": values[0]})
        starts.append(0)
    for a, b, low, high in zip(at, at[1:], values, values[1:]):
        parts.append({"name": "linear", "total_steps": b - a, "max_lr": low, "final_lr": high})
        starts.append(a)
    parts.append({"name": "constant", "total_steps": 1, "lr": values[-1]})
    starts.append(at[-1])
    length = max(at[-1], 1) if total is None else total
    if len(parts) == 1:
        return parts[0] | {"total_steps": length}
    return {"name": "sequence", "total_steps": max(1, length), "schedules": parts, "milestones": starts[1:]}


def ignite_concat(s: Any, group: int, total: int | None, law_of: LawOf) -> Law:
    starts = [0]
    for duration in s.durations:
        starts.append(starts[-1] + int(duration))
    spans: list[int | None] = [b - a for a, b in pairwise(starts)]
    spans.append(None if total is None else max(1, total - starts[-1]))
    laws: list[Law] = []
    for number, (part, span) in enumerate(zip(s.schedulers, spans, strict=True)):
        law = law_of(part, group, span)
        ahead = int(getattr(getattr(part, "lr_scheduler", None), "last_epoch", 0))
        if number and ahead == 1:  # create_lr_scheduler_with_warmup: the warm-up's last value was its position 0
            starts[number] -= 1
        elif ahead:
            raise NotRead("a part of it has been stepped before")
        laws.append(law)
    length = starts[-1] + int(laws[-1]["total_steps"]) if total is None else total
    return {"name": "sequence", "total_steps": max(1, length), "schedules": laws, "milestones": starts[1:]}


def ignite_groups(s: Any, group: int, total: int | None, law_of: LawOf) -> Law:
    for part in s.schedulers:
        if part.param_name == "lr" and getattr(part, "param_group_index", None) in (None, group):
            return law_of(part, group, total)
    raise NotRead("it does not move this parameter group's rate")


def ignite_torch(s: Any, group: int, total: int | None, law_of: LawOf) -> Law:
    inner = s.lr_scheduler
    law = law_of(getattr(inner, "_lr_scheduler", inner), group, total)
    parse(law)
    return law


IGNITE: dict[str, Reader] = {
    "CosineAnnealingScheduler": ignite_cosine,
    "LinearCyclicalScheduler": ignite_triangle,
    "PiecewiseLinear": ignite_pieces,
    "ConcatScheduler": ignite_concat,
    "ParamGroupScheduler": ignite_groups,
    "LRScheduler": ignite_torch,
    "ReduceLROnPlateauScheduler": adaptive,
}
