"""What an evaluation adds to an epoch: figures, intervals and predictions on disk, beside the epoch's own time.

    python -m tests.bench.evaluation [--windows 1865106] [--steps 4000]

As large as TUAB: 15 % of the training windows are the validation set, of 311 subjects, and 184,938 windows of 253 subjects
the evaluation set. All times are of the CPU. The epoch is that of the real loop on cached features (tests/bench/loop.py),
by so many of its steps.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from eegpt_daemon.trainer.evaluation import scored, thresholds_of
from eegwatch.scores.predictions import Predictions
from tests.bench.loop import make_features, ours

BATCH, WIDTH = 32, 2048
VAL_SUBJECTS, EVAL_SUBJECTS, EVAL_WINDOWS, VAL_SHARE = 311, 253, 184_938, 0.15


def predictions(windows: int, subjects: int, seed: int) -> Predictions:
    draw = np.random.default_rng(seed)
    recordings = round(subjects * 1.3)
    owner = np.sort(draw.integers(0, subjects, recordings))
    label = draw.integers(0, 2, subjects)[owner]
    recording = np.sort(draw.integers(0, recordings, windows))
    logits = draw.normal(size=(windows, 2)).astype(np.float32)
    logits[:, 1] += label[recording]
    return Predictions(recording, owner[recording], np.zeros(windows), label[recording], logits)


def seconds(of: Predictions, folder: Path, *, slow: bool) -> float:
    began = time.process_time()
    scored(of, "val", 0, thresholds_of(of), slow=slow)
    of.save(folder / "predictions-val.npz")
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=1_865_106)
    parser.add_argument("--steps", type=int, default=4000)
    given = parser.parse_args()
    held_out = round(VAL_SHARE * given.windows)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        val, test = predictions(held_out, VAL_SUBJECTS, 1), predictions(EVAL_WINDOWS, EVAL_SUBJECTS, 2)
        first = seconds(val, folder, slow=False)  # imports scikit-learn
        each = sorted(seconds(val, folder, slow=False) for _ in range(3))
        features = make_features(folder / "features", 60_000, WIDTH)
        began = time.process_time()
        ours(folder / "run", features, given.steps, BATCH)
        speed = given.steps / (time.process_time() - began)
        epoch = (given.windows - held_out) / BATCH / speed
        print(f"epoch of {given.windows - held_out:,} windows at {speed:,.0f} steps/s: {epoch:.1f} s")
        print(
            f"validation of {held_out:,} windows: {each[1]:.2f} s more ({each[1] / epoch:.1%}); the first {first:.2f} s"
        )
        print(f"the official evaluation, once, with all intervals: {seconds(test, folder, slow=True):.1f} s")


if __name__ == "__main__":
    main()
