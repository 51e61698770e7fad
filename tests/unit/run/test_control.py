"""The control file: what a line means, who holds the lock, who may write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eegwatch.run.control import (
    Command,
    Locked,
    Unreadable,
    latest_state,
    lock_holder,
    parse_line,
    send,
    take_lock,
    unsafe_control,
)
from eegwatch.run.log import AppendLog
from eegwatch.run.records import Answer, DaemonState


def test_the_shortest_command_is_one_that_echo_can_write() -> None:
    command = parse_line(b'{"command": "stop"}', 120)
    assert isinstance(command, Command)
    assert (command.command, command.id, command.run_id, command.deadline) == ("stop", "line-120", None, None)


def test_a_sent_command_carries_id_time_run_and_sender(tmp_path: Path) -> None:
    command_id = send(tmp_path, "resume", "some-run", lr=3e-4, then="anneal")
    line = (tmp_path / "control.jsonl").read_bytes()
    assert line.endswith(b"\n")
    command = parse_line(line, 0)
    assert isinstance(command, Command)
    assert (command.id, command.run_id, command.lr, command.then) == (command_id, "some-run", 3e-4, "anneal")
    assert command.deadline == pytest.approx(time.time() + 600, abs=5)
    assert json.loads(line)["by"].startswith("eegwatch@")
    assert (tmp_path / "control.jsonl").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "line",
    [
        b"stop",
        b"[]",
        b"42",
        b'{"command": "dance"}',
        b'{"command": "resume", "lr": "high"}',
        b'{"command": "resume", "lr": NaN}',
        b'{"command": "resume", "then": "jump"}',
        b'{"command": "stop", "surprise": 1}',
        b'{"lr": 1e-3}',
        b"\xff\xfe",
        b'{"command": "stop", "by": "' + b"x" * 70_000 + b'"}',
        b"[" * 60_000,
    ],
)
def test_a_line_that_is_no_command_is_named_and_explained(line: bytes) -> None:
    parsed = parse_line(line, 77)
    assert isinstance(parsed, Unreadable)
    assert parsed.id == "line-77" and parsed.reason


def test_a_bad_command_is_answered_under_its_own_id() -> None:
    parsed = parse_line(b'{"id": "mine", "command": "resume", "lr": "high"}', 0)
    assert isinstance(parsed, Unreadable)
    assert (parsed.id, parsed.command) == ("mine", "resume")


def test_blank_lines_are_nothing() -> None:
    assert parse_line(b"   ", 3) is None


HOLD = "import sys, time; from pathlib import Path; from eegwatch.run.control import take_lock; "


def test_the_lock_names_its_holder_and_is_free_the_moment_it_dies(tmp_path: Path) -> None:
    lock = tmp_path / "daemon.lock"
    assert lock_holder(lock) is None
    code = HOLD + "take_lock(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    assert lock_holder(lock) == holder.pid
    with pytest.raises(Locked) as error:
        take_lock(lock)
    assert error.value.args[0] == holder.pid
    assert lock_holder(lock) == holder.pid  # asking takes nothing away
    holder.kill()
    holder.wait()
    assert lock_holder(lock) is None
    os.close(take_lock(lock))


def test_the_latest_state_is_found_behind_any_number_of_answers(tmp_path: Path) -> None:
    log = AppendLog(tmp_path / "daemon.jsonl")
    log.append(DaemonState(time=1.0, state="idle", pid=5))
    for i in range(2000):
        log.append(Answer(time=2.0, id=str(i), command="stop", status="rejected", reason="x" * 50))
    state = latest_state(tmp_path)
    assert state is not None and state.state == "idle"
    assert latest_state(tmp_path / "nowhere") is None


def test_a_control_file_that_others_can_write_is_not_safe(tmp_path: Path) -> None:
    path = tmp_path / "control.jsonl"
    assert unsafe_control(path) is None
    path.write_text("")
    path.chmod(0o600)
    assert unsafe_control(path) is None
    path.chmod(0o622)
    problem = unsafe_control(path)
    assert problem is not None and "chmod 600" in problem
