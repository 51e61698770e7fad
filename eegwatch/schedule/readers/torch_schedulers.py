"""torch's schedulers, one reader a class. Each takes (scheduler, group, total, law_of) and returns that group's law."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from eegwatch.schedule.readers.common import (
    FACTOR_ONE,
    Law,
    LawOf,
    NotRead,
    Reader,
    base_of,
    decay,
    float_of,
    known_total,
    whole,
)
from eegwatch.schedule.readers.transformers_schedulers import lambda_law

FORMULA = ("get_lr", "_get_closed_form_lr", "step", "_update_lr")
# families that begin at their peak: a linear warm-up before one of them is its own `warmup_steps`
FROM_THE_PEAK = ("cosine", "linear", "polynomial", "exponential", "step", "multistep", "cosine_restarts", "constant")
# what torch computes as a factor of the rate before: a chain of them is their product
MULTIPLIES = ("LinearLR", "ConstantLR", "ExponentialLR", "StepLR", "MultiStepLR", "PolynomialLR", "CosineAnnealingLR")


def torch_class(scheduler: Any) -> str | None:
    """Name of the torch class whose formula this object follows; None if a subclass or the object has another one."""
    if "get_lr" in getattr(scheduler, "__dict__", {}):
        return None
    for cls in type(scheduler).__mro__:
        if cls.__module__ == "torch.optim.lr_scheduler":
            return cls.__name__
        if cls.__name__ == "GreedyLR" and cls.__module__ == "transformers.optimization":
            return "ReduceLROnPlateau"
        if any(name in cls.__dict__ for name in FORMULA):
            return None
    return None


def one_cycle(s: Any, group: int, _: int | None, __: LawOf) -> Law:
    of, phases, total = s.optimizer.param_groups[group], s._schedule_phases, int(s.total_steps)
    peak, initial, floor = (float_of(of[key]) for key in ("max_lr", "initial_lr", "min_lr"))
    if peak == 0:
        return {"name": "constant", "total_steps": total, "lr": 0.0}
    anneal = getattr(s, "_anneal_func_type", None) or ("linear" if "linear" in repr(s.anneal_func) else "cos")
    return {
        "name": "one_cycle",
        "total_steps": total,
        "max_lr": peak,
        "pct_start": (float(phases[0]["end_step"]) + 1) / s.total_steps,
        "div_factor": peak / initial,
        "final_div_factor": initial / floor,
        "anneal_strategy": str(anneal),
        "three_phase": len(phases) == 3,
    }


def cosine(s: Any, group: int, total: int | None, _: LawOf) -> Law:
    shape = {"max_lr": base_of(s, group), "final_lr": float(s.eta_min), "past_end": "rise"}
    return {"name": "cosine"} | decay(total, s.T_max) | shape


def restarts(s: Any, group: int, total: int | None, _: LawOf) -> Law:
    shape = {"max_lr": base_of(s, group), "final_lr": float(s.eta_min), "T_0": int(s.T_0), "T_mult": int(s.T_mult)}
    return {"name": "cosine_restarts", "total_steps": known_total(total)} | shape


def linear(s: Any, group: int, total: int | None, _: LawOf) -> Law:
    base, length = base_of(s, group), int(s.total_iters)
    rises = s.end_factor > s.start_factor
    if rises and abs(s.end_factor - 1) < FACTOR_ONE:
        warm = {"warmup_steps": length, "initial_lr": base * s.start_factor}
        return {"name": "constant", "total_steps": max(known_total(total), 1), "lr": base} | warm
    ends = {"max_lr": base * s.start_factor, "final_lr": base * s.end_factor}
    return {"name": "linear"} | decay(known_total(total) if rises else total, length) | ends


def polynomial(s: Any, group: int, total: int | None, _: LawOf) -> Law:
    shape = {"max_lr": base_of(s, group), "power": float(s.power)}
    return {"name": "polynomial"} | decay(total, int(s.total_iters)) | shape


def exponential(s: Any, group: int, total: int | None, _: LawOf) -> Law:
    return {"name": "exponential", "total_steps": known_total(total), "max_lr": base_of(s, group), "gamma": s.gamma}


def step(s: Any, group: int, total: int | None, _: LawOf) -> Law:
    shape = {"max_lr": base_of(s, group), "step_size": s.step_size, "gamma": s.gamma}
    return {"name": "step", "total_steps": known_total(total)} | shape


def multistep(s: Any, group: int, total: int | None, _: LawOf) -> Law:
    shape = {"max_lr": base_of(s, group), "milestones": sorted(int(m) for m in s.milestones.elements())}
    return {"name": "multistep", "total_steps": known_total(total), "gamma": s.gamma} | shape


def constant(s: Any, group: int, total: int | None, _: LawOf) -> Law:
    law = {"name": "constant", "total_steps": known_total(total), "lr": base_of(s, group)}
    if abs(s.factor - 1) < FACTOR_ONE:
        return law
    return law | {"warmup_steps": int(s.total_iters), "initial_lr": law["lr"] * s.factor, "warmup_type": "constant"}


def cyclic(s: Any, group: int, total: int | None, _: LawOf) -> Law:
    if getattr(s, "_scale_fn_custom", None) is not None:
        raise NotRead("its scale_fn is a function of your own")
    up = float(s.total_size) * float(s.step_ratio)
    up = round(up) if abs(up - round(up)) < 1e-6 else up
    return {
        "name": "cyclic",
        "total_steps": known_total(total),
        "base_lr": float_of(s.base_lrs[group]),
        "max_lr": float_of(s.max_lrs[group]),
        "step_size_up": up,
        "step_size_down": float(s.total_size) - up,
        "mode": s.mode,
        "gamma": float(s.gamma),
    }


def sequential(s: Any, group: int, total: int | None, law_of: LawOf) -> Law:
    starts = [0, *(int(m) for m in s._milestones)]
    spans: list[int | None] = [b - a for a, b in pairwise(starts)]
    spans.append(None if total is None else max(1, total - starts[-1]))
    warmed = _warmed(s, starts, group, spans[-1], law_of)
    if warmed is not None:
        return warmed
    laws = [law_of(part, group, span) for part, span in zip(s._schedulers, spans, strict=True)]
    length = starts[-1] + int(laws[-1]["total_steps"]) if total is None else max(1, total)
    return {"name": "sequence", "total_steps": length, "schedules": laws, "milestones": starts[1:]}


def _warmed(s: Any, starts: list[int], group: int, left: int | None, law_of: LawOf) -> Law | None:
    """A LinearLR up to the base rate, then a family that begins there: what people mean by a warm-up."""
    first, k = s._schedulers[0], starts[-1]
    if len(s._schedulers) != 2 or torch_class(first) != "LinearLR":
        return None
    if int(first.total_iters) != k or abs(first.end_factor - 1) > FACTOR_ONE or first.start_factor > 1:
        return None
    rest, base = law_of(s._schedulers[1], group, left), base_of(first, group)
    if rest["name"] not in FROM_THE_PEAK or "warmup_steps" in rest or rest.get("max_lr", rest.get("lr")) != base:
        return None
    warm = {"warmup_steps": k, "initial_lr": base * first.start_factor}
    return rest | warm | {"total_steps": rest["total_steps"] + k}


def chained(s: Any, group: int, total: int | None, law_of: LawOf) -> Law:
    members = list(s._schedulers)
    if len(members) == 1:
        return law_of(members[0], group, total)
    length, factors, base = known_total(total), [], base_of(members[0], group)
    if base == 0:
        return {"name": "constant", "total_steps": length, "lr": 0.0}
    for member in members:
        name = torch_class(member)
        if name not in MULTIPLIES or (name == "CosineAnnealingLR" and (s_min(member) or member.T_max < length)):
            raise NotRead(f"a chain with this {type(member).__name__} has no formula of its own")
        factors.append(_as_factor(law_of(member, group, length), base_of(member, group)))
    return {"name": "product", "total_steps": length, "lr": base, "factors": factors}


def s_min(scheduler: Any) -> float:
    return float(scheduler.eta_min)


def _as_factor(law: Law, base: float) -> Law:
    """The law of a scheduler that multiplies, with every rate divided by the base."""
    rates = [key for key in ("max_lr", "final_lr", "lr", "initial_lr") if key in law]
    return law | {key: law[key] / base for key in rates}


def plateau(_: Any, __: int, ___: int | None, ____: LawOf) -> Law:
    raise NotRead("its rate follows a metric, no schedule")


def multiplicative(_: Any, __: int, ___: int | None, ____: LawOf) -> Law:
    raise NotRead("its factor is a function of your own")


def by_lambda(s: Any, group: int, total: int | None, _: LawOf) -> Law:
    law = lambda_law(s.lr_lambdas[group], base_of(s, group), total)
    return law | {"total_steps": whole(law["total_steps"])}


TORCH: dict[str, Reader] = {
    "OneCycleLR": one_cycle,
    "CosineAnnealingLR": cosine,
    "CosineAnnealingWarmRestarts": restarts,
    "LinearLR": linear,
    "PolynomialLR": polynomial,
    "ExponentialLR": exponential,
    "StepLR": step,
    "MultiStepLR": multistep,
    "ConstantLR": constant,
    "CyclicLR": cyclic,
    "SequentialLR": sequential,
    "ChainedScheduler": chained,
    "LambdaLR": by_lambda,
    "MultiplicativeLR": multiplicative,
    "ReduceLROnPlateau": plateau,
}
