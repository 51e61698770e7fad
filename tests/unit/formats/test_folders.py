"""What a folder is taken for, and what a log that is not read says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from eegwatch.cli import main
from eegwatch.formats import compile_patterns, find, logs_in
from eegwatch.formats.unread_log import unread
from tests.unit.formats.samples import ROWS, TEXT, read

BY_NAME = {sample.name: sample for sample in [*TEXT, *ROWS]}


def test_runs_three_folders_down_are_found(tmp_path: Path) -> None:
    path = BY_NAME["YOLOv8"].write(tmp_path / "project")
    found = find(tmp_path)
    assert found is not None and found.path == path and found.format == "YOLO results"


def test_all_that_a_folder_holds_is_listed_newest_first(tmp_path: Path) -> None:
    for age, name in enumerate(("YOLOv8", "Lightning", "detectron2", "Swin", "mmengine")):
        path = BY_NAME[name].write(tmp_path / name.replace(" ", "_"))
        os.utime(path, (2e9 - age, 2e9 - age))
    (tmp_path / "config.json").write_text('{"lr": 1}')
    listed = [one.path.name for one in logs_in(tmp_path)]
    assert listed == ["results.csv", "metrics.csv", "metrics.json", "log_rank0.txt", "scalars.json"]


def test_a_table_of_results_does_not_stand_before_a_log(tmp_path: Path) -> None:
    BY_NAME["Swin"].write(tmp_path)
    (tmp_path / "summary_ap50.csv").write_text("model,ap50,loss\nvitb,12.5,\nvitl,13.5,\n")
    os.utime(tmp_path / "summary_ap50.csv", (2e9, 2e9))
    found = find(tmp_path)
    assert found is not None and found.path.name == "log_rank0.txt"


def test_one_bad_file_spoils_nothing(tmp_path: Path) -> None:
    BY_NAME["Swin"].write(tmp_path)
    (tmp_path / "trainer_state.json").write_text('{"log_history": [tor')
    (tmp_path / "metrics.csv").write_bytes(b"step,loss\n\xff\xfe\0\n")
    (tmp_path / "broken.csv.gz").write_bytes(b"\x1f\x8b torn")
    (tmp_path / "dangling.log").symlink_to(tmp_path / "nowhere")
    for name in ("trainer_state.json", "metrics.csv", "broken.csv.gz"):
        os.utime(tmp_path / name, (2e9, 2e9))
    found = find(tmp_path)
    assert found is not None and found.path.name == "log_rank0.txt"


def test_a_folder_is_looked_through_to_a_bounded_depth(tmp_path: Path) -> None:
    deep = tmp_path
    for n in range(9):
        deep = deep / f"d{n}"
    BY_NAME["Swin"].write(deep)
    assert find(tmp_path) is None and find(deep.parent.parent.parent) is not None


@pytest.mark.parametrize(
    ("line", "steps", "losses"),
    [
        ("<<{n};{lr};{loss}>>", [1, 2, 3], [0.5, 0.25, 0.75]),
        ("2024-01-02 10:00:0{n} worker 3 done {n} q={loss} in 5 sec", [1, 2, 3], [0.5, 0.25, 0.75]),
        ("it#{n} L={loss} [rank 0]", [1, 2, 3], [0.5, 0.25, 0.75]),
    ],
)
def test_the_pattern_that_is_proposed_reads_the_log(
    line: str, steps: list[int], losses: list[float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "weird.log"
    values = [(1, 0.5), (2, 0.25), (3, 0.75)]
    path.write_text("".join(line.format(n=n, lr=n / 1024, loss=loss) + "\n" for n, loss in values))
    assert main(["check", str(path)]) == 2
    said = capsys.readouterr().err
    assert "lines look like: " in said and "nothing in it is a step" in said
    pattern = said.rpartition("--pattern '")[2].rpartition("'")[0]
    history = read(path, compile_patterns([pattern]))[2]
    assert history.step.tolist() == steps and history.loss.tolist() == losses


def test_what_is_wrong_with_a_pattern_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("alpha 1 beta 0.5\n" * 5)
    assert "matches none of the first 5 lines" in str(unread(path, compile_patterns([r"gamma (?P<loss>\d+)"])))
    assert "gives neither loss nor lr" in str(unread(path, compile_patterns([r"alpha (?P<step>\d+)"])))
    path.write_text("")
    assert "the file is empty" in str(unread(path))
    path.write_bytes(b"\0\1\2" * 500)
    assert "a binary file" in str(unread(path))
    path.write_text("Once upon a time\nthere was no number\n")
    assert "none repeats with other numbers" in str(unread(path))


def test_a_file_that_is_no_training_log_is_refused(tmp_path: Path) -> None:
    for name, text in (
        ("results.csv", "model,ap50,ap75\nvitb,12.5,3.5\nvitl,13.5,4.5\n"),
        ("config.yaml", "lr: 0.1\nepochs: 20\nloss: ce\n"),
        ("train.txt", "".join(f"images/{n:06d}.jpg\n" for n in range(100))),
        ("args.json", '{"lr": 0.001, "epochs": 20, "batch_size": 8, "seed": 1}\n'),
        ("requirements.txt", "torch==2.1\nnumpy>=1.20\n"),
        ("predictions.csv", "id,label,score\n1,0,0.5\n2,1,0.25\n"),
    ):
        path = tmp_path / name
        path.write_text(text)
        assert main(["check", str(path)]) == 2, name
