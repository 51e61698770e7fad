"""The scores of an evaluation are those of torchmetrics, ties and lopsided labels included."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eegwatch.scores.metrics import metrics_of
from eegwatch.scores.predictions import Units
from tests.conftest import lazily

torchmetrics = lazily("torchmetrics.functional.classification")


def auroc(scores: np.ndarray, y: np.ndarray) -> float:
    """Of windows, as an evaluation has it."""
    logits = np.column_stack([np.zeros(len(scores)), scores.astype(np.float64)])
    return metrics_of(Units("window", np.arange(len(y)) % 253, y, logits), None).values.get("auroc", math.nan)


@given(st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=60))
def test_auroc_with_many_ties(pairs: list[tuple[int, bool]]) -> None:
    scores = np.array([score / 3 for score, _ in pairs], np.float32)
    y = np.array([int(label) for _, label in pairs])
    if len(set(y)) == 2:
        assert auroc(scores, y) == pytest.approx(
            float(torchmetrics.binary_auroc(torch.from_numpy(scores).sigmoid(), torch.from_numpy(y)))
        )
    else:
        assert math.isnan(auroc(scores, y))


def test_scores_so_far_out_that_their_sigmoid_is_one_are_still_told_apart() -> None:
    scores, y = np.array([30, 31, 32, 33], np.float32), np.array([0, 1, 0, 1])
    assert auroc(scores, y) == 0.75
    assert float(torchmetrics.binary_auroc(torch.from_numpy(scores).sigmoid(), torch.from_numpy(y))) == 0.5


def test_a_score_that_is_no_number_gives_none() -> None:
    assert math.isnan(auroc(np.array([0.1, np.nan, 0.3]), np.array([0, 1, 1])))


def test_an_epoch_of_windows_as_large_as_tuabs_evaluation_set() -> None:
    draw = np.random.default_rng(1)
    y = draw.integers(0, 2, 184_938)
    scores = (draw.normal(size=len(y)) + y).astype(np.float32)
    theirs = torchmetrics.binary_auroc(torch.from_numpy(scores), torch.from_numpy(y))
    assert auroc(scores, y) == pytest.approx(float(theirs), rel=1e-6)
    assert auroc(scores, y) == pytest.approx(0.7602, abs=0.005)  # Φ(1/√2)


# ---- the optimizer ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fused", [False, True])
def test_the_optimizer_is_torchs_adamw_bit_for_bit(fused: bool) -> None:
    from eegpt_daemon.trainer.optimizer import AdamW

    torch.manual_seed(3)
    ours = [torch.nn.Parameter(torch.randn(40, 7)), torch.nn.Parameter(torch.randn(7))]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    mine = AdamW(ours, lr=1.0, weight_decay=0.01, fused=fused)
    torchs = torch.optim.AdamW(theirs, lr=1.0, weight_decay=0.01, fused=fused)
    for n in range(60):
        if n == 30:  # a resume: each goes on from the other's state
            mine_state, torchs_state = mine.state_dict(), torchs.state_dict()
            mine.load_state_dict(torchs_state)
            torchs.load_state_dict(mine_state)
        for optimizer, parameters in ((mine, ours), (torchs, theirs)):
            optimizer.param_groups[0]["lr"] = 1e-3 * (n + 1)
            optimizer.zero_grad()
            torch.manual_seed(n)
            sum((p * torch.randn_like(p)).sum() for p in parameters).backward()
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_training_a_step_does_not_load_what_compiling_needs() -> None:
    program = """
import sys, torch
from eegpt_daemon.trainer.optimizer import AdamW
p = torch.nn.Parameter(torch.ones(3))
optimizer = AdamW([p], lr=1.0)
p.sum().backward()
optimizer.step()
optimizer.zero_grad()
optimizer.load_state_dict(optimizer.state_dict())
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
