"""What a record costs a training script: RunLog beside TensorBoard's writer and Python's logging.

    python -m tests.bench.runlog [--records 50000]

One step with its loss, rate and gradient norm a call. wandb is measured too where it is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from eegwatch import RunLog
from eegwatch.steering import ranks

Write = Callable[[int], None]


def ours(folder: Path, *, following: bool, control: bool = True) -> Write:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=10_000_000)
    log = RunLog(folder, schedule=scheduler if following else None, steps_per_epoch=1000, control=control)
    if following:
        hooks = log.follower.hooks if log.follower is not None else None
        assert hooks is not None

        def write(_: int) -> None:
            hooks._before(optimizer, (), {})  # what an optimizer's step calls, without the step itself
            hooks._after(optimizer, (), {})
            log.step(loss=0.5, grad_norm=1.5)

        return write
    return lambda _: log.step(loss=0.5, lr=1e-3, grad_norm=1.5)


def control_costs(folder: Path, records: int) -> None:
    """What obeying the control file costs a step: control on against off, in interleaved blocks, median of each."""
    took: dict[bool, list[np.ndarray]] = {True: [], False: []}
    logs = {on: RunLog(folder / str(on), control=on) for on in took}
    for _ in range(40):
        for on, log in logs.items():
            block = np.empty(records // 40)
            for i in range(len(block)):
                began = time.perf_counter_ns()
                log.step(loss=0.5, lr=1e-3, grad_norm=1.5)
                block[i] = time.perf_counter_ns() - began
            took[on].append(block)
    on, off = (np.median([np.median(b) for b in took[which]]) / 1000 for which in (True, False))
    mean = (np.mean(np.concatenate(took[True])) - np.mean(np.concatenate(took[False]))) / 1000
    print(f"control on {on:.2f} µs, off {off:.2f} µs a step (medians); the means differ by {mean:+.2f} µs")


def ranks_cost(folder: Path, records: int) -> None:
    """What a step costs in a job of two processes, hooks included: rank 0 and rank 1 with control, rank 0 without."""
    writes: dict[str, Write] = {}
    took: dict[str, list[np.ndarray]] = {}
    for name, rank, control in (("rank 0 without control", 0, False), ("rank 0", 0, True), ("rank 1", 1, True)):
        os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="localhost", MASTER_PORT="29999")
        ranks._made.clear()  # each of these stands for the first RunLog of a process of its own
        writes[name], took[name] = ours(folder / ("b" if control else "a"), following=True, control=control), []
    for variable in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        del os.environ[variable]
    for _ in range(40):
        for name, write in writes.items():
            block = np.empty(records // 40)
            for i in range(len(block)):
                began = time.perf_counter_ns()
                write(i)
                block[i] = time.perf_counter_ns() - began
            took[name].append(block)
    for name, blocks in took.items():
        mean = np.mean(np.concatenate(blocks)) / 1000
        print(f"{name}: {np.median([np.median(b) for b in blocks]) / 1000:.2f} µs a step (median), mean {mean:.2f} µs")


def tensorboard(folder: Path) -> Write:
    from tensorboard.summary import Writer

    writer = Writer(str(folder))

    def write(n: int) -> None:
        writer.add_scalar("loss", 0.5, n)
        writer.add_scalar("lr", 1e-3, n)
        writer.add_scalar("grad_norm", 1.5, n)

    return write


def text(folder: Path) -> Write:
    folder.mkdir()
    logger = logging.getLogger(str(folder))
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(logging.FileHandler(folder / "log.txt"))
    return lambda n: logger.info("Step %d - Loss: %.4f - LR: %.2e - Grad norm: %.3f", n, 0.5, 1e-3, 1.5)


def wandb_offline(folder: Path) -> Write:
    import wandb

    run = wandb.init(mode="offline", dir=str(folder), settings=wandb.Settings(silent=True))
    return lambda n: run.log({"loss": 0.5, "lr": 1e-3, "grad_norm": 1.5}, step=n)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=50_000)
    n = parser.parse_args().records
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        control_costs(root / "control", n)
        ranks_cost(root / "ranks", n)
        ways: dict[str, Callable[[], Write]] = {
            "RunLog": lambda: ours(root / "ours", following=False),
            "RunLog, following a scheduler": lambda: ours(root / "follow", following=True),
            "logging.FileHandler": lambda: text(root / "text"),
            "tensorboard.summary.Writer": lambda: tensorboard(root / "tb"),
        }
        if importlib.util.find_spec("wandb") is not None:
            ways["wandb offline"] = lambda: wandb_offline(root)
        for name, make in ways.items():
            write = make()
            count = n if "RunLog" in name or "logging" in name else n // 10
            took = np.empty(count)
            for i in range(count):
                began = time.perf_counter_ns()
                write(i + 1)
                took[i] = time.perf_counter_ns() - began
            median, p99 = np.quantile(took / 1000, [0.5, 0.99])
            print(f"{name:32} {median:8.1f} µs median {p99:8.1f} µs p99")


if __name__ == "__main__":
    main()
