"""A run trained again at given rates: the same trainer, in a folder inside the original run's folder.

An arm's folder holds `config.yaml`, and `rates.npy` where its learning rates are not those of its schedule: (steps,)
float64, the rate of step n at n - 1. It is trained in a process of its own; one that was killed goes on from its
newest checkpoint. `python -m eegpt_daemon.analysis.retrain FOLDER` is that process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eegpt_daemon.data.corpus import CorpusError
from eegpt_daemon.link import Attempt, NullLink, Order, hold_run
from eegpt_daemon.trainer import checkpoint as checkpoints
from eegpt_daemon.trainer.attempt import Trainer
from eegpt_daemon.trainer.checkpoint import CheckpointError
from eegpt_daemon.trainer.loop import Loop
from eegpt_daemon.trainer.preparation import Prepared
from eegpt_daemon.trainer.process_group import ProcessGroup
from eegpt_daemon.trainer.saving import Saver
from eegwatch.run import config as configuration
from eegwatch.run.config import Config
from eegwatch.run.folder import CHECKPOINTS, CONFIG, TRAINER_LOG, open_output, write_whole
from eegwatch.run.follow import history_of

RATES = "rates.npy"
Rates = NDArray[np.float64]


class ParentLink(NullLink):
    """Orders of the process that started this arm: none, but to end with it, or at a SIGTERM."""

    def __init__(self) -> None:
        super().__init__()
        self._parent, self._asked_to_stop = os.getppid(), False
        signal.signal(signal.SIGTERM, self._terminated)

    def _terminated(self, number: int, frame: object) -> None:
        self._asked_to_stop = True

    def order(self) -> Order | None:
        return Order(order="stop") if self._asked_to_stop or os.getppid() != self._parent else None


class Replay(Loop):
    """The training loop, with the rate of every step given."""

    rates: Rates

    def _rate_and_position(self, step: int) -> tuple[float | None, float | None]:
        return float(self.rates[step - 1]), None


class ArmTrainer(Trainer):
    """A trainer whose rates may be replayed. Raises CorpusError where the run is longer than its rates."""

    rates: Rates | None = None

    def make_loop(self, prepared: Prepared, saver: Saver) -> Loop:
        if self.rates is None:
            return super().make_loop(prepared, saver)
        if len(self.rates) < prepared.total:
            raise CorpusError(f"{RATES} holds {len(self.rates):,} rates, the run has {prepared.total:,} steps")
        loop = Replay(prepared, saver, self.link, self.journal, go_on_after_end=False)
        loop.rates = self.rates
        return loop


def prepare(folder: Path, config: Config, rates: Rates | None) -> None:
    """Make an arm's folder, unless it is there. Raises OSError."""
    (folder / CHECKPOINTS).mkdir(mode=0o700, parents=True, exist_ok=True)
    if rates is not None:
        with (folder / f".{RATES}").open("wb") as file:
            np.save(file, rates)
        os.replace(folder / f".{RATES}", folder / RATES)
    write_whole(folder / CONFIG, configuration.dump(config).encode())


def ended(folder: Path) -> bool:
    """Has an arm been trained to its end?"""
    if not (folder / "run.jsonl").exists():
        return False
    end = history_of(folder).end
    return end is not None and end.reason in ("completed", "early_stopped")


def train(folder: Path) -> int:
    """Train an arm to its end in a process of its own; returns its exit code. What it prints goes to trainer.log."""
    with open_output(folder / TRAINER_LOG) as out:
        command = [sys.executable, "-m", "eegpt_daemon.analysis.retrain", str(folder)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        return process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def train_here(folder: Path) -> int:
    """The same in this process."""
    newest, attempt = _newest(folder), 1
    if (folder / "run.jsonl").exists():
        attempt += max((run.attempt for run in history_of(folder).attempts), default=0)
    trainer = ArmTrainer(folder, Attempt(attempt=attempt, checkpoint=newest), ParentLink(), ProcessGroup())
    if (folder / RATES).exists():
        trainer.rates = np.load(folder / RATES)
    return trainer.run()


def _newest(folder: Path) -> str | None:
    """The newest checkpoint that can be loaded."""
    steps = {n: path for path in (folder / CHECKPOINTS).glob("*.pt") if (n := checkpoints.step_of(path)) is not None}
    for step in sorted(steps, reverse=True):
        try:
            checkpoints.load(steps[step])
        except CheckpointError:
            continue
        return checkpoints.name_of(step)
    return None


def main() -> int:
    folder = Path(sys.argv[1])
    return train_here(folder) if hold_run(folder) else 75


if __name__ == "__main__":
    sys.exit(main())
