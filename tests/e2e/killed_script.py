"""A script that RunLog steers, for tests/e2e/test_killed_scripts.py: plain SGD that writes checkpoints and is killed.

Each gradient is 1 and each weight a float64, so what a weight moves by is the rate. `used.jsonl` holds that for every
step, beside our log and without it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import torch

from eegwatch import RunLog
from eegwatch.run import crash_points

TOTAL, EVERY = 1_000_000, 7
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch", "eegwatch.runlog", __name__])


def newest(work: Path) -> Path | None:
    """The newest whole checkpoint: it got its name when it was complete."""
    found = sorted(work.glob("step-*.pt"))
    return found[-1] if found else None


def attempt(logs: Path, work: Path, armed: Path | None = None) -> None:
    """Go on from the newest checkpoint, or begin; until `work`/enough exists."""
    crash_points._file = armed
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the words about rates, hundreds of times
    weights = [torch.nn.Parameter(torch.zeros(1, dtype=torch.float64)) for _ in range(2)]
    rates = (1e-3, 1e-4)
    optimizer = torch.optim.SGD([{"params": [w], "lr": lr} for w, lr in zip(weights, rates, strict=True)])
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, TOTAL, eta_min=1e-6)
    saved, step = newest(work), 0
    given: dict[str, Any] = {}
    if saved is not None:
        state = torch.load(saved)
        step = int(state["step"])
        with torch.no_grad():
            for w, value in zip(weights, state["weights"], strict=True):
                w.copy_(value)
    if runs := sorted(logs.glob("*/run.jsonl")):
        given = {"resume": runs[-1].parent, "step": step}
    log = RunLog(logs, "mine", schedule=scheduler, optimizer=optimizer, total_steps=TOTAL, **given)

    def save() -> None:
        path = work / f"step-{step:08d}.pt"
        if not path.exists():
            torch.save({"step": step, "weights": [w.detach() for w in weights]}, path.with_suffix(".part"))
            os.replace(path.with_suffix(".part"), path)
        log.checkpoint(path)

    with (work / "used.jsonl").open("a", buffering=1) as used:
        while not (work / "enough").exists():
            before = [w.item() for w in weights]
            for w in weights:
                w.grad = torch.ones_like(w)
            optimizer.step()
            step += 1
            moved = [b - w.item() for b, w in zip(before, weights, strict=True)]
            used.write(json.dumps({"attempt": log._run.attempt, "step": step, "used": moved}) + "\n")
            log.step(loss=0.5)
            if step % EVERY == 0 or log.checkpoint_requested:
                save()
            if log.evaluation_requested:
                log.eval({"f1": 0.5})
            time.sleep(0.002)
    save()
    log.end("stopped")


def begin(logs: Path, work: Path, armed: Path | None = None) -> Any:
    process = CONTEXT.Process(target=attempt, args=(logs, work, armed), daemon=True)
    process.start()
    return process
