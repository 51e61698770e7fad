"""Logs that no healthy writer makes but that JSON allows: what the tests draw to ask whether every reader returns.

Most of a drawn log is as a writer makes it: a schedule, steps that follow it or a fault of it. A few fields are then
missing, null, zero, not finite, huge, negative, repeated or out of order. The generator is `random` from a seed that
hypothesis draws: hypothesis' own strategies seldom give a schedule that is one.
"""

from __future__ import annotations

import json
import math
import random
from typing import Any

import numpy as np
from hypothesis import strategies as st

from eegwatch.schedule import ScheduleError, parse

HUGE = [2**31, -(2**31) - 1, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 10**25, 10**400]
ODD = [
    None, 0, 0.0, -0.0, 1, -1, 2, 1e-320, 1e-12, 0.69, 1e30, 1e300, -1e300, math.nan, math.inf, -math.inf, "nan", "inf",
    "-inf", "", "0.1", True, [], {}, [1, 2], {"a": 1}, "x" * 300, "\x1b[2J", "é\u202e", *HUGE,
]  # fmt: skip
BAD_LINES = [b"", b"garbage", b"\xff\xfe", b"[" * 2000, b"{}", b"null", b'{"type":"of_a_later_version","x":1}']


class Drawn:
    """One log, drawn from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.oddness = self.random.choice([0.0, 0.01, 0.05, 0.3])  # the share of fields that are odd

    def maybe(self, share: float) -> bool:
        return self.random.random() < share

    def pick(self, values: Any) -> Any:
        return self.random.choice(list(values))

    def odd(self, record: dict[str, Any]) -> dict[str, Any]:
        """The record with a few of its fields left out or replaced."""
        made = {}
        for name, value in record.items():
            if name == "type" or not self.maybe(self.oddness):
                made[name] = self.odd(value) if isinstance(value, dict) else value
            elif self.maybe(0.8):
                made[name] = self.pick(ODD)
        return made

    # ---- schedules ----

    def rate(self) -> float:
        return self.pick([0.0, 1e-12, 1e-3, 3e-4, 1.2e-4, 1.0, 1e-300, self.random.uniform(0, 1e-2)])

    def total(self) -> int:
        return self.pick([1, 2, 3, 10, 40, 60, 100, 1000, 10**6, 10**9])

    def schedule(self, depth: int = 0) -> dict[str, Any]:
        total, peak = self.total(), self.pick([1e-3, 3e-4, 1.0, self.rate()])
        warm = {"warmup_steps": self.pick([0, 1, total // 2, total, total + 1]), "initial_lr": self.rate()}
        share, gamma = self.random.uniform(0, 1), self.pick([0.1, 0.5, 1.0, 2.0, 1e-300, 1e10])
        shapes: dict[str, dict[str, Any]] = {
            "one_cycle": {
                "max_lr": peak, "pct_start": self.pick([0, 1, share]), "div_factor": self.pick([1, 25, 1e-9]),
                "final_div_factor": self.pick([1, 1e4, 1e20, 1e300]), "three_phase": self.maybe(0.3),
                "anneal_strategy": self.pick(["cos", "linear"]),
            },
            "cosine": {"max_lr": peak, "final_lr": self.rate()} | warm,
            "linear": {"max_lr": peak, "final_lr": self.rate()} | warm,
            "warmup_hold_anneal": {
                "max_lr": peak, "initial_lr": self.rate(), "final_lr": self.rate(), "warmup": self.pick([0, share]),
                "hold_until": self.pick([1, max(share, 0.5)]),
            },
            "cosine_restarts": {"max_lr": peak, "T_0": self.pick([1, 7, total]), "T_mult": self.pick([1, 2, 3])},
            "polynomial": {"max_lr": peak, "power": self.pick([0.0, 0.5, 1.0, 2.0, 1e3])},
            "exponential": {"max_lr": peak, "gamma": gamma},
            "step": {"max_lr": peak, "step_size": self.pick([1, 5, total]), "gamma": gamma},
            "multistep": {
                "max_lr": peak, "milestones": self.pick([[], [0], [5, 5, 10], [-3, 4], list(range(300))]), "gamma": gamma,
            },
            "constant": {"lr": peak} | warm,
        }  # fmt: skip
        name = self.pick(shapes)
        made = {"name": name, "total_steps": total, "unit": self.pick(["step", "step", "step", "epoch"])} | shapes[name]
        if depth < 3 and self.maybe(0.2):
            made = {
                "name": "manual", "total_steps": total, "from_step": self.pick([0, 1, total // 2, total]), "lr": peak,
                "then": self.pick(["anneal", "hold", "scale"]), "base": self.schedule(depth + 1),
                "final_lr": self.pick([None, self.rate()]), "steps_per_epoch": self.pick([None, 10]),
            }  # fmt: skip
        return made

    def rates(self, schedule: dict[str, Any] | None, first: int, count: int) -> list[Any]:
        """What a run logs: its schedule, or a fault of it."""
        position = np.arange(first - 1, first - 1 + count)
        at = {
            "right": position, "frozen": position * 0 + self.pick([0, first]), "late": position - 1,
            "slow": position // 5, "fast": position * 4 + 3,
        }  # fmt: skip
        fault = self.pick(["right", "right", "right", *at, "scaled", "zero", "absent"])
        if fault == "absent":
            return [None] * count
        try:
            with np.errstate(all="ignore"):
                rates = np.asarray(parse(schedule or {}).rate(np.maximum(at.get(fault, position), 0)), np.float64)
        except (ScheduleError, ArithmeticError, TypeError, ValueError):
            rates = np.full(count, 1e-3)
        with np.errstate(all="ignore"):
            rates = rates * {"scaled": 10.0, "zero": 0.0}.get(fault, 1.0)
        digits = self.pick([None, None, 3])
        return [float(f"{rate:.{digits - 1}e}") if digits else float(rate) for rate in rates]

    # ---- records ----

    def run(self, attempt: int, step: int, schedule: dict[str, Any] | None) -> dict[str, Any]:
        total = (schedule or {}).get("total_steps", 100)
        record: dict[str, Any] = {
            "type": "run", "time": 1.7e9 + step, "v": self.pick([1, 2, 3]), "run_id": "odd", "name": "odd",
            "attempt": attempt, "step": step, "total_steps": self.pick([total, None, 0, 2 * total]),
            "steps_per_epoch": self.pick([10, 1, None, 200, 0]), "epochs": self.pick([10, 1, None]),
            "batch_size": self.pick([16, None, 1]), "accumulate": self.pick([1, 4]), "world_size": self.pick([1, 4, 0]),
            "schedule": schedule, "target": self.pick([None, {"auroc": 0.8}, {"accuracy": 0.9}]),
            "expected": self.pick([None, {"peak_lr": 1e-3, "final_lr": 0.0}, {"initial_lr": 0.0}]),
            "restored": self.pick([None, {"position": step, "total_steps": total}, {"position": 0}]),
            "detectors": self.pick([{}, {"loss_spike": False}, {"grad_zero": 2.0}, {"loss_spike": {"factor": 3}}]),
            "lr_precision": self.pick([None, "float64", "float32", "bfloat16", "float8"]),
            "metric_goals": self.pick([{}, {"accuracy": "max", "auroc": "min"}, {"accuracy": "up"}]), "notes": ["note"],
            "inject": self.pick([None, "scheduler_never_stepped"]), "overrides": self.pick([[], [{"from_step": 5}], [{}]]),
        }  # fmt: skip
        if self.maybe(0.3):
            record["groups"] = [{"name": "a", "schedule": schedule}, {"name": None, "schedule": self.schedule()}, {}]
        return record

    def steps(self, first: int, count: int, schedule: dict[str, Any] | None) -> list[dict[str, Any]]:
        loss, norm = self.pick([0.7, 1e5, 1e-9, -80.0, 0.0]), self.pick([1.0, 1e-12, 0.0, 1e5])
        positions, groups, metrics = self.maybe(0.5), self.maybe(0.3), self.maybe(0.3)
        made = []
        for i, rate in enumerate(self.rates(schedule, first, count)):
            n = first + i
            record: dict[str, Any] = {
                "type": "step", "time": 1.7e9 + n, "step": n, "epoch": (n - 1) // 10, "batch": (n - 1) % 10 + 1,
                "lr": rate, "loss": loss * self.random.uniform(0.5, 1.5), "grad_norm": norm, "samples_per_s": 160.0,
            }  # fmt: skip
            record |= {"position": n - 1} if positions else {}
            record |= {"lrs": [rate, self.rate(), None][: self.pick([1, 2, 3])]} if groups else {}
            record |= {"metrics": {"accuracy": 0.5, "": 1.0, "lr": 2.0}} if metrics else {}
            record |= {"skipped": self.pick([0, 1, n])} if self.maybe(0.1) else {}
            made.append(record)
        return made

    def other(self, step: int) -> dict[str, Any]:
        """A record of another type than run and step."""
        return {"time": 1.7e9 + step} | self.pick(
            [
                {
                    "type": "eval",
                    "step": step,
                    "split": self.pick(["val", "eval", "x"]),
                    "loss": 0.5,
                    "auroc": 0.7,
                    "n": 9,
                },
                {"type": "eval", "step": step, "metrics": {"accuracy": 0.5}, "ci95": {"accuracy": [0.4, 0.6]}},
                {"type": "eval", "step": step},
                {"type": "checkpoint", "step": step, "path": "checkpoints/step-1.pt", "best": True},
                {"type": "system", "step": step, "cpu_percent": 50.0, "rss_bytes": 10**9, "gpu": [{"memory": 1.0}]},
                {
                    "type": "finding",
                    "rule": "lr_stuck",
                    "severity": "error",
                    "step": step,
                    "since_step": 1,
                    "message": "m",
                },
                {"type": "progress", "what": "features", "done": 1, "total": self.pick([2, 0])},
                {"type": "schedule", "step": step, "schedule": self.pick([None, self.schedule()])},
                {"type": "intent", "step": step, "rule": "lr_stuck", "since_step": 1, "by": "a@b", "reason": "r"},
                {"type": "watch", "step": step, "look": "update", "group": 0, "values": {"ratio": 1e-3}},
                {"type": "end", "step": step, "reason": "stopped", "error": self.pick([None, "why"])},
            ]
        )

    def records(self) -> list[dict[str, Any]]:
        """Some attempts: a run record, then pieces of steps with other records between them."""
        made: list[dict[str, Any]] = []
        step, schedule = 0, self.pick([None, self.schedule(), self.schedule(), self.schedule()])
        for attempt in range(1, self.random.randint(1, 3) + 1):
            step = self.pick([step, step, step // 2, 0]) if attempt > 1 else 0
            if not self.maybe(0.1):
                made.append(self.run(attempt, step, schedule))
            for _ in range(self.random.randint(0, 4)):
                count = self.pick([1, 2, 5, 30, 60])
                made += self.steps(step + self.pick([1, 1, 1, 2, 50, 0, -3]), count, schedule)
                step += count
                made += [self.other(step) for _ in range(self.random.randint(0, 2))]
        return [self.odd(record) for record in made for _ in range(1 + self.maybe(self.oddness / 3))]

    def log(self) -> bytes:
        """A run.jsonl: records, and lines that are none; NaN as Python's json writes it."""
        lines = [json.dumps(record).encode() for record in self.records()]
        for _ in range(self.pick([0, 0, 1, 3])):
            lines.insert(self.random.randint(0, len(lines)), self.pick(BAD_LINES))
        return b"\n".join(lines) + self.pick([b"\n", b"\n", b"", b'\n{"type":"st'])


class DrawnForeign(Drawn):
    """Another program's log, drawn from a seed: its file name and its content."""

    def rows(self) -> list[dict[str, Any]]:
        """Named numbers, a row a step, by names that programs use."""
        step, lr = (
            self.pick(["step", "global_step", "iter", "epoch", "x"]),
            self.pick(["lr", "learning_rate", "lr-Adam"]),
        )
        names = {
            "loss": 0.5,
            "train_loss": 0.5,
            "grad_norm": 1.0,
            "time": 1.7e9,
            "val_loss": 0.6,
            "accuracy": 0.7,
            "auc": 0.7,
        }
        chosen = [name for name in names if self.maybe(0.4)]
        made = []
        for n in range(self.pick([0, 1, 1]), self.pick([2, 30, 80])):
            row: dict[str, Any] = {step: n, lr: self.pick([1e-3, 1e-3 * 0.99**n, 0.0])}
            made.append(self.odd(row | {name: names[name] * self.random.uniform(0.5, 1.5) for name in chosen}))
        return made + self.pick([[], made[:5], made[::-1]])

    def file(self) -> tuple[str, bytes]:
        rows, kind = self.rows(), self.pick(["jsonl", "csv", "hf", "text", "python", "noise"])
        if kind == "jsonl":
            return "rows.jsonl", b"\n".join(
                [*(json.dumps(row).encode() for row in rows), *self.pick([[], BAD_LINES])]
            ) + b"\n"
        if kind == "hf":
            state = self.odd({"log_history": rows, "max_steps": 100, "num_train_epochs": 3, "global_step": 9})
            return "trainer_state.json", json.dumps(self.pick([state, state, rows, None])).encode()
        if kind == "csv":
            names = list(dict.fromkeys(name for row in rows for name in row))
            lines = [",".join(names)]
            lines += [",".join(str(row.get(name, ""))[:40].replace("\n", "") for name in names) for row in rows]
            return "metrics.csv", ("\n".join(lines) + self.pick(["\n", "", ",,,\n", '"'])).encode("utf-8", "replace")
        if kind == "python":
            return "out.log", "".join(f"{row}\n" for row in rows).encode("utf-8", "replace")
        if kind == "text":
            form = self.pick(["{}: {}, ", "{}={} ", "{} {} | ", "[{}: {}] "])
            lines = ["".join(form.format(name, value) for name, value in row.items()) for row in rows]
            head = self.pick(["", "Epoch 1/3\n", "Epoch [1/3][5/10] ", "100%|####| 5/10 "])
            return "train.log", "".join(f"{head}{line}\n" for line in lines).encode("utf-8", "replace")
        return self.pick(["a.log", "a.csv", "a.json", "a.jsonl"]), self.random.randbytes(self.pick([0, 1, 100, 5000]))


SEEDS = st.integers(0, 2**32 - 1)


def run_logs() -> st.SearchStrategy[bytes]:
    return SEEDS.map(lambda seed: Drawn(seed).log())


def foreign_logs() -> st.SearchStrategy[tuple[str, bytes]]:
    return SEEDS.map(lambda seed: DrawnForeign(seed).file())
