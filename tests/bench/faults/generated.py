"""Generated runs over all schedules, lengths, precisions and record intervals: faulty ones, and more healthy ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from eegwatch.run.records import Run
from eegwatch.schedule import Manual, Schedule, as_dict, parse, rate_at, resumed
from tests.bench.faults.loop import Attempt, Case

FORMS: tuple[str | None, ...] = (None, None, "%.2e", "%.3e", "%.4e", "%.6e")
EVERY = (1, 1, 1, 5, 50)
KINDS = ("plain", "resumed", "epoch", "manual", "skipped", "tail", "accumulated")  # of healthy runs
Trial = tuple[Case, str | None, int]


def _schedule(rng: np.random.Generator, total: int) -> Schedule:
    peak = float(10 ** rng.uniform(-5, -1))
    warm = int(rng.integers(0, total // 4))
    choices: list[dict[str, Any]] = [
        {"name": "one_cycle", "max_lr": peak, "pct_start": float(rng.uniform(0.05, 0.4)),
         "final_div_factor": float(10 ** rng.uniform(1, 5)), "three_phase": bool(rng.random() < 0.2),
         "anneal_strategy": str(rng.choice(["cos", "linear"]))},
        {"name": "warmup_hold_anneal", "initial_lr": peak / 25, "max_lr": peak, "final_lr": peak / 1000},
        {"name": "cosine", "max_lr": peak, "final_lr": peak / 100, "warmup_steps": warm, "initial_lr": peak / 50},
        {"name": "linear", "max_lr": peak, "final_lr": 0.0, "warmup_steps": warm, "initial_lr": 0.0},
        {"name": "cosine_restarts", "max_lr": peak, "T_0": int(rng.integers(20, total)), "T_mult": int(rng.integers(1, 3))},
        {"name": "polynomial", "max_lr": peak, "power": float(rng.uniform(0.5, 3))},
        {"name": "exponential", "max_lr": peak, "gamma": float(rng.uniform(0.99, 0.9999))},
        {"name": "step", "max_lr": peak, "step_size": int(rng.integers(10, total)), "gamma": 0.5},
        {"name": "multistep", "max_lr": peak, "milestones": sorted(int(m) for m in rng.integers(1, total, 3)), "gamma": 0.3},
        {"name": "constant", "lr": peak, "warmup_steps": warm},
    ]  # fmt: skip
    return parse({"total_steps": total, **choices[int(rng.integers(len(choices)))]})


def _run(schedule: Schedule, total: int, per_epoch: int, **fields: Any) -> Run:
    return Run(
        schedule=as_dict(schedule),
        total_steps=total,
        steps_per_epoch=per_epoch,
        epochs=-(-total // per_epoch),
        **fields,
    )


def healthy(number: int, seed: int = 0) -> Iterator[Trial]:
    """Runs that follow what they declare: plain, resumed, epoch units, manual rates, skipped steps, partial logs."""
    for i in range(number):
        rng = np.random.default_rng([seed, i])
        total = int(rng.integers(60, 5000))
        per_epoch = int(rng.integers(5, max(6, total // 4)))
        schedule = _schedule(rng, total)
        form, every = FORMS[int(rng.integers(len(FORMS)))], EVERY[int(rng.integers(len(EVERY)))]
        kind = KINDS[i % len(KINDS)]
        attempts: list[Attempt]
        n = np.arange(1, total + 1)
        if kind == "resumed":
            cut, back = int(total * rng.uniform(0.2, 0.8)), int(rng.integers(0, 20))
            start = max(0, cut - back)
            restored = {"step": start, "position": float(start), "total_steps": total}
            attempts = [
                Attempt(_run(schedule, total, per_epoch), list(schedule.rate(n[:cut] - 1))),
                Attempt(
                    _run(schedule, total, per_epoch, attempt=2, step=start, restored=restored),
                    list(schedule.rate(n[start:] - 1)),
                ),
            ]
        elif kind == "epoch":
            epochs = max(2, total // per_epoch)
            declared = parse({**as_dict(_schedule(rng, max(epochs, 24))), "unit": "epoch"})
            steps = np.arange(1, min(declared.total_steps * per_epoch, 6000) + 1)
            attempts = [
                Attempt(
                    _run(declared, declared.total_steps * per_epoch, per_epoch),
                    list(rate_at(declared, steps, per_epoch)),
                )
            ]
        elif kind == "manual":
            at = int(total * rng.uniform(0.1, 0.8))
            base = parse({"name": "one_cycle", "total_steps": total, "max_lr": 3e-3, "pct_start": 0.3})
            manual = resumed(base, at, 3e-4, "anneal" if rng.random() < 0.5 else "hold")
            assert isinstance(manual, Manual)
            attempts = [
                Attempt(_run(base, total, per_epoch), list(base.rate(n[:at] - 1))),
                Attempt(_run(manual, total, per_epoch, attempt=2, step=at), list(manual.rate(n[at:] - 1))),
            ]
        elif kind == "skipped":
            skips = np.sort(rng.integers(1, total, 5))
            behind = np.searchsorted(skips, n, side="right")
            attempts = [
                Attempt(
                    _run(schedule, total, per_epoch), list(schedule.rate(np.maximum(n - 1 - behind, 0))), list(behind)
                )
            ]
        elif kind == "tail":
            begin = int(total * rng.uniform(0.1, 0.9))
            run = _run(schedule, total, per_epoch, step=begin)
            attempts = [Attempt(run, list(schedule.rate(n[begin:] - 1)))]
        else:
            counts = {"accumulate": 4, "world_size": 2} if kind == "accumulated" else {}
            attempts = [Attempt(_run(schedule, total, per_epoch, **counts), list(schedule.rate(n - 1)))]
        yield Case(f"healthy-{kind}-{type(schedule).__name__}-{i}", "", None, attempts), form, every


def faulty(number: int, seed: int = 1) -> Iterator[Trial]:
    """One-cycle and cosine runs with one fault each, from scratch or from a resume on."""
    kinds = (
        "scheduler_stepped_per_epoch",
        "scheduler_never_stepped",
        "scheduler_stepped_per_microbatch",
        "scheduler_stepped_per_process",
        "scheduler_stepped_per_batch_and_epoch",
        "rate_scaled",
        "wrong_total_steps",
        "schedule_restarted_on_resume",
        "schedule_frozen_on_resume",
        "schedule_lags_after_resume",
    )
    for i in range(number):
        rng = np.random.default_rng([seed, i])
        cause = kinds[i % len(kinds)]
        total, factor = int(rng.integers(800, 6000)), int(rng.choice([2, 4, 8]))
        per_epoch = int(rng.integers(20, total // 8))
        pct = float(rng.uniform(0.1, 0.35))
        schedule = parse(
            {"name": "one_cycle", "total_steps": total, "max_lr": 3e-3, "pct_start": pct, "final_div_factor": 1000}
        )
        form, every = FORMS[int(rng.integers(len(FORMS)))], EVERY[int(rng.integers(len(EVERY)))]
        n = np.arange(1, total + 1)
        p = n - 1.0
        fields: dict[str, Any] = {}
        start = 0
        if cause.endswith("_resume"):
            start = int(total * rng.uniform(0.3, 0.7))
            fields = {"attempt": 2, "step": start}
            p = {
                "schedule_restarted_on_resume": p - start,
                "schedule_frozen_on_resume": np.full(total, float(start)),
                "schedule_lags_after_resume": p - float(rng.choice([1, per_epoch])),
            }[cause]
        elif cause == "scheduler_stepped_per_epoch":
            p = p // per_epoch
        elif cause == "scheduler_never_stepped":
            p = np.zeros(total)
        elif cause == "scheduler_stepped_per_microbatch":
            p, fields = p * factor, {"accumulate": factor}
        elif cause == "scheduler_stepped_per_process":
            p, fields = p * factor, {"world_size": factor}
        elif cause == "scheduler_stepped_per_batch_and_epoch":
            p = p + p // per_epoch
        rows = slice(start, int(np.searchsorted(p, total - 1)) if p[-1] > total - 1 else total)
        lrs = schedule.rate(p[rows])
        if cause == "rate_scaled":
            lrs = lrs * factor
        elif cause == "wrong_total_steps":
            other = total * factor
            lrs = parse({**as_dict(schedule), "total_steps": other}).rate(p[rows])
            fields = {"accumulate": factor}
        attempts = [Attempt(_run(schedule, total, per_epoch, **fields), list(lrs))]
        if start:
            attempts.insert(0, Attempt(_run(schedule, total, per_epoch), list(schedule.rate(n[:start] - 1))))
        yield Case(f"{cause}-{i}", "", cause, attempts), form, every
