"""The resume dialog of a script that is steered by its command line: where it begins, and what it can be given."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from eegwatch.run.log import AppendLog
from eegwatch.run.records import Checkpoint, Run, Step
from eegwatch.tui.resume_form import Form, choices, judge, shell_line, start_point
from eegwatch.tui.session import Session
from tests.patience import PATIENCE_S

TAKES = "script: {command: [python, t.py], resume: [python, t.py, '{checkpoint}', ['--lr={lr}']], checkpoints: '*.pt'}"
COSINE = {"name": "cosine", "max_lr": 1e-3, "total_steps": 1000}


@pytest.fixture
def session(tmp_path: Path) -> Session:
    folder = tmp_path / "20260101-000000-mine"
    folder.mkdir()
    (folder / "config.yaml").write_text(TAKES)
    log = AppendLog(folder / "run.jsonl")
    log.append(Run(time=time.time(), run_id=folder.name, name="mine", step=0, total_steps=1000, schedule=COSINE))
    for step in range(1, 131):
        log.append(Step(time=time.time(), step=step, lr=1e-3))
    log.append(Checkpoint(time=time.time(), step=100, path="a.pt"))
    log.close()
    made = Session(tmp_path, folder, lambda _: None)
    end = time.monotonic() + PATIENCE_S
    while made.history.step_done < 130 or not made.history.checkpoints:
        made.poll()
        assert time.monotonic() < end
    return made


def test_it_begins_at_the_newest_checkpoint_and_says_what_is_lost(session: Session) -> None:
    assert start_point(session).words == "at the newest complete checkpoint, step 100; 30 steps are lost"
    assert judge(session, Form()).choice is not None  # rejoin


def test_a_typed_rate_is_held_and_nothing_else_is_possible(session: Session) -> None:
    judged = judge(session, Form("3e-4"))
    assert judged.choice is not None and judged.choice.then == "hold" and judged.choice.lr == 3e-4
    for then in ("anneal", "scale"):
        assert "can only hold a rate" in (judge(session, Form("3e-4", then)).problem or "")


def test_a_schedule_of_epochs_of_an_unknown_length_closes_no_dialog(tmp_path: Path) -> None:
    folder = tmp_path / "20260101-000000-epochs"
    folder.mkdir()
    (folder / "config.yaml").write_text(TAKES)
    log = AppendLog(folder / "run.jsonl")
    log.append(Run(time=time.time(), run_id=folder.name, name="mine", step=0, schedule=COSINE | {"unit": "epoch"}))
    log.append(Step(time=time.time(), step=1, lr=1e-3))
    log.close()
    session = Session(tmp_path, folder, lambda _: None)
    end = time.monotonic() + PATIENCE_S
    while not session.history.step_done:
        session.poll()
        assert time.monotonic() < end
    judged = judge(session, Form("3e-4"))
    assert judged.choice is not None and judged.choice.lr == 3e-4 and judge(session, Form("")).choice


LIVE = """
import sys, time
from eegwatch import RunLog
log = RunLog(sys.argv[1], name="live")
while True:
    log.step(loss=0.5, lr=1e-3)
    time.sleep(0.01)
"""


def test_a_live_script_without_a_schedule_can_hold_a_rate_and_hand_it_back(tmp_path: Path) -> None:
    script = subprocess.Popen([sys.executable, "-c", LIVE, str(tmp_path)])
    try:
        end = time.monotonic() + PATIENCE_S
        while not (folders := list(tmp_path.glob("*/run.jsonl"))):
            assert time.monotonic() < end
            time.sleep(0.05)
        session = Session(tmp_path, folders[0].parent, lambda _: None)
        while not (session.steers_itself and session.history.step_done):
            session.poll()
            assert time.monotonic() < end
        assert "release" in choices(session)
        held = judge(session, Form("3e-4"))
        assert held.choice is not None and (held.choice.then, held.choice.lr) == ("hold", 3e-4)
        assert judge(session, Form("3e-4", "anneal")).choice is None
        back = judge(session, Form("", "release"))
        assert back.choice is not None and '"command": "release"' in shell_line(session, back.choice)
        assert judge(session, Form("3e-4", "release")).choice is None
    finally:
        script.kill()
        script.wait()
