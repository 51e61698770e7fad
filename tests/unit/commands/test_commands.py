"""The command line of `eegwatch`: how a subcommand is chosen, what a wrong word is answered, completion and manual."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eegwatch.cli import main
from eegwatch.commands import COMMANDS, choose_subcommand, whole_parser
from eegwatch.commands.man import page
from eegwatch.run.records import End
from tests.conftest import LogWriter, free_port, unwrapped

ROOT = Path(__file__).parents[3]


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line with which a command line is refused."""
    assert main(list(words)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("eegwatch"), err
    return err


def test_the_help_lists_every_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    text = unwrapped(capsys.readouterr().out)
    for name, help in COMMANDS.items():
        assert f" {name} {help}" in text
    assert main(["help"]) == 0 and unwrapped(capsys.readouterr().out) == text
    assert main(["help", "check"]) == 0 and "--follow" in capsys.readouterr().out


def test_a_subcommand_is_a_module_and_a_row_of_the_table() -> None:
    folder = Path(main.__code__.co_filename).parent / "commands"
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "options"}
    assert modules == set(COMMANDS)


def test_a_path_is_watched_and_one_named_like_a_subcommand_is_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "check").mkdir()
    (tmp_path / "chek").mkdir()
    assert choose_subcommand([]) == ("watch", [])
    assert choose_subcommand(["logs", "--once"]) == ("watch", ["logs", "--once"])
    assert choose_subcommand(["--once", "logs"]) == ("watch", ["--once", "logs"])
    assert choose_subcommand(["check", "logs"]) == ("check", ["logs"])
    assert choose_subcommand(["./check"]) == ("watch", ["./check"])
    assert choose_subcommand(["chek"]) == ("watch", ["chek"])  # it is there
    assert choose_subcommand(["watch", "check"]) == ("watch", ["check"])


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["chek", "logs"], "did you mean `eegwatch check`?"),
        (["exprot"], "did you mean `eegwatch export`?"),
        (["check", "x", "--jsn"], "did you mean --json?"),
        (["check"], "the following arguments are required: path"),
        (["nowhere"], "no such file or folder"),
        ([".", "--size", "5x5"], "5x5: from 20x6 to 1000x1000"),
        ([".", "--size", "0x0"], "from 20x6"),
        ([".", "--size", "big"], "write it as WxH, for example 100x30"),
        ([".", "--size", "9" * 50 + "x9"], "from 20x6"),
        ([".", "--wait-steps", "-1"], "not a whole number of at least 0"),
        ([".", "--steps-per-epoch", "0"], "not a whole number of at least 1"),
        (["check", ".", "--steps-per-epoch", "1e3"], "not a whole number"),
        (["export", ".", "-o", "x.svg", "--steps", "500:100"], "the first step must lie below the last"),
        (["export", ".", "-o", "x.svg", "--steps", "5"], "write it as A:B"),
        (["export", ".", "-o", "x.xlsx"], "write it as .csv, .svg or .png"),
        (["export", ".", "-o", "x"], "write it as .csv, .svg or .png"),
        (["serve", ".", "--port", "99999"], "not a whole number from 0 to 65535"),
        (["serve", "nowhere"], "no such file or folder"),
        (["tmux", "nowhere", "--detach"], "no such file or folder"),
        (["runs", "nowhere"], "no such folder"),
        (["completion", "powershell"], "invalid choice"),
        (["check", ".", "--pattern", "("], "--pattern"),
    ],
)
def test_a_wrong_word_is_one_line(
    words: list[str], answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert answer in refused(capsys, *words)
    assert list(tmp_path.iterdir()) == []


def test_check_goes_on_past_a_log_that_cannot_be_read(
    log_writer: LogWriter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log_writer.run()
    log_writer.steps(np.full(50, 1.2e-4), positions=np.zeros(50))
    (tmp_path / "junk.txt").write_text("nothing to see\n" * 20)
    words = [str(tmp_path / "nowhere"), str(tmp_path / "junk.txt"), str(log_writer.folder)]
    assert main(["check", *words]) == 2
    out, err = capsys.readouterr()
    assert "lr_stuck" in out and "nowhere: no such file" in err and "junk.txt: not a run log" in err
    assert main(["check", *words, "--json"]) == 2
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert ["error" in line for line in lines] == [True, True, False] and lines[2]["findings"]


def test_a_fifo_in_the_place_of_a_log_is_refused_and_does_not_block(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run" / "run.jsonl")
    assert "not a regular file" in refused(capsys, "check", str(tmp_path / "run"))
    assert main(["runs", str(tmp_path)]) == 0 and "unreadable" in capsys.readouterr().out
    for name in ("train.log", "metrics.csv", "trainer_state.json"):
        os.mkfifo(tmp_path / name)
        for words in (["check"], ["watch", "--once"], ["report", "-o", str(tmp_path / "report.md")]):
            assert "not a regular file" in refused(capsys, *words, str(tmp_path / name))


def test_runs_lists_every_run_with_its_figures(log_writer: LogWriter, capsys: pytest.CaptureFixture[str]) -> None:
    log_writer.run()
    log_writer.healthy(1, 300)
    log_writer.eval(300, 0.8125)
    log_writer.add(End(time=log_writer.time, step=300, reason="stopped"))
    second = LogWriter(log_writer.folder.parent / "20261125-120000-nan")
    second.run(total_steps=500)
    second.steps([float("nan")] * 3, losses=[float("inf")] * 3)
    empty = log_writer.folder.parent / "20261126-120000-empty"
    empty.mkdir()
    (empty / "run.jsonl").touch()
    logs = str(log_writer.folder.parent)
    assert main(["runs", logs]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.split(r"  +", lines[0]) == ["run", "state", "step", "LR", "AUROC", "verdict"]
    assert re.split(r"  +", lines[3])[:5] == [log_writer.folder.name, "stopped", "300 / 2,000", "2.98e-3", "0.812"]
    assert "no data" in lines[1] and "unfinished" in lines[2]
    assert main(["runs", logs, "--json", "-n", "2"]) == 0
    rows = [
        json.loads(line, parse_constant=lambda word: pytest.fail(word)) for line in capsys.readouterr().out.splitlines()
    ]
    assert [row["state"] for row in rows] == ["no data", "unfinished"]
    assert (rows[1]["lr"], rows[1]["loss"], rows[0]["lr"]) == ("nan", "inf", None)


def test_a_pipe_that_nobody_reads_is_no_traceback(log_writer: LogWriter) -> None:
    log_writer.run()
    log_writer.healthy(1, 20)
    for words in (["check"], ["runs"], ["completion", "bash"], ["man"]):
        path = [str(log_writer.folder.parent)] if words[0] in ("check", "runs") else []
        command = [sys.executable, "-m", "eegwatch.cli", *words, *path]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        process.stderr.close()
        process.wait()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_names_every_subcommand_and_its_options(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in (*COMMANDS, "steps-per-epoch", "read-only", "follow"):
        assert word in script
    if shutil.which(shell):
        check = [shell, "--no-execute"] if shell == "fish" else [shell, "-n"]
        assert subprocess.run(check, input=script, text=True, capture_output=True, check=True).stderr == ""


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_subcommands_options_and_paths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    (tmp_path / "complete").write_text(capsys.readouterr().out)
    (tmp_path / "logs").mkdir()

    def completed(*words: str) -> list[str]:
        listed = " ".join(f"'{word}'" for word in words)
        script = (
            f". ./complete\nCOMP_WORDS=({listed}); COMP_CWORD={len(words) - 1}\n"
            "$(complete -p eegwatch | sed 's/.*-F \\([^ ]*\\).*/\\1/') eegwatch\nprintf '%s\\n' \"${COMPREPLY[@]}\"\n"
        )
        done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert completed("eegwatch", "ch") == ["check"]
    assert completed("eegwatch", "check", "--js") == ["--json"]
    assert completed("eegwatch", "check", "lo") == ["logs"]
    assert completed("eegwatch", "completion", "z") == ["zsh"]


def test_the_manual_page_holds_the_text_of_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["man"]) == 0
    printed = capsys.readouterr().out
    text = " ".join(printed.replace("\\-", "-").replace("\\e", "\\").split())
    for name, help in COMMANDS.items():
        assert f".SS {name} " in text and help[1:] in text
    assert "--steps-per-epoch N" in text and "Exit codes" in text
    if shutil.which("man"):
        done = subprocess.run(["man", "--warnings", "-l", "-"], input=printed, text=True, capture_output=True)
        assert done.stderr == "" and "SUBCOMMANDS" in done.stdout


def test_the_manual_page_that_a_wheel_installs_is_the_one_that_the_program_prints() -> None:
    """After a change of an option: `eegwatch man > docs/man/eegwatch.1`."""
    assert (ROOT / "docs" / "man" / "eegwatch.1").read_text() == page() + "\n"


def test_the_whole_parser_can_be_built_without_a_conflict() -> None:
    assert set(whole_parser()._subparsers._group_actions[0].choices) == set(COMMANDS)  # type: ignore[union-attr,arg-type]


def test_a_port_that_is_free_is_accepted() -> None:
    from eegwatch.commands import parser_of

    assert parser_of("serve").parse_args([".", "--port", str(free_port())]).path == "."
