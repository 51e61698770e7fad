"""Hugging Face's schedules: a LambdaLR over a partial of its functions (in older versions and diffusers, a closure).

A keyword that is not known here is a formula that is not known here: nothing is read then.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from eegwatch.schedule.readers.common import Law, NotRead, known_total

PACKAGES = ("transformers", "diffusers")
OWN = "its factor is a function of your own (give schedule={…} if you know its formula)"


def lambda_law(function: Any, base: float, total: int | None) -> Law:
    """The law of base * function(position). Raises NotRead for functions that are not Hugging Face's."""
    name, module, given = _call(function)
    if module.partition(".")[0] not in PACKAGES or name not in _FUNCTIONS:
        raise NotRead(OWN)
    needs, may, make = _FUNCTIONS[name]
    if not needs <= set(given) <= needs | may:
        strange = sorted(set(given) - needs - may) or sorted(needs - set(given))
        raise NotRead(f"{name.strip('_')} has the parameter {strange[0]}, which is not known here")
    return make(given, base, total)


def _call(function: Any) -> tuple[str, str, dict[str, Any]]:
    """(name, module, keywords) of a partial, of a factory's inner function, or of a plain function."""
    if isinstance(function, functools.partial):
        if function.args:
            raise NotRead(OWN)
        inner = function.func
        return getattr(inner, "__name__", ""), str(getattr(inner, "__module__", "")), dict(function.keywords)
    qualified = str(getattr(function, "__qualname__", ""))
    module = str(getattr(function, "__module__", ""))
    factory, inside, _ = qualified.partition(".<locals>.")
    if not inside:
        return qualified, module, {}
    return factory, module, dict(inspect.getclosurevars(function).nonlocals)


def _warm(given: dict[str, Any]) -> Law:
    return {"warmup_steps": given.get("num_warmup_steps", 0), "initial_lr": 0.0}


def _length(given: dict[str, Any]) -> Law:
    """T, and the decay's own length where T is not a whole number."""
    total, warm = given["num_training_steps"], given.get("num_warmup_steps", 0)
    return {"total_steps": total} if total == int(total) else {"total_steps": total, "decay_steps": total - warm}


def _constant(given: dict[str, Any], base: float, total: int | None) -> Law:
    return {"name": "constant", "total_steps": known_total(total), "lr": base} | (_warm(given) if given else {})


def _linear(given: dict[str, Any], base: float, _: int | None) -> Law:
    return {"name": "linear", "max_lr": base, "final_lr": 0.0} | _warm(given) | _length(given)


def _cosine(given: dict[str, Any], base: float, _: int | None) -> Law:
    shape: Law = {"final_lr": base * (given.get("min_lr_rate") or 0.0), "past_end": "rise"}
    if given.get("num_cycles", 0.5) != 0.5:
        shape["cycles"] = float(given["num_cycles"])
    return {"name": "cosine", "max_lr": base} | shape | _warm(given) | _length(given)


def _hard_restarts(given: dict[str, Any], base: float, _: int | None) -> Law:
    law = {"name": "cosine", "max_lr": base, "final_lr": 0.0, "restarts": float(given["num_cycles"])}
    return law | _warm(given) | _length(given)


def _cosine_from_its_first_step(given: dict[str, Any], base: float, _: int | None) -> Law:
    """cosine_warmup_with_min_lr: the peak is reached at W - 1 and the cosine is one step ahead from there."""
    W, T, rate = given["num_warmup_steps"], given["num_training_steps"], given.get("warmup_lr_rate")
    if W < 1 or (W == 1 and rate is not None):
        raise NotRead("cosine_warmup_with_min_lr without a warm-up begins in mid-curve")
    law: Law = {"name": "cosine", "total_steps": T, "max_lr": base, "warmup_steps": W - 1, "decay_steps": max(1, T - W)}
    law |= {"initial_lr": base * (1.0 / W if rate is None else float(rate)), "past_end": "rise"}
    if given.get("num_cycles", 0.5) != 0.5:
        law["cycles"] = float(given["num_cycles"])
    return law | {"final_lr": base * (given.get("min_lr_rate") or 0.0)}


def _polynomial(given: dict[str, Any], base: float, _: int | None) -> Law:
    ends = {"final_lr": base * given["lr_end"] / given["lr_init"], "power": float(given["power"])}
    return {"name": "polynomial", "max_lr": base} | ends | _warm(given) | _length(given)


def _inverse_sqrt(given: dict[str, Any], base: float, total: int | None) -> Law:
    law = {"name": "inverse_sqrt", "total_steps": known_total(total), "max_lr": base, "timescale": given["timescale"]}
    return law | _warm(given)


def _wsd(given: dict[str, Any], base: float, _: int | None) -> Law:
    warm, stable, fall = (given[f"num_{part}_steps"] for part in ("warmup", "stable", "decay"))
    floor = base * given["min_lr_ratio"]
    law: Law = {"name": "warmup_stable_decay", "total_steps": warm + stable + fall, "max_lr": base, "final_lr": floor}
    law |= {"warmup_steps": warm, "stable_steps": stable, "decay_steps": fall, "cycles": float(given["num_cycles"])}
    if "warmup_type" not in given:  # before 4.47: a straight line from 0, then a cosine
        return law | {"initial_lr": 0.0}
    return law | {"initial_lr": floor, "warmup_type": given["warmup_type"], "decay_type": given["decay_type"]}


WARM, BOTH = {"num_warmup_steps"}, {"num_warmup_steps", "num_training_steps"}
CYCLES = BOTH | {"num_cycles"}
WSD = {"num_warmup_steps", "num_stable_steps", "num_decay_steps", "min_lr_ratio", "num_cycles"}
Make = Callable[[dict[str, Any], float, "int | None"], Law]
_KINDS: list[tuple[tuple[str, ...], set[str], set[str], Make]] = [
    (("_get_constant_lambda", "get_constant_schedule"), set(), set(), _constant),
    (("constant_schedule_with_warmup",), WARM, set(), _constant),
    (("linear_schedule_with_warmup",), BOTH, set(), _linear),
    (("cosine_schedule_with_warmup",), CYCLES, {"min_lr_rate"}, _cosine),
    (("cosine_with_hard_restarts_schedule_with_warmup",), CYCLES, set(), _hard_restarts),
    (("polynomial_decay_schedule_with_warmup",), BOTH | {"lr_end", "power", "lr_init"}, set(), _polynomial),
    (("inverse_sqrt_schedule",), WARM | {"timescale"}, set(), _inverse_sqrt),
    (
        ("_get_cosine_with_min_lr_schedule_with_warmup_lr_rate_lambda",),
        CYCLES,
        {"min_lr_rate", "warmup_lr_rate"},
        _cosine_from_its_first_step,
    ),
    (("_get_wsd_scheduler_lambda",), WSD, {"warmup_type", "decay_type"}, _wsd),
]
# a schedule's function is `_get_X_lr_lambda` in transformers, an inner function of `get_X` before and in diffusers
_FUNCTIONS: dict[str, tuple[set[str], set[str], Make]] = {
    spelt: (needs, may, make)
    for names, needs, may, make in _KINDS
    for name in names
    for spelt in ([name] if name.startswith(("_get", "get")) else [f"_get_{name}_lr_lambda", f"get_{name}"])
}
