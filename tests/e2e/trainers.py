"""Trainer processes forked from one that has imported torch, and what their logs and checkpoints hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import torch

from eegpt_daemon.link import Attempt
from eegpt_daemon.supervisor.watched_run import WatchedRun
from eegwatch.run import config as configuration
from eegwatch.run.folder import CHECKPOINTS, CONFIG, RUN_LOG
from tests.e2e import warm


class Zygote:
    """Trainer processes at 0.3 s each instead of 3."""

    def train(self, folder: Path, attempt: Attempt, kill_after: float | None) -> int:
        """One attempt; killed after so many seconds, or left to end. Returns its exit code."""
        return warm.train(folder, msgspec.json.encode(attempt).decode(), kill_after)


def new_run(parent: Path, name: str, config: Path) -> Path:
    folder = parent / name
    (folder / CHECKPOINTS).mkdir(parents=True)
    (folder / CONFIG).write_text(configuration.dump(configuration.load(config)))
    return folder


def next_attempt(folder: Path) -> Attempt:
    """As the supervisor resumes: the newest checkpoint that verifies, one attempt further."""
    if not (folder / RUN_LOG).exists():
        return Attempt()
    run = WatchedRun(folder, say=print)
    run.catch_up()
    name, _ = run.newest_good()
    run.close()
    return Attempt(attempt=run.attempt + 1, checkpoint=name)


def steps_that_count(folder: Path) -> dict[int, dict[str, Any]]:
    """What the log says of each step: a later attempt supersedes. Every line parses, whatever was killed when."""
    steps: dict[int, dict[str, Any]] = {}
    for line in (folder / RUN_LOG).read_bytes().splitlines():
        record = json.loads(line)
        if record["type"] == "run":
            if record.get("parent_step") is not None and not steps:  # its steps before are its parent's
                steps = {n: {} for n in range(1, record["parent_step"] + 1)}
            assert record["step"] == 0 or record["step"] in steps, "a step before the checkpoint is missing"
            steps = {n: r for n, r in steps.items() if n <= record["step"]}
        elif record["type"] == "step":
            assert record["step"] == len(steps) + 1
            steps[record["step"]] = {
                key: record[key] for key in ("loss", "lr", "grad_norm", "position", "epoch", "batch")
            }
    return steps


def last_state(folder: Path) -> dict[str, Any]:
    newest = sorted((folder / CHECKPOINTS).glob("step-*.pt"))[-1]
    return torch.load(newest, weights_only=True)


def assert_same(ours: Any, theirs: Any, where: str) -> None:
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), where
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key in ours:
            assert_same(ours[key], theirs[key], f"{where}.{key}")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), where
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(a, b, f"{where}[{i}]")
    else:
        assert ours == theirs, where
