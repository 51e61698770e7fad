"""Scripts killed at any moment under commands: nothing of the newest whole checkpoint is lost, no command, none twice."""

from __future__ import annotations

import os
import random
import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from eegpt_daemon.link import RUN_LOCK
from eegwatch.run import crash_points
from eegwatch.run.control import lock_holder, send
from tests.e2e.killed_script import begin, newest
from tests.e2e.processes import PATIENCE, Daemon, whole_lines
from tests.e2e.test_script import start as start  # the fixture

FULL = bool(os.environ.get("EEGWATCH_FULL"))
KILLS = 100 if FULL else 8
KILLS_UNDER_A_DAEMON = 100 if FULL else 4
COMMANDS: list[tuple[str, dict[str, Any]]] = [
    ("resume", {"lr": 3e-4, "then": "hold"}), ("resume", {"lr": 5e-4, "then": "anneal"}), ("resume", {}),
    ("release", {}), ("checkpoint", {}), ("evaluate", {}),
]  # fmt: skip


def answers(logs: Path) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for line in whole_lines(logs / "daemon.jsonl"):
        if line["type"] == "command":
            found.setdefault(line["id"], []).append(line)
    return found


def each_once(logs: Path, sent: list[str]) -> dict[str, dict[str, Any]]:
    """The last word to each command; each was accepted once at most, and the last word is the last."""
    given, last = answers(logs), {}
    for one in sent:
        statuses = [a["status"] for a in given.get(one, [])]
        assert len(statuses) in (1, 2) and statuses[-1] != "accepted", (one, statuses)
        assert statuses[:-1] in ([], ["accepted"]), (one, statuses)
        last[one] = given[one][-1]
    return last


def until(done: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + PATIENCE
    while not (value := done()):
        assert time.monotonic() < end, what
        time.sleep(0.01)
    return value


def answered(logs: Path, sent: list[str]) -> bool:
    given = answers(logs)
    return all(given.get(one, [{"status": "accepted"}])[-1]["status"] != "accepted" for one in sent)


def account(logs: Path, work: Path) -> dict[int, list[float]]:
    """The rates of the steps that count, by the weights' moves; they are the logged ones, and add up to the weights."""
    (log,) = logs.glob("*/run.jsonl")
    moved = {(line["attempt"], line["step"]): line["used"] for line in whole_lines(work / "used.jsonl")}
    counted: dict[int, list[float]] = {}
    attempt = 0
    for record in whole_lines(log):
        if record["type"] == "run":
            attempt = record["attempt"]
            assert record["step"] == 0 or record["step"] in counted, "a step before the checkpoint is missing"
            counted = {n: rates for n, rates in counted.items() if n <= record["step"]}
        elif record["type"] == "step":
            assert record["step"] == len(counted) + 1
            counted[record["step"]] = used = moved[attempt, record["step"]]
            assert record.get("lrs", [record["lr"]] * 2) == pytest.approx(used, rel=1e-6), record
    path = newest(work)
    assert path is not None
    state = torch.load(path)
    for group, weight in enumerate(state["weights"]):
        total = sum(counted[n][group] for n in range(1, state["step"] + 1))
        assert weight.item() == pytest.approx(-total, rel=1e-9)
    return counted


def done_is_so(logs: Path, work: Path, last: dict[str, dict[str, Any]]) -> None:
    (log,) = logs.glob("*/run.jsonl")
    records = whole_lines(log)
    moved = {line["step"]: [] for line in whole_lines(work / "used.jsonl")}  # type: dict[int, list[list[float]]]
    for line in whole_lines(work / "used.jsonl"):
        moved[line["step"]].append(line["used"])
    attempt, carried_out = 0, Counter[tuple[str, int]]()
    for record in records:
        attempt = record["attempt"] if record["type"] == "run" else attempt
        if record["type"] == "schedule" and record["command"]:
            carried_out[record["command"], attempt] += 1
    assert max(carried_out.values(), default=1) == 1, "something was carried out twice"
    for one, word in last.items():
        effect = word.get("effect") or {}
        if word["status"] == "done" and "lrs" in effect:
            assert any(used == pytest.approx(effect["lrs"], rel=1e-6) for used in moved[effect["step"]]), (one, word)
        elif word["status"] == "done" and "checkpoint" in effect:
            assert Path(effect["checkpoint"]).exists()


def test_a_steered_script_killed_again_and_again_loses_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs, work, draw = tmp_path / "logs", tmp_path / "work", random.Random(11)
    logs.mkdir(mode=0o700)
    work.mkdir()
    sent: list[str] = []
    used = work / "used.jsonl"
    for n in range(KILLS):
        process = begin(logs, work)
        until(lambda: list(logs.glob("*/run.jsonl")), "no run")
        before = used.stat().st_size if used.exists() else 0
        if n == 0 or draw.random() < 0.85:  # else it is killed while it begins
            until(lambda size=before: used.exists() and used.stat().st_size > size, "no step")
        end = time.monotonic() + draw.uniform(0.0, 1.2)
        run = next(logs.glob("*/run.jsonl")).parent.name
        while time.monotonic() < end:
            name, fields = draw.choice(COMMANDS)
            sent.append(send(logs, name, draw.choice((run, run, None)), **fields))
            time.sleep(draw.uniform(0.0, 0.5))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        if draw.random() < 0.3:
            sent.append(send(logs, "release", run))  # to nobody
    process = begin(logs, work)
    sent.append(send(logs, "resume", run, lr=3e-4, then="hold"))  # to one that lives until it has answered
    until(lambda: answered(logs, sent), "a command was forgotten")
    (work / "enough").touch()
    process.join(PATIENCE)
    assert process.exitcode == 0
    last = each_once(logs, sent)
    counted = account(logs, work)
    done_is_so(logs, work, last)
    words = Counter(word["status"] for word in last.values())
    with capsys.disabled():
        print(f"\n{KILLS} kills of a script that RunLog steers, {len(counted)} steps count, {len(sent)} commands each with "
              f"one last word: {dict(words)}")  # fmt: skip
    assert words["done"]


@pytest.mark.parametrize("name", ["resume", "release", "checkpoint", "evaluate"])
@pytest.mark.parametrize("point", crash_points.LIVE)
def test_a_steered_script_killed_at_a_boundary(tmp_path: Path, point: str, name: str) -> None:
    if (point, name) not in CHOSEN and not FULL:
        pytest.skip("tried with EEGWATCH_FULL=1")
    if point == "live.after_record" and name in ("checkpoint", "evaluate"):
        pytest.skip("a request has no schedule record")
    logs, work, armed = tmp_path / "logs", tmp_path / "work", tmp_path / "crash-here"
    logs.mkdir(mode=0o700)
    work.mkdir()
    process = begin(logs, work, armed)
    until(lambda: newest(work), "no checkpoint")
    run = next(logs.glob("*/run.jsonl")).parent.name
    sent = []
    if name == "release":
        sent.append(send(logs, "resume", run, lr=5e-4, then="hold"))
        until(lambda: answered(logs, sent), "not answered")
        step = whole_lines(work / "used.jsonl")[-1]["step"]
        until(lambda: whole_lines(work / "used.jsonl")[-1]["step"] > step + 1, "no further step")  # past this answer
    armed.write_text(point)
    sent.append(send(logs, name, run, **({"lr": 3e-4, "then": "hold"} if name == "resume" else {})))
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGKILL and not armed.exists()
    process = begin(logs, work)
    until(lambda: answered(logs, sent), "a command was forgotten")
    effects = [word.get("effect") or {} for word in each_once(logs, sent).values()]
    first = max(effect.get(key, 0) for effect in effects for key in ("from_step", "step"))
    until(lambda: whole_lines(work / "used.jsonl")[-1]["step"] > first, "it does not go on")
    (work / "enough").touch()
    process.join(PATIENCE)
    last = each_once(logs, sent)
    counted = account(logs, work)
    done_is_so(logs, work, last)
    if name in ("resume", "release"):  # what the last word says holds at the end
        was = [1e-3, 1e-4] if name == "resume" else [5e-4, 5e-5]
        now = [3e-4, 3e-5] if name == "resume" else [1e-3, 1e-4]
        held = now if last[sent[-1]]["status"] == "done" else was
        assert counted[max(counted)] == pytest.approx(held, rel=1e-6), last[sent[-1]]


CHOSEN = {("live.after_record", "resume"), ("live.before_answer", "checkpoint")}


# ---- a script under the daemon ----


def victims(daemon: Daemon) -> dict[str, list[int]]:
    """Processes that may be killed: the script, its runner, the daemon, all of them."""
    runner = lock_holder(daemon.run / RUN_LOCK)
    found: dict[str, list[int]] = {}
    if daemon.pid is not None:
        found["daemon"] = [daemon.pid]
    if runner is not None:
        found["runner"] = [runner]
        try:
            script = [p.pid for p in psutil.Process(runner).children(recursive=True)]
        except psutil.NoSuchProcess:
            script = []
        if script:
            found["script"] = script
    found["all"] = [pid for pids in found.values() for pid in pids]
    return found


def test_a_script_its_runner_and_its_daemon_are_killed_under_commands(
    start: Callable[..., Daemon], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    daemon = start(supervision={"restarts": {"max": 1000, "backoff_seconds": 0.05}})
    draw, kills, sent = random.Random(5), Counter[str](), list[str]()
    daemon.wait(lambda: daemon.records("checkpoint"))
    (run,) = [path.parent for path in daemon.logs.glob("*/run.jsonl")]
    try:
        while sum(kills.values()) < KILLS_UNDER_A_DAEMON:
            if daemon.pid is None:
                daemon.begin("--continue")
            time.sleep(draw.uniform(0.0, 1.5))
            if (not sent or draw.random() < 0.7) and daemon.pid is not None:
                command = {"command": "resume", "id": str(uuid.uuid4()), "run_id": run.name}
                daemon.say(**command | draw.choice(({}, {"lr": 3e-4, "then": "hold"})))
                sent.append(command["id"])
                time.sleep(draw.uniform(0.0, 1.0))
            found = victims(daemon)
            who = draw.choice(sorted(found))
            for pid in found[who]:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            kills[who] += 1
            if who in ("daemon", "all"):
                daemon.wait(lambda: daemon.pid is None)
        if daemon.pid is None:
            daemon.begin("--continue")
        daemon.wait(lambda: answered(daemon.logs, sent))
        daemon.cli("resume")
        daemon.cli("stop")
    finally:
        daemon.kill()
    each_once(daemon.logs, sent)
    newest_saved, begun = 0, dict[str, set[int]]()
    steps: list[int] = []
    resumed: int | None = None  # the step of the checkpoint from which the attempt began, until its first step
    for record in whole_lines(run / "run.jsonl"):
        if record["type"] == "run":
            if record["command"]:
                begun.setdefault(record["command"], set()).add(record["attempt"])
            saved = int(Path(record["checkpoint"]).stem.removeprefix("step")) if record["checkpoint"] else 0
            assert saved >= newest_saved  # the newest whole one, or newer than any that was logged
            resumed = saved if record["checkpoint"] else None
            steps = [step for step in steps if step <= record["step"]]
        elif record["type"] == "checkpoint":
            newest_saved = max(newest_saved, int(Path(record["path"]).stem.removeprefix("step")))
        elif record["type"] == "step":
            assert not steps or record["step"] > steps[-1]
            assert resumed is None or record["step"] > resumed  # where its steps begin, the checkpoint's are done
            resumed = None
            steps.append(record["step"])
    assert all(len(attempts) == 1 for attempts in begun.values()), "something was carried out twice"
    words = Counter(word["status"] for word in each_once(daemon.logs, sent).values())
    with capsys.disabled():
        print(f"\n{dict(kills)} killed, {len(sent)} commands each with one last word: {dict(words)}, step {steps[-1]}")
