"""docs/control.md walked with a script in place of the trainer: each command in each state, under a real daemon."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from tests.e2e import test_state_machine as walks
from tests.e2e.test_script import SCRIPT
from tests.e2e.test_state_machine import FULL, LONG, PAIRS, SHORT, TABLE, WRONG, Control

SHORT_FORM = {  # what is refused comes first: it leaves the state as it is
    "training": ("checkpoint", "resume", "resume with an LR"),
    "idle": ("checkpoint",),
    "pause": ("resume",),
    "complete": ("resume", "resume with an LR", "resume as another run", "checkpoint", "stop"),
}


class ScriptControl(Control):
    """A script takes no part in the trainer's account of its own checkpoints: what is counted is the commands."""

    def bring_to(self, state: str) -> None:
        """To training and idle with a checkpoint that the daemon has seen: a script writes one at its own times."""
        if state == "idle" and self.state != "idle":
            self.bring_to("training")
        super().bring_to(state)
        if state == "training":
            self.daemon.wait(lambda: self.daemon.records("checkpoint"))

    def account(self) -> None:
        for command_id in self.sent:
            assert len(self.last_words(command_id)) == 1, command_id
        begun = Counter(
            record["command"]
            for run in self.daemon.logs.glob("*/run.jsonl")
            for record in self.daemon.records("run", run.parent)
            if record["command"]
        )
        assert max(begun.values(), default=1) == 1, "something was carried out twice"


@pytest.fixture(autouse=True)
def three_configurations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walks, "configurations", tmp_path, raising=False)
    monkeypatch.setitem(TABLE["checkpoint"], "training", ("rejected", "training"))  # as docs/scripts.md says
    for name, steps in ((LONG, 20000), (SHORT, 50)):
        per_epoch = min(steps, 100)
        text = SCRIPT.replace("20001", str(steps + 1)).replace("/100 -", f"/{per_epoch} -")
        (tmp_path / f"{name}.py").write_text(text.replace("/200 Batch", f"/{steps // per_epoch} Batch"))
        words = [sys.executable, f"{name}.py", "--out", "{run}/output"]
        script = {
            "command": words,
            "resume": [*words, "--resume", "{checkpoint}", "--lr", "{lr}"],
            "checkpoints": "output/*.pt",
            "cwd": str(tmp_path),
        }
        cosine = {"name": "CosineAnnealingLR", "max_lr": 1e-3}
        tree = {
            "experiment": {"name": "mine"},
            "script": script,
            "training": {"max_epochs": steps // per_epoch, "scheduler": cosine},
            "supervision": {"restarts": {"max": 3, "backoff_seconds": 200.0}},
        }
        (tmp_path / name).write_text(yaml.safe_dump(tree))
    (tmp_path / WRONG).write_text("nonsense: 1\n")


def test_commands_in_each_state_of_a_script_have_the_answers_of_the_table() -> None:
    PAIRS.clear()
    machine = ScriptControl()
    chosen = {state: tuple(TABLE) for state in SHORT_FORM} if FULL else SHORT_FORM
    try:
        machine.first(with_a_run=True)
        for state, commands in chosen.items():
            for command in commands:
                machine.bring_to(state)
                machine.send(command)
        machine.bring_to("idle")
        machine.account()
    finally:
        machine.daemon.kill()
        shutil.rmtree(machine.folder)
    assert set(PAIRS) >= {(command, state) for state, commands in chosen.items() for command in commands}
