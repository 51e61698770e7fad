"""A user's script under a real daemon: resumed with another rate, adopted after a kill, stopped, restarted when it dies."""

from __future__ import annotations

import json
import os
import signal
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.e2e.processes import PATIENCE, Daemon, whole_lines

SCRIPT = textwrap.dedent(
    """
    import argparse, math, os, pickle, signal, sys, time, zipfile
    p = argparse.ArgumentParser()
    p.add_argument("--out"); p.add_argument("--resume"); p.add_argument("--lr", type=float)
    p.add_argument("--die-at", type=int); p.add_argument("--stubborn", action="store_true")
    a = p.parse_args()
    if a.stubborn:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.makedirs(a.out, exist_ok=True)
    first = 0
    if a.resume:
        first = int(zipfile.ZipFile(a.resume).read("step"))
    assert sys.stdin.read() == ""
    for n in range(first + 1, 20001):
        lr = a.lr or 1e-3 * (1 + math.cos(math.pi * (n - 1) / 20000)) / 2
        if n == a.die_at and not a.resume:
            os.kill(os.getpid(), signal.SIGKILL)
        print(f"Epoch {(n - 1) // 100 + 1}/200 Batch {(n - 1) % 100 + 1}/100 - Loss: {1 / n:.5f} - LR: {lr:.12e}")
        time.sleep(0.01)
        if n % 25 == 0:
            with zipfile.ZipFile(a.out + f"/step{n}.pt", "w") as z:
                z.writestr("step", str(n))
    """
)


LAUNCHER = textwrap.dedent(
    """
    import subprocess, sys
    # a worker in a session of its own, as torch's launcher starts each
    worker = subprocess.Popen([sys.executable, "train.py", *sys.argv[1:]], start_new_session=True)
    sys.exit(worker.wait())
    """
)


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Daemon]:
    monkeypatch.setenv("EEGWATCH_COLD", "1")  # what is left behind is looked for by its command line
    (tmp_path / "train.py").write_text(SCRIPT)
    (tmp_path / "launch.py").write_text(LAUNCHER)

    def begin(*more: str, **changed: Any) -> Daemon:
        out = ["--out", "{run}/output"]
        supervision = changed.pop("supervision", {"restarts": {"backoff_seconds": 0.1}})
        epochs = changed.pop("epochs", 200)
        section = {
            "command": [sys.executable, "train.py", *out, *more],
            "resume": [sys.executable, "train.py", *out, *more, "--resume", "{checkpoint}", "--lr", "{lr}"],
            "checkpoints": "output/*.pt",
            "cwd": str(tmp_path),
        }
        tree = {
            "experiment": {"name": "mine"},
            "script": section | changed,
            "training": {"max_epochs": epochs, "scheduler": {"name": "CosineAnnealingLR", "max_lr": 1e-3}},
            "supervision": supervision,
        }
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(tree))
        daemon = Daemon(tmp_path / "logs")
        daemon.cli("start", "--config", str(tmp_path / "mine.yaml"))
        return daemon

    return begin


def of(daemon: Daemon, kind: str) -> list[dict[str, Any]]:
    (log,) = daemon.logs.glob("*/run.jsonl")
    return [record for record in whole_lines(log) if record["type"] == kind]


def wait(until: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE
    while not (value := until()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return value


def test_a_script_is_resumed_at_a_rate_adopted_after_a_kill_and_stopped(start: Callable[..., Daemon]) -> None:
    daemon = start()
    wait(lambda: len(of(daemon, "step")) > 60 and of(daemon, "checkpoint"))
    run = of(daemon, "run")[0]
    assert run["total_steps"] == 20000 and run["schedule"]["name"] == "cosine"
    refused = daemon.cli("resume", "--lr", "3e-4", "--then", "anneal", code=1)
    assert "a script can only hold a rate, not anneal" in refused.stdout + refused.stderr
    pid = int((daemon.logs / "daemon.lock").read_text())
    os.kill(pid, signal.SIGKILL)
    before = len(of(daemon, "step"))
    wait(lambda: len(of(daemon, "step")) > before + 20)  # the script goes on without a daemon
    daemon.cli("start", "--continue")
    state = json.loads(daemon.cli("status", "--json").stdout)
    assert state["daemon"] == "training" and state["pid"] != pid and len(of(daemon, "run")) == 1
    done = daemon.cli("resume", "--lr", "3e-4", "--then", "hold")
    assert "done" in done.stdout and "3e-4" in done.stdout
    (second,) = of(daemon, "run")[1:]
    assert second["schedule"]["name"] == "manual" and second["schedule"]["from_step"] == second["step"]
    assert second["step"] % 25 == 0 and second["checkpoint"] == f"output/step{second['step']}.pt"
    wait(lambda: [s for s in of(daemon, "step") if s["lr"] == 3e-4])
    again = daemon.cli("resume")
    assert "done" in again.stdout
    assert of(daemon, "run")[-1]["schedule"]["name"] == "cosine"
    daemon.cli("stop")
    assert of(daemon, "end")[-1]["reason"] == "stopped"
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(daemon.logs) in " ".join(p.info["cmdline"] or [])]


def test_a_script_that_is_killed_is_resumed_by_itself(start: Callable[..., Daemon]) -> None:
    daemon = start("--die-at", "80")
    wait(lambda: len(of(daemon, "run")) > 1)
    assert of(daemon, "run")[1]["checkpoint"] == "output/step75.pt" and of(daemon, "run")[1]["step"] == 75
    assert "SIGKILL" in of(daemon, "end")[0]["error"]
    wait(lambda: of(daemon, "step")[-1]["step"] > 100)
    daemon.cli("stop")


def test_what_cannot_be_run_is_one_line_and_nothing_is_started(start: Callable[..., Daemon], tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="no such program"):
        start(command=["no-such-program-here"])
    assert not list((tmp_path / "logs").glob("*/run.jsonl"))


def test_a_script_without_resume_says_so_and_is_restarted(start: Callable[..., Daemon]) -> None:
    daemon = start(resume=None)
    wait(lambda: len(of(daemon, "step")) > 5)
    refused = daemon.cli("resume", code=1)
    assert "has no script.resume" in refused.stdout + refused.stderr
    refused = daemon.cli("checkpoint", code=1)
    assert "a script writes its own checkpoints" in refused.stdout + refused.stderr
    daemon.cli("stop")


def test_a_launcher_that_is_killed_alone_leaves_no_worker_and_its_run_goes_on(
    start: Callable[..., Daemon], tmp_path: Path
) -> None:
    out = ["--out", "{run}/output"]
    daemon = start(
        command=[sys.executable, "launch.py", *out],
        resume=[sys.executable, "launch.py", *out, "--resume", "{checkpoint}"],
    )
    wait(lambda: of(daemon, "checkpoint"))
    os.kill(daemon.pid or 0, signal.SIGKILL)
    daemon.cli("start", "--continue")  # the next daemon adopts the launcher, and hears of its death all the same
    mine = [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]
    (launcher,) = [p for p in mine if "launch.py" in p.info["cmdline"]]
    (worker,) = [p for p in mine if "train.py" in p.info["cmdline"]]
    launcher.kill()
    wait(lambda: len(of(daemon, "run")) > 1)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
    assert "SIGKILL" in of(daemon, "end")[0]["error"] and of(daemon, "run")[1]["step"] % 25 == 0
    assert "left behind" in (daemon.run / "trainer.log").read_text()
    daemon.cli("stop")
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]


def test_a_stop_is_heard_as_ctrl_c_and_says_beforehand_what_lies_beyond(start: Callable[..., Daemon]) -> None:
    daemon = start()
    wait(lambda: of(daemon, "checkpoint"))
    said = daemon.cli("stop").stdout
    assert "lie beyond its newest complete checkpoint (output/step" in said or "lies beyond" in said
    assert "KeyboardInterrupt" in (daemon.run / "trainer.log").read_text()
    assert "SIGTERM" not in (daemon.run / "trainer.log").read_text()


def finished(start: Callable[..., Daemon], folder: Path, ending: str) -> Daemon:
    """A script that has taken all its 50 steps; `ending`: what it does when it is resumed."""
    text = SCRIPT.replace("20001", "51").replace("/200 Batch", "/1 Batch").replace("/100 -", "/50 -")
    (folder / "short.py").write_text(text.replace("assert sys", f"if a.resume: {ending}\nassert sys"))
    words = [sys.executable, "short.py", "--out", "{run}/output"]
    patient = {"restarts": {"backoff_seconds": 200.0}}
    daemon = start(command=words, resume=[*words, "--resume", "{checkpoint}"], supervision=patient, epochs=1)
    daemon.wait(lambda: of(daemon, "end") and daemon.states()[-1] == "idle")
    return daemon


def test_a_finished_script_is_not_resumed_and_a_failed_resume_from_before_leaves_the_daemon_idle(
    start: Callable[..., Daemon], tmp_path: Path
) -> None:
    daemon = finished(start, tmp_path, "raise RuntimeError('no such rate')")
    try:
        assert of(daemon, "checkpoint")[-1]["step"] == 50
        for words in ([], ["--as", "another"]):
            refused = daemon.cli("resume", *words, code=1)
            assert "the run is complete: 50 of 50 steps; restart it" in refused.stdout + refused.stderr
        failed = daemon.cli("resume", "--checkpoint", "output/step25.pt", code=1)
        assert "no step was taken" in failed.stdout and "no such rate" in failed.stdout
        after = ("idle", "restarting")
        daemon.wait(lambda: daemon.states()[-2] == "preparing" and daemon.states()[-1] in after)
        assert daemon.states()[-1] == "idle"  # no restart from the checkpoint that this resume went back behind
        last = of(daemon, "run")[-1]
        assert (last["attempt"], last["step"], last["total_steps"]) == (2, 25, 50)
    finally:
        daemon.cli("stop", code=None)
        daemon.kill()


def test_a_script_has_the_umask_of_the_shell_that_ran_start(
    start: Callable[..., Daemon], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EEGWATCH_COLD", "1")  # a forked command line has the umask of the process that forks
    before = os.umask(0o027)
    try:
        daemon = start()
    finally:
        os.umask(before)
    try:
        daemon.wait(lambda: of(daemon, "checkpoint"))
        run = daemon.run
        assert (next(run.glob("output/*.pt")).stat().st_mode & 0o777) == 0o640
        assert ((run / "run.jsonl").stat().st_mode & 0o777) == ((run / "trainer.log").stat().st_mode & 0o777) == 0o600
        assert yaml.safe_load((run / "config.yaml").read_text())["script"]["umask"] == "0027"
    finally:
        daemon.cli("stop")


def test_how_an_adopted_runner_ended_that_was_killed_is_not_known(start: Callable[..., Daemon]) -> None:
    daemon = start(supervision={"restarts": {"max": 0}})
    try:
        daemon.wait(lambda: of(daemon, "checkpoint"))
        os.kill(daemon.pid or 0, signal.SIGKILL)
        daemon.wait(lambda: daemon.pid is None)
        daemon.begin("--continue", until="training")  # it has adopted the runner
        os.kill(int((daemon.run / "trainer.lock").read_text()), signal.SIGKILL)
        daemon.wait(lambda: of(daemon, "end") and daemon.states()[-1] == "idle")
        error = of(daemon, "end")[-1]["error"]
        assert "an unknown exit code" in error and "exit code 1" not in error
    finally:
        daemon.cli("stop", code=None)
        daemon.kill()
