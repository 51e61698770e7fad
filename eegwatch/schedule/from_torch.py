"""A torch learning-rate scheduler object, read as a declared schedule: by class name and attributes, without torch.

Understood: OneCycleLR, CosineAnnealingLR, CosineAnnealingWarmRestarts, LinearLR, PolynomialLR, ExponentialLR, StepLR,
MultiStepLR, ConstantLR with factor 1; SequentialLR of a LinearLR warm-up and a cosine, linear or constant rest; and the
warm-up schedules of Hugging Face transformers (a LambdaLR over their functions). Anything else is None: nothing is
guessed.
"""

from __future__ import annotations

import functools
from typing import Any

FACTOR_ONE = 1e-12


def read(scheduler: Any, total_steps: int | None = None) -> dict[str, Any] | None:
    """The schedule as the `run` record holds it, in positions of the scheduler (its own steps); None if not understood.

    `total_steps`: the run's length in scheduler steps, for schedulers that have none of their own.
    """
    reader = _READERS.get(type(scheduler).__name__)
    return None if reader is None else reader(scheduler, total_steps)


def _base(scheduler: Any) -> float:
    return float(scheduler.base_lrs[0])


def _one_cycle(s: Any, _: int | None) -> dict[str, Any] | None:
    group, phases = s.optimizer.param_groups[0], s._schedule_phases
    anneal = getattr(s, "_anneal_func_type", None) or ("linear" if "linear" in repr(s.anneal_func) else "cos")
    return {
        "name": "one_cycle",
        "total_steps": int(s.total_steps),
        "max_lr": float(group["max_lr"]),
        "pct_start": (float(phases[0]["end_step"]) + 1) / s.total_steps,
        "div_factor": group["max_lr"] / group["initial_lr"],
        "final_div_factor": group["initial_lr"] / group["min_lr"],
        "anneal_strategy": str(anneal),
        "three_phase": len(phases) == 3,
    }


def _cosine(s: Any, total: int | None) -> dict[str, Any] | None:
    if total is not None and total > s.T_max:
        return None  # torch's cosine rises again past T_max; the declared one ends there
    return {"name": "cosine", "total_steps": int(s.T_max), "max_lr": _base(s), "final_lr": float(s.eta_min)}


def _restarts(s: Any, total: int | None) -> dict[str, Any] | None:
    if total is None:
        return None
    shape = {"max_lr": _base(s), "final_lr": float(s.eta_min), "T_0": int(s.T_0), "T_mult": int(s.T_mult)}
    return {"name": "cosine_restarts", "total_steps": total} | shape


def _linear(s: Any, total: int | None) -> dict[str, Any] | None:
    base, length = _base(s), int(s.total_iters)
    if abs(s.start_factor - 1) < FACTOR_ONE and s.end_factor < 1:
        if total is not None and total > length:
            return None
        return {"name": "linear", "total_steps": length, "max_lr": base, "final_lr": base * s.end_factor}
    if abs(s.end_factor - 1) < FACTOR_ONE and total is not None:
        warm = {"warmup_steps": length, "initial_lr": base * s.start_factor}
        return {"name": "constant", "total_steps": total, "lr": base} | warm
    return None


def _decay(name: str, *keys: str) -> Any:
    def reader(s: Any, total: int | None) -> dict[str, Any] | None:
        if total is None:
            return None
        values = {key: getattr(s, key) for key in keys}
        return {"name": name, "total_steps": total, "max_lr": _base(s)} | values

    return reader


def _multistep(s: Any, total: int | None) -> dict[str, Any] | None:
    if total is None:
        return None
    milestones = sorted(int(m) for m in s.milestones.elements())
    return {"name": "multistep", "total_steps": total, "max_lr": _base(s), "milestones": milestones, "gamma": s.gamma}


def _polynomial(s: Any, total: int | None) -> dict[str, Any] | None:
    if total is not None and total > s.total_iters:
        return None
    return {"name": "polynomial", "total_steps": int(s.total_iters), "max_lr": _base(s), "power": float(s.power)}


def _constant(s: Any, total: int | None) -> dict[str, Any] | None:
    if total is None or abs(s.factor - 1) > FACTOR_ONE:
        return None
    return {"name": "constant", "total_steps": total, "lr": _base(s)}


def _sequential(s: Any, total: int | None) -> dict[str, Any] | None:
    """A linear warm-up, then one other: what people build by hand."""
    if len(s._schedulers) != 2 or type(s._schedulers[0]).__name__ != "LinearLR":
        return None
    warm, after, k = s._schedulers[0], s._schedulers[1], int(s._milestones[0])
    if int(warm.total_iters) != k or abs(warm.end_factor - 1) > FACTOR_ONE:
        return None
    rest = read(after, None if total is None else total - k)
    if rest is None or rest["name"] not in ("cosine", "linear", "constant"):
        return None
    base = _base(after)
    warmed = {"total_steps": rest["total_steps"] + k, "warmup_steps": k, "initial_lr": base * warm.start_factor}
    return rest | warmed


def _lambda(s: Any, total: int | None) -> dict[str, Any] | None:
    """Hugging Face's schedules: LambdaLR over a partial of one of their functions."""
    function = s.lr_lambdas[0]
    if not isinstance(function, functools.partial):
        return None
    given, base = function.keywords, _base(s)
    name = getattr(function.func, "__name__", "")
    warm = {"warmup_steps": int(given.get("num_warmup_steps", 0)), "initial_lr": 0.0}
    steps = given.get("num_training_steps", total)
    if name == "_get_linear_schedule_with_warmup_lr_lambda":
        return {"name": "linear", "total_steps": steps, "max_lr": base, "final_lr": 0.0} | warm
    if name == "_get_cosine_schedule_with_warmup_lr_lambda" and given.get("num_cycles", 0.5) == 0.5:
        return {"name": "cosine", "total_steps": steps, "max_lr": base, "final_lr": 0.0} | warm
    if name == "_get_constant_schedule_with_warmup_lr_lambda" and total is not None:
        return {"name": "constant", "total_steps": total, "lr": base} | warm
    return None


_READERS: dict[str, Any] = {
    "OneCycleLR": _one_cycle,
    "CosineAnnealingLR": _cosine,
    "CosineAnnealingWarmRestarts": _restarts,
    "LinearLR": _linear,
    "PolynomialLR": _polynomial,
    "ExponentialLR": _decay("exponential", "gamma"),
    "StepLR": _decay("step", "step_size", "gamma"),
    "MultiStepLR": _multistep,
    "ConstantLR": _constant,
    "SequentialLR": _sequential,
    "LambdaLR": _lambda,
}
