"""docs/control.md walked at random: every command in every state of a real daemon with real trainers, both killed too."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.e2e.processes import PATIENCE, Daemon
from tests.e2e.trainers import steps_that_count

ConfigFile = Callable[..., Path]
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "control.md"
FULL = bool(os.environ.get("EEGWATCH_FULL"))
IN_FLIGHT = (None, "stop", "checkpoint", "resume", "restart")
AT_WORK = ("preparing", "training", "evaluating", "checkpointing")


def table() -> dict[str, dict[str, tuple[str, str]]]:
    """command → state → (last word, state that follows), from the document."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in DOCUMENT.read_text().partition("## The answers")[2].splitlines()
        if line.startswith("|")
    ]
    states = rows[0][1:]
    found = {}
    for row in rows[2:]:
        pairs = [cell.split(" ", 1) for cell in row[1:]]
        found[row[0]] = {
            state: (word, state if after == "–" else after) for state, (word, after) in zip(states, pairs, strict=True)
        }
    return found


TABLE = table()
LONG, SHORT, WRONG = "long.yaml", "short.yaml", "wrong.yaml"
configurations: Path  # where the three are; set by the test


def fields(command: str, run_id: str | None) -> dict[str, Any]:
    """What the control line of a row of the table holds beside its id."""
    of = {"run_id": run_id} if run_id else {}
    return {
        "stop": {"command": "stop"} | of,
        "stop and exit": {"command": "stop", "exit": True} | of,
        "checkpoint": {"command": "checkpoint"} | of,
        "resume": {"command": "resume"} | of,
        "resume with an LR": {"command": "resume", "lr": 3e-4, "then": "hold"} | of,
        "resume with an LR above the peak": {"command": "resume", "lr": 1.0} | of,
        "resume as another run": {"command": "resume", "as": "another", "lr": 3e-4, "then": "hold"} | of,
        "resume from a checkpoint that is not there": {"command": "resume", "checkpoint": "checkpoints/step-99.pt"},
        "restart": {"command": "restart", "config": str(configurations / LONG)} | of,
        "restart with a short configuration": {"command": "restart", "config": str(configurations / SHORT)} | of,
        "restart with a wrong configuration": {"command": "restart", "config": str(configurations / WRONG)} | of,
        "for another run": {"command": "stop", "run_id": "20200101-000000-other"},
        "for another attempt": {"command": "stop", "attempt": 99},
        "after its time": {"command": "stop", "expires": 1.0},
        "no command at all": {"command": "dance"},
    }[command]


class Control(RuleBasedStateMachine):
    """`self.state` is what the document says there must be."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="eegwatch-states-"))
        self.daemon = Daemon(self.folder / "logs")
        self.state = "gone"
        self.sent: list[str] = []
        self.open: list[str] = []  # sent just before the daemon was killed
        self.draw = random.Random(len(WALKS))
        self.walk: list[str] = []

    def teardown(self) -> None:
        try:
            if self.walk:
                if self.state == "gone":
                    self.begin()
                self.account()
                WALKS.append(self.walk)
        finally:
            self.daemon.kill()
            shutil.rmtree(self.folder)

    # ---- beginning ----

    def begin(self) -> None:
        self.daemon.begin_idle()
        self.state = self.what_the_files_say()
        for command_id in self.open:
            assert len(self.last_words(command_id)) == 1, "it was forgotten"
        self.open.clear()

    def what_the_files_say(self) -> str:
        runs = sorted(self.daemon.logs.glob("*/run.jsonl"))
        if not runs:
            return "no run"
        ends = self.daemon.records("end")
        return "complete" if ends and ends[-1]["reason"] == "completed" else "idle"

    @initialize(with_a_run=st.sampled_from([True, True, True, False]))
    def first(self, with_a_run: bool) -> None:
        if not with_a_run:
            self.begin()
        else:
            self.daemon.start(configurations / LONG)
            self.daemon.wait_for_step(1)
            self.state = "training"

    @rule(data=st.data())
    def something_happens(self, data: st.DataObject) -> None:
        """One rule for all: hypothesis leaves whole rules out of a walk, and a walk is too dear for that."""
        happens = [self.a_daemon_starts]
        if self.state != "gone":
            happens = [partial(self.send, command) for command in sorted(TABLE)]
            happens += [partial(self.the_daemon_is_killed, command) for command in IN_FLIGHT * 2]
        if self.state == "training":
            happens += [self.the_trainer_is_killed, self.stop_and_resume_together] * 2
        # a number, not one of a list: what can happen depends on how far real processes came, and the strategy must not
        happens[data.draw(st.integers(0, 999)) % len(happens)]()

    def a_daemon_starts(self) -> None:
        self.walk.append("a daemon starts")
        self.begin()

    # ---- commands ----

    def send(self, command: str) -> None:
        """A row of the table, its line written once or three times, with the run's name or without."""
        if self.state == "no run" and command == "stop and exit":
            return  # walked by itself below: a log root that never had a run has nothing to tell afterwards
        self.walk.append(f"{self.state}: {command}")
        expected, after = TABLE[command][self.state]
        run_id = self.draw.choice((None, self.run_id()))
        command_id = self.say(fields(command, run_id), self.draw.choice((1, 1, 3)))
        answer = self.daemon.wait(lambda: self.last_words(command_id))[0]
        assert answer["status"] == expected, (self.walk, answer)
        assert answer["reason"] or expected == "done"
        if expected == "done" and command.startswith("re"):
            self.verify(command, answer)
        self.daemon.wait(lambda: self.is_in(after))
        PAIRS[command, self.state] += 1
        self.state = after

    def stop_and_resume_together(self) -> None:
        self.walk.append("training: resume and stop in one write")
        ids = [str(uuid.uuid4()), str(uuid.uuid4())]
        lines = [json.dumps({"command": name, "id": i}) for name, i in zip(("resume", "stop"), ids, strict=True)]
        with (self.daemon.logs / "control.jsonl").open("a") as file:
            file.write("\n".join(lines) + "\n")
        (self.daemon.logs / "control.jsonl").chmod(0o600)
        self.sent += ids
        resumed, stopped = (self.daemon.wait(lambda i=i: self.last_words(i))[0] for i in ids)
        assert stopped["status"] == "done" and resumed["status"] == "done"  # the stop first, the resume after it
        self.daemon.wait(lambda: self.is_in("training"))

    # ---- deaths ----

    def the_trainer_is_killed(self) -> None:
        self.walk.append("the trainer is killed")
        trainer = self.daemon.trainer()
        trainer.kill()
        self.daemon.wait(lambda: self.word() in ("idle", "restarting"))
        self.state = {"idle": "idle", "restarting": "pause"}[self.word()]

    def the_daemon_is_killed(self, command: str | None) -> None:
        """With a command in flight, at any moment of it; its trainer too, or not."""
        both = self.draw.random() < 0.5
        self.walk.append(f"{self.state}: the daemon is killed {'with its trainer ' if both else ''}under {command}")
        if command is not None and self.state != "no run":
            self.open.append(self.say(fields(command, None), 1))
            time.sleep(self.draw.uniform(0, 1.5))
        pid = self.daemon.pid
        if pid is not None:
            children = psutil.Process(pid).children()
            os.kill(pid, signal.SIGKILL)
            for child in children if both else []:
                child.kill()
            self.daemon.wait(lambda: self.daemon.pid is None)
        self.state = "gone"

    def bring_to(self, state: str) -> None:
        """By commands and deaths that the table has."""
        if state == "no run" or self.state == state:
            return
        if self.state == "gone":
            self.begin()
        if self.state == "no run":
            self.daemon.say(command="stop", exit=True)
            self.daemon.wait(lambda: self.daemon.pid is None)
            self.first(with_a_run=True)
        if state in ("training", "pause") and self.state != "training":
            self.send("restart")
        if state == "pause":
            saved = self.daemon.records("checkpoint")
            self.daemon.wait(lambda: len(self.daemon.records("checkpoint")) > len(saved))
            self.the_trainer_is_killed()
        elif state == "idle" and self.state != "idle":
            self.bring_to("training")
            self.send("stop")
        elif state == "complete":
            self.send("restart with a short configuration")

    # ---- looking ----

    def say(self, line: dict[str, Any], times: int) -> str:
        command_id = str(uuid.uuid4())
        self.sent.append(command_id)
        for _ in range(times):
            self.daemon.say(**line, id=command_id)
        return command_id

    def run_id(self) -> str | None:
        return self.daemon.run.name if list(self.daemon.logs.glob("*/run.jsonl")) else None

    def word(self) -> str:
        return (self.daemon.states() or [""])[-1]

    def is_in(self, state: str) -> bool:
        if state == "gone":
            return self.daemon.pid is None
        if state == "training":
            return self.word() in AT_WORK
        if state == "pause":
            return self.word() == "restarting"
        return self.word() == "idle" and self.what_the_files_say() == state

    def last_words(self, command_id: str) -> list[dict[str, Any]]:
        answers = self.daemon.answers(command_id)
        assert sum(a["status"] == "accepted" for a in answers) <= 1, answers
        final = [a for a in answers if a["status"] != "accepted"]
        assert len(final) <= 1, answers
        assert not final or final == answers[-1:], answers
        return final

    def verify(self, command: str, answer: dict[str, Any]) -> None:
        """`done` is said of what is so."""
        run = self.daemon.logs / answer["effect"]["run_id"]
        records = self.daemon.records(None, run)
        begun = [i for i, r in enumerate(records) if r["type"] == "run" and r["command"] == answer["id"]]
        assert len(begun) == 1
        first = next(r for r in records[begun[0] :] if r["type"] == "step")
        assert (first["step"], first["lr"]) == (answer["effect"]["step"], answer["effect"]["lr"])
        assert first["step"] == records[begun[0]]["step"] + 1
        assert command != "resume with an LR" or answer["effect"]["lr"] == 3e-4

    def account(self) -> None:
        for command_id in self.sent:
            assert len(self.last_words(command_id)) == 1, command_id
        begun = Counter(
            r["command"]
            for run in self.daemon.logs.glob("*/run.jsonl")
            for r in self.daemon.records("run", run.parent)
            if r["command"]
        )
        assert max(begun.values(), default=1) == 1, "something was carried out twice"
        for run in self.daemon.logs.glob("*/run.jsonl"):
            steps_that_count(run.parent)


WALKS: list[list[str]] = []
PAIRS: Counter[tuple[str, str]] = Counter()


@pytest.fixture(autouse=True)
def three_configurations(config_file: ConfigFile, tmp_path: Path) -> None:
    global configurations
    configurations = tmp_path
    supervision = {"supervision": {"restarts": {"max": 3, "backoff_seconds": 200.0}}}
    slow = {"max_epochs": 5000, "pace_steps_per_s": 30, "checkpoint_minutes": 0.005, "val_check_interval": 100_000}
    config_file(top=supervision, **slow).rename(tmp_path / LONG)
    config_file(top=supervision, max_epochs=1).rename(tmp_path / SHORT)
    (tmp_path / WRONG).write_text("nonsense: 1\n")


def test_every_command_in_every_state() -> None:
    machine = Control()
    try:
        machine.first(with_a_run=False)
        for state in next(iter(TABLE.values())):
            for command in TABLE:
                machine.bring_to(state)
                machine.send(command)
        machine.bring_to("idle")
        machine.account()
    finally:
        machine.daemon.kill()
        shutil.rmtree(machine.folder)
    missing = {(command, state) for command, row in TABLE.items() for state in row} - set(PAIRS)
    assert missing == {("stop and exit", "no run")}  # the next test but one


def test_random_walks_through_states_and_deaths(capsys: pytest.CaptureFixture[str]) -> None:
    run_state_machine_as_test(
        Control,
        settings=settings(
            max_examples=40 if FULL else 1,
            stateful_step_count=25 if FULL else 14,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
    with capsys.disabled():
        deaths = sum("killed" in step for walk in WALKS for step in walk)
        print(f"\n{len(WALKS)} random walks, {sum(len(walk) for walk in WALKS)} steps, {deaths} of them deaths")


def test_a_daemon_without_a_run_can_be_told_to_exit(daemon: Daemon) -> None:
    began = daemon.begin_idle()
    daemon.say(command="stop", exit=True, id="leave")
    assert began.wait(PATIENCE) == 0
    assert [a["status"] for a in daemon.answers("leave")] == ["accepted", TABLE["stop and exit"]["no run"][0]]


def test_the_document_names_every_state_of_the_daemon() -> None:
    named = set(re.findall(r"`(\w+)`", DOCUMENT.read_text()))
    assert set(AT_WORK) | {"restarting", "idle"} <= named
