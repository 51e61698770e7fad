"""`eegwatch` from a shell: frames without a terminal, `check` with its exit codes, and errors in one line."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eegwatch.cli import main
from eegwatch.run.log import AppendLog
from eegwatch.run.records import DaemonState, End
from eegwatch.schedule import parse
from tests.conftest import ONE_CYCLE, LogWriter
from tests.patience import PATIENCE_S


def eegwatch(*words: str) -> subprocess.CompletedProcess[str]:
    """The command line, run in this process: what it prints and its exit code."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(words))
    return subprocess.CompletedProcess(list(words), code, out.getvalue(), err.getvalue())


def test_the_module_and_the_program_are_the_same_command_line(frozen: Path) -> None:
    command = [sys.executable, "-m", "eegwatch.cli", "check", str(frozen), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    inside = eegwatch("check", str(frozen), "--json")
    assert (done.returncode, done.stdout, done.stderr) == (inside.returncode, inside.stdout, inside.stderr)


@pytest.fixture
def frozen(log_writer: LogWriter) -> Path:
    log_writer.run()
    log_writer.steps(np.full(50, 1.2e-4), positions=np.zeros(50))
    return log_writer.folder


def test_without_a_terminal_a_frame_is_printed_and_the_exit_code_is_0(frozen: Path) -> None:
    for path in (frozen.parent, frozen, frozen / "run.jsonl"):
        done = eegwatch(str(path), "--size", "90x26")
        assert done.returncode == 0
        lines = done.stdout.splitlines()
        assert len(lines) == 26 and max(map(len, lines)) <= 90
        assert "LR STUCK at 1.20e-4 since step 1" in done.stdout


def test_check_prints_the_findings_as_json(frozen: Path) -> None:
    done = eegwatch("check", str(frozen), "--json")
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert answer["run"] == frozen.name
    (finding,) = answer["findings"]
    assert {"rule", "severity", "step", "since_step", "message", "cause"} <= set(finding)
    assert (finding["rule"], finding["since_step"]) == ("lr_stuck", 1)
    assert finding["cause"]["name"] == "scheduler_stepped_per_epoch"
    # within the first epoch nothing can tell it from a scheduler that is never stepped: that is said, not guessed
    assert finding["cause"]["alternatives"] == ["scheduler_never_stepped"]
    assert finding["cause"]["position"] == 0.0 and finding["cause"]["separates_at"] == 201


def test_check_of_a_healthy_run_is_silent_success(log_writer: LogWriter) -> None:
    log_writer.run()
    log_writer.healthy(1, 2000)
    log_writer.add(End(step=2000, reason="completed"))
    done = eegwatch("check", str(log_writer.folder.parent))
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing wrong" in done.stdout
    assert json.loads(eegwatch("check", str(log_writer.folder), "--json").stdout)["findings"] == []


@pytest.mark.parametrize("kind", ["missing", "empty", "binary", "no run", "text"])
def test_input_that_cannot_be_read_is_exit_code_2_and_one_line(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "run"
    path = folder / "run.jsonl"
    if kind != "missing":
        folder.mkdir()
    if kind == "empty":
        path.touch()
    elif kind == "binary":
        path.write_bytes(bytes(range(256)) * 100)
    elif kind == "text":
        path.write_text("Epoch 1: loss 0.3\n" * 20)
    done = eegwatch("check", str(folder))
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("eegwatch: ") and done.stderr.count("\n") == 1 and str(folder) in done.stderr


def test_a_few_bad_lines_are_counted_not_fatal(frozen: Path) -> None:
    with (frozen / "run.jsonl").open("ab") as file:
        file.write(b"garbage\n\xff\n")
    done = eegwatch("check", str(frozen))
    assert done.returncode == 1 and "2 lines could not be read" in done.stderr


def test_a_path_that_is_not_there_is_said(tmp_path: Path) -> None:
    done = eegwatch(str(tmp_path / "nowhere"))
    assert done.returncode == 2 and "no such file or folder" in done.stderr
    assert eegwatch(str(tmp_path), "--size", "big").returncode == 2


def test_only_the_monitor_installed_says_what_to_install(tmp_path: Path) -> None:
    """Without the extra, `eegpt-daemon start` is one line. torch is hidden from the import system of a real process."""
    blocker = tmp_path / "sitecustomize.py"
    blocker.write_text(
        "import sys, importlib.abc\n"
        "class Gone(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch': raise ModuleNotFoundError(name)\n"
        "import importlib.util as u\n"
        "real = u.find_spec\n"
        "u.find_spec = lambda name, package=None: None if name == 'torch' else real(name, package)\n"
    )
    command = [sys.executable, "-m", "eegpt_daemon.cli", "start", "--logs", str(tmp_path / "logs")]
    import os

    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1
    assert done.stderr == "eegpt-daemon: training needs torch: pip install 'eegwatch[daemon]'\n"
    assert not (tmp_path / "logs").exists()


CONFIG = """
data: {root_dir: /nowhere, batch_size: 32}
training:
  max_epochs: 50
  scheduler: {name: OneCycleLR, max_lr: 0.003, pct_start: 0.2, div_factor: 25, final_div_factor: 1000}
"""


def bare_log(folder: Path, steps: Iterable[int], rates: Iterable[float], per_epoch: int | None) -> Path:
    """A log without a `run` record: somebody else's, with rates as they printed them."""
    folder.mkdir(parents=True)
    with (folder / "run.jsonl").open("w") as file:
        for step, rate in zip(steps, rates):
            line: dict[str, float | str] = {"type": "step", "step": step, "lr": rate, "loss": 0.5}
            if per_epoch:
                line |= {"epoch": (step - 1) // per_epoch, "batch": (step - 1) % per_epoch + 1}
            file.write(json.dumps(line) + "\n")
    return folder


def of_rates(output: str) -> list[dict[str, Any]]:
    """The findings about rates: the loss of these logs stands too, which is said as information."""
    return [finding for finding in json.loads(output)["findings"] if finding["rule"].startswith("lr_")]


def test_the_incident_from_three_digits_and_the_configuration_alone(tmp_path: Path) -> None:
    """The mission's own figures: 2.84e-03 from step 932,561 on, 58,285 steps an epoch, 50 epochs."""
    config = tmp_path / "users.yaml"
    config.write_text(CONFIG)
    r = 16 * 58_285
    steps = range(r + 50, r + 49_477, 50)
    log = bare_log(tmp_path / "logs" / "incident", steps, [2.84e-3] * len(steps), 58_285)
    done = eegwatch("check", str(log), "--config", str(config), "--json")
    assert done.returncode == 1
    (finding,) = of_rates(done.stdout)
    assert (finding["rule"], finding["severity"], finding["since_step"]) == ("lr_stuck", "error", r + 50)
    cause = finding["cause"]
    assert cause["name"] == "scheduler_stepped_per_epoch"
    assert "schedule_frozen_on_resume" in cause["alternatives"]
    assert (
        "stuck at 2.84e-3" in finding["message"]
        and "2.4 times too high on average if nothing is done" in finding["message"]
    )
    shorter = bare_log(tmp_path / "logs" / "before", range(r + 50, r + 1650, 50), [2.84e-3] * 32, 58_285)
    assert eegwatch("check", str(shorter), "--config", str(config)).returncode == 0  # it cannot be told yet


def test_a_configuration_without_an_epochs_length_asks_for_it(tmp_path: Path) -> None:
    config = tmp_path / "users.yaml"
    config.write_text(CONFIG)
    log = bare_log(tmp_path / "logs" / "x", range(1, 200), [1.2e-4] * 199, None)
    done = eegwatch("check", str(log), "--config", str(config))
    assert done.returncode == 2 and "--steps-per-epoch N" in done.stderr
    done = eegwatch("check", str(log), "--config", str(config), "--steps-per-epoch", "100", "--json")
    (finding,) = json.loads(done.stdout)["findings"]
    assert finding["rule"] == "lr_stuck" and finding["severity"] == "error"


def test_without_a_declared_schedule_nothing_is_claimed_as_proof(tmp_path: Path) -> None:
    rise = [1e-4 + i * 1e-6 for i in range(400)]
    log = bare_log(tmp_path / "logs" / "x", range(1, 2001), rise + [rise[-1]] * 1600, None)
    done = eegwatch("check", str(log), "--json")
    (finding,) = of_rates(done.stdout)
    assert finding["severity"] == "info" and finding["cause"] is None
    assert "no schedule is declared" in finding["message"]


def test_several_runs_are_checked_in_one_go(tmp_path: Path, log_writer: LogWriter) -> None:
    log_writer.run()
    log_writer.healthy(1, 300)
    bad = LogWriter(tmp_path / "logs" / "20261124-130000-bad")
    bad.run()
    bad.steps(np.full(50, 1.2e-4))
    done = eegwatch("check", str(log_writer.folder), str(bad.folder), "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [bool(line["findings"]) for line in lines] == [False, True] and done.returncode == 1


def test_follow_prints_findings_as_they_come_and_ends_with_the_run(log_writer: LogWriter) -> None:
    log_writer.run()
    log_writer.healthy(1, 50)
    command = [sys.executable, "-m", "eegwatch.cli", "check", str(log_writer.folder), "--follow", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        log_writer.steps(np.full(30, 2.5e-3), 51)
        first = json.loads(process.stdout.readline())
        assert first["finding"]["rule"] in ("lr_jump", "lr_stuck", "lr_off_schedule")
        log_writer.add(End(step=80, reason="stopped"))
        assert process.wait(timeout=PATIENCE_S) == 1


@pytest.mark.parametrize("ending", ["html", "md"])
def test_a_report_is_one_self_contained_page_with_the_verdict_first(frozen: Path, tmp_path: Path, ending: str) -> None:
    (frozen / "config.yaml").write_text("experiment: {name: '<script>alert(1)</script>'}\n")
    with (frozen / "run.jsonl").open("a") as file:
        file.write(
            '{"type":"end","time":1.0,"step":50,"reason":"failed","error":"<img src=x onerror=alert(2)> \\u001b[2J"}\n'
        )
    target = tmp_path / f"report.{ending}"
    done = eegwatch("report", str(frozen), "-o", str(target))
    assert done.returncode == 1 and "LR stuck at 1.20e-4" in done.stdout
    page = target.read_text()
    assert page.index("LR stuck at 1.20e-4 since step 1") < page.index("expected and observed")
    for words in ("scheduler_stepped_per_epoch", "scheduler_never_stepped", "initial LR", "configuration"):
        assert words in page
    assert "<img src=x" not in page and "\x1b" not in page
    if ending == "md":  # sites that show Markdown show no pictures within it: they are files beside it
        assert "](report-learning-rate.svg)" in page and "<svg" in (tmp_path / "report-learning-rate.svg").read_text()
    if ending == "html":
        assert "<svg" in page
        assert "<script>" not in page and "http://" not in page.replace("http://www.w3.org", "").replace(
            "http://purl.org", ""
        ).replace("http://creativecommons.org", "")


def test_a_report_of_another_kind_is_refused(frozen: Path, tmp_path: Path) -> None:
    done = eegwatch("report", str(frozen), "-o", str(tmp_path / "report.pdf"))
    assert done.returncode == 2 and "write it as .html or .md" in done.stderr


def test_a_counter_that_goes_back_is_said_and_is_exit_code_1(log_writer: LogWriter) -> None:
    log_writer.run()
    log_writer.healthy(1, 100)
    log_writer.healthy(50, 120)
    done = eegwatch("check", str(log_writer.folder))
    assert done.returncode == 1
    assert (
        "51 steps out of order were left out; the first: step 50 follows step 100 without a new attempt" in done.stderr
    )


@pytest.mark.parametrize("digits", [3, 5])
def test_the_digits_of_somebody_elses_log_are_found_from_its_values(tmp_path: Path, digits: int) -> None:
    """A declared schedule, rates rounded by a careless writer, no positions: healthy is healthy, frozen is found."""
    n = np.arange(1, 2001)
    for name, position in (("healthy", n - 1), ("frozen", np.minimum(n - 1, 600))):
        folder = tmp_path / name / "run"
        folder.mkdir(parents=True)
        rates = parse(ONE_CYCLE).rate(position)
        run = {"type": "run", "total_steps": 2000, "steps_per_epoch": 200, "epochs": 10, "schedule": ONE_CYCLE}
        lines = [run] + [
            {"type": "step", "step": int(s), "lr": float(f"{lr:.{digits - 1}e}"), "loss": 0.4}
            for s, lr in zip(n, rates)
        ]
        (folder / "run.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert eegwatch("check", str(tmp_path / "healthy" / "run")).returncode == 0
    (finding,) = of_rates(eegwatch("check", str(tmp_path / "frozen" / "run"), "--json").stdout)
    assert finding["rule"] == "lr_stuck" and finding["since_step"] <= 601


def test_a_clock_that_goes_back_is_remarked_and_changes_nothing(log_writer: LogWriter) -> None:
    log_writer.run()
    log_writer.healthy(1, 50)
    log_writer.time -= 3600
    log_writer.healthy(51, 100)
    done = eegwatch("check", str(log_writer.folder))
    assert done.returncode == 0 and "the clock goes back by 3,600 s at step 51" in done.stderr


def test_no_escape_sequence_reaches_the_terminal_by_any_command(log_writer: LogWriter, tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J"
    logs = log_writer.folder.parent
    log_writer.run(name=evil, notes=[evil], inject=evil)
    log_writer.steps(np.full(50, 1.2e-4), positions=np.zeros(50))
    log_writer.add(End(time=log_writer.time, step=50, reason="failed", error=evil))
    (log_writer.folder / "trainer.log").write_text(evil + "\n")
    (log_writer.folder / "config.yaml").write_text(json.dumps({evil: 1}))
    daemon_log = AppendLog(logs / "daemon.jsonl")
    daemon_log.append(DaemonState(time=1.0, state="training", run_id=evil, reason=evil))
    (tmp_path / "evil.yaml").write_text(json.dumps({evil: 1}))
    (tmp_path / "train.log").write_text(f"{evil} step 1 loss: 0.5 lr: 1e-3 {evil}\n" * 50)
    commands = [
        ("eegwatch.cli", "check", str(logs)),
        ("eegwatch.cli", "check", str(tmp_path / "train.log"), "--config", str(tmp_path / "evil.yaml")),
        ("eegwatch.cli", str(logs), "--once"),
        ("eegwatch.cli", str(tmp_path / "train.log"), "--once"),
        ("eegwatch.cli", str(tmp_path / evil), "--once"),
        ("eegwatch.cli", "check", str(logs), "--pattern", evil + "("),
        ("eegpt_daemon.cli", "status", "--logs", str(logs)),
        ("eegpt_daemon.cli", "logs", "--logs", str(logs)),
        ("eegpt_daemon.cli", "stop", "--logs", str(logs)),
        ("eegpt_daemon.cli", "check", "--config", str(tmp_path / "evil.yaml")),
        ("eegpt_daemon.cli", "start", "--config", str(tmp_path / "evil.yaml"), "--logs", str(tmp_path / "new")),
    ]
    for command in commands:
        done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, timeout=PATIENCE_S)
        assert done.stdout + done.stderr, command
        assert "\x1b" not in done.stdout + done.stderr and "\x07" not in done.stdout + done.stderr, (command, done)
        assert "Traceback" not in done.stderr
