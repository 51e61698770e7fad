"""The daemon end to end: real processes, real EDF files, real signals; every action through the control file."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import yaml

from eegwatch.schedule import parse, rate_at
from tests.e2e.processes import PATIENCE, Daemon

ConfigFile = Callable[..., Path]
SLOW = {"max_epochs": 500, "pace_steps_per_s": 40}  # 6,500 steps, minutes: it does not end while it is told things


def assert_follows_the_contract(records: list[dict[str, Any]]) -> None:
    """Records of one run: the attempt's first line, counters, and every rate equal to the declared schedule."""
    assert records[0]["type"] == "run"
    run: dict[str, Any] = {}
    expected_step = 0
    for record in records:
        if record["type"] == "run":
            run, expected_step = record, record["step"]
            assert run["total_steps"] == run["epochs"] * run["steps_per_epoch"]
        elif record["type"] == "step":
            expected_step += 1
            assert record["step"] == expected_step
            assert record["epoch"] * run["steps_per_epoch"] + record["batch"] == record["step"]
            if run["inject"] is None:
                schedule = parse(run["schedule"])
                assert record["lr"] == float(rate_at(schedule, record["step"], run["steps_per_epoch"]))
                assert record["position"] == record["step"] - 1


def final_weights(run: Path) -> dict[str, torch.Tensor]:
    newest = sorted((run / "checkpoints").glob("step-*.pt"))[-1]
    state = torch.load(newest, weights_only=True)
    return dict(state["probe"])


# ---- one whole run ---------------------------------------------------------------------------------------------------


def test_a_run_from_edf_files_to_its_end(daemon: Daemon, config_file: ConfigFile) -> None:
    path = config_file(top={"target_metrics": {"auroc": 0.5}, "expected": {"final_lr": 3e-6}})
    done = daemon.cli("start", "--config", str(path))
    assert "started: daemon pid" in done.stdout
    end = daemon.wait_for_end()
    assert (end["reason"], end["error"]) == ("completed", None)
    records = daemon.records()
    assert_follows_the_contract(records)
    run = records[0]
    assert run["attempt"] == 1 and run["parent"] is None and run["restored"] is None
    assert run["schedule"]["total_steps"] == run["total_steps"] == daemon.records("step")[-1]["step"]
    assert run["target"] == {"auroc": 0.5} and run["expected"] == {"final_lr": 3e-6}
    assert any("random weights" in note for note in run["notes"])
    evals = daemon.records("eval")
    assert {e["split"] for e in evals} == {"val", "eval"} and evals[-1]["split"] == "eval"
    assert all(0 <= e["auroc"] <= 1 and 0 <= e["balanced_accuracy"] <= 1 for e in evals)
    assert {"progress", "checkpoint", "end"} <= {r["type"] for r in records}
    assert daemon.records("progress")[-1]["done"] == daemon.records("progress")[-1]["total"]
    saved = daemon.records("checkpoint")
    assert (daemon.run / saved[-1]["path"]).exists() and any(c["best"] for c in saved)
    for name in ("run.jsonl", "config.yaml", "trainer.log"):
        assert (daemon.run / name).exists()
    daemon.wait(lambda: daemon.states()[-1] == "idle")
    assert daemon.states()[:3] == ["starting", "preparing", "training"]
    status = json.loads(daemon.cli("status", "--json").stdout)
    assert status["daemon"] == "idle" and status["run"]["end"] == "completed"
    assert "complete" in daemon.cli("resume", code=1).stdout
    assert "step" in daemon.cli("logs").stdout
    daemon.cli("stop")
    assert daemon.pid is None and daemon.states()[-1] == "exited"
    daemon.cli("status", code=3)


@pytest.mark.parametrize(
    ("scheduler", "accumulate"),
    [
        ({"name": "warmup_hold_anneal", "initial_lr": 1e-4, "max_lr": 3e-3, "final_lr": 3e-6}, 3),
        ({"name": "CosineAnnealingLR", "max_lr": 1e-3, "final_lr": 1e-5, "unit": "epoch"}, 1),
    ],
)
def test_other_schedules_and_accumulated_gradients_keep_the_counts_right(
    daemon: Daemon, config_file: ConfigFile, scheduler: dict[str, Any], accumulate: int
) -> None:
    path = config_file(scheduler=scheduler, gradient_accumulation_steps=accumulate, max_epochs=3)
    daemon.start(path)
    assert daemon.wait_for_end()["reason"] == "completed"
    run = daemon.records()[0]
    windows = int(next(n for n in run["notes"] if n.startswith("train:")).split(", ")[-1].split()[0])
    assert run["steps_per_epoch"] == math.ceil(math.ceil(windows / 8) / accumulate)
    steps = daemon.records("step")
    assert len(steps) == run["total_steps"] == 3 * run["steps_per_epoch"]
    schedule = parse(run["schedule"])
    for step in steps:
        assert step["lr"] == float(rate_at(schedule, step["step"], run["steps_per_epoch"]))


def test_early_stopping_ends_the_run_and_says_so(daemon: Daemon, config_file: ConfigFile) -> None:
    stopping = {"patience": 1, "min_delta": 1.0, "mode": "max", "monitor": "val_auroc"}
    daemon.start(config_file(early_stopping=stopping, max_epochs=20))
    end = daemon.wait_for_end()
    assert end["reason"] == "early_stopped" and end["step"] < daemon.records()[0]["total_steps"]
    assert daemon.records("eval")[-1]["split"] == "eval"


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_a_wrong_configuration_starts_nothing_and_writes_nothing(daemon: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("training: {scheduler: {max_1r: 3e-3}}\n")
    done = daemon.cli("start", "--config", str(path), code=78)
    assert done.stderr.count("\n") == 1 and "did you mean max_lr?" in done.stderr
    assert not daemon.logs.exists()
    done = daemon.cli("start", "--config", str(tmp_path / "nowhere.yaml"), code=78)
    assert "no such file" in done.stderr


def test_a_corpus_that_is_not_there_fails_the_run_in_one_line(daemon: Daemon, config_file: ConfigFile) -> None:
    daemon.start(config_file(data={"root_dir": "/nowhere/at/all"}))
    daemon.wait(lambda: daemon.states()[-1] == "idle")
    end = daemon.records()[-1]
    assert end["type"] == "end" and end["reason"] == "failed" and "/nowhere/at/all is not a folder" in end["error"]
    assert "Traceback" not in (daemon.run / "trainer.log").read_text()


def test_without_a_daemon_every_command_says_so(daemon: Daemon) -> None:
    for command, code in (("stop", 3), ("restart", 3), ("resume", 1)):  # 3: no daemon; 1: no run to resume either
        done = daemon.cli(command, code=code)
        assert done.stderr.startswith("eegpt-daemon: no ") and done.stderr.count("\n") == 1
    assert "not running" in daemon.cli("status", code=3).stdout
    daemon.cli("logs", code=1)


# ---- commands --------------------------------------------------------------------------------------------------------


def test_stop_resume_and_restart_through_the_control_file(daemon: Daemon, config_file: ConfigFile) -> None:
    daemon.start(config_file(**SLOW))
    daemon.wait_for_step(20)
    assert "already running" in daemon.cli("start", "--config", str(config_file()), code=1).stderr

    # a stop without `exit`, written as echo writes it: the daemon stays, idle
    offset = daemon.say(command="stop")
    answer = daemon.wait(lambda: [a for a in daemon.answers(f"line-{offset}") if a["status"] == "done"])[0]
    stopped_at = answer["effect"]["step"]
    assert daemon.records()[-1]["reason"] == "stopped" and daemon.records()[-1]["step"] == stopped_at
    assert (daemon.run / answer["effect"]["checkpoint"]).exists()
    assert [a["status"] for a in daemon.answers(f"line-{offset}")] == ["accepted", "done"]
    again = daemon.say(command="stop")
    rejected = daemon.wait(lambda: daemon.answers(f"line-{again}"))[0]
    assert rejected["status"] == "rejected" and "nothing is training" in rejected["reason"]

    # resume with an LR of one's choice, verified by the value read back
    done = daemon.cli("resume", "--lr", "3e-4", "--then", "hold")
    assert "resume: done: lr 3e-4" in done.stdout
    runs = daemon.records("run")
    assert [r["attempt"] for r in runs] == [1, 2]
    assert runs[1]["step"] == stopped_at and runs[1]["schedule"]["name"] == "manual"
    assert runs[1]["restored"]["step"] == stopped_at
    assert runs[1]["overrides"][0]["lr"] == 3e-4 and runs[1]["overrides"][0]["command"] == runs[1]["command"]
    first = next(r for r in daemon.records("step") if r["step"] == stopped_at + 1)
    assert first["lr"] == 3e-4

    # a running trainer is stopped and resumed; without an LR the declared schedule is joined again
    daemon.wait_for_step(stopped_at + 5)
    assert "resume: done" in daemon.cli("resume").stdout
    assert daemon.records("run")[2]["schedule"]["name"] == "one_cycle"
    assert_follows_the_contract(daemon.records())

    # a checkpoint on demand, verified
    assert "checkpoint: done: checkpoint checkpoints/step-" in daemon.cli("checkpoint").stdout
    saved = next(r for r in daemon.records("checkpoint") if r["command"])
    assert (daemon.run / saved["path"]).exists()

    # a fresh restart: a new run from step 0, the old one stays
    old = daemon.run
    assert "restart: done" in daemon.cli("restart").stdout
    assert daemon.run != old and daemon.records("run")[0]["parent"] == old.name
    assert daemon.records(run=old)[-1]["reason"] == "restarted"
    assert daemon.records("step")[0]["step"] == 1
    daemon.cli("stop")
    assert daemon.records()[-1]["reason"] == "stopped"


def test_commands_that_must_not_fire_do_not(daemon: Daemon, config_file: ConfigFile, tmp_path: Path) -> None:
    daemon.logs.mkdir(mode=0o700)
    stale = daemon.say(command="stop", id="from-before")
    daemon.start(config_file(**SLOW))
    assert stale == 0 and daemon.answers("from-before")[0]["status"] == "expired"
    daemon.wait_for_step(5)
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("nonsense: 1\n")
    cases = [
        ({"command": "stop", "id": "other-run", "run_id": "20200101-000000-other"}, "rejected", "the current run is"),
        ({"command": "stop", "id": "other-attempt", "attempt": 7}, "rejected", "attempt 1 runs"),
        ({"command": "stop", "id": "too-late", "time": time.time() - 3600}, "expired", "expired before"),
        ({"command": "stop", "id": "expired", "expires": 1.0}, "expired", "expired before"),
        ({"command": "resume", "id": "nan", "lr": "nan"}, "rejected", "not a command"),
        ({"command": "resume", "id": "negative", "lr": -1.0}, "rejected", "above 0"),
        ({"command": "resume", "id": "huge", "lr": 1e9}, "rejected", "above the declared peak"),
        ({"command": "resume", "id": "climb", "checkpoint": "../../etc/passwd"}, "rejected", "not a checkpoint of this run"),
        ({"command": "resume", "id": "absent", "checkpoint": "checkpoints/step-99999999.pt"}, "rejected", "not in the run log"),
        ({"command": "restart", "id": "bad-config", "config": str(wrong)}, "rejected", "nonsense is not a key"),
        ({"command": "dance", "id": "unknown"}, "rejected", "not a command"),
    ]  # fmt: skip
    for command, status, words in cases:
        daemon.say(**command)
        answer = daemon.wait(lambda c=command: daemon.answers(c["id"]))[0]
        assert (answer["status"], words in answer["reason"]) == (status, True), answer
    # the same id twice, then a torn line finished later: one answer each
    daemon.say(command="dance", id="unknown")
    with (daemon.logs / "control.jsonl").open("ab") as file:
        file.write(b"\xff\xfe nonsense\n" + b'{"command": "che')
        file.flush()
        time.sleep(0.5)
        file.write(b'ckpoint", "id": "torn"}\n')
    daemon.wait(lambda: [a for a in daemon.answers("torn") if a["status"] == "done"])
    assert len(daemon.answers("unknown")) == 1
    assert len([a for a in daemon.answers() if a["id"].startswith("line-") and a["status"] == "rejected"]) == 1
    assert daemon.records("step")[-1]["step"] > 5 and len(daemon.records("run")) == 1  # the run went on through it all


def test_a_stop_comes_before_what_was_asked_together_with_it(daemon: Daemon, config_file: ConfigFile) -> None:
    daemon.start(config_file(**SLOW))
    daemon.wait_for_step(5)
    with (daemon.logs / "control.jsonl").open("a") as file:
        file.write('{"command": "resume", "id": "r"}\n{"command": "stop", "id": "s"}\n')
    daemon.wait(lambda: [a for a in daemon.answers("s") if a["status"] == "done"])
    order = [(a["id"], a["status"]) for a in daemon.answers()]
    assert order.index(("s", "accepted")) < order.index(("r", "accepted"))


def test_a_checkpoint_that_was_asked_for_is_kept_and_those_given_up_are_not_gone_back_to(
    daemon: Daemon, config_file: ConfigFile
) -> None:
    daemon.start(config_file(max_epochs=500, pace_steps_per_s=20, val_check_interval=0.05))  # saves at every step
    daemon.wait_for_step(2)
    daemon.say(command="checkpoint", id="mine")
    answer = daemon.wait(lambda: [a for a in daemon.answers("mine") if a["status"] != "accepted"])[0]
    assert answer["status"] == "done"
    mine = answer["effect"]["checkpoint"]
    twice = [r for r in daemon.records("checkpoint") if r["path"] == mine]
    commands = [r["command"] for r in twice]  # before the evaluation, for the command, and after the evaluation
    assert commands[0] is None and commands.count("mine") == 1 and len({r["sha256"] for r in twice}) <= 2
    daemon.wait_for_step(answer["step"] + 20)
    kept = {path.name for path in (daemon.run / "checkpoints").glob("step-*.pt")}
    assert Path(mine).name in kept and len(kept) < 10

    assert "resume: done" in daemon.cli("resume", "--checkpoint", mine).stdout
    given_up = daemon.records("run")[-1]["step"], max(r["step"] for r in daemon.records("checkpoint"))
    assert given_up[0] == twice[0]["step"] and given_up[1] >= answer["step"] + 20
    begun = len(daemon.records("checkpoint"))
    daemon.wait(lambda: len(daemon.records("checkpoint")) > begun + 4)
    daemon.trainer().kill()
    daemon.wait(lambda: daemon.states()[-1] == "idle")
    again = daemon.records("checkpoint")[-1]
    assert again["step"] < given_up[1]
    daemon.cli("resume")
    assert daemon.records("run")[-1]["step"] == again["step"]
    there = {path.name for path in (daemon.run / "checkpoints").glob("step-*.pt")}
    assert {Path(mine).name, f"step-{given_up[1]:08d}.pt"} <= there


# ---- deaths ----------------------------------------------------------------------------------------------------------


def test_a_trainer_killed_is_said_dead_and_a_resume_equals_an_undisturbed_run(
    daemon: Daemon, config_file: ConfigFile, tmp_path: Path
) -> None:
    training = {"max_epochs": 12, "pace_steps_per_s": 60, "checkpoint_minutes": 0.02}
    daemon.start(config_file(**training))
    daemon.wait_for_step(60)
    daemon.trainer().send_signal(signal.SIGKILL)
    end = daemon.wait_for_end()
    assert end["reason"] == "failed" and "SIGKILL" in end["error"]
    daemon.wait(lambda: daemon.states()[-1] == "idle")
    daemon.cli("resume")
    assert daemon.wait_for_end()["reason"] == "completed"
    disturbed = daemon.run
    attempts = daemon.records("run")
    assert attempts[1]["step"] > 0 and attempts[1]["checkpoint"]
    stitched = {r["step"]: (r["loss"], r["lr"], r["grad_norm"]) for r in daemon.records("step")}
    daemon.cli("stop")

    other = Daemon(tmp_path / "other")
    try:
        other.start(config_file(**{**training, "pace_steps_per_s": None}))
        assert other.wait_for_end()["reason"] == "completed"
        undisturbed = {r["step"]: (r["loss"], r["lr"], r["grad_norm"]) for r in other.records("step")}
        assert stitched == undisturbed
        ours, theirs = final_weights(disturbed), final_weights(other.run)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    finally:
        other.kill()


def test_a_daemon_killed_leaves_no_orphan_and_the_run_goes_on_under_the_next(
    daemon: Daemon, config_file: ConfigFile
) -> None:
    daemon.start(config_file(**SLOW))
    daemon.wait_for_step(10)
    trainer = daemon.trainer()
    assert daemon.pid is not None
    os.kill(daemon.pid, signal.SIGKILL)
    psutil.wait_procs([trainer], timeout=PATIENCE)
    assert not trainer.is_running()
    end = daemon.records()[-1]
    assert (end["type"], end["error"]) == ("end", "the supervisor is gone")
    assert daemon.records("checkpoint")[-1]["step"] == end["step"]
    assert "dead since" in daemon.cli("status", code=1).stdout
    assert "it died" in daemon.cli("stop", code=3).stderr
    done = daemon.cli("resume")
    assert "no daemon was running: started one" in done.stdout
    assert daemon.records("run")[-1]["step"] == end["step"]
    daemon.wait_for_step(end["step"] + 5)
    assert_follows_the_contract(daemon.records())


def test_an_accepted_command_is_finished_or_reported_after_a_crash_and_never_repeated(
    daemon: Daemon, config_file: ConfigFile
) -> None:
    daemon.start(config_file(**SLOW))
    daemon.wait_for_step(5)
    daemon.say(command="resume", id="cut", lr=1e-3)
    daemon.wait(lambda: daemon.answers("cut"))
    assert daemon.pid is not None
    os.kill(daemon.pid, signal.SIGKILL)
    daemon.wait(lambda: daemon.pid is None)
    daemon.cli("resume")  # at once: the next daemon waits for the trainer that the dead one left
    statuses = [a["status"] for a in daemon.answers("cut")]
    assert statuses[0] == "accepted" and statuses[1:] in (["done"], ["failed"])
    attempts_with_it = [r for r in daemon.records("run") if r["command"] == "cut"]
    assert len(attempts_with_it) <= 1


def test_sigterm_checkpoints_ends_the_run_and_exits(daemon: Daemon, config_file: ConfigFile) -> None:
    daemon.start(config_file(**SLOW))
    daemon.wait_for_step(10)
    assert daemon.pid is not None
    os.kill(daemon.pid, signal.SIGTERM)
    daemon.wait(lambda: daemon.pid is None)
    end = daemon.records()[-1]
    assert end["type"] == "end" and end["reason"] == "stopped"
    assert daemon.records("checkpoint")[-1]["step"] == end["step"]
    assert daemon.states()[-1] == "exited"


def test_in_the_foreground_ctrl_c_checkpoints_and_ends_with_exit_code_0(
    daemon: Daemon, config_file: ConfigFile
) -> None:
    command = [sys.executable, "-m", "eegpt_daemon.cli", "start", "--foreground", "--logs", str(daemon.logs)]
    process = subprocess.Popen(
        [*command, "--config", str(config_file(**SLOW))], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    daemon.wait(lambda: daemon.pid is not None)
    daemon.wait_for_step(10)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, "")
    assert "training" in out and "exited: SIGINT received" in out
    assert daemon.records("checkpoint")[-1]["step"] == daemon.records()[-1]["step"]


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(daemon: Daemon, config_file: ConfigFile) -> None:
    daemon.start(config_file(**SLOW))
    daemon.wait_for_step(20)
    daemon.say(command="stop", id="s")
    daemon.wait(lambda: [a for a in daemon.answers("s") if a["status"] == "done"])
    saved = daemon.records("checkpoint")
    newest = daemon.run / saved[-1]["path"]
    newest.write_bytes(newest.read_bytes()[:-10])
    done = daemon.cli("resume")
    assert "is damaged" in done.stdout
    assert daemon.records("run")[-1]["step"] == saved[-2]["step"]


# ---- the incident ----------------------------------------------------------------------------------------------------


def test_the_incident_is_found_within_two_steps_and_a_resume_repairs_it(
    daemon: Daemon, config_file: ConfigFile
) -> None:
    path = config_file(top={"inject": "scheduler_stepped_per_epoch"}, **SLOW)
    daemon.start(path)
    daemon.wait_for_step(20)
    run = daemon.records()[0]
    assert run["inject"] == "scheduler_stepped_per_epoch"
    finding = daemon.wait(lambda: daemon.records("finding"))[0]
    assert (finding["rule"], finding["severity"], finding["since_step"]) == ("lr_stuck", "error", 1)
    assert finding["cause"]["name"] == "scheduler_stepped_per_epoch"
    assert "LR stuck at 1.20e-4 since step 1: the scheduler is stepped once per epoch" in finding["message"]
    rates = [r["lr"] for r in daemon.records("step") if r["step"] <= run["steps_per_epoch"]]
    assert len(set(rates)) == 1  # a real torch OneCycleLR, left standing within the epoch
    assert "resume: done: lr 3e-4" in daemon.cli("resume", "--lr", "3e-4").stdout
    daemon.wait_for_step(daemon.records("run")[-1]["step"] + 5)
    attempt = daemon.records("run")[-1]
    assert attempt["inject"] is None and any("injected fault" in note for note in attempt["notes"])
    assert daemon.wait(lambda: [f for f in daemon.records("finding") if f["severity"] == "resolved"])
    since = [r for r in daemon.records("step") if r["step"] > attempt["step"]]
    schedule = parse(attempt["schedule"])
    assert [r["lr"] for r in since] == [float(schedule.rate(r["step"] - 1)) for r in since]
    daemon.cli("restart")
    assert daemon.records()[0]["inject"] is None and daemon.records("finding") == []
    assert yaml.safe_load((daemon.run / "config.yaml").read_text())["inject"] is None


def test_a_guarded_run_stops_itself_with_a_checkpoint(daemon: Daemon, config_file: ConfigFile) -> None:
    top = {"inject": "scheduler_stepped_per_epoch", "guard": {"on_error": "stop"}}
    daemon.start(config_file(top=top, **SLOW))
    end = daemon.wait_for_end()
    assert end["reason"] == "stopped" and end["step"] < 200
    assert daemon.records("checkpoint")[-1]["step"] == end["step"]


def test_the_losses_are_those_of_a_plain_torch_loop_with_torchs_own_scheduler(
    daemon: Daemon, config_file: ConfigFile
) -> None:
    """The whole path once more by hand: torch's OneCycleLR stepped every batch gives the same rates and losses."""
    from torch.nn import functional as F

    from eegpt_daemon.data.corpus import index, with_validation
    from eegpt_daemon.data.dataset import build_encoder
    from eegpt_daemon.data.features import FeatureStore, standardiser
    from eegpt_daemon.model.probe import Probe
    from eegwatch.run.config import load

    path = config_file()
    daemon.start(path)
    assert daemon.wait_for_end()["reason"] == "completed"
    logged = daemon.records("step")

    config = load(path)
    torch.manual_seed(config.experiment.seed)
    store = FeatureStore(config, build_encoder(config)[0], torch.device("cpu"))
    entries = with_validation(index(Path(config.data.root_dir), config.data.labels), 0.25, config.experiment.seed)
    rejected = store.prepare(entries, lambda *_: None, print)
    train = store.gather(store.pack(entries, rejected, lambda *_: None, print), entries, "train", rejected)
    mean, std = (torch.from_numpy(v) for v in standardiser(train))
    x, y = torch.from_numpy(train.x), torch.from_numpy(train.y)
    model = Probe(config.model.probe, x.shape[1], 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0, weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 3e-3, total_steps=len(logged), pct_start=0.1, final_div_factor=40, cycle_momentum=False
    )
    losses, rates = [], []
    for epoch in range(4):
        order = torch.randperm(
            len(y), generator=torch.Generator().manual_seed(config.experiment.seed * 1_000_003 + epoch)
        )
        for rows in order.split(8):
            model.train()
            optimizer.zero_grad()
            loss = F.cross_entropy(model((x[rows].float() - mean) / std), y[rows])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
            losses.append(float(loss.detach()))
    assert [r["lr"] for r in logged] == rates
    np.testing.assert_allclose([r["loss"] for r in logged], losses, rtol=1e-5)
