"""Ways to train: through the backbone, in several processes; what a run record says of where it came from."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eegpt_daemon.link import Attempt
from tests.conftest import free_port
from tests.e2e import warm
from tests.e2e.processes import PATIENCE, Daemon
from tests.e2e.trainers import Zygote, assert_same, last_state, new_run, next_attempt, steps_that_count

ConfigFile = Callable[..., Path]
TWO = {"distributed": {"nproc_per_node": 2}}
NO_DROPOUT = {"model": {"backbone": {"preset": "small"}, "probe": {"type": "linear", "dropout": 0.0}}}


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "run.jsonl").read_text().splitlines()]
    return [r for r in lines if r["type"] == kind]


# ---- through the backbone --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["adapter", "encoder"])
def test_what_stands_before_the_features_is_trained_saved_and_resumed_exactly(
    zygote: Zygote, config_file: ConfigFile, tmp_path: Path, part: str
) -> None:
    backbone = {"preset": "small", "freeze": part != "encoder"}
    model = {"backbone": backbone, "probe": {"type": "linear", "use_channel_adapter": part == "adapter"}}
    scheduler = {"name": "one_cycle", "max_lr": 1e-3, "pct_start": 0.3}
    config = config_file(top={"model": model}, max_epochs=1, checkpoint_minutes=0.001, scheduler=scheduler)
    whole = new_run(tmp_path, "whole", config)
    assert zygote.train(whole, Attempt(), None) == 0
    expected, state = steps_that_count(whole), last_state(whole)
    if part == "adapter":
        weight = state["adapter"]["mix.weight"][:, :, 0]
        assert not torch.equal(weight, torch.eye(19)) and torch.allclose(weight, torch.eye(19), atol=0.05)
        assert "encoder" not in state
    else:
        assert "encoder" in state and "adapter" not in state
    (said,) = [note for note in records(whole, "run")[-1]["notes"] if "every step runs the backbone" in note]
    assert "windows/s" in said and "h an epoch" in said

    killed, code = new_run(tmp_path, "killed", config), None
    for _ in range(4):
        code = zygote.train(killed, next_attempt(killed), 1.2 if code is None else None)
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert steps_that_count(killed) == expected
    final = last_state(killed)
    for key in ("probe", "optimizer", "rng", part):
        assert_same(final[key], state[key], key)


def test_an_adapter_that_is_still_the_identity_gives_the_loss_of_cached_features(
    zygote: Zygote, config_file: ConfigFile, tmp_path: Path
) -> None:
    losses = []
    for adapter in (False, True):
        probe = {"type": "linear", "dropout": 0.0, "use_channel_adapter": adapter}
        model = {"backbone": {"preset": "small"}, "probe": probe}
        folder = new_run(tmp_path, f"adapter-{adapter}", config_file(top={"model": model}, max_epochs=1))
        assert zygote.train(folder, Attempt(), None) == 0
        losses.append(records(folder, "step")[0]["loss"])
    # the standardiser is that of all train windows here, of a sample of them there: equal where the sample is all
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-2)


# ---- the same run, whatever the circumstances ------------------------------------------------------------------------


def test_a_cold_cache_and_a_warm_one_give_the_same_run(zygote: Zygote, config_file: ConfigFile, tmp_path: Path) -> None:
    config = config_file(data={"cache_dir": str(tmp_path / "cache")}, max_epochs=1)
    cold, warm = new_run(tmp_path, "cold", config), new_run(tmp_path, "warm", config)
    for folder in (cold, warm):
        assert zygote.train(folder, Attempt(), None) == 0
    assert steps_that_count(cold) == steps_that_count(warm)


def test_a_run_record_says_where_it_came_from(daemon: Daemon, config_file: ConfigFile) -> None:
    path = config_file(max_epochs=1)
    daemon.start(path)
    daemon.wait_for_end()
    run = daemon.records("run")[0]
    assert run["seed"] == 1 and {"eegwatch", "python", "torch", "mne", "numpy"} <= set(run["versions"])
    assert str(path.resolve()) in run["argv"]
    revision = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    assert run["git"] is None if not revision else run["git"]["revision"] == revision
    assert run["config"]["data"]["batch_size"] == 8 and run["config"]["training"]["gradient_clip_val"] == 1.0


def test_a_changed_epoch_or_an_incomplete_checkpoint_is_refused_by_name(
    zygote: Zygote, config_file: ConfigFile, tmp_path: Path
) -> None:
    folder = new_run(tmp_path, "run", config_file(max_epochs=1))
    assert zygote.train(folder, Attempt(), None) == 0
    attempt = next_attempt(folder)
    path = folder / str(attempt.checkpoint)
    state = torch.load(path, weights_only=True)
    for changes, words in [
        ({"rng": None}, "lacks rng"),
        ({"world_size": 4}, "was trained by 4 process"),
        ({"data_hash": "other"}, "is not the corpus"),
        ({"config_hash": "other"}, "has changed since"),
        ({"steps_per_epoch": 7}, "the epoch is another one"),
        ({"probe": {}}, "probe cannot be restored"),
        ({"rng": []}, "the random states or the standardiser cannot be restored"),
    ]:
        broken = {k: v for k, v in (state | changes).items() if v is not None}
        torch.save(broken, path)
        assert zygote.train(folder, attempt, None) == 78
        end = records(folder, "end")[-1]
        assert end["reason"] == "failed" and words in end["error"] and "\n" not in end["error"], end
    assert "Traceback" not in (folder / "trainer.log").read_text()


# ---- several processes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_take_the_steps_of_one_with_the_same_global_batch(
    zygote: Zygote, daemon: Daemon, config_file: ConfigFile, tmp_path: Path, accumulate: int
) -> None:
    fields: dict[str, Any] = {"max_epochs": 2, "weighted_loss": True, "gradient_accumulation_steps": accumulate}
    alone = new_run(tmp_path, "alone", config_file(top=NO_DROPOUT, data={"batch_size": 10}, **fields))
    assert zygote.train(alone, Attempt(), None) == 0
    path = config_file(top=NO_DROPOUT | TWO, data={"batch_size": 5}, **fields)
    daemon.start(path)
    assert daemon.wait_for_end()["reason"] == "completed"
    ours, theirs = daemon.records("step"), records(alone, "step")
    assert [(r["step"], r["lr"], r["position"]) for r in ours] == [(r["step"], r["lr"], r["position"]) for r in theirs]
    for key in ("loss", "grad_norm"):
        np.testing.assert_allclose([r[key] for r in ours], [r[key] for r in theirs], rtol=1e-4, atol=1e-6)
    for a, b in zip(daemon.records("eval"), records(alone, "eval"), strict=True):
        np.testing.assert_allclose(
            [a[k] for k in ("auroc", "loss", "n")], [b[k] for k in ("auroc", "loss", "n")], rtol=1e-4
        )
    run = daemon.records("run")[0]
    assert run["world_size"] == 2 and run["batch_size"] == 5 and len(daemon.records("run")) == 1
    daemon.cli("stop")


def test_two_processes_stop_resume_and_survive_the_death_of_one(daemon: Daemon, config_file: ConfigFile) -> None:
    path = config_file(top=TWO, data={"batch_size": 4}, max_epochs=60, pace_steps_per_s=40, checkpoint_minutes=0.01)
    daemon.start(path)
    daemon.wait_for_step(20)
    assert "resume: done: lr 1e-3" in daemon.cli("resume", "--lr", "1e-3").stdout
    runs = daemon.records("run")
    assert [r["attempt"] for r in runs] == [1, 2] and runs[1]["restored"]["step"] == runs[1]["step"]
    daemon.wait_for_step(runs[1]["step"] + 60)

    launcher = daemon.trainer()
    workers = launcher.children()
    assert len(workers) == 2
    workers[1].kill()
    end = daemon.wait_for_end()
    assert end["reason"] == "failed" and "another process of this run is gone" in end["error"]
    assert "resume: done" in daemon.cli("resume").stdout

    # the launcher dies alone: rank 0 hears that nobody orders it, and leaves a checkpoint behind
    launcher = daemon.trainer()
    last = daemon.records("step")[-1]["step"]
    launcher.kill()
    daemon.wait(lambda: daemon.states()[-1] == "idle")
    saved = daemon.records("checkpoint")[-1]
    assert saved["step"] >= last and not [p for p in workers if p.is_running()]
    assert saved["path"] in daemon.cli("resume").stdout
    done = daemon.cli("stop")
    assert "stop: done" in done.stdout and daemon.records()[-1]["reason"] == "stopped"


def test_another_node_joins_the_run_of_the_daemon(daemon: Daemon, config_file: ConfigFile, tmp_path: Path) -> None:
    top = NO_DROPOUT | {"distributed": {"nproc_per_node": 1, "nnodes": 2, "rdzv_endpoint": f"localhost:{free_port()}"}}
    path = config_file(top=top, data={"batch_size": 4}, max_epochs=2)
    command = [sys.executable, "-m", "eegpt_daemon.cli", "join", "--logs", str(daemon.logs), "--node-rank", "1"]
    daemon.start(path)
    printed = tmp_path / "node"
    with printed.open("wb") as out, open(os.devnull) as nothing:
        node = warm.start(command, nothing, out, out)
    try:
        assert daemon.wait_for_end()["reason"] == "completed"
        assert daemon.records("run")[0]["world_size"] == 2
        daemon.cli("stop")
        code = node.wait(PATIENCE)  # torch's own exit barrier may complain of the other's earlier end
    finally:
        node.kill()
    assert code == 0 and "joining attempt 1" in printed.read_text()


# ---- prepare alone ---------------------------------------------------------------------------------------------------


def test_prepare_fills_the_cache_and_start_begins_at_once(
    daemon: Daemon, config_file: ConfigFile, tmp_path: Path
) -> None:
    path = config_file(data={"cache_dir": str(tmp_path / "cache"), "num_workers": 2}, max_epochs=1)
    done = daemon.cli("prepare", "--config", str(path))
    assert "features: 24 of 24" in done.stdout and "ready: " in done.stdout and "train: " in done.stdout
    made = {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*.npy")}
    assert len(made) == 25  # 24 shards and the pack
    daemon.start(path)
    daemon.wait_for_end()
    assert made == {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*.npy")}
    wrong = config_file(data={"root_dir": "/nowhere"})
    failed = daemon.cli("prepare", "--config", str(wrong), code=78)
    assert "/nowhere is not a folder" in failed.stderr and failed.stderr.count("\n") == 1
