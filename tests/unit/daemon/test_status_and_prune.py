"""What `status` says, what `prune` would remove, and what the command line refuses before anything is written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from eegpt_daemon.cli import main
from eegwatch.run.control import CONTROL, take_lock
from eegwatch.run.records import End, Eval, Step


def status(logs: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(["status", "--logs", str(logs), *words])
    return code, capsys.readouterr().out


def test_status_is_json_whatever_the_numbers(log_writer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    log_writer.run()
    log_writer.steps([1e-3, float("nan")], losses=[0.5, float("nan")])
    log_writer.add(Step(time=time.time(), step=3, lr="inf", loss="-inf"))
    log_writer.add(Eval(time=time.time(), step=3, auroc="nan"))
    code, out = status(log_writer.folder.parent, capsys, "--json")

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    tree = json.loads(out, parse_constant=refuse)
    assert code == 3 and tree["run"]["loss"] == "-inf" and tree["run"]["lr"] == "inf" and tree["run"]["step"] == 3


def test_a_log_without_a_record_has_no_attempt(log_writer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    _, out = status(log_writer.folder.parent, capsys)
    assert log_writer.folder.name in out and "attempt" not in out


def test_status_says_how_the_run_stands_and_which_command_helps(
    log_writer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = log_writer.folder.parent
    log_writer.run()
    log_writer.healthy(1, 300)
    log_writer.eval(200, 0.81)
    log_writer.run(step=200, attempt=2, checkpoint="checkpoints/step-00000200.pt")
    log_writer.healthy(201, 240)
    assert "attempt 2" in status(logs, capsys)[1] and "target 0.85" in status(logs, capsys)[1]
    log_writer.add(End(time=time.time(), step=240, reason="failed", error="the trainer ended with exit code 1"))
    _, out = status(logs, capsys)
    assert "no checkpoint was written" in out and "eegpt-daemon logs" in out and "steps/s" not in out
    (log_writer.folder / "checkpoints" / "step-00000200.pt").write_bytes(b"x")
    assert "eegpt-daemon resume" in status(logs, capsys)[1]
    log_writer.run(step=200, attempt=3)
    log_writer.healthy(201, 2000)
    log_writer.add(Eval(time=time.time(), step=2000, split="eval", auroc=0.7891, n=9))
    log_writer.add(End(time=time.time(), step=2000, reason="completed"))
    _, out = status(logs, capsys)
    assert "0.7891 (official" in out and "\ndo " not in out and "attempt 3" in out


def test_a_daemon_that_died_is_explained(log_writer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    logs = log_writer.folder.parent
    log_writer.run()
    line = {
        "type": "daemon",
        "time": time.time() - 300,
        "state": "training",
        "run_id": log_writer.folder.name,
        "pid": 1,
    }
    (logs / "daemon.jsonl").write_text(json.dumps(line) + "\n")
    code, out = status(logs, capsys)
    assert (
        code == 1 and "daemon   dead" in out and "eegpt-daemon start --continue" in out and "no checkpoint yet" in out
    )


@pytest.mark.parametrize("typed", ["nan", "inf", "-inf", "", " ", "3e-4 ", "1e9", "0", "-1e-3", "3e-4x", "1e400", "٣"])
def test_a_rate_that_is_none_is_refused_before_anything_is_written(
    log_writer: Any, capsys: pytest.CaptureFixture[str], typed: str
) -> None:
    logs = log_writer.folder.parent
    log_writer.run()
    assert main(["resume", "--logs", str(logs), f"--lr={typed}"]) == 2
    told = capsys.readouterr().err
    assert "is not a learning rate" in told and told.count("\n") == 1  # one line, as every other mistake
    assert not (logs / CONTROL).exists() and not (logs / "daemon.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["status", "--logs", "a_file"], 2, "--logs a_file: a file; a log root is a folder"),
        (["start", "--logs", "a_file"], 2, "--logs a_file: a file; a log root is a folder"),
        (["resume", "--logs", "empty"], 1, "no run in empty to resume; a new one: "),
        (["logs", "--logs", "empty"], 1, "no run in empty"),
        (["stop", "--logs", "empty"], 3, "no daemon is running on empty"),
        (["restart", "--logs", "empty"], 3, "start --config PATH --logs empty"),
        (["resume", "--then", "hold"], 2, "give --lr X too"),
        (["resme"], 2, "invalid choice: 'resme'"),
        (["resume", "--frce"], 2, "unrecognized arguments: --frce"),
    ],
)
def test_a_mistake_is_one_line_and_3_means_that_no_daemon_runs(
    words: list[str],
    code: int,
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_file").write_text("junk\n")
    (tmp_path / "empty").mkdir()
    assert main(words) == code
    answer = capsys.readouterr().err
    assert told in answer and answer.count("\n") == 1 and answer.startswith("eegpt-daemon")


def test_a_rate_above_the_declared_peak_is_refused_before_anything_is_written(
    log_writer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = log_writer.folder.parent
    log_writer.run()
    assert main(["resume", "--logs", str(logs), "--lr", "0.5"]) == 2
    assert "above the declared peak 0.003" in capsys.readouterr().err
    assert not (logs / CONTROL).exists() and not (logs / "daemon.jsonl").exists()


def old(path: Path, days: float) -> None:
    when = time.time() - days * 86400
    for file in [path, *path.rglob("*")]:
        os.utime(file, (when, when))


def test_prune_lists_first_and_removes_what_it_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs, cache = tmp_path / "logs", tmp_path / "cache"
    for day in range(1, 6):
        run = logs / f"2026010{day}-000000-x"
        run.mkdir(parents=True)
        (run / "run.jsonl").write_text("")
        (run / "config.yaml").write_text(f"data: {{root_dir: /x, cache_dir: {cache}}}\n")
        old(run, 100)
    lock = take_lock(logs / "20260101-000000-x" / "trainer.lock")  # in this process: it does not count as held
    os.close(lock)
    old(logs / "20260101-000000-x", 100)
    stale, used = cache / ("a" * 16), cache / ("b" * 16)
    for store in (stale, used):
        store.mkdir(parents=True)
        (store / "manifest.json").write_text("{}")
        (store / "pack-1.npy").write_bytes(b"x" * 10_000)
        (store / "pack-2.npy").write_bytes(b"x" * 10_000)
        old(store, 100)
    os.utime(used / "pack-2.npy")
    (cache / "mine").mkdir()
    (cache / "mine" / "pack-1.npy").write_bytes(b"not ours")
    old(cache / "mine", 100)
    words = ["prune", "--logs", str(logs), "--keep", "2"]
    assert main(words) == 0
    listed = capsys.readouterr().out
    assert "5 in all" in listed and "--yes removes them" in listed and len(list(logs.iterdir())) == 5
    assert main([*words, "--yes"]) == 0
    assert sorted(p.name[:8] for p in logs.iterdir()) == ["20260104", "20260105"]
    assert not stale.exists() and (cache / "mine" / "pack-1.npy").exists()
    assert [p.name for p in sorted(used.glob("pack-*"))] == ["pack-2.npy"]
    capsys.readouterr()
    assert main([*words, "--older-than", "0"]) == 0 and "removes them" in capsys.readouterr().out
    assert len(list(logs.iterdir())) == 2


def test_a_daemon_of_version_0_1_is_pointed_out(log_writer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    logs = log_writer.folder.parent
    log_writer.run()
    hold = "import sys, pathlib; from eegwatch.run.control import take_lock; take_lock(pathlib.Path(sys.argv[1]))"
    with subprocess.Popen(
        [sys.executable, "-c", f"{hold}; print(1, flush=True); input()", str(logs / "daemon.lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as held:
        assert held.stdout is not None and held.stdout.readline()
        state = {"type": "daemon", "time": time.time(), "state": "training", "pid": held.pid, "alive": 7}
        (logs / "daemon.jsonl").write_text(json.dumps(state | {"run_id": log_writer.folder.name, "step": 5}) + "\n")
        _, out = status(logs, capsys)
        held.communicate(b"\n")
    assert "this daemon is of version 0.1: eegpt-daemon stop" in out


def test_status_says_where_a_run_stands_in_its_series_of_seeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import yaml

    from eegpt_daemon.commands.status import series_position
    from eegwatch.run.log import AppendLog
    from eegwatch.run.records import Run
    from eegwatch.run.summary import summarise

    names = [f"20260101-00000{i}-x-seed{i}" for i in (1, 2)]
    for seed, name in enumerate(names, 1):
        (tmp_path / name).mkdir()
        experiment = {"name": "x", "seed": seed, "seeds": [1, 2, 3, 4], "series": names[0]}
        (tmp_path / name / "config.yaml").write_text(yaml.safe_dump({"experiment": experiment}))
        log = AppendLog(tmp_path / name / "run.jsonl")
        log.append(Run(time=1.0, run_id=name, name="x", total_steps=100))
        for step in range(1, 51):
            log.append(Step(time=float(step), step=step, lr=1e-3, loss=1.0))
        log.close()
    _, out = status(tmp_path, capsys)
    assert f"series   seed 2, 2 of 4 of {names[0]}\n" in out
    assert json.loads(status(tmp_path, capsys, "--json")[1])["series"]["number"] == 2
    running = series_position(tmp_path, summarise(tmp_path / names[1]), running=True)
    assert running is not None and running.left_s == pytest.approx(50 + 2 * 100)  # one step a second
