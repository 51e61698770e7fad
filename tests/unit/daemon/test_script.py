"""A user's script under the daemon: its command lines, what its terminal holds, its checkpoints, its run log."""

from __future__ import annotations

import io
import os
import random
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from eegpt_daemon.link import Attempt
from eegpt_daemon.script import checkpoints as saved
from eegpt_daemon.script.console import Console
from eegpt_daemon.script.runlog import FILE, PRINTED, RUNLOG, ScriptLog
from eegpt_daemon.script.template import check, filled, resolved
from eegwatch.run.config import Config, ConfigError, Script, parse_text
from eegwatch.run.log import AppendLog, read_all, run_decoder
from eegwatch.run.records import Checkpoint, End, Eval, Run, Step

RESUME = ["python", "t.py", "--resume", "{checkpoint}", "--manual_lr", "{lr}", "--out", "{run}/output"]


def script(**changed: Any) -> Script:
    given: dict[str, Any] = {"command": ["python", "t.py"], "resume": RESUME, "checkpoints": "output/**/*.pt"}
    return Script(**(given | changed))


# ---- command lines ----


def test_a_resume_with_a_rate_fills_every_word_and_one_without_drops_the_pair() -> None:
    run, checkpoint = Path("/logs/r"), Path("/logs/r/output/best.pt")
    assert filled(RESUME, run=run, checkpoint=checkpoint, lr=3e-4) == [
        "python", "t.py", "--resume", "/logs/r/output/best.pt", "--manual_lr", "0.0003", "--out", "/logs/r/output",
    ]  # fmt: skip
    without = filled(RESUME, run=run, checkpoint=checkpoint)
    assert without == ["python", "t.py", "--resume", "/logs/r/output/best.pt", "--out", "/logs/r/output"]
    assert filled(["x", "--lr={lr}", "{lr}", "{checkpoint}"], run=run, checkpoint=checkpoint) == ["x", str(checkpoint)]
    assert filled(["x", "{other}"], run=run) == ["x", "{other}"]


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"command": []}, "script.command: give the command as a list"),
        ({"command": ["python", "{checkpoint}"]}, "{checkpoint} is not known here; there are {run}"),
        ({"resume": ["python", "{rate}", "{checkpoint}"]}, "{rate} is not known here"),
        ({"checkpoints": None}, "script.checkpoints: give a pattern"),
        ({"checkpoints": "../other/*.pt"}, "script.checkpoints: give a pattern below the run folder, {cwd}/…"),
        ({"checkpoints": "{run}/*.pt"}, "script.checkpoints: give a pattern below the run folder, {cwd}/…"),
        ({"log": "{cwd}/../*.log"}, "script.log: give a pattern below the run folder, {cwd}/…"),
        ({"command": ["py\0thon"]}, "NUL"),
    ],
)
def test_a_wrong_template_is_one_line(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says.replace("{", r"\{").replace("}", r"\}")):
        check(script(**wrong), "mine.yaml")


def test_programs_and_folders_are_found_once_in_the_shell_that_starts(tmp_path: Path) -> None:
    found = resolved(script(cwd=str(tmp_path)))
    assert found.cwd == str(tmp_path) and os.path.isabs(found.command[0]) and found.env["PATH"] == os.environ["PATH"]
    with pytest.raises(ConfigError, match=r"script.command: nothing-like-this: no such program in PATH"):
        resolved(script(command=["nothing-like-this"]))
    with pytest.raises(ConfigError, match=r"is not a folder"):
        resolved(script(cwd=str(tmp_path / "gone")))
    local = tmp_path / "launch.sh"
    local.write_text("#!/bin/sh\n")
    with pytest.raises(ConfigError, match="no such program"):
        resolved(script(command=["./launch.sh"], cwd=str(tmp_path)))
    local.chmod(0o755)
    assert resolved(script(command=["./launch.sh"], cwd=str(tmp_path))).command == [str(local)]


# ---- the terminal ----


def everything(data: bytes, cuts: list[int]) -> tuple[list[str], list[str]]:
    """(lines for the file, lines for the reader) of bytes that come in pieces."""
    console = Console()
    lines: list[tuple[str, bool]] = []
    for a, b in zip([0, *cuts], [*cuts, len(data)]):
        lines += console.feed(data[a:b], now=0.0)
    lines += console.end()
    return [text for text, keep in lines if keep], [text for text, _ in lines]


def test_bars_that_are_drawn_over_with_the_cursor_moved_up_are_kept_seldom() -> None:
    console, kept, read = Console(), [], []
    for n in range(1, 400):  # 40 s of two bars of rich, ten frames a second
        back = b"\r\x1b[2K\x1b[1A\x1b[2K" if n > 1 else b""
        frame = b"Epoch 0/9 \xe2\x94\x81\xe2\x95\xba %d/400 loss: 0.5\nBatch \xe2\x94\x81 %d/8\n" % (n, n % 8)
        for line, keep in console.feed(back + frame, now=n / 10):
            read.append(line)
            kept += [line] if keep else []
    assert len(kept) <= 6 and len([line for line in read if "/400" in line]) == 399
    assert "loss: 0.5" in kept[0] and "\x1b" not in "".join(read)


def test_a_bar_is_its_last_state_in_the_file_and_all_its_states_for_the_reader() -> None:
    bar = b"".join(b"\r train: %3d%%|###| %d/9 [00:01<00:02, loss=0.%d]" % (n * 11, n, n) for n in range(1, 10))
    data = b"begin\n" + bar + b"\nepoch 1 done\n"
    kept, all_lines = everything(data, [])
    assert kept == ["begin", " train:  99%|###| 9/9 [00:01<00:02, loss=0.9]", "epoch 1 done"]
    assert sum("train:" in line for line in all_lines) == 9


def test_a_bar_whose_clock_runs_on_alone_is_no_sign_of_work() -> None:
    up = "\x1b[1A\x1b[2K"
    console = Console()
    moved = []
    for second, count in ((1, 5), (2, 6), (3, 6), (4, 6), (5, 7)):
        bar = f"{up}⠋ Epoch 3/40 ━━━━╸  {count}/80 loss=1.3607 0:00:{second:02d} {8.5 - second / 10:.1f} it/s\r\n"
        console.feed(bar.encode(), float(second))
        moved.append(console.moved)
    assert moved == [True, True, False, False, True]
    for text in (b"same line\n", b"same line\n", b"."):
        console.feed(text, 20.0)
        assert console.moved


@pytest.mark.parametrize("seed", range(20))
def test_how_the_bytes_are_cut_changes_nothing(seed: int) -> None:
    data = "αβ\r\nloss: 0.5\r 1/3\r 2/3\r 3/3\n\x1b[32mgreen\x1b[0m\nlast".encode()
    cuts = sorted(random.Random(seed).choices(range(len(data)), k=5))
    assert everything(data, cuts)[0] == everything(data, [])[0]


def test_a_line_without_end_is_cut_and_controls_do_not_reach_the_file() -> None:
    kept, _ = everything(b"x" * 200_000 + b"\n\x1b]0;title\x07plain\x00\x08text\n", [])
    assert sum(map(len, kept[:-1])) == 200_000 and kept[-1] == "plaintext"


# ---- checkpoints ----


def torch_file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"w": torch.zeros(1000)}, path)


def test_the_newest_whole_checkpoint_is_taken_and_a_torn_one_is_said(tmp_path: Path) -> None:
    torch_file(tmp_path / "output/a.pt")
    os.utime(tmp_path / "output/a.pt", (1000, 1000))
    torch_file(tmp_path / "output/deep/b.pt")
    data = (tmp_path / "output/deep/b.pt").read_bytes()
    (tmp_path / "output/deep/b.pt").write_bytes(data[: len(data) // 2])
    (tmp_path / "output/empty.pt").touch()
    (tmp_path / "output/link.pt").symlink_to(tmp_path / "output/a.pt")
    found, problems = saved.newest_whole(tmp_path, Script(checkpoints="output/**/*.pt"))
    assert found is not None and found.path == "output/a.pt" and "sums" in found.how
    assert problems == ["output/deep/b.pt is incomplete"]


def test_a_flipped_bit_is_seen_in_an_archive_and_a_short_safetensors_file_by_its_header(tmp_path: Path) -> None:
    torch_file(tmp_path / "a.pt")
    data = bytearray((tmp_path / "a.pt").read_bytes())
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        where = max(archive.infolist(), key=lambda i: i.file_size).header_offset + 300
    data[where] ^= 1
    (tmp_path / "a.pt").write_bytes(data)
    assert saved.newest_whole(tmp_path, Script(checkpoints="*.pt"))[0] is None
    header = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    whole = struct.pack("<Q", len(header)) + header + bytes(8)
    (tmp_path / "b.safetensors").write_bytes(whole)
    found, _ = saved.newest_whole(tmp_path, Script(checkpoints="*.safetensors"))
    assert found is not None and "header" in found.how
    (tmp_path / "b.safetensors").write_bytes(whole[:-1])
    assert saved.newest_whole(tmp_path, Script(checkpoints="*.safetensors"))[0] is None


def test_any_other_file_is_whole_once_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "m.ckpt").write_bytes(b"weights")
    written = (tmp_path / "m.ckpt").stat().st_mtime
    assert saved.newest_whole(tmp_path, Script(checkpoints="*.ckpt"), now=written + 0.5)[0] is None
    found, _ = saved.newest_whole(tmp_path, Script(checkpoints="*.ckpt"), now=written + 10)
    assert found is not None and found.how == "its size has not changed"


# ---- the run log ----

YAML = """
experiment: {name: mine}
script: {command: [python, t.py], checkpoints: "output/*.pt", resume: [python, t.py, "{checkpoint}", "{lr}"]}
training: {max_epochs: 4, scheduler: {name: CosineAnnealingLR, max_lr: 1.0e-3}}
"""


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.delenv("BGB_DATA_ROOT", raising=False)  # a script needs none of the trainer's data
    return parse_text(YAML, "mine.yaml")


def records(folder: Path) -> list[Any]:
    return read_all(folder / "run.jsonl", run_decoder())


def printed(log: ScriptLog, first: int, last: int) -> None:
    for n in range(first, last + 1):
        epoch, before = divmod(n - 1, 10)
        log.line(f"Epoch {epoch + 1}/4 Batch {before + 1}/10 - Loss: {1 / n:.4f} - LR: 1.00e-03")


def test_what_a_script_prints_becomes_a_run_with_its_declared_schedule(tmp_path: Path, config: Config) -> None:
    log = ScriptLog(tmp_path, Attempt(), config)
    log.line("loading data")
    printed(log, 1, 12)
    log.line("Validation - Loss: 0.5, AUROC: 0.8")
    log.end("completed", None)
    run, *rest = records(tmp_path)
    assert isinstance(run, Run) and (run.total_steps, run.steps_per_epoch, run.step) == (40, 10, 0)
    assert run.schedule is not None and run.schedule["name"] == "cosine" and run.schedule["total_steps"] == 40
    assert run.lr_precision == "printed"
    assert [r.step for r in rest if isinstance(r, Step)] == list(range(1, 13))
    assert [r.auroc for r in rest if isinstance(r, Eval)] == [0.8]
    assert isinstance(rest[-1], End) and log.source == PRINTED


def test_a_manual_rate_begins_where_the_resumed_script_does(tmp_path: Path, config: Config) -> None:
    before = AppendLog(tmp_path / "run.jsonl")
    before.append(Run(attempt=1))
    before.append(Checkpoint(step=23, path="output/e2.pt"))  # seen two seconds after it was written
    before.close()
    change = {"command": "x", "from_step": 23, "lr": 3e-4, "then": "hold"}
    log = ScriptLog(tmp_path, Attempt(attempt=2, checkpoint="output/e2.pt", command="x", overrides=[change]), config)
    printed(log, 21, 24)
    log.end("stopped", None)
    run = [r for r in records(tmp_path) if isinstance(r, Run)][-1]
    assert run.step == 20 and run.schedule is not None
    assert (run.schedule["name"], run.schedule["from_step"], run.schedule["lr"]) == ("manual", 20, 3e-4)
    assert run.overrides[0]["from_step"] == 20


def test_a_resumed_script_that_counts_from_zero_again_goes_on_behind_its_checkpoint(
    tmp_path: Path, config: Config
) -> None:
    before = AppendLog(tmp_path / "run.jsonl")
    before.append(Checkpoint(step=20, path="output/e2.pt"))
    before.close()
    log = ScriptLog(tmp_path, Attempt(attempt=2, checkpoint="output/e2.pt"), config)
    printed(log, 1, 5)
    log.end("completed", None)
    assert [r.step for r in records(tmp_path) if isinstance(r, Step)] == [21, 22, 23, 24, 25]
    assert any("count from 0 again" in note for r in records(tmp_path) if isinstance(r, Run) for note in r.notes)


def test_a_script_that_uses_runlog_is_left_to_it(tmp_path: Path, config: Config) -> None:
    (tmp_path / "r").mkdir()
    log = ScriptLog(tmp_path / "r", Attempt(), config)
    code = (
        "from eegwatch import RunLog\n"
        f"log = RunLog(resume={str(tmp_path / 'r')!r})\n"
        "for _ in range(3): log.step(loss=0.5, lr=1e-3)\n"
        "log.end()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    printed(log, 1, 3)
    log.look()
    log.end("completed", None)
    kinds = [type(r) for r in records(tmp_path / "r")]
    assert kinds == [Run, Step, Step, Step, End] and log.source == RUNLOG and log.step == 3


def test_a_log_of_a_known_kind_below_the_run_is_read_instead_of_what_is_printed(tmp_path: Path, config: Config) -> None:
    log = ScriptLog(tmp_path, Attempt(), config)
    log.line("training, see metrics.csv")
    (tmp_path / "output").mkdir()
    rows = "".join(f"{n},{n * 1e-5},{1 / (n + 1)}\n" for n in range(30))
    (tmp_path / "output/metrics.csv").write_text("step,lr,train_loss\n" + rows)
    log.look()
    log.look()
    log.end("completed", None)
    assert log.source == FILE and len([r for r in records(tmp_path) if isinstance(r, Step)]) >= 29


def test_a_script_that_prints_no_step_has_a_run_and_an_end_all_the_same(tmp_path: Path, config: Config) -> None:
    log = ScriptLog(tmp_path, Attempt(), config)
    log.line("Traceback (most recent call last):")
    log.end("failed", "the script ended with exit code 1")
    run, end = records(tmp_path)
    assert isinstance(run, Run) and isinstance(end, End) and end.error == "the script ended with exit code 1"


def lengths(folder: Path, config: Config, lines: list[str]) -> Run:
    log = ScriptLog(folder, Attempt(), config)
    for line in lines:
        log.line(line)
    log.end("stopped", None)
    return [r for r in records(folder) if isinstance(r, Run)][-1]


def test_output_of_one_line_an_epoch_is_held_against_a_schedule_of_epochs(tmp_path: Path, config: Config) -> None:
    (tmp_path / "a").mkdir()
    lines = [f"Epoch: {n}   Train loss: {1 / (n + 1):.4f}   lr: 1.00e-03" for n in range(3)]
    run = lengths(tmp_path / "a", config, lines)
    assert run.schedule is None and run.steps_per_epoch == 1 and run.total_steps == 4
    assert any("declare `unit: epoch`" in note for note in run.notes)
    (tmp_path / "b").mkdir()
    epochs = parse_text(YAML.replace("max_lr: 1.0e-3", "max_lr: 1.0e-3, unit: epoch"), "mine.yaml")
    run = lengths(tmp_path / "b", epochs, lines)
    assert run.schedule is not None and run.schedule["total_steps"] == 4 and run.steps_per_epoch == 1


def test_an_epoch_is_as_long_as_the_length_of_the_run_and_the_declared_epochs_say(
    tmp_path: Path, config: Config
) -> None:
    run = lengths(tmp_path, config, [f"step {n}/400 loss 0.5 lr 1e-3" for n in (10, 20, 30)])
    assert (run.total_steps, run.steps_per_epoch) == (400, 100)
    assert run.schedule is not None and run.schedule["total_steps"] == 400


def test_a_script_that_numbers_epochs_from_0_goes_on_in_the_right_epoch_after_a_resume(
    tmp_path: Path, config: Config
) -> None:
    log = ScriptLog(tmp_path, Attempt(), config)
    for n in range(20):
        log.line(f"Epoch: [{n // 10}]  [{n % 10}/10]  lr: 0.001000  loss: 0.6{n:03d}")
    log.append(Checkpoint(step=20, path="output/e1.pt"))
    log.end("stopped", None)
    log = ScriptLog(tmp_path, Attempt(attempt=2, checkpoint="output/e1.pt"), config)
    for n in range(20, 30):
        log.line(f"Epoch: [{n // 10}]  [{n % 10}/10]  lr: 0.001000  loss: 0.6{n:03d}")
    log.end("stopped", None)
    assert [r.step for r in records(tmp_path) if isinstance(r, Step)] == list(range(1, 31))
    assert [r.step for r in records(tmp_path) if isinstance(r, Run)][-1] == 20


def test_evaluations_are_kept_of_a_script_that_prints_nothing_else(tmp_path: Path, config: Config) -> None:
    log = ScriptLog(tmp_path, Attempt(), config)
    log.line("  epoch    valid_acc    valid_loss     dur")
    log.line("-------  -----------  ------------  ------")
    for n in range(1, 6):
        log.line(f"      {n}       0.2{n}00        1.{n}000  0.1234")
    log.end("completed", None)
    assert [r.step for r in records(tmp_path) if isinstance(r, Eval)] == [1, 2, 3, 4, 5]
    assert log.read and log.step == 5


def test_a_script_needs_no_data_of_the_trainers(config: Config) -> None:
    assert config.data.root_dir == "" and config.script is not None
