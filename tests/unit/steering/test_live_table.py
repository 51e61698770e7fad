"""The table of docs/live_control.md walked: every command in every state of a live run, in order and at random."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eegwatch.run.control import send
from tests.unit.steering.test_live import Script, answers, declared

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "live_control.md"
WALK = 300 if os.environ.get("EEGWATCH_FULL") else 0
FIELDS: dict[str, dict[str, Any]] = {
    "resume": {"command": "resume"},
    "resume with an LR": {"command": "resume", "lr": 3e-4, "then": "hold"},
    "resume with an LR above the peak": {"command": "resume", "lr": 1.0},
    "resume with an LR that is none": {"command": "resume", "lr": -1.0},
    "resume from a checkpoint": {"command": "resume", "checkpoint": "a.pt"},
    "resume as another run": {"command": "resume", "as": "another"},
    "release": {"command": "release"},
    "checkpoint": {"command": "checkpoint"},
    "evaluate": {"command": "evaluate"},
    "restart": {"command": "restart"},
    "after its time": {"command": "release", "expires": 1.0},
}


def table() -> dict[str, dict[str, tuple[str, str]]]:
    """command → state → (last word, state that follows), from the document."""
    section = DOCUMENT.read_text().partition("## The answers")[2].partition("\n## ")[0]
    lines = section.splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    states = rows[0][1:]
    found = {}
    for row in rows[2:]:
        pairs = [cell.split(" ", 1) for cell in row[1:]]
        found[row[0]] = {
            s: (word, s if after == "–" else after) for s, (word, after) in zip(states, pairs, strict=True)
        }
    return found


TABLE = table()


class Walk:
    """`state`: what the document says there is."""

    def __init__(self, logs: Path) -> None:
        self.script = Script(logs)
        self.script.log.checkpoint_requested, self.script.log.evaluation_requested  # noqa: B018 (it asks for them)
        self.logs, self.run = logs, self.script.log.folder.name
        self.state = "its own"
        self.held: list[float] | None = None

    def say(self, name: str) -> None:
        expected, after = TABLE[name][self.state]
        given = dict(FIELDS[name])
        command = send(self.logs, given.pop("command"), self.run, **given)
        self.script.until(lambda: answers(self.logs, command) or self.serve())
        while not (word := answers(self.logs, command)) or word[-1]["status"] == "accepted":
            self.script.step()
            self.serve()
        assert [a["status"] for a in word] == (["accepted", "done"] if expected == "done" else [expected]), name
        assert word[-1].get("reason") or expected == "done"
        if expected == "done" and name.startswith("resume"):
            self.held = [3e-4, 3e-5] if "LR" in name else None
        self.state = after
        step = self.script.log.step_done + 1
        rates = {"its own": [1e-3, 1e-4], "steered": self.held or declared(self.script, step)}[self.state]
        np.testing.assert_allclose(self.script.step(), rates, rtol=1e-9, err_msg=name)

    def serve(self) -> None:
        """What the script does when it is asked."""
        if self.script.log.checkpoint_requested:
            self.script.log.checkpoint("a.pt")
        if self.script.log.evaluation_requested:
            self.script.log.eval({"f1": 0.5})


@pytest.fixture
def walk(tmp_path: Path) -> Any:
    walking = Walk(tmp_path)
    yield walking
    walking.script.log.end()


def test_every_command_in_every_state_of_a_live_run(walk: Walk) -> None:
    assert set(TABLE) == set(FIELDS)
    for state, way in (("its own", "release"), ("steered", "resume with an LR")):
        for name in TABLE:
            if walk.state != state:
                walk.say(way)
            walk.say(name)


@pytest.mark.skipif(not WALK, reason="two minutes, with EEGWATCH_FULL=1")
def test_a_random_walk_of_a_live_run(walk: Walk) -> None:
    draw = random.Random(3)
    for _ in range(WALK):
        walk.say(draw.choice(sorted(TABLE)))
