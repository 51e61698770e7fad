"""What log.watch(model, optimizer) costs: `python -m tests.bench.watch_cost [NAME …] [--blocks 40]`.

Two trainings of the same model in one process, one watched and one with a RunLog alone, take turns in short blocks of
steps; each pair of neighbouring blocks gives one difference of CPU time, which other processes do not move as they move
the wall's. The blocks of one training cover its looks in turn, so the mean of the differences is what is lost on
average; its 95 % interval is a bootstrap over groups of pairs. Beside it stand the share that the watcher itself
accounts for (the one on the screen), the looks per 1,000 steps, and how many steps pass between two looks, which is how
late an error that begins later is found at most. The first steps, which are all looked at, are taken before.
Measure on an idle machine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from eegwatch import RunLog

DRAWS = 2000
AT_ONCE = 5  # neighbouring pairs that the bootstrap draws together: a look lies in some blocks and not in others


def mlp(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(640, 8, 2560, batch_first=True, dropout=0.0)
    return nn.Sequential(nn.Linear(64, 640), nn.TransformerEncoder(layer, 10), nn.Linear(640, 2))


class Many(nn.Module):
    """1,000 small tensors: 500 layers of 8 units."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 8)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(498))
        self.last = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for layer in self.layers:
            x = x + 0.01 * layer(x)
        return self.last(x)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Size:
    """A model, the shape of its batch, the steps before the measurement and those of a block."""

    model: Callable[[], nn.Module]
    batch: tuple[int, ...]
    before: int
    block: int
    blocks: float = 1.0  # of the blocks that are asked for


SIZES = {
    "1ms": Size(lambda: mlp(192), (256, 64), 2000, 200),
    "10ms": Size(lambda: mlp(512), (512, 64), 600, 40),
    "50M": Size(transformer, (2, 8, 64), 24, 4, 0.3),
    "1000tensors": Size(Many, (32, 64), 100, 10, 0.5),
}


class Training:
    """One training under a RunLog."""

    def __init__(self, folder: Path, size: Size, *, watched: bool) -> None:
        torch.manual_seed(0)
        self.model = size.model()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self.x = torch.randn(size.batch)
        self.y = torch.randint(0, 2, (self.x.numel() // size.batch[-1],))
        self.log = RunLog(folder, optimizer=self.optimizer, control=False)
        if watched:
            self.log.watch(self.model, self.optimizer)

    def block(self, steps: int) -> float:
        """CPU seconds of a step, over a block of them."""
        began = time.process_time()
        for _ in range(steps):
            self.optimizer.zero_grad()
            loss = nn.functional.cross_entropy(self.model(self.x).reshape(-1, 2), self.y)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.log.step(loss=loss)
        return (time.process_time() - began) / steps


def interval_of(share: np.ndarray) -> tuple[float, float, float]:
    """(the mean without the most extreme tenth at each end, and its 95 % interval) of the pairs' differences."""
    groups = share[: len(share) // AT_ONCE * AT_ONCE].reshape(-1, AT_ONCE).mean(axis=1)
    drawn = np.random.default_rng(0).choice(groups, (DRAWS, len(groups)))
    trimmed = np.array([_trimmed(one) for one in drawn])
    low, high = np.quantile(trimmed, [0.025, 0.975])
    return _trimmed(groups), float(low), float(high)


def _trimmed(values: np.ndarray) -> float:
    cut = len(values) // 10
    return float(np.sort(values)[cut : len(values) - cut].mean())


def measured(name: str, blocks: int, folder: Path) -> None:
    size = SIZES[name]
    watched, alone = (Training(folder, size, watched=w) for w in (True, False))
    for training in (watched, alone):
        training.block(size.before)
    watcher = watched.log.watcher
    assert watcher is not None
    (listener,) = watcher.listeners
    looks, taken, spent = listener.cadence.looks, listener.taken, listener.cadence.spent_s
    pairs = []
    for number in range(max(AT_ONCE * 4, round(blocks * size.blocks))):
        order = (watched, alone) if number % 2 else (alone, watched)  # neither is always the first of a pair
        took = {training: training.block(size.block) for training in order}
        pairs.append((took[watched], took[alone]))
    cadence = listener.cadence
    looks, taken, spent = cadence.looks - looks, cadence.taken - taken, cadence.spent_s - spent
    with_watch, without = np.array(pairs).T
    share, low, high = interval_of((with_watch - without) / np.median(without))
    accounted = (spent + taken * cadence.always_s) / (taken * cadence.step_s)
    print(
        f"{name}: steps of {1e3 * np.median(without):.2f} ms, watched {100 * share:+.2f} % "
        f"(95 %: {100 * low:+.2f} to {100 * high:+.2f}), the watcher says {100 * accounted:.2f} %; "
        f"{1000 * looks / taken:.1f} looks per 1,000 steps of {1e3 * cadence.look_s:.2f} ms each, "
        f"an error that begins later is found within {cadence.interval:,} steps",
        flush=True,
    )
    for training in (watched, alone):
        training.log.end()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.watch_cost", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*SIZES, []], help="sizes to measure (default: all)")
    parser.add_argument(
        "--blocks", type=int, default=100, help="pairs of blocks (default: 100; all sizes take about six minutes)"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.names or SIZES:
            measured(name, arguments.blocks, Path(folder))


if __name__ == "__main__":
    main()
