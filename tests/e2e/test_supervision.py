"""A trainer that dies or hangs under a real supervisor: started again, or not, each time with the reason."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.processes import PATIENCE, Daemon, whole_lines

ConfigFile = Callable[..., Path]
SOON = {"max": 3, "window_minutes": 60, "backoff_seconds": 0.2}


def supervised(**hung: Any) -> dict[str, Any]:
    return {"supervision": {"restarts": SOON, **({"hung": hung} if hung else {})}}


def reasons(daemon: Daemon) -> str:
    """Everything that the daemon gave as a reason."""
    lines = whole_lines(daemon.logs / "daemon.jsonl")
    return "\n".join(str(r.get("reason")) for r in lines if r["type"] == "daemon")


def wait_for_checkpoint(daemon: Daemon, beyond: int) -> int:
    """The step of the first checkpoint after one."""
    found = daemon.wait(lambda: [c["step"] for c in daemon.records("checkpoint") if c["step"] > beyond])
    return int(found[0])


def attempts(daemon: Daemon) -> list[dict[str, Any]]:
    return daemon.records("run")


def test_a_trainer_that_is_killed_goes_on_by_itself_until_the_limit(daemon: Daemon, config_file: ConfigFile) -> None:
    path = config_file(top=supervised(), max_epochs=500, pace_steps_per_s=100, checkpoint_minutes=0.001)
    daemon.start(path)
    saved = 0
    for n in range(4):
        daemon.wait(lambda n=n: len(attempts(daemon)) == n + 1)
        begun = attempts(daemon)[-1]["step"]
        saved = wait_for_checkpoint(daemon, max(saved, begun))
        daemon.wait(lambda: daemon.records("step") and daemon.states()[-1] == "training")
        daemon.trainer().send_signal(signal.SIGKILL)
        ends = daemon.wait(lambda n=n: len(daemon.records("end")) == n + 1 and daemon.records("end"))
        assert ends[-1]["reason"] == "failed" and "killed by SIGKILL" in ends[-1]["error"]
    daemon.wait(lambda: daemon.states()[-1] == "idle")
    assert "not restarted: it has died 4 times within 60 min" in reasons(daemon)
    runs = attempts(daemon)
    assert [run["attempt"] for run in runs] == [1, 2, 3, 4]
    for n, run in enumerate(runs[1:], 1):
        assert any(f"restarted by the daemon ({n} of 3 within 60 min)" in note for note in run["notes"])
        assert run["command"] is None and run["checkpoint"] and run["restored"]["step"] == run["step"]


def test_without_a_new_checkpoint_it_is_not_started_again(daemon: Daemon, config_file: ConfigFile) -> None:
    daemon.start(config_file(top=supervised(), max_epochs=500, pace_steps_per_s=20))
    daemon.wait_for_step(3)
    daemon.trainer().send_signal(signal.SIGKILL)
    daemon.wait(lambda: daemon.states()[-1] == "idle")
    assert "not restarted: no checkpoint was written since the last start" in reasons(daemon)
    assert len(attempts(daemon)) == 1


def test_a_stop_while_a_restart_is_due_wins(daemon: Daemon, config_file: ConfigFile) -> None:
    top = {"supervision": {"restarts": {"max": 3, "backoff_seconds": 60.0}}}
    path = config_file(top=top, max_epochs=500, pace_steps_per_s=50, checkpoint_minutes=0.001)
    daemon.start(path)
    wait_for_checkpoint(daemon, 0)
    daemon.trainer().send_signal(signal.SIGKILL)
    daemon.wait(lambda: daemon.states()[-1] == "restarting")
    assert "restarted by the daemon (1 of 3 within 60 min)" in daemon.cli("status").stdout
    daemon.cli("stop")
    assert len(attempts(daemon)) == 1 and daemon.pid is None


def test_a_hung_trainer_shows_its_stack_and_is_started_again(daemon: Daemon, config_file: ConfigFile) -> None:
    path = config_file(
        top=supervised(after_minutes=0.03), max_epochs=500, pace_steps_per_s=100, checkpoint_minutes=0.001
    )
    daemon.start(path)
    wait_for_checkpoint(daemon, 0)
    trainer = daemon.trainer()
    trainer.suspend()  # alive, and no step is taken
    daemon.wait(lambda: "hung: no progress while" in reasons(daemon))
    daemon.wait(lambda: len(attempts(daemon)) == 2)
    daemon.wait(lambda: daemon.states()[-1] == "training")
    said = reasons(daemon)
    assert "SIGTERM sent" in said and "SIGKILL sent" in said
    assert any("hung: no progress" in note for note in attempts(daemon)[-1]["notes"])


def test_the_stack_of_a_trainer_is_written_when_asked_for(daemon: Daemon, config_file: ConfigFile) -> None:
    path = config_file(
        top=supervised(after_minutes=0.01, action="warn"), max_epochs=500, pace_steps_per_s=0.5
    )  # two seconds a step: longer than that is called hung
    daemon.start(path)
    daemon.wait(lambda: "its stack is in trainer.log (warn)" in reasons(daemon))
    daemon.wait(lambda: "_train" in (daemon.run / "trainer.log").read_text())
    assert len(attempts(daemon)) == 1 and daemon.trainer().is_running()


def test_a_scheduler_that_gives_thirty_seconds_gets_a_checkpoint_and_an_end(
    daemon: Daemon, config_file: ConfigFile
) -> None:
    daemon.start(config_file(top=supervised(), max_epochs=500, pace_steps_per_s=50))
    daemon.wait_for_step(5)
    group = [psutil.Process(daemon.pid), daemon.trainer()]
    for process in group:
        process.terminate()  # a batch system tells them all at once
    daemon.wait(lambda: daemon.pid is None)
    assert daemon.records()[-1]["type"] == "end" and daemon.records()[-1]["reason"] == "stopped"
    assert daemon.records("checkpoint")[-1]["step"] == daemon.records("end")[-1]["step"]


def test_a_second_sigterm_leaves_at_once_without_a_checkpoint(daemon: Daemon, config_file: ConfigFile) -> None:
    daemon.start(config_file(top=supervised(), max_epochs=500, pace_steps_per_s=0.005))
    daemon.wait_for_step(1)  # and now it sleeps for two hundred seconds
    trainer = daemon.trainer()
    trainer.terminate()
    time.sleep(3.5)
    assert trainer.is_running()
    trainer.terminate()
    end = daemon.wait(lambda: daemon.records("end"))[0]
    assert "exit code 75" in end["error"] and daemon.records("checkpoint") == []


@pytest.mark.parametrize("how", ["killed", "SIGTERM", "stopped by a person", "completed"])
def test_after_a_crash_or_a_reboot_what_was_cut_off_goes_on_and_nothing_else(
    daemon: Daemon, config_file: ConfigFile, how: str
) -> None:
    epochs = 2 if how == "completed" else 500
    path = config_file(max_epochs=epochs, pace_steps_per_s=50, checkpoint_minutes=0.001)
    daemon.start(path)
    daemon.wait(lambda: daemon.records("checkpoint"))
    if how == "killed":  # as a power cut does it: both at once
        trainer = daemon.trainer()
        os.kill(daemon.pid, signal.SIGKILL)
        trainer.kill()
    elif how == "SIGTERM":
        os.kill(daemon.pid, signal.SIGTERM)
    elif how == "stopped by a person":
        daemon.cli("stop")
    else:
        daemon.wait(lambda: daemon.records("end"))
        daemon.cli("stop")
    daemon.wait(lambda: daemon.pid is None)
    saved = daemon.records("checkpoint")[-1]["step"]
    daemon.cli("start", "--continue")
    if how in ("killed", "SIGTERM"):
        daemon.wait(lambda: len(attempts(daemon)) == 2)
        begun = attempts(daemon)[-1]
        assert begun["step"] == saved and "continued by eegpt-daemon start --continue" in begun["notes"]
    else:
        daemon.wait(lambda: daemon.states()[-1] == "idle")
        assert len(attempts(daemon)) == 1


def test_without_a_run_continue_begins_the_configuration_it_is_given(daemon: Daemon, config_file: ConfigFile) -> None:
    daemon.cli("start", "--continue", "--no-check", "--config", str(config_file(max_epochs=1)))
    daemon.wait(lambda: daemon.records("end"))


def test_systemd_hears_that_the_daemon_is_ready_alive_and_stopping(
    daemon: Daemon, config_file: ConfigFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, said = tmp_path / "notify", list[str]()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        monkeypatch.setenv("NOTIFY_SOCKET", str(address))
        daemon.start(config_file(max_epochs=500, pace_steps_per_s=50))
        daemon.wait_for_step(150)  # nobody reads, the socket's queue is full: the run is not held up

        def hear() -> None:
            while not any("STOPPING=1" in text for text in said):
                said.append(manager.recv(4096).decode())

        manager.settimeout(PATIENCE)
        listener = threading.Thread(target=hear)
        listener.start()
        daemon.cli("stop")
        listener.join()
    assert any("STOPPING=1" in text for text in said)
    ready = next(text for text in said if "READY=1" in text)
    assert "WATCHDOG=1" in ready and "STATUS=preparing" in ready
    assert any("STATUS=training" in text for text in said)


def test_a_death_does_not_repair_a_fault_that_nobody_has_asked_to_repair(
    daemon: Daemon, config_file: ConfigFile
) -> None:
    top = supervised() | {"inject": "scheduler_stepped_per_epoch"}
    path = config_file(top=top, max_epochs=500, pace_steps_per_s=100, val_check_interval=7)
    daemon.start(path)
    wait_for_checkpoint(daemon, 40)
    daemon.trainer().send_signal(signal.SIGKILL)
    daemon.wait(lambda: len(attempts(daemon)) == 2)
    begun = attempts(daemon)[1]
    assert begun["inject"] == "scheduler_stepped_per_epoch"
    daemon.wait(lambda: daemon.records("step")[-1]["step"] > begun["step"] + 2 * begun["steps_per_epoch"])
    resumed = daemon.records()[daemon.records().index(begun) :]
    positions = [r["position"] for r in resumed if r["type"] == "step"]
    assert len(positions) > 2 * begun["steps_per_epoch"] and len(set(positions)) <= 4  # one move an epoch, as before
