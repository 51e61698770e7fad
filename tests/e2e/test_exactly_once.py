"""The control file under everything that may happen to it: each line answered once, each id carried out at most once."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from eegwatch.run.control import latest_state
from eegwatch.run.liveness import SILENT_S
from tests.e2e.processes import PATIENCE, Daemon, whole_lines

ConfigFile = Callable[..., Path]
LONG = {"max_epochs": 500, "pace_steps_per_s": 50, "val_check_interval": 100_000}
SENDER = """
import random, sys, time
from pathlib import Path
from eegwatch.run.control import send
random.seed(sys.argv[3])
for _ in range(25):
    print(send(Path(sys.argv[1]), "checkpoint", sys.argv[2]), flush=True)
    time.sleep(random.uniform(0, 0.02))
"""


def test_two_monitors_at_once_have_every_command_answered_once(daemon: Daemon, config_file: ConfigFile) -> None:
    daemon.start(config_file(**LONG))
    daemon.wait_for_step(2)
    command = [sys.executable, "-c", SENDER, str(daemon.logs), daemon.run.name]
    senders = [subprocess.Popen([*command, seed], stdout=subprocess.PIPE, text=True) for seed in ("1", "2")]
    sent = [line for sender in senders for line in sender.communicate()[0].split()]
    assert len(set(sent)) == 50
    saved = daemon.wait(lambda: last_words(daemon, sent))
    assert {answer["status"] for answer in saved} == {"done"}
    mine = Counter(c["command"] for c in daemon.records("checkpoint") if c["command"])
    assert mine == Counter(sent)  # one file each
    lines = (daemon.logs / "control.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["id"] for line in lines) == sorted(sent)  # and no line was torn by the other


def last_words(daemon: Daemon, sent: list[str]) -> list[dict[str, Any]] | None:
    """The last answer to each command, once all have one; each was accepted once at most and ended once."""
    answers = [a for a in daemon.answers() if a["id"] in set(sent)]
    counts = Counter((a["id"], a["status"] == "accepted") for a in answers)
    assert max(counts.values(), default=1) == 1, counts.most_common(3)
    final = [a for a in answers if a["status"] != "accepted"]
    return final if len(final) == len(sent) else None


def test_the_same_line_three_times_is_one_command(daemon: Daemon, config_file: ConfigFile) -> None:
    daemon.start(config_file(**LONG))
    daemon.wait_for_step(2)
    for _ in range(3):
        daemon.say(command="checkpoint", id="thrice")
    daemon.wait(lambda: last_words(daemon, ["thrice"]))
    daemon.say(command="checkpoint", id="thrice")  # and once more, long after
    daemon.say(command="checkpoint", id="next")
    daemon.wait(lambda: last_words(daemon, ["thrice", "next"]))
    assert [c["command"] for c in daemon.records("checkpoint")].count("thrice") == 1


# ---- a daemon without a run answers too, at once ---------------------------------------------------------------------


@pytest.fixture
def idle(daemon: Daemon) -> Daemon:
    daemon.begin_idle()
    return daemon


def end(daemon: Daemon) -> None:
    assert daemon.pid is not None
    process = psutil.Process(daemon.pid)
    process.terminate()
    process.wait(PATIENCE)


def answered(daemon: Daemon, command_id: str) -> dict[str, Any]:
    answers = daemon.wait(lambda: daemon.answers(command_id))
    assert len(answers) == 1
    return dict(answers[0])


def test_lines_without_an_id_are_answered_whatever_happens_to_the_file(idle: Daemon) -> None:
    control = idle.logs / "control.jsonl"
    assert idle.say(command="stop") == 0
    assert answered(idle, "line-0")["status"] == "rejected"

    control.unlink()
    idle.wait_for_looks()
    assert idle.say(command="stop") == 0  # another file, the same place in it
    other = [a["id"] for a in idle.wait(lambda: idle.answers()[1:])]
    assert len(other) == 1 and other[0].startswith("line-0.")

    aside = idle.logs / "written-elsewhere"
    aside.write_text('{"command": "stop"}\n')
    aside.chmod(0o600)
    aside.rename(control)
    idle.wait(lambda: len(idle.answers()) == 3)

    os.truncate(control, 0)
    idle.wait_for_looks()
    idle.say(command="stop")
    idle.wait(lambda: len(idle.answers()) == 4)

    end(idle)
    control.unlink()
    idle.begin_idle()
    assert idle.say(command="stop") == 0
    idle.wait(lambda: len(idle.answers()) == 5)

    end(idle)
    idle.begin_idle()  # the same file: nothing in it is answered again
    idle.say(command="stop", id="mine")
    assert "no run" in answered(idle, "mine")["reason"]
    ids = [a["id"] for a in idle.answers()]
    assert len(ids) == len(set(ids)) == 6
    assert {a["status"] for a in idle.answers()} == {"rejected"}


def test_bytes_that_are_no_command_are_rejected_each_under_its_place(idle: Daemon) -> None:
    lines = [
        b"\xff\xfe\x00", b"[" * 60_000, b'{"a":' * 9_000 + b"1" + b"}" * 9_000, b'{"command": "resume", "lr": 1e999}',
        b'{"command": "resume", "lr": NaN}', b'{"command": "stop", "id": 7}', b'{"command": "stop", "id": ["x"]}',
        b'{"command": "stop", "expires": "soon"}', b"\x1b]0;title\x07\x1b[2J", b"x" * 70_000, b"null", b'"stop"',
    ]  # fmt: skip
    with (idle.logs / "control.jsonl").open("ab") as file:
        file.write(b"\n".join(lines) + b"\n\n   \n")
    (idle.logs / "control.jsonl").chmod(0o600)
    places = [f"line-{sum(len(line) + 1 for line in lines[:n])}" for n in range(len(lines))]
    idle.wait(lambda: len(idle.answers()) >= len(lines))
    assert sorted(a["id"] for a in idle.answers()) == sorted(places)
    assert all(a["status"] == "rejected" and a["reason"] for a in idle.answers())
    assert "\x1b" not in (idle.logs / "out").read_text()  # what a terminal would interpret is not said in its words


def test_a_torn_line_counts_once_it_is_whole(idle: Daemon) -> None:
    with (idle.logs / "control.jsonl").open("ab", buffering=0) as file:
        os.chmod(file.name, 0o600)
        for part in (b'{"comma', b'nd": "st', b'op", "id": "to', b'rn"}'):
            file.write(part)
            time.sleep(0.15)
        assert idle.answers() == []
        file.write(b"\n")
    assert answered(idle, "torn")["status"] == "rejected"


def test_very_many_lines_are_answered_and_the_daemon_lives_meanwhile(daemon: Daemon) -> None:
    """More than the daemon reads at once (1 MB, some 30,000 lines); a million with EEGWATCH_FULL=1."""
    daemon.logs.mkdir(mode=0o700)
    control = daemon.logs / "control.jsonl"
    count = 1_000_000 if os.environ.get("EEGWATCH_FULL") else 100_000
    stale = count // 2
    control.write_bytes(b"".join(b'{"command":"stop","id":"%d"}\n' % n for n in range(stale)))
    control.chmod(0o600)
    daemon.begin()  # it is at the first half still, and takes the second for its own all the same
    with control.open("ab") as file:
        file.write(b"".join(b'{"command":"stop","id":"%d"}\n' % n for n in range(stale, count)))
    daemon.say(command="stop", id="last")
    begun = daemon.logs / "daemon.jsonl"
    assert daemon.pid is not None
    process, signs = psutil.Process(daemon.pid), dict[int, float]()

    def answered() -> bool:
        state, used = latest_state(daemon.logs), process.cpu_times()
        if state is not None and state.alive is not None:
            signs.setdefault(state.alive, used.user + used.system)
        return any(line.get("id") == "last" for line in tail_of(begun))

    daemon.wait(answered)
    statuses = Counter[str]()
    ids = set[str]()
    for line in begun.open():
        record = json.loads(line)
        if record["type"] == "command":
            statuses[record["status"]] += 1
            ids.add(record["id"])
    assert len(ids) == sum(statuses.values()) == count + 1
    assert statuses == {"expired": stale, "rejected": count - stale + 1}
    # no monitor would call it hung meanwhile; in its own seconds, since a busy machine makes the wall's longer
    assert max((b - a for a, b in itertools.pairwise(signs.values())), default=0.0) < SILENT_S


def tail_of(path: Path) -> list[dict[str, Any]]:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 2_000_000))
        lines = file.read().split(b"\n")[1:-1]
    return [json.loads(line) for line in lines]


def test_what_stood_in_the_file_while_others_could_write_it_is_not_obeyed(idle: Daemon) -> None:
    control = idle.logs / "control.jsonl"
    idle.say(command="stop", id="before")
    answered(idle, "before")
    control.chmod(0o666)
    with control.open("a") as file:
        file.write('{"command": "stop", "exit": true, "id": "anybody"}\n')
    said = [r for r in idle.wait(lambda: notes(idle, "not obeyed")) if "chmod 600" in r["reason"]]
    assert said and idle.answers("anybody") == []
    refused = idle.cli("stop", code=1)
    assert "chmod 600" in refused.stderr and refused.stderr.count("\n") == 1
    control.chmod(0o600)
    answer = answered(idle, "anybody")
    assert answer["status"] == "rejected" and "could be written by others" in answer["reason"]
    idle.wait(lambda: idle.cli("stop", code=None).returncode == 0)  # within a tick of that look it is not trusted yet
    assert idle.pid is None


def notes(daemon: Daemon, words: str) -> list[dict[str, Any]]:
    lines = whole_lines(daemon.logs / "daemon.jsonl")
    return [r for r in lines if r["type"] == "daemon" and words in (r["reason"] or "")]


def test_a_log_root_that_others_can_write_is_warned_of_and_one_that_all_can_write_is_not_obeyed(
    daemon: Daemon,
) -> None:
    daemon.logs.mkdir()
    daemon.logs.chmod(0o770)
    daemon.begin_idle()
    assert notes(daemon, "chmod 700")
    daemon.logs.chmod(0o777)
    daemon.say(command="stop", id="anybody")
    daemon.wait(lambda: notes(daemon, "not obeyed"))
    assert daemon.answers() == []


def test_a_control_file_that_is_a_link_or_no_file_is_not_obeyed(idle: Daemon, tmp_path: Path) -> None:
    control, elsewhere = idle.logs / "control.jsonl", tmp_path / "elsewhere"
    elsewhere.write_text("")
    elsewhere.chmod(0o600)
    control.symlink_to(elsewhere)
    before = elsewhere.read_bytes()
    done = idle.cli("stop", code=1)
    assert done.stderr.count("\n") == 1 and elsewhere.read_bytes() == before
    control.unlink()
    os.mkfifo(control, 0o600)
    idle.wait(lambda: notes(idle, "not a regular file"))
    control.unlink()
    done = idle.cli("stop", code=None)
    if done.returncode:  # the daemon had not looked between the two files: anybody may have written this one
        assert "send it again if it was you" in done.stdout
        idle.cli("stop")


def test_a_command_dated_by_a_clock_that_was_wrong_expires_or_is_told(idle: Daemon) -> None:
    now = time.time()
    idle.say(command="checkpoint", id="from yesterday", time=now - 86400)
    idle.say(command="checkpoint", id="from tomorrow", time=now + 86400)
    idle.say(command="checkpoint", id="of no time", time=-1e300)
    assert answered(idle, "from yesterday")["status"] == "expired"
    assert answered(idle, "from tomorrow")["status"] == "rejected"
    assert answered(idle, "of no time")["status"] == "expired"


def test_what_a_daemon_had_accepted_is_settled_by_the_next_although_the_control_file_is_gone(
    daemon: Daemon, config_file: ConfigFile
) -> None:
    daemon.start(config_file(**LONG))
    daemon.wait_for_step(2)
    daemon.say(command="restart", id="cut", run_id=daemon.run.name)
    daemon.wait(lambda: daemon.answers("cut"))
    assert daemon.pid is not None
    os.kill(daemon.pid, signal.SIGKILL)
    daemon.wait(lambda: daemon.pid is None)
    (daemon.logs / "control.jsonl").unlink()
    daemon.begin_idle()
    assert [a["status"] for a in daemon.answers("cut")] in (["accepted", "failed"], ["accepted", "done"])
