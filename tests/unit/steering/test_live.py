"""A script that uses RunLog is steered while it runs, by the control file, with real optimizers and processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eegwatch import RunLog
from eegwatch.run.control import CONTROL, send
from eegwatch.run.log import read_all, run_decoder
from eegwatch.run.records import Run, ScheduleChange, Step
from eegwatch.schedule import parse, rate_at
from eegwatch.steering.inbox import relay
from tests.patience import PATIENCE_S

TOTAL = 1_000_000


class Script:
    """A training loop of plain SGD with gradient 1 in two groups; its scheduler is never stepped, which is the fault."""

    def __init__(self, logs: Path, *, name: str = "mine", schedule: bool = True, **given: Any) -> None:
        self.weights = [torch.nn.Parameter(torch.zeros(1, dtype=torch.float64)) for _ in range(2)]
        groups = [{"params": [self.weights[0]], "lr": 1e-3}, {"params": [self.weights[1]], "lr": 1e-4}]
        self.optimizer = torch.optim.SGD(groups)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, TOTAL, eta_min=1e-5)
        self.log = RunLog(
            logs, name, schedule=self.scheduler if schedule else None, optimizer=self.optimizer,
            total_steps=TOTAL if schedule else None, **given,
        )  # fmt: skip

    def step(self) -> list[float]:
        """One step; returns the rate that each group really used."""
        before = [w.item() for w in self.weights]
        for w in self.weights:
            w.grad = torch.ones_like(w)
        self.optimizer.step()
        self.log.step(loss=0.5)
        time.sleep(0.002)
        return [b - w.item() for b, w in zip(before, self.weights, strict=True)]

    def until(self, done: Callable[[], Any]) -> Any:
        end = time.monotonic() + PATIENCE_S
        while not (value := done()):
            assert time.monotonic() < end
            self.step()
        return value

    def answered(self, command_id: str) -> dict[str, Any]:
        """The last word to a command."""
        return self.until(lambda: last_word(self.log.folder.parent, command_id))


def answers(logs: Path, command_id: str) -> list[dict[str, Any]]:
    path = logs / "daemon.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [a for a in map(json.loads, lines) if a.get("id") == command_id]


def last_word(logs: Path, command_id: str) -> dict[str, Any] | None:
    return next((a for a in answers(logs, command_id) if a["status"] != "accepted"), None)


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Script]:
    running = Script(tmp_path)
    yield running
    running.log.end()


def declared(script: Script, step: int) -> list[float]:
    (run,) = [r for r in read_all(script.log.folder / "run.jsonl", run_decoder()) if isinstance(r, Run)]
    assert run.groups is not None
    return [float(rate_at(parse(group["schedule"]), step)) for group in run.groups]


def test_a_live_run_rejoins_its_declared_schedule_in_every_group(
    script: Script, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(20):
        script.step()
    command = send(script.log.folder.parent, "resume", script.log.folder.name)
    done = script.answered(command)
    assert [a["status"] for a in answers(script.log.folder.parent, command)] == ["accepted", "done"]
    assert done["effect"]["lrs"] == pytest.approx(declared(script, done["step"]), rel=1e-15)
    for _ in range(5):
        step = script.log.step_done + 1
        np.testing.assert_allclose(script.step(), declared(script, step), rtol=1e-9)
    records = read_all(script.log.folder / "run.jsonl", run_decoder())
    (change,) = [r for r in records if isinstance(r, ScheduleChange)]
    assert change.command == command and change.step == done["step"] - 1
    steered = [r for r in records if isinstance(r, Step) and r.step > change.step]
    assert all(r.position == r.step - 1 for r in steered)
    assert [g["lr"] for g in script.optimizer.param_groups] == [1e-3, 1e-4]  # the script's own, undisturbed
    said = capfd.readouterr().err
    assert said.count("eegwatch sets the learning rate: rejoins the declared schedule") == 1


def test_a_rate_of_ones_own_and_the_way_back_to_the_scripts_scheduler(script: Script) -> None:
    script.step()
    logs, run = script.log.folder.parent, script.log.folder.name
    done = script.answered(send(logs, "resume", run, lr=3e-4, then="hold"))
    assert done["effect"]["lr"] == 3e-4
    np.testing.assert_allclose(script.step(), [3e-4, 3e-5], rtol=1e-9)
    done = script.answered(send(logs, "release", run))
    assert done["effect"]["lrs"] == [1e-3, 1e-4]
    np.testing.assert_allclose(script.step(), [1e-3, 1e-4], rtol=1e-9)
    again = script.answered(send(logs, "release", run))
    assert again["status"] == "rejected" and "already" in again["reason"]


@pytest.mark.parametrize(
    "fields, reason",
    [
        ({"lr": 1.0}, "above the declared peak"),
        ({"lr": -1.0}, "above 0"),
        ({"checkpoint": "a.pt"}, "does not go back to a checkpoint"),
    ],
)
def test_what_a_live_run_cannot_do_is_rejected_in_words(script: Script, fields: dict[str, Any], reason: str) -> None:
    answer = script.answered(send(script.log.folder.parent, "resume", script.log.folder.name, **fields))
    assert answer["status"] == "rejected" and reason in answer["reason"]


def test_a_restart_is_not_a_running_scripts_to_do(script: Script) -> None:
    answer = script.answered(send(script.log.folder.parent, "restart", script.log.folder.name))
    assert answer["status"] == "rejected" and "cannot restart" in answer["reason"]


def test_without_a_schedule_only_a_hold_is_possible(tmp_path: Path) -> None:
    script = Script(tmp_path, schedule=False)
    run = script.log.folder.name
    assert "declares no schedule" in script.answered(send(tmp_path, "resume", run))["reason"]
    assert "use hold" in script.answered(send(tmp_path, "resume", run, lr=3e-4, then="anneal"))["reason"]
    assert script.answered(send(tmp_path, "resume", run, lr=3e-4, then="hold"))["effect"]["lr"] == 3e-4
    np.testing.assert_allclose(script.step(), [3e-4, 3e-5], rtol=1e-9)
    script.log.end()


def test_stop_checkpoint_and_evaluate_are_asked_of_the_script(script: Script) -> None:
    logs, run = script.log.folder.parent, script.log.folder.name
    assert "does not look at log.stop_requested" in script.answered(send(logs, "stop", run))["reason"]
    assert not (script.log.stop_requested or script.log.checkpoint_requested or script.log.evaluation_requested)
    sent = {name: send(logs, name, run) for name in ("checkpoint", "evaluate", "stop")}
    script.until(lambda: script.log.stop_requested and script.log.checkpoint_requested)
    assert all(last_word(logs, sent[name]) is None for name in sent)
    script.log.checkpoint("out/a.pt")
    script.log.eval({"f1": 0.5}, auroc=0.8)
    assert last_word(logs, sent["checkpoint"])["effect"] == {"checkpoint": "out/a.pt"}  # type: ignore[index]
    assert last_word(logs, sent["evaluate"])["effect"] == {"auroc": 0.8, "f1": 0.5}  # type: ignore[index]
    assert not script.log.checkpoint_requested and not script.log.evaluation_requested
    script.log.end("stopped")
    assert last_word(logs, sent["stop"])["status"] == "done"  # type: ignore[index]


def test_a_second_line_with_a_known_id_is_nothing(script: Script) -> None:
    logs, run = script.log.folder.parent, script.log.folder.name
    line = json.dumps({"id": "x", "command": "resume", "run_id": run, "lr": 3e-4, "then": "hold"}) + "\n"
    with (logs / CONTROL).open("a") as file:
        file.write(line + line)
    (logs / CONTROL).chmod(0o600)
    script.answered("x")
    with (logs / CONTROL).open("a") as file:
        file.write(line)
    script.answered(send(logs, "release", run))
    assert [a["status"] for a in answers(logs, "x")] == ["accepted", "done"]


def test_of_two_live_runs_each_answers_its_own_and_one_answers_the_rest(tmp_path: Path) -> None:
    first, second = Script(tmp_path, name="a"), Script(tmp_path, name="b")
    both = lambda: (first.step(), second.step())  # noqa: E731
    ids = {
        "a": send(tmp_path, "resume", first.log.folder.name, lr=3e-4, then="hold"),
        "b": send(tmp_path, "resume", second.log.folder.name, lr=2e-4, then="hold"),
        "none": send(tmp_path, "resume", None),
        "gone": send(tmp_path, "resume", "20200101-000000-gone"),
    }
    with (tmp_path / CONTROL).open("a") as file:
        file.write('{"id": "odd", "command": "dance"}\nnot json at all\n')
    end = time.monotonic() + PATIENCE_S
    known = [*ids.values(), "odd"]
    while not all(last_word(tmp_path, i) for i in known) and time.monotonic() < end:
        both()
    words = {name: last_word(tmp_path, i) for name, i in (ids | {"odd": "odd"}).items()}
    assert words["a"]["effect"]["lr"] == 3e-4 and words["b"]["effect"]["lr"] == 2e-4  # type: ignore[index]
    assert "2 runs are live here" in words["none"]["reason"]  # type: ignore[index]
    assert "is not live" in words["gone"]["reason"]  # type: ignore[index]
    assert words["odd"]["status"] == "rejected"  # type: ignore[index]
    first.log.end()
    answer = second.answered(send(tmp_path, "release", None))  # the only live run is meant now
    assert answer["status"] == "done"
    second.log.end()
    lines = [json.loads(line) for line in (tmp_path / "daemon.jsonl").read_text().splitlines()]
    last = [r["id"] for r in lines if r["status"] != "accepted"]
    assert len(last) == len(set(last)) == 7


def test_a_log_root_is_made_so_that_its_commands_are_obeyed_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        script = Script(tmp_path / "logs")
        answer = script.answered(send(tmp_path / "logs", "resume", script.log.folder.name, lr=3e-4, then="hold"))
    finally:
        os.umask(before)
    script.log.end()
    assert answer["status"] == "done"


def test_a_control_file_that_others_can_write_is_not_obeyed_and_that_is_said_once(
    script: Script, capfd: pytest.CaptureFixture[str]
) -> None:
    logs = script.log.folder.parent
    command = send(logs, "resume", script.log.folder.name)
    (logs / CONTROL).chmod(0o666)
    for _ in range(200):
        script.step()
    assert answers(logs, command) == []
    assert capfd.readouterr().err.count("the control file is not obeyed") == 1


def test_control_can_be_switched_off(tmp_path: Path) -> None:
    script = Script(tmp_path, control=False)
    command = send(tmp_path, "resume", script.log.folder.name)
    for _ in range(200):
        script.step()
    assert answers(tmp_path, command) == [] and not script.log.stop_requested
    script.log.end()


def test_a_resume_of_the_script_keeps_the_course(tmp_path: Path) -> None:
    script = Script(tmp_path)
    script.answered(send(tmp_path, "resume", script.log.folder.name, lr=3e-4, then="hold"))
    folder, at = script.log.folder, script.log.step_done
    script.log.end("stopped")
    again = Script(tmp_path, resume=folder, step=at)
    np.testing.assert_allclose(again.step(), [3e-4, 3e-5], rtol=1e-9)
    records = read_all(folder / "run.jsonl", run_decoder())
    assert isinstance(records[-1], Step) and records[-1].lr == 3e-4
    again.log.end()


KILLED = textwrap.dedent(
    """
    import sys, time, torch
    from eegwatch import RunLog
    w = torch.nn.Parameter(torch.zeros(1))
    opt = torch.optim.SGD([w], lr=1e-3)
    sch = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 1_000_000)
    log = RunLog(sys.argv[1], "mine", schedule=sch, total_steps=1_000_000)
    print(log.folder.name, flush=True)
    log.stop_requested
    for _ in range(100_000):
        w.grad = torch.ones(1); opt.step(); log.step(loss=0.5); time.sleep(0.001)
    """
)


@pytest.mark.parametrize("command", ["stop", "resume"])
def test_the_last_word_for_a_killed_script_is_its_next_attempts(tmp_path: Path, command: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    run = process.stdout.readline().strip()
    sent = send(tmp_path, command, run)
    end = time.monotonic() + PATIENCE_S
    while not answers(tmp_path, sent) and time.monotonic() < end:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = [a["status"] for a in answers(tmp_path, sent)]
    again = Script(tmp_path, resume=tmp_path / run, step=1)
    again.step()
    statuses = [a["status"] for a in answers(tmp_path, sent)]
    if command == "stop":
        assert before == ["accepted"] and statuses == ["accepted", "failed"]
    else:
        records = read_all(tmp_path / run / "run.jsonl", run_decoder())
        begun = [r for r in records if isinstance(r, ScheduleChange) and r.command == sent]
        assert statuses == ["accepted", "done" if begun else "failed"]
    again.log.end()


def test_a_daemon_relays_to_a_live_run_and_to_no_other(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    run = process.stdout.readline().strip()
    from eegwatch.run.control import Command

    assert relay(tmp_path, Command(command="resume", id="r", run_id=run, lr=3e-4, then="hold"))
    assert not relay(tmp_path, Command(command="resume", id="q", run_id="nobody"))
    assert not relay(tmp_path, Command(command="resume", id="q", run_id="../" + run))
    end = time.monotonic() + PATIENCE_S
    while not last_word(tmp_path, "r") and time.monotonic() < end:
        time.sleep(0.01)
    assert last_word(tmp_path, "r")["effect"]["lr"] == 3e-4  # type: ignore[index]
    process.kill()
    process.wait()
    assert not relay(tmp_path, Command(command="resume", id="s", run_id=run))


def test_one_of_several_processes_says_that_the_others_would_not_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    script = Script(tmp_path)
    answer = script.answered(send(tmp_path, "resume", script.log.folder.name))
    assert answer["status"] == "rejected" and "one of several processes" in answer["reason"]
    script.log.end()
