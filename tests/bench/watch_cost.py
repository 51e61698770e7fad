"""What log.watch(model, optimizer) costs: `python -m tests.bench.watch_cost [--blocks 40]`.

Two trainings of the same model in one process, one watched and one with a RunLog alone, take turns in blocks of steps;
each pair of neighbouring blocks gives one difference of CPU time. Printed are the median of the differences with its
95 % interval (bootstrap over pairs), for steps of about 1 ms and 10 ms, the looks per 1,000 steps, and how many steps
pass between two looks, which is how late an error that begins later is found at most. The first 20 steps, which are all
looked at, are taken before. Measure on an idle machine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from eegwatch import RunLog

WARM_UP, DRAWS = 300, 2000
SIZES = {"1 ms": (192, 256, 400), "10 ms": (512, 512, 30)}  # (width, batch, steps of a block)


class Training:
    """One training of an MLP under a RunLog."""

    def __init__(self, folder: Path, width: int, batch: int, *, watched: bool) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(
            nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2)
        )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self.x, self.y = torch.randn(batch, 64), torch.randint(0, 2, (batch,))
        self.log = RunLog(folder, optimizer=self.optimizer, control=False)
        if watched:
            self.log.watch(self.model, self.optimizer)

    def block(self, steps: int) -> float:
        """CPU seconds of a step, over a block of them."""
        began = time.process_time()
        for _ in range(steps):
            self.optimizer.zero_grad()
            loss = nn.functional.cross_entropy(self.model(self.x), self.y)
            loss.backward()
            self.optimizer.step()
            self.log.step(loss=loss)
        return (time.process_time() - began) / steps


def measured(name: str, blocks: int, folder: Path) -> None:
    width, batch, steps = SIZES[name]
    watched, alone = (Training(folder, width, batch, watched=w) for w in (True, False))
    for training in (watched, alone):
        training.block(WARM_UP)
    before = watched.log.watcher.eyes[0].cadence.looks, watched.log.watcher.eyes[0].taken
    pairs = []
    for number in range(blocks):
        order = (watched, alone) if number % 2 else (alone, watched)  # neither is always the first of a pair
        took = {training: training.block(steps) for training in order}
        pairs.append((took[watched], took[alone]))
    eye = watched.log.watcher.eyes[0]
    looks, taken, interval = eye.cadence.looks - before[0], eye.taken - before[1], eye.cadence.interval
    with_watch, without = np.array(pairs).T
    share = (with_watch - without) / np.median(without)
    drawn = np.random.default_rng(0).choice(share, (DRAWS, len(share)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    print(
        f"steps of {name}: {1e3 * np.median(without):.2f} ms alone, watched {100 * np.median(share):+.2f} % "
        f"(95 %: {100 * low:+.2f} to {100 * high:+.2f}), {1000 * looks / taken:.1f} looks per 1,000 steps, "
        f"an error that begins later is found within {interval:,} steps"
    )
    for training in (watched, alone):
        training.log.end()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.watch_cost", description=__doc__)
    parser.add_argument("--blocks", type=int, default=40, help="pairs of blocks (default: 40)")
    blocks = parser.parse_args().blocks
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for name in SIZES:
            measured(name, blocks, Path(folder))


if __name__ == "__main__":
    main()
