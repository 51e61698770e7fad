"""How a script ended, by its exit code and its last lines; at which step its checkpoints were written; its own log."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from eegpt_daemon.link import Attempt
from eegpt_daemon.script import checkpoints as saved
from eegpt_daemon.script.ending import LastLines, describe_end
from eegpt_daemon.script.runlog import FILE, ScriptLog
from eegpt_daemon.script.saving import CheckpointFiles, StepTimes
from eegpt_daemon.script.template import check
from eegpt_daemon.supervisor.restarts import cause_of
from eegwatch.run.config import Config, ConfigError, Script, parse_text
from eegwatch.run.folder import make_run_folder
from eegwatch.run.log import read_all, run_decoder
from eegwatch.run.records import Checkpoint, Step

TRACEBACK = ["Traceback (most recent call last):", '  File "t.py", line 3, in <module>', "RuntimeError: no more data"]
KILLED = ["LAUNCH.sh: line 6: 12345 Killed                  python train.py"]


def ended(
    lines: list[str], code: int = 0, step: int = 130, total: int | None = 1000, *, stepped: bool = True
) -> object:
    last = LastLines()
    last.add("Epoch 2 step 30 loss 0.5", stepped=stepped)
    for line in lines:
        last.add(line, stepped=False)
    return describe_end(code, last, step, total, 100, read=stepped)


@pytest.mark.parametrize(
    "lines, failed, words",
    [
        (TRACEBACK, True, "exit code 0 at step 130 of 1,000, but its last words are an error: RuntimeError: no more"),
        ([*TRACEBACK, "Training finished at noon"], True, "RuntimeError: no more data"),
        ([f"[rank0]:{line}" for line in TRACEBACK], True, "RuntimeError: no more data"),
        (KILLED, True, "its last words are an error: Killed"),
        (["Early stopping after 3 epochs"], False, "exit code 0 at step 130 of 1,000"),
        ([], True, "in the middle of an epoch"),
        (["Epoch 2 step 30 loss 0.5"], True, "in the middle of an epoch"),
    ],
)
def test_an_end_that_a_shell_hides_is_told_by_the_last_lines(lines: list[str], failed: bool, words: str) -> None:
    told = ended(lines)
    assert told.failed is failed and words in (told.words or "")  # type: ignore[attr-defined]


def test_a_script_that_took_all_its_steps_is_complete_whatever_it_prints_afterwards() -> None:
    assert ended(TRACEBACK, step=1000) == (False, None)
    assert ended([], step=1000) == (False, None)
    assert ended([], step=200) == (
        False,
        "exit code 0 at step 200 of 1,000",
    )  # at the end of an epoch: it may have meant to
    assert ended(["saved"], total=None) == (False, None)


def test_an_error_before_the_last_step_did_not_end_the_training() -> None:
    last = LastLines()
    for line in TRACEBACK:
        last.add(line, stepped=False)
    last.add("Epoch 2 step 30 loss 0.5", stepped=True)
    last.add("done", stepped=False)
    assert describe_end(0, last, 130, None, None, read=True) == (False, None)


def test_a_command_of_which_no_step_was_read_says_so() -> None:
    assert "name that command" in str(
        ended(["Training started in tmux session eegpt"], step=0, total=None, stepped=False)
    )


def test_a_checkpoint_belongs_to_the_step_that_was_seen_when_it_was_written() -> None:
    steps = StepTimes(40)
    for n in range(5):
        steps.add(100.0 + n, 50 + n)
    assert [steps.at(when) for when in (99.0, 100.0, 102.5, 200.0)] == [40, 50, 52, 54]


def test_a_step_in_a_checkpoints_name_that_is_read_a_moment_after_it_was_written_is_its_step() -> None:
    steps = StepTimes(0)
    for n in range(1, 51):
        steps.add(100.0 + n * 0.3, n)
    written = 100.0 + 24.5 * 0.3  # the line of step 25 was printed before it
    names = ("out/step25.pt", "out/step=25-epoch=1.ckpt", "out/epoch1.pt", "run-25/model.pt", "out/step50.pt", "")
    assert [steps.at(written, name) for name in names] == [25, 25, 24, 24, 24, 24]


def archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("data", b"0" * 5000)


def test_checkpoints_in_the_scripts_own_folder_are_the_runs_from_its_beginning_on(tmp_path: Path) -> None:
    (tmp_path / "output/old").mkdir(parents=True)
    archive(tmp_path / "output/old/best_model.pt")
    os.utime(tmp_path / "output/old/best_model.pt", (time.time() - 60, time.time() - 60))
    run = make_run_folder(tmp_path, "mine")
    script = Script(checkpoints="{cwd}/output/**/best_model.pt", cwd=str(tmp_path))
    assert saved.newest_whole(run, script) == (None, [])
    (tmp_path / "output/new").mkdir()
    archive(tmp_path / "output/new/best_model.pt")
    found, _ = saved.newest_whole(run, script)
    assert found is not None and found.path == str(tmp_path / "output/new/best_model.pt")
    everywhere = Script(checkpoints=f"{tmp_path}/output/*/*.pt")
    assert saved.newest_whole(run, everywhere)[0] == found


def test_an_archive_counts_as_soon_as_it_is_whole_and_a_torn_one_is_being_written(tmp_path: Path) -> None:
    saving = CheckpointFiles(tmp_path, Script(checkpoints="*.pt"), resumed=False)
    archive(tmp_path / "a.pt")
    assert [found.path for found in saving.new(ended=False)] == ["a.pt"] and saving.being_written() is None
    data = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(data[: len(data) // 2])
    assert saving.new(ended=False) == [] and saving.being_written() == "a.pt"
    (tmp_path / "a.pt").write_bytes(data)
    assert len(saving.new(ended=False)) == 1 and saving.being_written() is None


def test_a_log_that_the_script_goes_on_writing_is_read_from_where_the_attempt_begins(tmp_path: Path) -> None:
    run = make_run_folder(tmp_path, "mine")
    config: Config = parse_text("script: {command: [python, t.py], log: '{cwd}/logs/*.log'}", "mine.yaml")
    assert config.script is not None
    config.script.cwd = str(tmp_path)
    (tmp_path / "logs").mkdir()
    lines = [f"step {n}/900 loss {1 / n:.4f} lr 1e-3\n" for n in range(1, 201)]
    path = tmp_path / "logs/train.log"
    first = ScriptLog(run, Attempt(), config)
    path.write_text("".join(lines[:150]))
    first.look()
    assert first.source == FILE and first.step == 150 and first.read
    first.append(Checkpoint(time=time.time(), step=100, path="a.pt"))
    first.end("failed", "killed")
    second = ScriptLog(run, Attempt(attempt=2, checkpoint="a.pt"), config)
    second.look()
    assert not second.read
    with path.open("a") as file:
        file.writelines(lines[100:140])
    second.look()
    assert second.read and second.step == 140
    steps = [r.step for r in read_all(run / "run.jsonl", run_decoder()) if isinstance(r, Step)]
    assert steps[150:] == list(range(101, 141))


def test_the_error_of_a_script_that_prints_into_a_file_is_found_there(tmp_path: Path) -> None:
    config = parse_text("script: {command: [bash, t.sh], log: '{cwd}/*.log'}", "mine.yaml")
    assert config.script is not None
    config.script.cwd = str(tmp_path)
    run = make_run_folder(tmp_path, "mine")
    log = ScriptLog(run, Attempt(), config)
    log.line("started pid 4711")
    steps = [f"step {n}/400 loss 0.5 lr 1e-3" for n in range(1, 30)]
    (tmp_path / "train.log").write_text("\n".join([*steps, *TRACEBACK]) + "\n")
    log.look()
    log.drain()
    log.read_last_lines()
    assert log.source == FILE and log.last.error() == "RuntimeError: no more data"


def test_a_checkpoint_may_be_a_folder_that_has_what_the_one_before_it_has(tmp_path: Path) -> None:
    script, later = Script(checkpoints="output/checkpoint-*"), time.time() + 10
    for step in (500, 1000):
        folder = tmp_path / f"output/checkpoint-{step}"
        (folder / "random").mkdir(parents=True)
        archive(folder / "optimizer.pt")
        (folder / f"random/states_{step}.json").write_text("{}")
        for file in folder.rglob("*.*"):
            os.utime(file, (1000.0 + step, 1000.0 + step))
    found, _ = saved.newest_whole(tmp_path, script, now=later)
    assert found is not None and found.path == "output/checkpoint-1000" and "one before" in found.how
    (tmp_path / "output/checkpoint-1000/random/states_1000.json").unlink()
    found, problems = saved.newest_whole(tmp_path, script, now=later)
    assert found is not None and found.path == "output/checkpoint-500"
    assert problems == ["output/checkpoint-1000 is incomplete"]
    data = (tmp_path / "output/checkpoint-500/optimizer.pt").read_bytes()
    (tmp_path / "output/checkpoint-500/optimizer.pt").write_bytes(data[:100])
    os.utime(tmp_path / "output/checkpoint-500/optimizer.pt", (1500.0, 1500.0))
    assert saved.newest_whole(tmp_path, script, now=later)[0] is None


def test_a_checkpoint_before_the_first_step_that_is_read_comes_after_a_run_record(tmp_path: Path) -> None:
    run = make_run_folder(tmp_path, "mine")
    log = ScriptLog(run, Attempt(), parse_text("script: {command: [python, t.py]}", "mine.yaml"))
    for path in ("a.pt", "b.pt"):
        log.announce()
        log.append(Checkpoint(time=time.time(), step=0, path=path))
    log.line("step 1/9 loss 0.5 lr 1e-3")
    log.line("step 2/9 loss 0.4 lr 1e-3")
    log.end("completed", None)
    kinds = [type(r).__name__ for r in read_all(run / "run.jsonl", run_decoder())]
    assert kinds == ["Run", "Checkpoint", "Checkpoint", "Run", "Step", "Step", "End"]


def test_a_checkpoint_that_was_given_up_is_passed_over_unless_it_was_written_again(tmp_path: Path) -> None:
    script = Script(checkpoints="*.pt")
    for number, name in enumerate(("early.pt", "late.pt")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("step", name)
        os.utime(tmp_path / name, (1000.0 + number, 1000.0 + number))
    for time_given_up, newest in ((None, "late.pt"), (1001.5, "early.pt"), (1000.5, "late.pt")):
        without = None if time_given_up is None else {"late.pt": time_given_up}
        found, problems = saved.newest_whole(tmp_path, script, without=without)
        assert found is not None and found.path == newest and not problems


def test_an_exit_code_that_nobody_can_know_is_not_named() -> None:
    assert "an unknown exit code" in cause_of(None, "") and "exit code 1" not in cause_of(None, "")
    assert cause_of(None, "MemoryError").endswith("out of memory")


@pytest.mark.parametrize("mask", ["8", "rwx", "0o0o22", "-1"])
def test_a_umask_that_is_none_is_one_line(mask: str) -> None:
    with pytest.raises(ConfigError, match="script.umask: give it in octal"):
        check(Script(command=["python"], umask=mask))


@pytest.mark.skipif(sys.platform != "linux", reason="descendants are found by prctl")
def test_a_script_that_was_stopped_by_sigstop_hears_the_signal_that_ends_it() -> None:
    code = (
        "import subprocess, signal, time, psutil; from eegpt_daemon.script import processes\n"
        "script = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
        "script.send_signal(signal.SIGSTOP)\n"
        "while psutil.Process(script.pid).status() != 'stopped': time.sleep(0.01)\n"
        "processes.send(script, signal.SIGTERM)\n"
        "print(script.wait())\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "-15\n"


def test_of_a_launcher_that_reports_a_workers_error_the_workers_is_named() -> None:
    launcher = ["Traceback (most recent call last):", '  File "run.py", line 1028, in main',
                "torch.distributed.elastic.multiprocessing.errors.ChildFailedError:"]  # fmt: skip
    second = ["[rank1]: Traceback (most recent call last):", "[rank1]: RuntimeError: Connection closed by peer"]
    assert "RuntimeError: no more data" in str(ended([*TRACEBACK, *second, *launcher], code=1))
    assert "ChildFailedError" in str(ended(launcher, code=1))


def test_a_script_that_leaves_with_a_word_is_quoted() -> None:
    assert "exit code 1: Loss is nan, stopping training" in str(ended(["Loss is nan, stopping training"], code=1))
    assert ended([], code=1) == (True, "the script ended with exit code 1")


@pytest.mark.skipif(sys.platform != "linux", reason="which signals a process ignores is read from /proc")
@pytest.mark.parametrize("line, deaf", [("sleep 60 & wait", True), ("sleep 60", False)])
def test_a_program_that_a_shell_started_in_the_background_is_known_not_to_hear_a_sigint(line: str, deaf: bool) -> None:
    code = (
        "import subprocess, signal, time; from eegpt_daemon.script import processes\n"
        "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"  # whoever runs the tests may ignore it, as a shell's `&` does
        f"shell = subprocess.Popen(['bash', '-c', {line + '; true'!r}], start_new_session=True)\n"
        "while not any('sleep' in p.name() for p in processes.descendants()): time.sleep(0.01)\n"
        "print(processes.deaf(signal.SIGINT), processes.deaf(signal.SIGTERM))\n"
        "processes.send(shell, signal.SIGKILL)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == f"{deaf} False\n"
