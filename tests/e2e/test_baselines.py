"""`eegpt-daemon baselines`: each row is what independent code computes from the same windows, and the card is true."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from eegpt_daemon.analysis.baselines import baselines_of
from eegpt_daemon.analysis.cached_run import config_of, open_run
from eegpt_daemon.data.corpus import CorpusError
from eegpt_daemon.link import Attempt
from eegwatch.run.results.baselines import read, text
from eegwatch.run.results.page_sections import sections
from eegwatch.scores.predictions import Predictions
from tests.e2e.test_cost import plain_auroc
from tests.e2e.trainers import Zygote, new_run

ConfigFile = Callable[..., Path]


def test_the_table_holds_every_baseline_beside_the_run(zygote: Zygote, config_file: ConfigFile, tmp_path: Path) -> None:
    run = new_run(tmp_path, "20261126-000000-tiny", config_file(max_epochs=2))
    with pytest.raises(CorpusError, match="has not reported on the evaluation set yet"):
        baselines_of(run, ["chance"], print)
    assert zygote.train(run, Attempt(), None) == 0
    command = [sys.executable, "-m", "eegpt_daemon.cli", "baselines", str(run), "--json"]
    alone = os.environ | {
        "OMP_NUM_THREADS": "1"
    }  # two threads that wait for each other beside other tests: 134 s for 10
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=alone)
    found = json.loads(done.stdout)
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == [
        "this run, final model", "this run, best on validation", "chance", "logistic regression at its optimum",
        "ridge, closed form", "band power, logistic regression", "random encoder, logistic regression",
    ]  # fmt: skip
    kept = Predictions.load(run / "predictions-eval.npz")
    assert rows["this run, final model"]["eval"]["auroc"] == pytest.approx(plain_auroc(kept), abs=1e-12)
    assert rows["chance"]["eval"]["auroc"] == 0.5
    assert rows["ridge, closed form"]["eval"]["auroc"] == pytest.approx(
        plain_ridge(run, rows["ridge, closed form"]["lam"])
    )
    card = dict(found["card"])
    assert "SYNTHETIC" not in card["data"] and "eval: 8 recordings" in card["data"]
    assert card["windows"].startswith("4 s, stride 2 s") and card["pretrained on"] == "nothing: random weights"
    kept_file = read(run)
    assert kept_file is not None and kept_file.tuab and "random encoder" in text(kept_file)
    tables = sections(run)[0].tables
    assert [caption.split(" ")[0] for caption, _, _ in tables] == ["the", "protocol", "published"]
    assert all(len(row) == len(header) for _, header, rows_of in tables for row in rows_of)


def plain_ridge(run: Path, lam: float) -> float:
    """Window AUROC on the evaluation set of ridge regression, by the normal equations alone."""
    data = open_run(run, config_of(run), print).data
    assert data.mean is not None and data.std is not None

    def features(x: np.ndarray) -> np.ndarray:
        z = (x.astype(np.float64) - data.mean) / data.std
        return np.concatenate([z, np.ones((len(z), 1))], axis=1)

    z, n = features(data.train.x), len(data.train)
    w = np.linalg.solve(z.T @ z / n + lam * np.eye(z.shape[1]), z.T @ (data.train.y - 0.5) / n)
    score, label = features(data.test.x) @ w, data.test.y
    pairs = score[label == 1][:, None] - score[label == 0][None, :]
    return float((pairs > 0).mean() + 0.5 * (pairs == 0).mean())


def test_without_validation_no_lambda_can_be_chosen(config_file: ConfigFile, tmp_path: Path) -> None:
    run = new_run(tmp_path, "run", config_file(data={"val_fraction": 0.0}))
    with pytest.raises(CorpusError, match="val_fraction is 0"):
        baselines_of(run, ["chance"], print)
