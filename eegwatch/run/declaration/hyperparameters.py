"""Other people's hyperparameters read as a schedule: transformers, fairseq, mmengine, detectron2, timm, nanoGPT.

`interpret` takes the plain data of a file (hyperfiles.py). What is not understood completely is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from eegwatch.run.config import ConfigError
from eegwatch.run.records import Run
from eegwatch.schedule import ScheduleError, as_dict, parse

Tree = dict[str, Any]
# what the reading of a value of another type or size leads to: a word where a mapping is expected, 1e400 steps
OTHER_SHAPES = (
    ScheduleError, TypeError, ValueError, ZeroDivisionError, AttributeError, IndexError, OverflowError,
)  # fmt: skip


class Unclear(Exception):
    """A part of the file is unknown or missing; the message names it."""


@dataclass(frozen=True)
class Hyperparameters:
    """A file's names and values, and whose names they are."""

    where: str
    kind: str
    tree: Tree

    def declare(self, run: Run, steps_per_epoch: int | None) -> dict[str, Any]:
        """The schedule over a run. Raises ConfigError, in one line, for what the file does not say."""
        try:
            return as_dict(parse(KINDS[self.kind][1](self.tree, run.total_steps, steps_per_epoch)))
        except Unclear as error:
            raise ConfigError(f"{self.where}: {error}") from None
        except KeyError as error:
            raise ConfigError(f"{self.where}: no schedule can be read off it: {error.args[0]} is missing") from None
        except OTHER_SHAPES as error:
            raise ConfigError(f"{self.where}: no schedule can be read off it: {error}") from None

    def __str__(self) -> str:
        return self.where


def interpret(tree: Any, where: str) -> Hyperparameters | None:
    """The framework that these names belong to, with its schedule; None if unknown."""
    if not isinstance(tree, dict):
        return None
    for nested in ("args", "config", "hparams", "training_args"):
        inner = tree.get(nested)
        if isinstance(inner, dict) and not any(test(tree) for test, _ in KINDS.values()):
            tree = inner
    for kind, (test, _) in KINDS.items():
        if test(tree):
            return Hyperparameters(where, kind, tree)
    return None


def _length(total: int | None, what: str) -> int:
    if not total:
        raise Unclear(f"neither it nor the log gives the length of the run ({what})")
    return int(total)


def _number(value: Any, name: str) -> float:
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unclear(f"{name} is not a number: {value!r}")
    return float(value)


# ---- transformers ----


# lr_scheduler_type -> the keys of lr_scheduler_kwargs that are understood
TRANSFORMERS_KEYS: dict[str, tuple[str, ...]] = {
    "linear": (), "cosine": ("num_cycles",), "cosine_with_restarts": ("num_cycles",), "constant": (),
    "constant_with_warmup": (), "polynomial": ("lr_end", "power"), "inverse_sqrt": ("timescale",),
    "cosine_with_min_lr": ("min_lr", "min_lr_rate", "num_cycles"),
    "warmup_stable_decay": ("num_decay_steps", "num_stable_steps", "min_lr_ratio", "decay_type", "num_cycles"),
}  # fmt: skip


def _transformers(tree: Tree, total: int | None, per_epoch: int | None) -> Tree:
    rate = _number(tree["learning_rate"], "learning_rate")
    name = str(tree.get("lr_scheduler_type", "linear")).rpartition(".")[2].lower()
    T = _transformers_length(tree, total, per_epoch)
    more = tree.get("lr_scheduler_kwargs") or {}
    if not isinstance(more, dict):
        raise Unclear("lr_scheduler_kwargs is not a mapping")
    if name not in TRANSFORMERS_KEYS or set(more) - set(TRANSFORMERS_KEYS[name]):
        raise Unclear(f"lr_scheduler_type {name} with {sorted(more)} is not read as a schedule")
    if name == "constant":
        return {"name": "constant", "lr": rate, "total_steps": T}
    W = int(tree.get("warmup_steps") or 0) or math.ceil(T * float(tree.get("warmup_ratio") or 0))
    warm: Tree = {"total_steps": T, "warmup_steps": W, "initial_lr": 0.0}
    if name == "constant_with_warmup":
        return {"name": "constant", "lr": rate} | warm
    return {"max_lr": rate} | _transformers_shape(name, rate, more) | warm


def _transformers_length(tree: Tree, total: int | None, per_epoch: int | None) -> int:
    steps = int(tree.get("max_steps") or -1)
    epochs = float(tree.get("num_train_epochs") or 0)
    if steps <= 0:
        steps = total or (math.ceil(epochs * per_epoch) if epochs and per_epoch else 0)
    return _length(steps, "max_steps")


def _transformers_shape(name: str, rate: float, more: Tree) -> Tree:
    """The name and the parameters of the decay after the warm-up."""
    if name == "inverse_sqrt":
        return {"name": name} | ({"timescale": float(more["timescale"])} if more.get("timescale") else {})
    if name == "polynomial":
        return {"name": name, "power": float(more.get("power", 1.0)), "final_lr": float(more.get("lr_end", 1e-7))}
    if name == "cosine_with_restarts":
        return {"name": "cosine", "restarts": float(more.get("num_cycles", 1))}
    cycles = {"cycles": float(more.get("num_cycles", 0.5))}
    if name == "warmup_stable_decay":
        kept = more.get("num_stable_steps")
        return (
            cycles
            | {
                "name": name,
                "final_lr": rate * float(more.get("min_lr_ratio", 0.0)),
                "decay_steps": float(more["num_decay_steps"]),
                "decay_type": str(more.get("decay_type", "cosine")),
            }
            | ({} if kept is None else {"stable_steps": float(kept)})
        )
    if name == "cosine_with_min_lr":
        floor = more["min_lr"] if more.get("min_lr") is not None else rate * float(more["min_lr_rate"])
        return cycles | {"name": "cosine", "final_lr": float(floor)}
    return {"name": name} | (cycles if name == "cosine" else {})


# ---- fairseq ----


def _fairseq(tree: Tree, total: int | None, per_epoch: int | None) -> Tree:
    scheduler = tree["lr_scheduler"]
    flat = dict(tree)
    if isinstance(scheduler, dict):
        flat |= scheduler
        scheduler = scheduler.get("_name")
    for part in ("optimization", "optimizer"):
        inner = tree.get(part)
        if isinstance(inner, dict):
            flat = inner | flat
    rate = _number(flat["lr"], "lr")
    W = int(flat.get("warmup_updates") or 0)
    steps = total or int(flat.get("max_update") or 0)
    first = float(flat.get("warmup_init_lr", -1))
    warm: Tree = {"warmup_steps": W, "initial_lr": max(first, 0.0)}
    if scheduler == "inverse_sqrt":
        if not W:
            raise Unclear("inverse_sqrt without warmup_updates")
        return {"name": "inverse_sqrt", "max_lr": rate, "total_steps": _length(steps, "max_update")} | warm
    if scheduler == "polynomial_decay":
        T = int(float(flat.get("total_num_update") or 0)) or _length(steps, "total_num_update")
        shape = {"power": float(flat.get("power", 1.0)), "final_lr": float(flat.get("end_learning_rate", 0.0))}
        return {"name": "polynomial", "max_lr": rate, "total_steps": T} | shape | warm
    if scheduler == "fixed" and not W and not flat.get("force_anneal"):
        return {"name": "constant", "lr": rate, "total_steps": _length(steps, "max_update")}
    raise Unclear(f"lr_scheduler {scheduler} is not read as a schedule")


# ---- detectron2 ----


def _detectron2(tree: Tree, total: int | None, per_epoch: int | None) -> Tree:
    solver = tree["SOLVER"]
    rate, T = _number(solver["BASE_LR"], "SOLVER.BASE_LR"), int(solver["MAX_ITER"])
    name = str(solver.get("LR_SCHEDULER_NAME", "WarmupMultiStepLR"))
    if str(solver.get("WARMUP_METHOD", "linear")) not in ("linear", "constant"):
        raise Unclear(f"SOLVER.WARMUP_METHOD {solver['WARMUP_METHOD']} is not read as a warm-up")
    warm: Tree = {
        "warmup_steps": int(solver.get("WARMUP_ITERS", 1000)),
        "initial_lr": rate * float(solver.get("WARMUP_FACTOR", 1e-3)),
        "warmup_mode": "join",
        "warmup_type": str(solver.get("WARMUP_METHOD", "linear")),
        "total_steps": T,
        "max_lr": rate,
    }
    if name == "WarmupMultiStepLR":
        steps = [int(s) for s in solver.get("STEPS", ()) if int(s) < T]
        return {"name": "multistep", "milestones": steps, "gamma": float(solver.get("GAMMA", 0.1))} | warm
    if name == "WarmupCosineLR":
        return {"name": "cosine", "final_lr": float(solver.get("BASE_LR_END", 0.0))} | warm
    raise Unclear(f"SOLVER.LR_SCHEDULER_NAME {name} is not read as a schedule")


# ---- mmengine ----


def _mm(tree: Tree, total: int | None, per_epoch: int | None) -> Tree:
    wrapper = tree.get("optim_wrapper") or {}
    rate = _number((wrapper.get("optimizer") or tree.get("optimizer") or {})["lr"], "optimizer.lr")
    train = tree.get("train_cfg") or {}
    schedulers = tree["param_scheduler"] or []
    schedulers = [schedulers] if isinstance(schedulers, dict) else list(schedulers)
    warm: Tree = {}
    if schedulers and schedulers[0].get("type") == "LinearLR" and len(schedulers) > 1:
        first = schedulers.pop(0)
        W = _mm_steps(first, "end", per_epoch)
        warm = {
            "warmup_steps": W,
            "initial_lr": rate * float(first.get("start_factor", 1 / 3)),
            "warmup_mode": "multiply",
        }
    epochs = train.get("max_epochs")
    T = _length(train.get("max_iters") or total or (epochs * per_epoch if epochs and per_epoch else None), "max_iters")
    if not schedulers:
        return {"name": "constant", "lr": rate, "total_steps": T} | warm
    if len(schedulers) > 1:
        raise Unclear(f"{len(schedulers)} param_schedulers in a row are not read as one schedule")
    one = schedulers[0]
    by_epoch = bool(one.get("by_epoch", True)) and not one.get("convert_to_iter_based")
    if by_epoch and not per_epoch:
        raise Unclear("it counts epochs: give --steps-per-epoch N")
    every = int(per_epoch or 1) if by_epoch else 1
    kind, begin = one.get("type"), _mm_steps(one, "begin", per_epoch)
    if kind == "MultiStepLR" and not begin:
        milestones = [int(m) * (int(per_epoch or 1) if one.get("by_epoch", True) else 1) for m in one["milestones"]]
        shape: Tree = {"name": "multistep", "milestones": milestones, "gamma": float(one.get("gamma", 0.1))}
        return shape | {"max_lr": rate, "total_steps": T} | warm
    if kind in ("CosineAnnealingLR", "PolyLR") and every == 1:
        end = _mm_steps(one, "end", per_epoch) or T
        if begin and begin != warm.get("warmup_steps"):
            raise Unclear(f"{kind} from {begin} on is not read as a schedule")
        warm |= {"warmup_mode": "reset"} if begin else {}
        ratio = one.get("eta_min_ratio")
        floor = rate * float(ratio) if ratio is not None else float(one.get("eta_min", 0.0))
        shape = {"name": "cosine" if kind == "CosineAnnealingLR" else "polynomial", "max_lr": rate, "final_lr": floor}
        shape |= {"power": float(one.get("power", 1.0))} if kind == "PolyLR" else {}
        return shape | {"total_steps": end} | warm
    raise Unclear(f"param_scheduler {kind} is not read as a schedule")


def _mm_steps(one: Tree, key: str, per_epoch: int | None) -> int:
    value = one.get(key) or 0
    if one.get("by_epoch", True) and value:
        if not per_epoch:
            raise Unclear("it counts epochs: give --steps-per-epoch N")
        return round(float(value) * per_epoch)
    return int(value)


# ---- timm, nanoGPT ----


def _timm(tree: Tree, total: int | None, per_epoch: int | None) -> Tree:
    if tree.get("sched") != "cosine" or tree.get("sched_on_updates") or tree.get("warmup_prefix"):
        raise Unclear(f"sched {tree.get('sched')} with these options is not read as a schedule")
    if (
        float(tree.get("lr_cycle_limit", 1) or 1) != 1
        or float(tree.get("lr_k_decay", 1.0) or 1.0) != 1.0
        or tree.get("lr_noise")
    ):
        raise Unclear("cycles, noise or k-decay are not read as a schedule")
    epochs = int(tree["epochs"])
    rate = _number(tree["lr"], "lr")
    shape: Tree = {"name": "cosine", "unit": "epoch", "total_steps": epochs, "max_lr": rate}
    return shape | {
        "final_lr": float(tree.get("min_lr", 0.0)),
        "warmup_steps": int(tree.get("warmup_epochs", 0)),
        "initial_lr": float(tree.get("warmup_lr", 0.0)),
        "warmup_mode": "overlay",
    }


def _nanogpt(tree: Tree, total: int | None, per_epoch: int | None) -> Tree:
    rate = _number(tree.get("learning_rate", 6e-4), "learning_rate")
    if tree.get("decay_lr") is False:
        return {"name": "constant", "lr": rate, "total_steps": _length(tree.get("max_iters") or total, "max_iters")}
    W = int(tree.get("warmup_iters", 2000))
    shape: Tree = {"name": "cosine", "max_lr": rate, "final_lr": float(tree.get("min_lr", 6e-5))}
    return shape | {"total_steps": int(tree["lr_decay_iters"]), "warmup_steps": W, "initial_lr": 0.0}


Test = Callable[[Tree], bool]
Reader = Callable[[Tree, int | None, int | None], Tree]
KINDS: dict[str, tuple[Test, Reader]] = {
    "detectron2": (lambda t: isinstance(t.get("SOLVER"), dict) and {"BASE_LR", "MAX_ITER"} <= set(t["SOLVER"]),
                   _detectron2),
    "mmengine": (lambda t: "param_scheduler" in t and ("optim_wrapper" in t or "optimizer" in t), _mm),
    "fairseq": (lambda t: "lr_scheduler" in t and ("warmup_updates" in t or "optimization" in t
                                                    or isinstance(t["lr_scheduler"], dict)), _fairseq),
    "nanoGPT": (lambda t: "lr_decay_iters" in t and ("learning_rate" in t or "warmup_iters" in t), _nanogpt),
    "timm": (lambda t: "sched" in t and "epochs" in t and "lr" in t, _timm),
    "transformers": (lambda t: "learning_rate" in t and ("lr_scheduler_type" in t or "num_train_epochs" in t
                                                         or "max_steps" in t or "warmup_ratio" in t), _transformers),
}  # fmt: skip
