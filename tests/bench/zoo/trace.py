"""A run as arrays, one value a step, and how it becomes the items that the diagnosis is fed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eegwatch.run.history import Item, StepBlock
from eegwatch.run.records import Eval, Run

Column = NDArray[np.float64]
CHUNK = 500  # records fed at once


@dataclass
class Trace:
    """`loss`, `norm`, `lr`, `seconds`: (steps,); `evals`: (step, results); `run`: fields of the `run` record."""

    loss: Column
    norm: Column
    lr: Column
    seconds: Column
    evals: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    run: dict[str, Any] | None = field(default_factory=dict)
    every: int = 1  # each so-manieth step is logged

    def __len__(self) -> int:
        return len(self.loss)

    def items(self) -> Iterator[Item]:
        steps = np.arange(1, len(self) + 1)
        times = 1.7e9 + np.cumsum(self.seconds)
        if self.run is not None:
            yield Run(time=1.7e9, total_steps=len(self), **self.run)
        logged = steps % self.every == 0 if self.every > 1 else np.ones(len(self), bool)
        edges = sorted({0, len(self), *range(0, len(self), CHUNK * self.every), *(step for step, _ in self.evals)})
        at = dict(self.evals)
        for begin, end in pairwise(edges):
            rows = np.flatnonzero(logged[begin:end]) + begin
            if len(rows):
                yield StepBlock(
                    step=steps[rows],
                    time=times[rows],
                    lr=self.lr[rows],
                    position=np.full(len(rows), np.nan),
                    loss=self.loss[rows].astype(np.float32),
                    grad_norm=self.norm[rows].astype(np.float32),
                    samples_per_s=np.full(len(rows), np.nan, np.float32),
                    skipped=np.zeros(len(rows), np.int32),
                )
            if end in at:
                yield _evaluation(end, float(times[end - 1]), at[end])


def _evaluation(step: int, time: float, values: dict[str, float]) -> Eval:
    fields = {name: values[name] for name in ("loss", "auroc", "balanced_accuracy") if name in values}
    rest = {name: value for name, value in values.items() if name not in fields}
    return Eval(step=step, time=time, split="val", **fields, **({"metrics": rest} if rest else {}))


Make = Callable[[int, str], Trace]  # (seed, fault or "") -> trace


@dataclass(frozen=True)
class Scenario:
    """A kind of training. `faults`: what `make` can do wrong itself -> the rules that name it (any of them)."""

    name: str
    make: Make
    faults: dict[str, tuple[str, ...]]


SCENARIOS: dict[str, list[Scenario]] = {"drawn": [], "trained": [], "later": []}


def scenario(group: str, **faults: str) -> Callable[[Make], Make]:
    """Register a function as a scenario; `faults`: name="rule" or "rule rule"."""

    def register(make: Make) -> Make:
        named = {fault: tuple(rules.split()) for fault, rules in faults.items()}
        SCENARIOS[group].append(Scenario(make.__name__, make, named))
        return make

    return register
