"""SIGKILL at any moment, a hundred times: losses, rates and final weights as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from eegpt_daemon.trainer.attempt import Attempt
from eegpt_daemon.watched_run import WatchedRun
from eegwatch.run import config as configuration
from eegwatch.run.folder import CHECKPOINTS, CONFIG, RUN_LOG

KILLS = 100
ConfigFile = Callable[..., Path]


class Zygote:
    """Trainer processes at 0.3 s each instead of 3."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.zygote"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def train(self, folder: Path, attempt: Attempt, kill_after: float | None) -> int:
        """One attempt; killed after so many seconds, or left to end. Returns its exit code."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{folder}\t{msgspec.json.encode(attempt).decode()}\n")
        self.process.stdin.flush()
        pid = int(self._line().removeprefix("pid "))
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(pid, signal.SIGKILL)  # one that has ended is a zombie still
        return int(self._line().removeprefix("exit "))

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=10)


@pytest.fixture
def zygote() -> Iterator[Zygote]:
    it = Zygote()
    yield it
    it.close()


def new_run(parent: Path, name: str, config: Path) -> Path:
    folder = parent / name
    (folder / CHECKPOINTS).mkdir(parents=True)
    (folder / CONFIG).write_text(configuration.dump(configuration.load(config)))
    return folder


def next_attempt(folder: Path) -> Attempt:
    """As the supervisor resumes: the newest checkpoint that verifies, one attempt further."""
    if not (folder / RUN_LOG).exists():
        return Attempt()
    run = WatchedRun(folder)
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


def test_killed_a_hundred_times_nothing_is_lost(
    zygote: Zygote, config_file: ConfigFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_file(data={"batch_size": 1}, max_epochs=6, checkpoint_minutes=0.0003, weighted_loss=True)
    assert zygote.train(new_run(tmp_path, "fills the cache", config), Attempt(), None) == 0
    whole = new_run(tmp_path, "undisturbed", config)
    began = time.monotonic()
    assert zygote.train(whole, Attempt(), None) == 0
    seconds = time.monotonic() - began
    expected, state = steps_that_count(whole), last_state(whole)
    draw = random.Random(7)
    kills, runs, resumed_at = 0, 0, set[int]()
    while kills < KILLS:
        folder = new_run(tmp_path, f"killed-{runs}", config)
        runs += 1
        while True:
            attempt = next_attempt(folder)
            code = zygote.train(folder, attempt, draw.uniform(0.2, 1.1) * seconds if kills < KILLS else None)
            if code == 0:
                break
            assert code == -signal.SIGKILL, (folder / "trainer.log").read_text()[-2000:]
            kills += 1
            resumed_at.add(int(attempt.checkpoint[-11:-3]) if attempt.checkpoint else 0)
        assert steps_that_count(folder) == expected
        final = last_state(folder)
        for key in ("probe", "optimizer", "rng", "standardiser", "step", "ranking", "best", "waited"):
            assert_same(final[key], state[key], key)
    mid_epoch = sum(step % (len(expected) // 6) != 0 for step in resumed_at)
    with capsys.disabled():
        print(f"\nkilled with SIGKILL {kills} times over {runs} runs of {len(expected)} steps, resumed from "
              f"{len(resumed_at)} different steps, {mid_epoch} of them within an epoch: all bit for bit the same")  # fmt: skip
    assert mid_epoch > 10
