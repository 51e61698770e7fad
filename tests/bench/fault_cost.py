"""What each learning-rate bug costs: every cause of the fault corpus, trained on one cache, several seeds, paired.

`python -m tests.bench.fault_cost --folder DIR [--config configs/demo.yaml] [--seeds 5]` trains each fault and the declared
schedule on every seed with the trainer's own learner (same split, same order of windows, same random states; only the
rates differ), keeps the predictions in DIR, and prints the table of docs/fault_cost.md. Killed, it goes on where it was.
A cost is AUROC at the declared rates less AUROC with the fault, of the final model; intervals are 95 %, by a paired
bootstrap over seeds and subjects.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from eegpt_daemon.analysis.cached_run import CachedRun, open_run
from eegpt_daemon.data.windows import Windows
from eegpt_daemon.trainer.evaluation import predictions_of
from eegpt_daemon.trainer.learner import Learner
from eegpt_daemon.trainer.process_group import ProcessGroup
from eegwatch.run import config as configuration
from eegwatch.run.results.cost import signed
from eegwatch.schedule import Schedule, as_dict, parse, rate_at
from eegwatch.scores.intervals import differences
from eegwatch.scores.predictions import Predictions
from eegwatch.scores.resampled_metrics import Resampled

Rates = NDArray[np.float64]


@dataclass(frozen=True)
class Setting:
    """`f`: declared schedule as a function of its position (clamped to the run); `n`: steps 1 … total."""

    schedule: Schedule
    total: int
    per_epoch: int

    @property
    def n(self) -> NDArray[np.int64]:
        return np.arange(1, self.total + 1)

    def f(self, position: NDArray[np.float64] | NDArray[np.int64]) -> Rates:
        """The rate at a position; past the end, the last one: a run that goes on after its schedule."""
        return np.asarray(rate_at(self.schedule, np.clip(position, 0, self.total - 1) + 1, self.per_epoch), np.float64)

    def changed(self, **fields: object) -> Rates:
        other = parse({**as_dict(self.schedule), **fields})
        last = int(fields.get("total_steps", self.total))  # type: ignore[call-overload]
        return np.asarray(rate_at(other, np.minimum(self.n, last), self.per_epoch), np.float64)

    def from_half(self, rates: Rates) -> Rates:
        """The declared rates in the first half, then these: a fault that a resume brings."""
        return np.where(self.n <= self.total // 2, self.f(self.n - 1), rates)


def past_its_end(s: Setting) -> Rates:
    """A total half as long, and a cosine that rises again behind its end as fast as it fell."""
    half = s.total // 2
    there = np.where(s.n <= half, s.n, np.maximum(1, 2 * half - s.n))
    other = parse({**as_dict(s.schedule), "total_steps": half})
    return np.asarray(rate_at(other, there, s.per_epoch), np.float64)


FAULTS: dict[str, tuple[str, Callable[[Setting], Rates]]] = {
    "scheduler_stepped_per_epoch": ("from the start", lambda s: s.f((s.n - 1) // s.per_epoch)),
    "scheduler_never_stepped": ("the warm-up's first rate to the end", lambda s: s.f(0 * s.n)),
    "scheduler_stepped_per_microbatch": ("4 a step, at the floor after a quarter", lambda s: s.f(4 * (s.n - 1))),
    "scheduler_stepped_per_process": ("2 processes, at the floor after a half", lambda s: s.f(2 * (s.n - 1))),
    "scheduler_stepped_per_batch_and_epoch": ("from the start", lambda s: s.f(s.n - 1 + (s.n - 1) // s.per_epoch)),
    "epoch_schedule_stepped_per_batch": (
        "at the floor after as many steps as there are epochs",
        lambda s: s.changed(total_steps=s.total // s.per_epoch),
    ),
    "schedule_restarted_on_resume": ("at half", lambda s: s.from_half(s.f(s.n - 1 - s.total // 2))),
    "schedule_lags_after_resume": ("one epoch behind, from half on", lambda s: s.from_half(s.f(s.n - 1 - s.per_epoch))),
    "schedule_frozen_on_resume": ("at half", lambda s: s.from_half(s.f(0 * s.n + s.total // 2))),
    "rate_reset_on_resume": (
        "the initial rate for an epoch, at half",
        lambda s: np.where((s.n - 1) // s.per_epoch == s.total // s.per_epoch // 2, s.f(0 * s.n), s.f(s.n - 1)),
    ),
    "wrong_total_steps (too long)": ("4 times: accumulation forgotten", lambda s: s.changed(total_steps=4 * s.total)),
    "wrong_total_steps (too short)": ("half", lambda s: s.changed(total_steps=s.total // 2)),
    "optimizer_steps_skipped": ("one step in 50", lambda s: s.f(s.n - 1 + (s.n - 1) // 50)),
    "final_div_factor_from_initial": (
        "the final rate 25 times too low",
        lambda s: s.changed(final_div_factor=25 * float(as_dict(s.schedule)["final_div_factor"])),
    ),
    "rate_scaled (8 times)": ("by the world size", lambda s: 8 * s.f(s.n - 1)),
    "rate_scaled (1/8)": ("divided by accumulation", lambda s: s.f(s.n - 1) / 8),
    "schedule_overrun": ("rises again from half on", past_its_end),
}


def train(run: CachedRun, rates: Rates, seed: int) -> dict[str, Predictions]:
    """Predictions of the final model on val and eval, by the trainer's learner at these rates."""
    config = copy.deepcopy(run.config)
    config.experiment.seed = seed
    learner = Learner(config, run.data, run.encoder, run.store, ProcessGroup(), torch.device("cpu"))
    per_epoch = -(-len(run.data.train) // config.data.batch_size)
    for step, rate in enumerate(rates):
        epoch, batch = divmod(step, per_epoch)
        learner.step(learner.batch(epoch, batch, config.data.batch_size), float(rate))
    splits: dict[str, Windows | None] = {"val": run.data.val, "eval": run.data.test}
    found = {}
    for name, windows in splits.items():
        if windows is not None:
            logits = learner.logits(windows, lambda: False)
            assert logits is not None
            found[name] = predictions_of(logits, windows, len(rates), config.data.window_stride)
    return found


def arm(run: CachedRun, folder: Path, name: str, rates: Rates, seed: int) -> dict[str, Predictions]:
    """The same, kept in a folder."""
    slug = "".join(c if c.isalnum() else "-" for c in name)
    paths = {split: folder / f"{slug}-{seed}-{split}.npz" for split in ("val", "eval")}
    if not paths["eval"].exists():
        began = time.monotonic()
        for split, predictions in train(run, rates, seed).items():
            predictions.save(paths[split])
        print(f"{name}, seed {seed}: {time.monotonic() - began:.0f} s", flush=True)
    return {split: Predictions.load(path) for split, path in paths.items() if path.exists()}


def interval(found: tuple[float, float] | None) -> str:
    return "too few subjects" if found is None else f"[{signed(found[0])}, {signed(found[1])}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("configs/demo.yaml"))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # steps of a millisecond: a second thread would only wait for the first
    config = configuration.load(arguments.config)
    if config.data.split_seed is None:
        config.data.split_seed = config.experiment.seed
    run = open_run(arguments.folder, config, print)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    per_epoch = -(-len(run.data.train) // config.data.batch_size)
    s = Setting(configuration.schedule_of(config, per_epoch), per_epoch * config.training.max_epochs, per_epoch)
    seeds = [config.experiment.seed + i for i in range(arguments.seeds)]
    right = [arm(run, arguments.folder, "right", s.f(s.n - 1), seed) for seed in seeds]
    sides = {split: [Resampled(one[split].windows()) for one in right] for split in ("val", "eval")}
    recordings = [Resampled(one["eval"].recordings()) for one in right]
    auroc = {split: np.mean([_auroc(one) for one in side]) for split, side in sides.items()}
    print(
        f"declared schedule: {s.total:,} steps, seeds {seeds[0]} to {seeds[-1]}, val AUROC {auroc['val']:.4f}, "
        f"eval AUROC {auroc['eval']:.4f} (windows), {np.mean([_auroc(one) for one in recordings]):.4f} (recordings); "
        f"{len(sides['eval'][0].subjects)} evaluation subjects\n"
    )
    print("| fault | how | val AUROC lost | eval AUROC lost | eval AUROC lost, recordings |")
    print("|---|---|---:|---:|---:|")
    for name, (how, rates) in FAULTS.items():
        faulty = [arm(run, arguments.folder, name, rates(s), seed) for seed in seeds]
        cells = []
        for split in ("val", "eval"):
            theirs = [Resampled(one[split].windows()) for one in faulty]
            cells.append(differences(theirs, sides[split], ["auroc"], paired_seeds=True)["auroc"])
        theirs = [Resampled(one["eval"].recordings()) for one in faulty]
        cells.append(differences(theirs, recordings, ["auroc"], paired_seeds=True)["auroc"])
        print(f"| `{name}` | {how} | " + " | ".join(f"{signed(c.value)} {interval(c.interval)}" for c in cells) + " |")


def _auroc(one: Resampled) -> float:
    return float(one.values(np.ones((1, len(one.subjects))), ["auroc"])["auroc"][0])


if __name__ == "__main__":
    main()
