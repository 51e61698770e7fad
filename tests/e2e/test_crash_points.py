"""Killed at every named boundary, under every command: answered once, carried out at most once, and the run goes on.

All pairs take a quarter of an hour and are tried with `EEGWATCH_FULL=1` (`make test-full`); by default, nine of them.
"""

from __future__ import annotations

import os
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eegpt_daemon import crash_points
from tests.e2e.processes import Daemon
from tests.e2e.trainers import steps_that_count

ConfigFile = Callable[..., Path]
COMMANDS: dict[str, dict[str, Any]] = {
    "stop": {"command": "stop"},
    "restart": {"command": "restart"},
    "resume": {"command": "resume"},
    "resume with an LR": {"command": "resume", "lr": 3e-4, "then": "anneal"},
    "checkpoint": {"command": "checkpoint"},
}
BEGINS_ANEW = ("restart", "resume", "resume with an LR")


def reached(point: str, command: str) -> bool:
    """Does this command ever pass this boundary?"""
    family = point.partition(".")[0]
    if family == "run":
        return command == "restart"
    if family == "attempt":
        return command in BEGINS_ANEW
    return family != "end" or command != "checkpoint"


PAIRS = [(point, command) for point in crash_points.POINTS for command in COMMANDS if reached(point, command)]
CHOSEN = {
    ("command.after_read", "resume"), ("command.after_accept", "restart"), ("command.after_act", "resume with an LR"),
    ("command.before_answer", "checkpoint"), ("run.after_config", "restart"), ("attempt.after_run_record", "resume"),
    ("checkpoint.after_rename", "stop"), ("checkpoint.after_record", "checkpoint"), ("end.after_record", "stop"),
}  # fmt: skip


@pytest.mark.parametrize(("point", "command"), PAIRS)
def test_killed_at_a_boundary(
    point: str, command: str, daemon: Daemon, config_file: ConfigFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if (point, command) not in CHOSEN and not os.environ.get("EEGWATCH_FULL"):
        pytest.skip("tried with EEGWATCH_FULL=1")
    armed = tmp_path / "crash-here"
    monkeypatch.setenv(crash_points.VARIABLE, str(armed))
    daemon.start(config_file(max_epochs=10, pace_steps_per_s=40, val_check_interval=100_000))
    daemon.wait_for_step(8)
    first = daemon.run
    armed.write_text(point)
    command_id = str(uuid.uuid4())
    daemon.say(id=command_id, run_id=first.name, **COMMANDS[command])
    daemon.wait(lambda: not armed.exists())

    if daemon.pid is None or point.startswith(("command", "run", "attempt.after_spawn")):
        daemon.wait(lambda: daemon.pid is None)
        daemon.begin_idle()
    answers = daemon.wait(lambda: [a for a in daemon.answers(command_id) if a["status"] != "accepted"])
    # never repeated, never forgotten: accepted at most once, and one last word
    counts = Counter(answer["status"] for answer in daemon.answers(command_id))
    assert counts["accepted"] <= 1 and sum(counts.values()) - counts["accepted"] == 1
    answer = answers[0]
    assert answer["status"] in ("done", "failed", "expired"), answer
    begun = [r for run in runs(daemon) for r in daemon.records("run", run) if r["command"] == command_id]
    assert len(begun) <= 1, "it was carried out twice"
    if answer["status"] == "done":
        verify_effect(daemon, command, answer)
    elif answer["status"] == "expired":
        assert point == "command.after_read" and not begun

    for run in runs(daemon):
        assert_readable(run)
    daemon.wait(lambda: daemon.states()[-1] == "idle")  # cut off, or at its end
    if newest_with_records(daemon) is not None and last_end(daemon) != "completed":
        daemon.cli("resume")
    daemon.wait(lambda: last_end(daemon) == "completed")
    whole = newest_with_records(daemon)
    assert whole is not None
    steps = steps_that_count(whole)
    assert list(steps) == list(range(1, daemon.records("run", whole)[-1]["total_steps"] + 1))
    daemon.cli("stop")
    assert daemon.pid is None


def runs(daemon: Daemon) -> list[Path]:
    return sorted(path.parent for path in daemon.logs.glob("*/run.jsonl"))


def newest_with_records(daemon: Daemon) -> Path | None:
    found = [run for run in runs(daemon) if daemon.records("run", run)]
    return found[-1] if found else None


def last_end(daemon: Daemon) -> str | None:
    run = newest_with_records(daemon)
    records = daemon.records(None, run) if run else []
    return records[-1]["reason"] if records and records[-1]["type"] == "end" else None


def assert_readable(run: Path) -> None:
    """No torn line, and nothing half-written under a name that counts."""
    content = (run / "run.jsonl").read_bytes()
    assert content == b"" or content.endswith(b"\n")
    steps_that_count(run)
    assert all(path.stat().st_size for path in (run / "checkpoints").glob("step-*.pt"))


def verify_effect(daemon: Daemon, command: str, answer: dict[str, Any]) -> None:
    """What `done` says is so."""
    effect = answer["effect"]
    if command == "checkpoint":
        assert (daemon.run / effect["checkpoint"]).exists()
    elif command == "stop":
        assert any(r["type"] == "end" for r in daemon.records())
    else:
        run = daemon.logs / effect["run_id"]
        step = next(r for r in daemon.records("step", run) if r["step"] == effect["step"] and r["lr"] == effect["lr"])
        assert command != "resume with an LR" or step["lr"] == pytest.approx(3e-4, rel=1e-6)
