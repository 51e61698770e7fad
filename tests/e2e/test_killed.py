"""SIGKILL at any moment, hundreds of times: losses, rates and final weights as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from eegpt_daemon.link import Attempt
from tests.bench.soak import Soak, run
from tests.e2e.trainers import Zygote, assert_same, last_state, new_run, next_attempt, steps_that_count

FULL = bool(os.environ.get("EEGWATCH_FULL"))
KILLS = 100 if FULL else 24
KILLS_WITH_DAEMONS = 200 if FULL else 4
SOAK_S = 600.0
ConfigFile = Callable[..., Path]


def test_a_trainer_killed_again_and_again_loses_nothing(
    zygote: Zygote, config_file: ConfigFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_file(data={"batch_size": 1}, max_epochs=6, checkpoint_minutes=1e-6, weighted_loss=True)
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
            attempt, began = next_attempt(folder), time.monotonic()
            code = zygote.train(folder, attempt, draw.uniform(0.4, 1.0) * seconds if kills < KILLS else None)
            if code == 0:  # it ended before the kill: the machine was busier when `seconds` was measured
                seconds = min(seconds, time.monotonic() - began)
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
    assert mid_epoch > 2  # a checkpoint at nearly every step: most resumes begin within an epoch


def test_trainer_supervisor_or_both_are_killed_under_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soak = Soak(tmp_path, seed=3)
    soak.calm()
    try:
        while sum(soak.kills.values()) < KILLS_WITH_DAEMONS:
            if soak.daemon.pid is None:
                soak.begin()
            time.sleep(soak.draw.uniform(0.1, 8.0))  # a trainer is there after two to six seconds
            if soak.daemon.pid is not None and soak.idle():
                soak.say(command=soak.draw.choice(("resume", "restart")))
            elif soak.draw.random() < 0.5:
                soak.say(command="checkpoint")
            soak.kill()
        soak.settle()
        finished, steps = soak.account()
    finally:
        soak.daemon.kill()
    assert finished >= 1
    with capsys.disabled():
        print(f"\n{dict(soak.kills)} killed, {len(soak.sent)} commands each with one last word, {finished} runs "
              f"finished with the weights of an undisturbed one, {steps} steps")  # fmt: skip


@pytest.mark.skipif(not FULL, reason="ten minutes, with EEGWATCH_FULL=1")
def test_a_long_life_compressed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """tests/bench/soak.py: the claims of the tests above, over more deaths and commands."""
    with capsys.disabled():
        print()
        run(tmp_path, SOAK_S, seed=2)
