"""Logs deleted and a log root renamed under a training run: nothing promised is lost, nothing secret told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import Daemon

ConfigFile = Callable[..., Path]
LONG = {"max_epochs": 5000, "pace_steps_per_s": 50, "val_check_interval": 100_000}
TEXTS = (".jsonl", ".yaml", ".log", ".out", ".alive")


def last_word(daemon: Daemon, **command: Any) -> str:
    daemon.say(**command)
    words = daemon.wait(lambda: [a for a in daemon.answers(command["id"]) if a["status"] != "accepted"])
    return str(words[-1]["status"])


def test_logs_that_are_deleted_are_begun_anew_and_a_renamed_log_root_keeps_its_checkpoint(
    daemon: Daemon, config_file: ConfigFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAILPW", "hunter2SECRET")
    daemon.start(config_file(top={"notify": {"command": ["true", "--token=${MAILPW}"]}}, **LONG))
    daemon.wait_for_step(5)
    run = daemon.run
    (daemon.logs / "daemon.jsonl").unlink()
    (run / "run.jsonl").unlink()
    daemon.wait(lambda: (daemon.logs / "daemon.jsonl").exists() and (run / "run.jsonl").exists())
    daemon.wait_for_step(30)
    assert last_word(daemon, command="checkpoint", id="saved") == "done"
    assert last_word(daemon, command="stop", id="stopped") == "done"
    assert last_word(daemon, command="resume", id="resumed") == "done"
    texts = [p.read_text(errors="replace") for p in daemon.logs.rglob("*") if p.is_file() and p.suffix in TEXTS]
    assert not [text for text in texts if "hunter2" in text]

    moved = daemon.logs.with_name("moved")
    daemon.logs.rename(moved)

    def ended() -> dict[str, Any] | None:
        last = json.loads((moved / run.name / "run.jsonl").read_text().splitlines()[-1])
        return last if last["type"] == "end" else None

    end = daemon.wait(ended)
    assert end["reason"] == "stopped"
    assert (moved / run.name / "checkpoints" / f"step-{end['step']:08d}.pt").exists()
