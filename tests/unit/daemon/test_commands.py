"""docs/control.md's column *preparing*, and what is refused without any daemon: by the functions that the daemon calls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eegpt_daemon.supervisor.commands import COMMANDS, CommandContext
from eegpt_daemon.supervisor.control import ControlReader
from eegpt_daemon.supervisor.watched_run import WatchedRun
from eegwatch.run.config import Script
from eegwatch.run.control import Command, parse_line, send
from eegwatch.run.records import Checkpoint, End, Eval

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "control.md"
ROWS: dict[str, dict[str, Any]] = {
    "stop": {"command": "stop"},
    "stop and exit": {"command": "stop", "exit": True},
    "checkpoint": {"command": "checkpoint"},
    "resume": {"command": "resume"},
    "resume with an LR": {"command": "resume", "lr": 3e-4, "then": "hold"},
    "resume with an LR above the peak": {"command": "resume", "lr": 1.0},
    "resume from a checkpoint that is not there": {"command": "resume", "checkpoint": "checkpoints/step-00000099.pt"},
    "resume with `then` and no LR": {"command": "resume", "then": "hold"},
    "restart": {"command": "restart"},
    "for another run": {"command": "stop", "run_id": "20200101-000000-other"},
    "for another attempt": {"command": "stop", "attempt": 99},
}


def preparing() -> dict[str, str]:
    """command -> answer, from the document."""
    table = DOCUMENT.read_text().partition("| command | preparing |")[2].partition("## The answers")[0]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|") and "---" not in line]
    return {row[0].strip(): row[1].strip() for row in rows}


def watched(log_writer: Any) -> WatchedRun:
    (log_writer.folder / "config.yaml").write_text("data: {root_dir: /x}\n")
    run = WatchedRun(log_writer.folder, say=print)
    run.catch_up()
    return run


def command(fields: dict[str, Any]) -> Command:
    parsed = parse_line(json.dumps(fields).encode(), 0)
    assert isinstance(parsed, Command)
    return parsed


def test_while_preparing_each_command_is_answered_as_the_document_says(log_writer: Any) -> None:
    log_writer.run()
    run = watched(log_writer)
    assert set(preparing()) == set(ROWS)
    for name, answer in preparing().items():
        asked = command(ROWS[name])
        reason = COMMANDS[asked.command].refuse(asked, CommandContext(run, "preparing"))
        assert (reason is None) == (answer == "accepted"), (name, reason)


def test_a_run_cut_off_in_its_final_evaluation_is_not_complete(log_writer: Any) -> None:
    log_writer.run()
    log_writer.healthy(1, 2000)
    run = watched(log_writer)
    assert not run.complete and run.interrupted(None)
    log_writer.add(End(step=2000, reason="stopped"))
    run.catch_up()
    assert COMMANDS["resume"].refuse(command({"command": "resume"}), CommandContext(run)) is None
    log_writer.run(step=2000, attempt=2)
    log_writer.add(Eval(step=2000, split="eval", auroc=0.8), End(step=2000, reason="completed"))
    run.catch_up()
    assert run.complete and not run.interrupted(None)


def test_a_checkpoint_written_before_and_after_its_evaluation_is_good_in_both_forms(log_writer: Any) -> None:
    import hashlib

    log_writer.run()
    name = "checkpoints/step-00000010.pt"
    forms = [b"before the evaluation", b"after it"]
    for form in forms:
        log_writer.add(Checkpoint(step=10, path=name, sha256=hashlib.sha256(form).hexdigest()))
    run = watched(log_writer)
    for form in forms:
        (log_writer.folder / name).write_bytes(form)
        assert run.verify(name) == 10


def lines(reader: ControlReader) -> list[tuple[str, str | None]]:
    return [(str(line.id), line.command) for line in reader.read()]


def test_a_second_line_with_an_id_is_nothing_a_stop_too(tmp_path: Path) -> None:
    path = tmp_path / "control.jsonl"
    path.write_text('{"id":"q","command":"checkpoint"}\n{"id":"q","command":"stop"}\n{"id":"r","command":"stop"}\n')
    path.chmod(0o600)
    assert lines(ControlReader(path)) == [("r", "stop"), ("q", "checkpoint")]


def test_a_file_that_is_written_anew_in_place_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "control.jsonl"
    path.touch(mode=0o600)
    reader = ControlReader(path)
    path.write_text('{"command": "stop"}\n')
    assert lines(reader) == [("line-0", "stop")] and lines(reader) == []
    path.write_text('{"command": "stop"}\n')  # the same line with `>` once more
    assert lines(reader) == [("line-0.2", "stop")] and lines(reader) == []
    path.write_text('{"command": "checkpoint"}\n')  # a longer one
    assert lines(reader) == [("line-0.3", "checkpoint")]
    with path.open("a") as file:
        file.write('{"command": "stop"}\n')
    assert [name for _, name in lines(reader)] == ["stop"]
    path.touch()  # several lines whose time alone changed are no news
    assert lines(reader) == []


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), float("-inf")])
def test_a_rate_that_is_no_number_is_never_sent_as_a_rejoin(tmp_path: Path, rate: float) -> None:
    send(tmp_path, "resume", "r", lr=rate)
    line = (tmp_path / "control.jsonl").read_bytes()
    assert b"null" not in line and not isinstance(parse_line(line.strip(), 0), Command)


def test_a_script_s_checkpoint_that_its_runner_did_not_see_is_at_the_newest_step(log_writer: Any) -> None:
    run = watched(log_writer)
    assert run.checkpoint_step("output/unseen.pt") is None
    run.script, run.step = Script(command=["python"], checkpoints="output/*.pt"), 70
    assert run.checkpoint_step("output/unseen.pt") == 70 and run.checkpoint_step(None) is None
