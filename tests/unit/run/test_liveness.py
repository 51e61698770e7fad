"""Whether anybody trains: the lock and two counters, not guesses."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from eegwatch.run.folder import NotARun, make_run_folder, newest_run, resolve, runs
from eegwatch.run.liveness import Pulse
from eegwatch.run.log import AppendLog
from eegwatch.run.records import DaemonState, Eval, Run, Step
from eegwatch.run.summary import summarise

HOLD = (
    "import sys, time; from pathlib import Path; from eegwatch.run.control import take_lock; "
    "take_lock(Path(sys.argv[1]) / 'daemon.lock'); print('held', flush=True); time.sleep(60)"
)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def state(logs: Path, word: str, age: float = 0.0, progress: int = 1, **fields: float) -> None:
    log = AppendLog(logs / "daemon.jsonl")
    said = {"time": time.time() - age, "state": word, "run_id": "r", "alive": 1, "progress": progress, "reason": "why"}
    log.append(DaemonState(**(said | fields)))
    log.close()


def test_no_daemon_ever_ended_and_died_are_three_things(tmp_path: Path) -> None:
    assert Pulse(tmp_path).take().word == "none"
    state(tmp_path, "training", age=180)
    dead = Pulse(tmp_path).take()
    assert (dead.word, dead.alive) == ("dead", False) and "3 min" in dead.detail
    state(tmp_path, "exited")
    assert Pulse(tmp_path).take().word == "none"


def test_a_live_daemon_is_what_it_says_it_is(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    assert Pulse(tmp_path).take().word == "starting"
    state(tmp_path, "idle")
    life = Pulse(tmp_path).take()
    assert (life.word, life.alive, life.pid, life.run_id) == ("idle", True, holder.pid, "r")


def test_a_supervisor_that_does_not_count_is_hung(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    state(tmp_path, "training", age=30)
    assert Pulse(tmp_path).take().word == "hung"


def test_a_loop_that_does_not_move_is_hung_although_the_supervisor_counts(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    now = [1000.0]
    pulse = Pulse(tmp_path, clock=lambda: now[0])
    state(tmp_path, "training", progress=7)
    assert pulse.take().word == "training"
    now[0] += 120
    state(tmp_path, "training", progress=7, age=-1)
    hung = pulse.take()
    assert hung.word == "hung" and "has not moved for 2 min" in hung.detail
    assert hung.since == pytest.approx(time.time() - 120, abs=5)
    state(tmp_path, "training", progress=8, age=-2)
    assert pulse.take().word == "training"


def test_one_look_tells_a_loop_that_stood_before_it(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    state(tmp_path, "training", moved=time.time() - 90)
    assert Pulse(tmp_path).take().word == "hung"
    state(tmp_path, "training", moved=time.time() - 9, since=time.time() - 50)
    life = Pulse(tmp_path).take()
    assert life.word == "training" and life.since == pytest.approx(time.time() - 50, abs=5)


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_clock_that_is_set_neither_hangs_a_daemon_nor_hides_that_it_hangs(
    tmp_path: Path, holder: subprocess.Popen[str], hours: float
) -> None:
    now = [1000.0]
    pulse = Pulse(tmp_path, clock=lambda: now[0])
    state(tmp_path, "idle")
    assert pulse.take().word == "idle"
    now[0] += 2
    state(tmp_path, "idle", age=hours * 3600)  # the daemon's clock is not ours any more
    assert pulse.take().word == "idle"
    now[0] += 30  # and now it is silent
    assert pulse.take().word == "hung"


def test_a_run_begun_after_the_clock_was_set_back_is_still_the_newest(tmp_path: Path) -> None:
    later = time.strftime("%Y%m%d-%H%M%S", time.localtime(time.time() + 7200))
    first = tmp_path / f"{later}-a"
    first.mkdir()
    (first / "run.jsonl").touch()
    second = make_run_folder(tmp_path, "b")
    (second / "run.jsonl").touch()
    os.utime(second / "run.jsonl", (1, 1))
    assert newest_run(tmp_path) == second


def test_runs_are_ordered_by_time_and_two_in_one_second_differ(tmp_path: Path) -> None:
    first, second = make_run_folder(tmp_path, "a b/c"), make_run_folder(tmp_path, "a b/c")
    assert first != second and first.name.endswith("-a_b_c")
    assert runs(tmp_path) == []
    for folder in (first, second):
        AppendLog(folder / "run.jsonl").close()
    assert newest_run(tmp_path) == second
    assert first.stat().st_mode & 0o777 == 0o700


def test_a_path_is_a_log_root_a_run_or_its_log(tmp_path: Path) -> None:
    folder = make_run_folder(tmp_path, "x")
    (folder / "run.jsonl").touch()
    assert resolve(tmp_path) == (tmp_path, None)
    assert resolve(folder) == resolve(folder / "run.jsonl") == (tmp_path, folder)
    with pytest.raises(NotARun):
        resolve(tmp_path / "nowhere")


def test_a_summary_reads_head_and_tail_alone_whatever_the_length(tmp_path: Path) -> None:
    log = AppendLog(tmp_path / "run.jsonl")
    log.append(Run(run_id="x", name="demo", attempt=2, total_steps=9000, epochs=9))
    for n in range(1, 5001):
        log.append(Step(time=float(n), step=n, epoch=0, lr=1e-3, loss=0.5))
    log.append(Eval(step=5000, auroc=0.81))
    summary = summarise(tmp_path)
    assert (summary.attempt, summary.step, summary.total_steps, summary.auroc) == (2, 5000, 9000, 0.81)
    assert "5,000 of 9,000" in summary.text()


def test_a_summary_shows_no_evaluation_that_a_resume_has_superseded(tmp_path: Path) -> None:
    log = AppendLog(tmp_path / "run.jsonl")
    log.append(Run(run_id="x", name="demo", attempt=1, total_steps=900))
    for step, auroc in ((100, 0.7), (200, 0.8)):
        log.append(Step(time=1.0, step=step, epoch=0, lr=1e-3, loss=0.5))
        log.append(Eval(step=step, auroc=auroc))
    log.append(Run(run_id="x", name="demo", attempt=2, total_steps=900, step=150))
    assert (summarise(tmp_path).step, summarise(tmp_path).auroc) == (150, 0.7)
