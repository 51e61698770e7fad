"""docs/control.md walked with a script in place of the trainer: each command in each state, under a real daemon."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from eegpt_daemon.link import RUN_LOCK
from eegwatch.run.control import lock_holder
from tests.e2e import test_state_machine as walks
from tests.e2e.processes import whole_lines
from tests.e2e.test_script import SCRIPT
from tests.e2e.test_state_machine import AT_WORK, FULL, LONG, PAIRS, SHORT, TABLE, WALKS, WRONG, Control

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

    def begin(self) -> None:
        """A script that goes on without a daemon is taken over by the next, with what it was asked before."""
        begun, log = self.daemon.begin(), self.daemon.logs / "daemon.jsonl"
        words = (*AT_WORK, "idle", "restarting")
        self.daemon.wait(lambda: any(r.get("pid") == begun.pid and r["state"] in words for r in whole_lines(log)))
        for command_id in self.open:
            self.daemon.wait(lambda i=command_id: self.last_words(i))
        self.open.clear()
        self.daemon.wait(self.settled)
        self.state = self.standing()

    def runner(self) -> int | None:
        return lock_holder(self.daemon.run / RUN_LOCK) if list(self.daemon.logs.glob("*/run.jsonl")) else None

    def standing(self) -> str:
        if self.word() in AT_WORK:
            return "training"
        return "pause" if self.word() == "restarting" else self.what_the_files_say()

    def settled(self) -> bool:
        """The daemon's word has been the same for two seconds, and what it says is so."""
        begun, word = time.monotonic(), self.word()
        while time.monotonic() < begun + 2.0:
            if self.word() != word or (word in AT_WORK) != (self.runner() is not None):
                return False
            time.sleep(0.1)
        return word in (*AT_WORK, "idle", "restarting")

    def send(self, command: str) -> None:
        if self.state == "training":
            self.daemon.wait(lambda: self.daemon.records("checkpoint"))
        super().send(command)

    def stop_and_resume_together(self) -> None:
        self.daemon.wait(lambda: self.daemon.records("checkpoint"))
        super().stop_and_resume_together()

    def the_trainer_is_killed(self) -> None:
        self.walk.append("the runner is killed, and its script with it")
        self.daemon.wait(lambda: self.daemon.records("checkpoint") and self.runner())
        os.kill(self.runner() or 0, signal.SIGKILL)
        self.daemon.wait(lambda: self.word() in ("idle", "restarting"))
        self.state = self.standing()

    def the_daemon_is_killed(self, command: str | None) -> None:
        runner = self.runner()
        if self.state == "training":
            self.daemon.wait(lambda: self.daemon.records("checkpoint"))
        super().the_daemon_is_killed(command)
        if runner is not None and self.draw.random() < 0.5:
            with contextlib.suppress(ProcessLookupError):
                os.kill(runner, signal.SIGKILL)

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


@pytest.mark.skipif(not FULL, reason="twenty minutes, with EEGWATCH_FULL=1")
def test_random_walks_of_a_script_through_states_and_deaths(capsys: pytest.CaptureFixture[str]) -> None:
    WALKS.clear()
    run_state_machine_as_test(
        ScriptControl,
        settings=settings(
            max_examples=int(os.environ.get("EEGWATCH_WALKS", "20")),
            stateful_step_count=15,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
    with capsys.disabled():
        deaths = sum("killed" in step for walk in WALKS for step in walk)
        print(f"\n{len(WALKS)} random walks of a script, {sum(map(len, WALKS))} steps, {deaths} of them deaths")
