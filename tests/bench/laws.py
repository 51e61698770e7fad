"""Laws found from the log alone, measured: every family, length, precision and record interval, and rates of no family.

    python -m tests.bench.laws [--seed 0] [--runs 40] [--verbose]

Printed a family: how many logs were identified, wrongly identified, undecided, how early; and of rates that follow no
family how many stayed undecided. Every log is read on after its law was found: a break claimed there is a false one.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eegwatch.diagnosis.engine import Diagnosis
from eegwatch.run.columns import block_of
from eegwatch.run.records import Run, Step
from eegwatch.schedule import parse

Rates = NDArray[np.float64]
Rng = np.random.Generator
PRINTS = ("float64", "float32", "8", "6", "5", "4", "3", "2", "%.8f", "%.6f")
LENGTHS = (100, 300, 1000, 3000, 10_000, 30_000, 100_000)


@dataclass
class Case:
    """A log: its rates at steps 1 … T, the record interval, how they are printed."""

    family: str
    rates: Rates
    every: int
    printed: str
    declared: dict[str, Any] = field(default_factory=dict)
    lag: int = 0


@dataclass
class Outcome:
    found: dict[str, Any] | None
    at: int  # records after which it was found
    broken: str | None
    seconds: float
    changed: bool


def _peak(rng: Rng) -> float:
    return float(f"{rng.choice([1, 2, 3, 5, 1.5, 2.5, 6, 8, 1.25])}e-{rng.integers(2, 6)}")


def _warm(rng: Rng, T: int, peak: float) -> dict[str, Any]:
    if rng.random() < 0.4:
        return {}
    share = rng.choice([0.01, 0.03, 0.05, 0.1, 0.2])
    initial = float(rng.choice([0.0, 0.0, 0.0, 1e-6, 1e-7]))
    return {"warmup_steps": max(1, int(T * share)), "initial_lr": initial if initial < peak / 4 else 0.0}


def _floor(rng: Rng, peak: float) -> float:
    return float(rng.choice([0.0, 0.0, peak / 10, peak / 100, 1e-6 if peak > 1e-5 else 0.0]))


def _family(name: str, rng: Rng, T: int) -> dict[str, Any]:
    m = _peak(rng)
    base: dict[str, Any] = {"name": name, "total_steps": T, "max_lr": m}
    if name == "one_cycle":
        base |= {"pct_start": float(rng.choice([0.1, 0.2, 0.3])), "div_factor": float(rng.choice([10.0, 25.0]))}
        return base | {"final_div_factor": float(rng.choice([1e2, 1e3, 1e4]))}
    if name == "cyclic":
        up = max(4, T // int(rng.integers(4, 12)))
        return base | {"base_lr": m / float(rng.choice([4, 5, 10])), "step_size_up": up, "step_size_down": up}
    base |= _warm(rng, T, m)
    if name in ("cosine", "polynomial"):
        base["final_lr"] = _floor(rng, m)
    if name == "linear" and rng.random() < 0.2:
        base["final_lr"] = m / 10
    if name == "polynomial":
        base["power"] = float(rng.choice([2.0, 0.9, 3.0, 0.5]))
    if name == "exponential":
        base["gamma"] = float(f"{0.1 ** (1 / T):.6g}")
    if name == "inverse_sqrt":
        base |= {"warmup_steps": max(4, T // 20), "initial_lr": 0.0}
    if name == "cosine_restarts":
        base |= {"T_0": max(10, T // int(rng.integers(3, 8))), "T_mult": int(rng.choice([1, 2]))}
    if name == "warmup_stable_decay":
        kind = str(rng.choice(["linear", "cosine", "1-sqrt"]))
        base |= {"warmup_steps": T // 20, "decay_steps": T // 4, "decay_type": kind, "initial_lr": 0.0}
    return base


FAMILIES = ("linear", "cosine", "one_cycle", "polynomial", "exponential", "inverse_sqrt", "cosine_restarts", "cyclic",
            "warmup_stable_decay")  # fmt: skip
MODES = ("join", "multiply", "overlay", "blend")


def of_family(name: str, rng: Rng) -> Case:
    """A log of a family, as its author's script would have written it."""
    T = int(rng.choice(LENGTHS))
    printed = str(rng.choice(PRINTS))
    per_epoch = 1
    if name == "epoch unit":
        per_epoch = int(rng.choice([50, 97, 390, 1000]))
        epochs = int(rng.choice([20, 30, 50, 100]))
        inner = _family(str(rng.choice(["linear", "cosine", "polynomial", "exponential"])), rng, epochs)
        T = epochs * per_epoch
        declared = inner
    elif name in MODES:
        declared = _family("cosine", rng, T)
        m = declared["max_lr"]
        declared |= {"warmup_steps": max(4, T // 20), "initial_lr": m / 1000, "warmup_mode": name}
    else:
        declared = _family(name, rng, T)
    every = int(rng.choice([k for k in (1, 1, 10, 50, 100, 500) if T // k >= 12]))
    n = np.arange(1, T + 1)
    lag = int(rng.choice([0, 1])) if per_epoch == 1 else 0
    position = (n - 1 + lag) // per_epoch
    return Case(name, parse(declared).rate(position), every, printed, declared, lag)


def of_none(kind: str, rng: Rng) -> Case:
    """Rates of no family."""
    T = int(rng.choice(LENGTHS[:6]))
    n, m = np.arange(T), _peak(rng)
    x = n / T
    if kind == "random walk":
        y = m * np.exp(np.cumsum(rng.normal(0, 0.5 / np.sqrt(T), T)))
    elif kind == "monotone walk":
        y = m * np.exp(-np.cumsum(rng.exponential(2.0 / T, T)))
    elif kind == "plateau":
        cuts = np.sort(rng.choice(np.arange(T // 10, T), size=int(rng.integers(2, 9)), replace=False))
        y = m * float(rng.choice([0.1, 0.5])) ** np.searchsorted(cuts, n, side="right")
    elif kind == "multistep":
        cuts = np.sort(rng.choice(np.arange(1, 20), size=3, replace=False)) * T // 20
        y = m * 0.1 ** np.searchsorted(cuts, n, side="right")
    elif kind == "adaptive":
        y = m * np.exp(-np.maximum.accumulate(np.abs(np.cumsum(rng.normal(0, 1, T)))) / np.sqrt(T))
    elif kind == "constant and noise":
        y = m * (1 + 0.01 * rng.normal(size=T))
    elif kind == "cosine and noise":
        y = m * (1 + np.cos(np.pi * x)) / 2 * (1 + 0.02 * rng.normal(size=T)) + 1e-9
    elif kind == "warm-up and a hold":
        y = m * np.minimum(n / max(T // 10, 1), 1.0)
    elif kind == "a warm-up alone":
        y = m * (n + 1) / T
    elif kind == "rational":
        y = m / (1 + float(rng.uniform(2, 20)) * x)
    elif kind == "logistic":
        y = m / (1 + np.exp(8 * (x - float(rng.uniform(0.3, 0.7)))))
    elif kind == "stretched":
        y = m * np.exp(-3 * x ** float(rng.uniform(1.3, 1.9)))
    elif kind == "two slopes":
        y = m * np.where(x < 0.37, 1 - x, 0.63 - 0.4 * (x - 0.37))
    elif kind == "sine":
        y = m * (1.5 + np.sin(7 * x + float(rng.uniform(0, 6))) * (1 - 0.3 * x))
    else:
        y = m * (1 - x**2.3) * (1 - 0.3 * np.sin(3 * x))
    every = int(rng.choice([k for k in (1, 10, 50, 100) if T // k >= 12]))
    return Case(kind, y, every, str(rng.choice(PRINTS)))


NONE = ("random walk", "monotone walk", "plateau", "multistep", "adaptive", "constant and noise", "cosine and noise",
        "warm-up and a hold", "a warm-up alone", "rational", "logistic", "stretched", "two slopes", "sine",
        "user lambda")  # fmt: skip


def written(rates: Rates, printed: str) -> Rates:
    """The rates as the log has them."""
    if printed == "float64":
        return rates
    if printed == "float32":
        return rates.astype(np.float32).astype(np.float64)
    if printed.startswith("%"):
        return np.array([float(printed % r) for r in rates])
    return np.array([float(f"{r:.{int(printed) - 1}e}") for r in rates])


def read(case: Case) -> Outcome:
    """What the diagnosis makes of the log, fed as it grows."""
    n = np.arange(case.every, len(case.rates) + 1, case.every)
    y = written(case.rates[n - 1], case.printed)
    diagnosis = Diagnosis.of_foreign()
    diagnosis.feed(Run(time=0.0, run_id="bench"))
    begun, at, first, changed, broken = time.perf_counter(), 0, None, False, None
    sizes = np.unique(
        np.concatenate([np.arange(0, min(len(n), 64), 4), np.linspace(0, len(n), 24).astype(int), [len(n)]])
    )
    for a, b in pairwise(sizes):
        steps = [Step(time=float(s), step=int(s), lr=float(r)) for s, r in zip(n[a:b], y[a:b])]
        changes = diagnosis.feed(block_of(steps))
        broken = broken or next((c.message for c in changes if c.rule == "lr_left_its_law"), None)
        law = diagnosis.law
        if law is not None and first is None:
            first, at = law.name, int(b)
        changed |= law is not None and first is not None and law.name != first
    changes = diagnosis.settle()
    broken = broken or next((c.message for c in changes if c.rule == "lr_left_its_law"), None)
    law = diagnosis.law
    if law is not None and first is None:
        at = len(n)
    given = law.as_dict() if law is not None else None
    return Outcome(given, at, broken, time.perf_counter() - begun, changed)


def right(case: Case, found: dict[str, Any]) -> bool:
    """Is the law that was found the one that the log was made by: on the record and ahead of it?"""
    declared = case.declared
    T = int(declared["total_steps"])
    name = declared["name"]
    same = found["name"] == name or {found["name"], name} in ({"exponential", "step"},)
    if name == "polynomial" and declared.get("power") == 1.0:
        same = found["name"] == "linear"
    if not same:
        return False
    if name in ("linear", "cosine", "polynomial", "warmup_stable_decay"):
        total, unit = found["total_steps"], found.get("steps_per_epoch", 1)
        least, most = total if isinstance(total, list) else (total, total)
        if name == "linear" and declared.get("final_lr") and not found.get("final_lr"):
            # a line that ends at a floor is one to 0 until then: said as "or a line that ends at a floor"
            T = round(T / (1 - declared["final_lr"] / declared["max_lr"]))
        end = (
            1 - case.lag + T * (len(case.rates) // int(declared["total_steps"]))
        )  # the step at which it was made to end
        first, last = (found["begins_at_step"] + t * unit for t in (least, most))
        return abs(found["max_lr"] / declared["max_lr"] - 1) < 0.05 and first - 1 <= end <= last + 1
    if name == "cosine_restarts":
        return abs(found["T_0"] - declared["T_0"]) <= 1 and found.get("T_mult", 1) == declared["T_mult"]
    if name == "exponential":
        return abs(np.log(found["gamma"]) / np.log(declared["gamma"]) - 1) < 0.05
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=int, default=40, help="logs a family")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    kinds: list[tuple[str, Callable[[str, Rng], Case]]] = [(f, of_family) for f in (*FAMILIES, "epoch unit", *MODES)]
    kinds += [(k, of_none) for k in NONE]
    print(f"{'':22} {'logs':>5} {'right':>6} {'wrong':>6} {'undecided':>9} {'breaks':>6}  records  seconds (worst)")
    totals: dict[str, Counter[str]] = defaultdict(Counter)
    by_print: dict[str, Counter[str]] = defaultdict(Counter)
    for kind, make in kinds:
        if arguments.only and arguments.only not in kind:
            continue
        row, records, worst = Counter[str](), [], 0.0
        for _ in range(arguments.runs):
            case = make(kind, rng)
            outcome = read(case)
            worst = max(worst, outcome.seconds)
            family = make is of_family
            if outcome.found is None:
                word = "undecided"
            elif family and right(case, outcome.found):
                word = "right"
                records.append(outcome.at / max(len(case.rates) // case.every, 1))
            else:
                word = "wrong"
            row[word] += 1
            if family:
                by_print[case.printed][word] += 1
            if outcome.broken:
                row["breaks"] += 1
            if arguments.verbose and (word == "wrong" or outcome.broken or (family and word == "undecided")):
                print("   ", word, case.family, case.printed, f"every {case.every} of {len(case.rates)}", "lag", case.lag,
                      case.declared, "->", outcome.found, outcome.broken)  # fmt: skip
        totals["families" if make is of_family else "no family"] += row
        share = f"{np.median(records):6.0%}" if records else ""
        print(f"{kind:22} {arguments.runs:5} {row['right']:6} {row['wrong']:6} {row['undecided']:9} {row['breaks']:6}  "
              f"{share:7}  {worst:.2f}", flush=True)  # fmt: skip
    for name, row in totals.items():
        logs = row["right"] + row["wrong"] + row["undecided"]
        print(f"{name}: {logs} logs, right {row['right']}, wrong {row['wrong']}, undecided {row['undecided']} "
              f"({row['undecided'] / logs:.1%}), false breaks {row['breaks']}")  # fmt: skip
    for printed in PRINTS:
        print(f"  printed as {printed:8} {dict(by_print[printed])}")
    sys.exit(1 if totals["families"]["wrong"] or totals["families"]["breaks"] else 0)


if __name__ == "__main__":
    main()
