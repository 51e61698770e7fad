"""Healthy noisy runs to measure detectors on: calibrated binary classifiers whose AUROC rises, with real batch noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import NormalDist
from typing import Any

import numpy as np

from eegwatch.run.history import Item, StepBlock
from eegwatch.run.records import Eval, Run
from eegwatch.schedule import parse

Harm = Callable[[Any, Any], Any]


def healthy_run(
    seed: int, total: int, batch_size: int = 32, *, harm: Harm | None = None, chunk: int = 500
) -> Iterator[Item]:
    """The items of a run of `total` steps: losses of a binormal classifier whose AUROC rises from 0.5 to 0.86.

    `harm(step, loss)` may change the losses. Gradient norms and step times are lognormal.
    """
    rng = np.random.default_rng(seed)
    n = np.arange(1, total + 1)
    auroc = 0.5 + 0.36 * (1 - np.exp(-n / (0.15 * total)))
    grid = np.linspace(0.5, 0.95, 451)
    d2 = np.interp(auroc, grid, 2 * np.array([NormalDist().inv_cdf(a) for a in grid]) ** 2)
    margin = d2[:, None] / 2 + np.sqrt(d2)[:, None] * rng.standard_normal((total, batch_size), np.float32)
    loss = np.logaddexp(0, -margin).mean(1)
    if harm is not None:
        loss = harm(n, loss)
    norms = np.exp(rng.normal(0, 0.4, total)).astype(np.float32)
    times = np.cumsum(rng.lognormal(-2.3, 0.2, total))
    schedule = {"name": "one_cycle", "total_steps": total, "max_lr": 3e-3, "pct_start": 0.1}
    lr = parse(schedule).rate(n - 1)
    per_epoch = max(1, total // 20)
    yield Run(
        total_steps=total,
        steps_per_epoch=per_epoch,
        epochs=20,
        batch_size=batch_size,
        schedule=schedule,
        target={"auroc": 0.85},
    )
    for begin in range(0, total, chunk):
        rows = slice(begin, begin + chunk)
        count = len(n[rows])
        yield StepBlock(
            step=n[rows],
            time=times[rows],
            lr=lr[rows],
            position=n[rows] - 1.0,
            loss=loss[rows].astype(np.float32),
            grad_norm=norms[rows],
            samples_per_s=np.ones(count, np.float32),
            skipped=np.zeros(count, np.int32),
        )
        if begin % per_epoch < chunk:
            seen = float(loss[max(0, begin - 500) : begin + chunk].mean() + rng.normal(0, 0.004))
            yield Eval(step=int(n[rows][-1]), split="val", loss=seen, auroc=float(auroc[begin] + rng.normal(0, 0.003)))
