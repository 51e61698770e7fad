"""The trainer's resident size over a long run on cached features: flat, and how much beyond torch's own.

    python -m tests.bench.memory [--steps 100000] [--windows 400000]

The real loop on a pack of random features that is larger than what is read into memory, so that it stays mapped.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from pathlib import Path

import psutil
import torch

from eegpt_daemon.link import NullLink
from tests.bench.loop import make_features, ours


class Sampled(NullLink):
    """A link that looks at the process's size every so many steps."""

    sizes: list[tuple[int, int]]

    def __init__(self, every: int) -> None:
        super().__init__()
        self.every, self.sizes = every, []

    def tick(self, step: int, reason: str | None = None) -> None:
        if step % self.every == 0:
            self.sizes.append((step, psutil.Process().memory_info().rss))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--windows", type=int, default=400_000)
    arguments = parser.parse_args()
    torch.nn.Linear(8, 2)(torch.zeros(1, 8)).sum().backward()  # type: ignore[no-untyped-call]
    alone = psutil.Process().memory_info().rss
    with tempfile.TemporaryDirectory() as scratch:
        features = make_features(Path(scratch) / "cache", arguments.windows, 2048)
        link = Sampled(arguments.steps // 10)
        with contextlib.redirect_stdout(open(Path(scratch) / "out", "w")):
            rate = ours(Path(scratch) / "run", features, arguments.steps, 32, link)
        print(
            f"pack of {features.pack.nbytes / 1e9:.2f} GB, mapped; {rate:,.0f} steps/s; torch and imports alone {alone / 1e6:.0f} MB"
        )
    for step, size in link.sizes:
        print(f"step {step:>9,}  resident {size / 1e6:7.0f} MB  ({(size - alone) / 1e6:+.0f} MB)")


if __name__ == "__main__":
    main()
