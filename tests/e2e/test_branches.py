"""`resume --as NAME`: a run of its own from a checkpoint, which leaves the run before as it is; trainer and script."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.e2e.processes import Daemon
from tests.e2e.test_script import start as start  # the fixture

ConfigFile = Callable[..., Path]


def content(run: Path) -> dict[str, str]:
    files = [path for path in run.rglob("*") if path.is_file() and path.name != "trainer.lock"]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def runs(daemon: Daemon) -> list[Path]:
    return sorted(path.parent for path in daemon.logs.glob("*/run.jsonl"))


def first_records(daemon: Daemon, run: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The first attempt's record and its first step."""
    daemon.wait(lambda: daemon.records("step", run))
    return daemon.records("run", run)[0], daemon.records("step", run)[0]


def test_a_trained_run_branches_off_at_another_rate(daemon: Daemon, config_file: ConfigFile) -> None:
    daemon.start(config_file(max_epochs=500, pace_steps_per_s=40, checkpoint_minutes=0.005, val_check_interval=100_000))
    daemon.wait(lambda: daemon.records("checkpoint"))
    (parent,) = runs(daemon)
    assert "empty" in (lambda done: done.stdout + done.stderr)(daemon.cli("resume", "--as", " ", code=1))
    done = daemon.cli("resume", "--as", "lower", "--lr", "3e-4", "--then", "hold")
    assert "done" in done.stdout
    branch = runs(daemon)[-1]
    assert branch != parent and branch.name.endswith("-lower")
    before = content(parent)
    run, step = first_records(daemon, branch)
    assert (run["parent"], run["attempt"], run["step"]) == (parent.name, 1, run["parent_step"])
    assert step["step"] == run["step"] + 1 and step["lr"] == 3e-4
    assert daemon.records("end", parent)[-1]["reason"] == "stopped"
    assert (branch / run["checkpoint"]).read_bytes() == (parent / run["checkpoint"]).read_bytes()
    again = daemon.cli("resume")  # the branch goes on from its own checkpoints, at its own rates
    assert "done" in again.stdout
    second = daemon.records("run", branch)[-1]
    assert (second["attempt"], second["parent"], second["parent_step"]) == (2, parent.name, run["parent_step"])
    daemon.cli("stop")
    assert content(parent) == before


def test_a_script_branches_off_and_writes_into_its_own_folder(start: Callable[..., Daemon]) -> None:
    daemon = start()
    daemon.wait(lambda: len(runs(daemon)) == 1 and daemon.records("checkpoint", runs(daemon)[0]))
    (parent,) = runs(daemon)
    done = daemon.cli("resume", "--as", "lower", "--lr", "3e-4", "--then", "hold")
    assert "done" in done.stdout
    branch = runs(daemon)[-1]
    before = content(parent)
    run, step = first_records(daemon, branch)
    assert run["parent"] == parent.name and run["parent_step"] == run["step"] and run["step"] % 25 == 0
    assert run["checkpoint"].startswith(str(parent)) and step["lr"] == 3e-4
    daemon.wait(lambda: list((branch / "output").glob("*.pt")))
    daemon.cli("stop")
    assert content(parent) == before
