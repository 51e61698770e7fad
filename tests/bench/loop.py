"""What a logged, checkpointed, commanded step costs over a bare one: the same probe, batch, optimizer and features.

    python -m tests.bench.loop [--steps 20000] [--batch 32] [--features 2048]

Three loops on the same cached features, in turns: ours (the real Trainer, every step in the run log), a bare torch loop
(gather, forward, backward, clip, AdamW, OneCycleLR), and the loop of the incident's script, which runs the frozen
backbone at every step (measured on a few steps). The time of 50 epochs of 58,285 steps is extrapolated from each.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import nn
from torch.nn import functional as F

from eegpt_daemon.data import dataset
from eegpt_daemon.data.features import FeatureStore, standardiser
from eegpt_daemon.data.recording import wanted_channels
from eegpt_daemon.data.shards import ShardStore
from eegpt_daemon.data.windows import Windows
from eegpt_daemon.link import Attempt, NullLink
from eegpt_daemon.model.encoder import Encoder
from eegpt_daemon.model.probe import Probe
from eegpt_daemon.trainer.journal import Journal
from eegpt_daemon.trainer.learner import Learner
from eegpt_daemon.trainer.loop import Loop
from eegpt_daemon.trainer.preparation import Preparation
from eegpt_daemon.trainer.process_group import ProcessGroup
from eegpt_daemon.trainer.saving import Saver
from eegwatch.run import config as configuration

EPOCH_STEPS, EPOCHS = 58_285, 50


class Measured(Loop):
    """The real loop, without the official evaluation at its end."""

    def _finish(self, reason: str) -> str:
        return reason


def loop_on(folder: Path, features: Windows, link: NullLink) -> Measured:
    """The real loop on features that are already there: only where they come from is replaced."""
    config = configuration.load(folder / "config.yaml", expand=False)
    config.data.cache_dir = str(folder)
    mean, std = standardiser(features)
    data = dataset.TrainingData(features, None, features, mean, std)
    journal = Journal(folder, leads=True)
    preparation = Preparation(folder, config, Attempt(), link, ProcessGroup(), journal)
    preparation.count(len(features))
    preparation.begin()
    torch.manual_seed(1)
    device = torch.device("cpu")
    encoder = Encoder.preset("large", wanted_channels(config.data), 1)
    store = FeatureStore(config, encoder, device)
    prepared = preparation.restore(data, Learner(config, data, encoder, store, ProcessGroup(), device))
    saver = Saver(prepared, Attempt(), link, journal)
    return Measured(prepared, saver, link, journal, go_on_after_end=False)


def make_features(folder: Path, n: int, width: int) -> Windows:
    rng = np.random.default_rng(0)
    store = ShardStore(folder, {"bench": width}, width)
    store.open()
    writer = store.writer("bench")
    for begin in range(0, n, 8192):
        writer.write(rng.standard_normal((min(8192, n - begin), width), dtype=np.float32).astype(np.float16))
    writer.finish([])
    pack = store.pack(["bench"], lambda *_: None)
    return Windows(pack, np.arange(n), rng.integers(0, 2, n), np.zeros(n, np.int32), ["bench"])


def ours(folder: Path, features: Windows, steps: int, batch: int, link: NullLink | None = None) -> float:
    folder.mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    epochs = max(1, round(steps / -(-len(features) // batch)))
    tree = {
        "data": {"root_dir": "/", "cache_dir": "/", "batch_size": batch, "val_fraction": 0.0},
        "model": {"probe": {"type": "linear", "input_dim": features.pack.width, "dropout": 0.1}},
        "training": {"max_epochs": epochs, "scheduler": {"name": "one_cycle", "max_lr": 3e-3, "pct_start": 0.1}},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    loop = loop_on(folder, features, link or NullLink())
    began = time.perf_counter()
    with contextlib.redirect_stdout(open(folder / "trainer.log", "w")):  # where the daemon sends it too
        loop.run()
    seconds = time.perf_counter() - began
    taken = sum(b'"type":"step"' in line for line in (folder / "run.jsonl").read_bytes().splitlines())
    assert taken == loop.prepared.total == loop.step
    return loop.prepared.total / seconds


def bare(features: Windows, steps: int, batch: int) -> float:
    config = configuration.Probe(type="linear", dropout=0.1)
    model = Probe(config, features.pack.width, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01, fused=True)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps + 1, cycle_momentum=False)
    mean, std = (torch.from_numpy(v) for v in standardiser(features))
    x, y = torch.from_numpy(features.pack.rows), torch.from_numpy(features.y)
    model.train()
    done, began = 0, time.perf_counter()
    while done < steps:
        for rows in torch.randperm(len(y)).split(batch):
            optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(model((x.index_select(0, rows).float() - mean) / std), y[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            loss.item()
            done += 1
            if done == steps:
                break
    return steps / (time.perf_counter() - began)


def backbone_every_step(steps: int, batch: int) -> float:
    encoder = Encoder.preset("large", ["FP1", "FP2", "F7", "F3", "FZ", "F4", "F8", "T7", "C3", "CZ",
                                       "C4", "T8", "P7", "P3", "PZ", "P4", "P8", "O1", "O2", "FPZ"], 1)  # fmt: skip
    probe = nn.Linear(2048, 2)
    optimizer = torch.optim.AdamW(probe.parameters(), lr=1e-3)
    x, y = torch.randn(batch, 20, 1024), torch.randint(0, 2, (batch,))
    began = 0.0
    for step in range(steps + 1):
        if step == 1:
            began = time.perf_counter()  # the first one warms up
        with torch.no_grad():
            z = encoder(x).mean(dim=1).flatten(1)
        optimizer.zero_grad()
        F.cross_entropy(probe(z), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return steps / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    steps, batch = arguments.steps, arguments.batch
    with tempfile.TemporaryDirectory() as scratch:
        features = make_features(Path(scratch) / "cache", batch * 2000, arguments.features)
        rates: dict[str, list[float]] = {"bare": [], "ours": []}
        bare(features, 500, batch)
        for turn in range(arguments.rounds):
            rates["bare"].append(bare(features, steps, batch))
            rates["ours"].append(ours(Path(scratch) / f"run-{turn}", features, steps, batch))
    best = {name: max(values) for name, values in rates.items()}
    best["backbone"] = backbone_every_step(2, batch)
    overhead = best["bare"] / best["ours"] - 1
    print(f"batch {batch}, {arguments.features} features, {steps} steps, best of {arguments.rounds} in turns")
    for name, said in (
        ("bare", "bare torch loop on cached features"),
        ("ours", "ours: the same, every step logged"),
        ("backbone", "the frozen backbone at every step (incident's script)"),
    ):
        rate = best[name]
        hours = EPOCH_STEPS * EPOCHS / rate / 3600
        print(f"{said:55} {rate:9.2f} steps/s  {EPOCH_STEPS:,} steps {EPOCH_STEPS / rate:10,.0f} s"
              f"  {EPOCHS} epochs {hours:9,.2f} h (extrapolated)")  # fmt: skip
    print(
        f"overhead of ours over bare: {overhead:+.1%}; backbone every step: {best['ours'] / best['backbone']:,.0f} times slower"
    )


if __name__ == "__main__":
    main()
