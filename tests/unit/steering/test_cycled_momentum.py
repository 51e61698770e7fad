"""CyclicLR moves the momentum against the rate: a live rejoin moves both as torch's own scheduler would."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eegwatch import RunLog
from eegwatch.run.control import send
from tests.patience import PATIENCE_S
from tests.unit.steering.test_live import last_word

TOTAL = 100_000


def made(kind: type, mode: str) -> tuple[torch.optim.Optimizer, Any]:
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.ones(1)
    optimizer = kind([weight], lr=1e-3, **({"momentum": 0.9} if kind is torch.optim.SGD else {}))
    return optimizer, torch.optim.lr_scheduler.CyclicLR(
        optimizer, 1e-3, 1e-1, step_size_up=7, step_size_down=11, mode=mode, gamma=0.999, base_momentum=0.7,
        max_momentum=0.93,
    )  # fmt: skip


def value(optimizer: torch.optim.Optimizer) -> float:
    group = optimizer.param_groups[0]
    return float(group["betas"][0] if "betas" in group else group["momentum"])


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
def test_rate_and_momentum_rejoin_together(tmp_path: Path, kind: type, mode: str) -> None:
    stuck, scheduler = made(kind, mode)
    log = RunLog(tmp_path, schedule=scheduler, total_steps=TOTAL)
    seen: dict[int, tuple[float, float]] = {}

    def reader(optimizer: Any, args: Any, kwargs: Any) -> None:
        seen[log.step_done + 1] = (optimizer.param_groups[0]["lr"], value(optimizer))

    command, end = "", time.monotonic() + PATIENCE_S
    word: dict[str, Any] | None = None
    more = 40
    while more and time.monotonic() < end:
        stuck.step()
        log.step(loss=0.5)
        if log.step_done == 3:
            command = send(tmp_path, "resume", log.folder.name)
        if command and word is None:
            word = last_word(tmp_path, command)
            if log.follower is not None and word is not None:
                stuck.register_step_pre_hook(reader)  # after RunLog's own: it sees what the step uses
            time.sleep(0.002)
        elif word is not None:
            more -= 1
    log.end()
    assert word is not None and word["status"] == "done", word
    right, moves = made(kind, mode)
    wanted = {}
    for step in range(1, max(seen) + 1):
        wanted[step] = (right.param_groups[0]["lr"], value(right))
        right.step()
        moves.step()
    np.testing.assert_allclose([seen[s] for s in seen], [wanted[s] for s in seen], rtol=1e-9)
    assert len(seen) == 40 and len({round(m, 6) for _, m in seen.values()}) > 5
