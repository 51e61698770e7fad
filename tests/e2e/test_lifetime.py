"""What happens to a daemon from outside: locks, signals, terminals, disks that fill, folders that go."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from eegwatch.run.control import latest_state
from tests.e2e.processes import PATIENCE, Daemon, whole_lines
from tests.e2e.trainers import steps_that_count

ConfigFile = Callable[..., Path]
LONG = {"max_epochs": 500, "pace_steps_per_s": 50, "checkpoint_minutes": 0.005}
SUPERVISED = {"supervision": {"restarts": {"max": 3, "backoff_seconds": 0.1}}}


def said(daemon: Daemon) -> list[str]:
    """Every reason that the daemon gave, in order."""
    return [r["reason"] or "" for r in whole_lines(daemon.logs / "daemon.jsonl", daemon.torn) if r["type"] == "daemon"]


# ---- one daemon per log root -----------------------------------------------------------------------------------------


def test_of_two_starts_at_once_one_trains_and_the_other_says_so(daemon: Daemon, config_file: ConfigFile) -> None:
    config = str(config_file(**LONG))
    command = [sys.executable, "-m", "eegpt_daemon.cli", "start", "--no-check", "--logs", str(daemon.logs)]
    both = [
        subprocess.Popen([*command, "--config", config], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    ends = [(*process.communicate(timeout=PATIENCE), process.returncode) for process in both]
    assert sorted(code for _, _, code in ends) == [0, 1], ends
    refused = next(err for _, err, code in ends if code == 1)
    assert refused.count("\n") == 1 and "already running: daemon pid" in refused
    daemon.wait_for_step(2)
    assert len(list(daemon.logs.glob("*/run.jsonl"))) == 1 and len(daemon.records("run")) == 1


def test_a_daemon_without_a_run_names_commands_that_begin_one(daemon: Daemon, config_file: ConfigFile) -> None:
    started = daemon.cli("start", "--continue").stdout
    assert "idle: there was no run to continue" in started and "?" not in started and "None" not in started
    named = started.partition("begin one:  ")[2].splitlines()[0]
    assert named in daemon.cli("status").stdout  # one answer, whoever is asked
    refused = daemon.cli("start", "--config", str(config_file(**LONG)), code=1).stderr
    assert f"(idle, no run); a new run: {named}" in refused
    stop, start = (shlex.split(command)[1:] for command in named.split(" && "))
    daemon.cli(stop[0])
    daemon.cli(
        start[0], "--no-check", *(str(config_file(**LONG)) if word == "CONFIG.yaml" else word for word in start[1:3])
    )
    daemon.wait_for_step(2)


def test_a_stale_lock_with_a_pid_that_lives_again_stops_nobody(daemon: Daemon, config_file: ConfigFile) -> None:
    daemon.logs.mkdir(mode=0o700)
    (daemon.logs / "daemon.lock").write_text(f"{os.getpid()}\n")  # a reused pid: this very test's
    assert "not running" in daemon.cli("status", code=3).stdout
    assert "no daemon is running" in daemon.cli("stop", code=3).stderr
    daemon.start(config_file(**LONG))
    assert daemon.pid not in (None, os.getpid())
    daemon.cli("stop")


def test_status_tells_what_is_and_since_when(daemon: Daemon, config_file: ConfigFile) -> None:
    def status(code: int | None) -> dict[str, Any]:
        return dict(json.loads(daemon.cli("status", "--json", code=code).stdout))

    before = time.time()
    daemon.start(config_file(**LONG))
    daemon.wait_for_step(2)
    daemon.wait(lambda: daemon.states()[-1] == "training")
    training = daemon.wait(lambda: (now := status(0))["daemon"] == "training" and now)
    assert before < training["since"] < time.time() and training["pid"] == daemon.pid
    daemon.wait(lambda: "training since" in daemon.cli("status").stdout)  # an evaluation may have been between
    saved = len(daemon.records("checkpoint"))
    daemon.wait(lambda: len(daemon.records("checkpoint")) > saved + 3)
    assert status(0)["since"] == training["since"]  # a checkpoint is no other state to whoever asks
    offset = daemon.say(command="stop")
    daemon.wait(lambda: [a for a in daemon.answers(f"line-{offset}") if a["status"] == "done"])
    idle = status(0)
    assert idle["daemon"] == "idle" and idle["since"] > training["since"] and "stopped at step" in idle["reason"]

    process = psutil.Process(daemon.pid)
    process.suspend()
    sign = latest_state(daemon.logs)
    assert sign is not None
    hung = daemon.wait(lambda: (now := status(0))["daemon"] == "hung" and now)
    assert "has not counted for" in hung["reason"] and hung["since"] == pytest.approx(sign.time, abs=2)
    process.kill()
    process.wait()
    dead = status(1)
    assert dead["daemon"] == "dead" and dead["since"] == sign.time and dead["pid"] is None
    assert "dead since" in daemon.cli("status", code=1).stdout


# ---- signals and terminals -------------------------------------------------------------------------------------------


def test_a_detached_daemon_outlives_the_terminal_that_started_it(daemon: Daemon, config_file: ConfigFile) -> None:
    daemon.start(config_file(**LONG))
    daemon.wait_for_step(2)
    assert daemon.pid is not None
    for process in (psutil.Process(daemon.pid), daemon.trainer()):
        process.send_signal(signal.SIGHUP)
    at = daemon.records("step")[-1]["step"]
    daemon.wait_for_step(at + 20)
    offset = daemon.say(command="stop")
    daemon.wait(lambda: [a for a in daemon.answers(f"line-{offset}") if a["status"] == "done"])
    os.kill(daemon.pid, signal.SIGHUP)  # idle, too
    time.sleep(0.5)
    assert daemon.states()[-1] == "idle" and daemon.pid is not None


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_in_the_foreground_a_terminal_that_closes_gets_a_checkpoint_and_an_end(
    daemon: Daemon, config_file: ConfigFile, tmp_path: Path
) -> None:
    socket, config = tmp_path / "tmux", config_file(**LONG)
    command = f"{sys.executable} -m eegpt_daemon.cli start --no-check --foreground --logs {daemon.logs}"
    subprocess.run(["tmux", "-S", socket, "new-session", "-d", f"{command} --config {config}"], check=True)
    daemon.wait_for_step(5)
    subprocess.run(["tmux", "-S", socket, "kill-server"], check=True)  # what a dropped ssh does
    daemon.wait(lambda: daemon.pid is None)
    last = daemon.records()[-1]
    assert last["type"] == "end" and last["reason"] == "stopped"
    assert daemon.records("checkpoint")[-1]["step"] == last["step"]
    assert said(daemon)[-1] == "SIGHUP received" and daemon.states()[-1] == "exited"


# ---- disks and folders -----------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 12 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "none", place], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def fill(path: Path) -> None:
    """Until nothing more goes."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue


def delete(folder: Path) -> None:
    """A folder into which a trainer still writes: what it adds while the rest is being deleted is deleted too."""
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)


def test_a_full_disk_loses_nothing_and_is_not_hammered(
    small_disk: Path, config_file: ConfigFile, tmp_path: Path
) -> None:
    daemon = Daemon(small_disk / "logs", torn=8)
    try:
        daemon.start(config_file(top=SUPERVISED, **LONG))
        daemon.wait(lambda: daemon.records("checkpoint"))
        daemon.wait_for_step(20)
        pid = daemon.pid
        fill(small_disk / "filler")
        daemon.wait(lambda: not psutil.Process(pid).children())  # the trainer cannot write and gives up
        size = (daemon.logs / "daemon.jsonl").stat().st_size
        done = daemon.cli("resume", code=1)  # the command does not fit either: one line says so
        assert done.stderr.count("\n") == 1 and "No space left on device" in done.stderr
        time.sleep(5)
        assert daemon.pid == pid and not psutil.Process(pid).children()
        assert (daemon.logs / "daemon.jsonl").stat().st_size - size < 4096 and psutil.Process(pid).cpu_percent(1) < 50

        (small_disk / "filler").unlink()
        assert "resume: done" in daemon.cli("resume").stdout
        daemon.cli("stop")
        begun = daemon.records("run")[-1]
        assert begun["step"] > 0 and begun["checkpoint"]
        (tmp_path / "run.jsonl").write_text("".join(json.dumps(r) + "\n" for r in daemon.records()))
        assert len(steps_that_count(tmp_path)) >= begun["step"]  # no step is missing
        ends = [r for r in daemon.records("end") if r["reason"] == "failed"]
        # trainer.log is on that disk too: the line that its record quotes may be the first that was cut
        cut = "the trainer ended with exit code 1"
        assert ends and all("No space left on device" in r["error"] or r["error"].startswith(cut) for r in ends)
        assert any("not restarted" in words or "restarted by the daemon" in words for words in said(daemon))
        for command_id in {a["id"] for a in daemon.answers()}:
            assert sum(a["status"] != "accepted" for a in daemon.answers(command_id)) == 1
    finally:
        daemon.kill()


def test_a_log_root_that_cannot_be_written_is_refused_in_one_line(small_disk: Path, config_file: ConfigFile) -> None:
    daemon = Daemon(small_disk / "logs")
    daemon.logs.mkdir()
    config = str(config_file(**LONG))
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for words in (("start", "--no-check", "--config", config), ("start", "--foreground", "--config", config)):
        done = daemon.cli(*words, code=1)
        assert (
            done.stderr.count("\n") == 1 and "Read-only file system" in done.stderr and str(daemon.logs) in done.stderr
        )
    assert "not running" in daemon.cli("status", code=3).stdout
    assert daemon.cli("resume", code=1).stderr.count("\n") == 1


def test_a_run_folder_that_is_deleted_ends_the_run_in_words_and_the_daemon_goes_on(
    daemon: Daemon, config_file: ConfigFile
) -> None:
    config = config_file(top=SUPERVISED | {"guard": {"on_error": "checkpoint"}}, **LONG)
    daemon.start(config)
    daemon.wait(lambda: daemon.records("checkpoint"))
    pid, gone = daemon.pid, daemon.run
    delete(gone)
    daemon.wait(lambda: daemon.states()[-1] == "idle")
    assert daemon.pid == pid and "not restarted" in said(daemon)[-1]
    spent = len(said(daemon))
    time.sleep(3)
    assert len(said(daemon)) - spent <= 3 and psutil.Process(pid).cpu_percent(1) < 50  # heartbeats, no spin
    done = daemon.cli("resume", code=1)
    assert gone.name in done.stdout + done.stderr and "Traceback" not in done.stdout
    done = daemon.cli("restart", "--config", str(config))
    assert "restart: done" in done.stdout and daemon.run != gone
    daemon.cli("stop")


def test_a_log_root_that_is_deleted_ends_daemon_and_trainer(daemon: Daemon, config_file: ConfigFile) -> None:
    daemon.start(config_file(top=SUPERVISED, **LONG))
    daemon.wait_for_step(5)
    assert daemon.pid is not None
    both = [psutil.Process(daemon.pid), daemon.trainer()]
    delete(daemon.logs)
    gone, alive = psutil.wait_procs(both, timeout=PATIENCE)
    assert alive == [] and len(gone) == 2
    assert not daemon.logs.exists()  # nothing was begun there once more


def test_without_its_checkpoints_a_run_begins_at_step_0_and_says_why(daemon: Daemon, config_file: ConfigFile) -> None:
    daemon.start(config_file(top=SUPERVISED, **LONG))
    daemon.wait(lambda: daemon.records("checkpoint"))
    offset = daemon.say(command="stop")
    daemon.wait(lambda: [a for a in daemon.answers(f"line-{offset}") if a["status"] == "done"])
    saved = daemon.records("checkpoint")[-1]["path"]
    shutil.rmtree(daemon.run / "checkpoints")
    rejected = daemon.cli("resume", "--checkpoint", saved, code=1)
    assert "cannot be read: No such file or directory" in rejected.stdout
    (daemon.run / "checkpoints").mkdir()
    daemon.cli("resume")
    begun = daemon.records("run")[-1]
    assert begun["step"] == 0 and any("no checkpoint yet: begins at step 0" in note for note in begun["notes"])
