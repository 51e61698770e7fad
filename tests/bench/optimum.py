"""How long the optimum of a large training set takes, and in how much memory: from a slice, and extrapolated openly.

`python -m tests.bench.optimum --rows 100000 --features 2048 --of 1000000 --folder DIR` writes a pack of made-up features
(float16, correlated, a weak class difference) into DIR, solves the whole lambda path on it, and prints CPU seconds,
passes and peak memory; what does not grow with the rows (the curvature of 65,536 windows) is measured apart. CPU time,
because a machine that does other things beside stretches the clock.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np

from eegpt_daemon.analysis.objective import Objective
from eegpt_daemon.analysis.optimum import LAMBDAS, LambdaPath, Solution
from eegpt_daemon.data import shards
from eegpt_daemon.data.shards import ShardStore
from eegpt_daemon.data.windows import Windows

PART = 10_000


def made_up(folder: Path, rows: int, features: int) -> Windows:
    """A pack whose probe reaches an AUROC of about 0.85 with weights of a norm as training finds them."""
    random = np.random.default_rng(0)
    mix = (random.standard_normal((features, features)) / features**0.5 * np.geomspace(3, 0.03, features)).astype("f4")
    direction = random.standard_normal(features).astype("f4") @ mix
    y = random.integers(0, 2, rows)
    store = ShardStore(folder, {"rows": rows, "features": features}, features)
    store.open()
    if store.get("bench") is None:
        writer = store.writer("bench")
        for begin in range(0, rows, PART):
            label = y[begin : begin + PART]
            x = random.standard_normal((len(label), features)).astype("f4") @ mix
            x += 0.05 * (2 * label - 1)[:, None] * direction
            writer.write((x + 5).astype(np.float16))
        writer.finish([])
    pack = store.pack(["bench"], lambda *_: None)
    return Windows(pack, np.arange(rows), y, np.zeros(rows, np.int32), ["bench"])


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--of", type=int, default=1_000_000, help="rows to extrapolate to")
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    shards.IN_MEMORY_BYTES = 0  # mapped, as a pack of a million rows is
    train = made_up(arguments.folder, arguments.rows, arguments.features)
    x = np.concatenate([train.pack.rows[i : i + PART].astype("f8").sum(0)[None] for i in range(0, len(train), PART)])
    mean = x.sum(0) / len(train)
    square = sum((train.pack.rows[i : i + PART].astype("f8") ** 2).sum(0) for i in range(0, len(train), PART))
    std = np.sqrt(square / len(train) - mean**2)
    o = Objective(train, 2, (-mean / std).astype("f4"), (1 / std).astype("f4"), weighted=True)
    before = peak_mb()
    began = time.process_time()
    o.curvature(np.zeros((arguments.features + 1, 2)), 1 << 16)
    curvature = time.process_time() - began
    o.rows_read, began, by_the_clock = 0, time.process_time(), time.perf_counter()

    def told(s: Solution) -> None:
        print(f"lambda {s.lam:8.2g}  P {s.objective:.9f}  gap {s.gap:.0e}  norm {s.norm:.3g}", flush=True)

    LambdaPath(o, arguments.folder / f"kept-{time.time_ns()}.npz", on_solution=told).along()
    whole, by_the_clock = time.process_time() - began, time.perf_counter() - by_the_clock
    passes = o.rows_read / len(train)
    print(
        f"{len(train):,} windows x {arguments.features}: {len(LAMBDAS)} lambdas, {passes:.0f} passes, {whole:.0f} s of "
        f"CPU time ({by_the_clock:.0f} s by the clock)"
    )
    print(f"memory: {peak_mb():.0f} MB at most, {before:.0f} MB before the solver began")
    fixed = min(whole, curvature * len(LAMBDAS))
    there = fixed + (whole - fixed) * arguments.of / len(train)
    print(
        f"extrapolated to {arguments.of:,} windows: {there:.0f} s of CPU time, {there / 2:.0f} s on two cores that do "
        f"nothing else (curvature {curvature:.1f} s a lambda does not grow with the windows, "
        f"{(whole - fixed) / passes / len(train) * 1e6:.2f} s a pass of a million rows)"
    )


if __name__ == "__main__":
    main()
