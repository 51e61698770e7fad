"""Metrics for other programs: read back by the programs themselves."""

from __future__ import annotations

import csv
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from eegwatch.cli import main
from eegwatch.schedule import parse
from tests.conftest import ONE_CYCLE, LogWriter


@pytest.fixture
def run(log_writer: LogWriter) -> Path:
    log_writer.run()
    log_writer.healthy(1, 400)
    log_writer.eval(200, 0.71)
    log_writer.eval(400, 0.79)
    log_writer.run(attempt=2, step=300, config={"data": {"batch_size": 16}})
    log_writer.healthy(301, 350)
    return log_writer.folder


def test_csv_holds_the_live_line_at_full_precision(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "metrics.csv"
    assert main(["export", str(run), "-o", str(target)]) == 0
    rows = list(csv.DictReader(target.open()))
    assert [int(r["step"]) for r in rows] == list(range(1, 351))
    assert [float(r["lr"]) for r in rows] == parse(ONE_CYCLE).rate(range(350)).tolist()
    assert all(r["expected_lr"] == r["lr"] for r in rows)
    assert [(r["step"], r["val/auroc"]) for r in rows if r["val/auroc"]] == [("200", "0.71")]
    assert rows[199]["epoch"] == "0" and rows[200]["epoch"] == "1"
    assert "350 rows" in capsys.readouterr().out


def test_nothing_is_overwritten(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "metrics.csv"
    target.write_text("mine")
    assert main(["export", str(run), "-o", str(target)]) == 2
    assert target.read_text() == "mine" and "is there already" in capsys.readouterr().err
    assert main(["export", str(run), "-o", str(tmp_path), "--format", "tensorboard"]) == 2
    picture = tmp_path / "charts.svg"
    picture.write_text("mine")
    assert main(["export", str(run), "-o", str(picture)]) == 2
    assert picture.read_text() == "mine" and "is there already" in capsys.readouterr().err


def test_charts_are_drawn_with_every_point_of_their_window(run: Path, tmp_path: Path) -> None:
    import xml.etree.ElementTree as ElementTree

    target = tmp_path / "charts.svg"
    assert main(["export", str(run), "-o", str(target), "--steps", "100:300", "--size", "640x480"]) == 0
    svg = ElementTree.parse(target).getroot()
    assert svg.tag.endswith("svg") and float(svg.attrib["width"].removesuffix("pt")) == 460.8  # 640 pixels
    text = target.read_text()
    assert "learning rate" in text and "loss" in text and run.name in text and "expected" in text
    again = tmp_path / "again.svg"
    assert main(["export", str(run), "-o", str(again), "--steps", "100:300", "--size", "640x480"]) == 0
    assert again.read_text() == text  # the same run gives the same file


@pytest.mark.parametrize("axis", ["step", "epoch", "time"])
def test_a_png_of_chosen_charts(run: Path, tmp_path: Path, axis: str, capsys: pytest.CaptureFixture[str]) -> None:
    from matplotlib.image import imread

    target = tmp_path / "charts.png"
    words = ["export", str(run), "-o", str(target), "--chart", "auroc|resid", "--x", axis, "--size", "800x600"]
    assert main(words) == 0
    assert imread(target).shape[:2] == (600, 800)
    assert "LR against expected, %, validation AUROC" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--chart", "gpu_memory"], "no such chart in this run; there are lr, loss"),
        (["--steps", "300:100"], "the first step must lie below the last"),
        (["--size", "5x5"], "from 20x20 to 20000x20000"),
    ],
)
def test_a_chart_that_cannot_be_drawn_is_one_line(
    run: Path, tmp_path: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "charts.svg"
    assert main(["export", str(run), "-o", str(target), *words]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1 and not target.exists()


def test_tensorboard_reads_back_what_was_exported(run: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    target = tmp_path / "events"
    assert main(["export", str(run), "-o", str(target), "--format", "tensorboard"]) == 0
    events = EventAccumulator(str(target), size_guidance={"tensors": 0, "scalars": 0}).Reload()
    from tensorboard.util import tensor_util

    lr = [(e.step, float(tensor_util.make_ndarray(e.tensor_proto))) for e in events.Tensors("lr")]
    assert [step for step, _ in lr] == list(range(1, 351))
    assert math.isclose(lr[99][1], float(parse(ONE_CYCLE).rate(99)), rel_tol=1e-6)  # TensorBoard keeps float32
    assert [e.step for e in events.Tensors("val/auroc")] == [200]


def test_wandb_reads_back_what_was_exported(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    target = tmp_path / "wandb"
    assert main(["export", str(run), "-o", str(target), "--format", "wandb"]) == 0
    (written,) = target.glob("wandb/offline-run-*/run-*.wandb")
    from wandb.proto import wandb_internal_pb2

    steps = []
    for data in leveldb_records(written.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            steps.append({"/".join(item.nested_key) or item.key: item.value_json for item in items})
    assert len(steps) == 350 and float(steps[99]["lr"]) == float(parse(ONE_CYCLE).rate(99))
    assert float(steps[199]["val/auroc"]) == 0.71


def leveldb_records(content: bytes) -> Iterator[bytes]:
    """What a W&B file is made of: a 7-byte head, then blocks of 32 kB with (crc, length, type) before each piece."""
    at, piece = 7, b""
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        piece += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or last
            yield piece
            piece = b""


def exported(folder: Path, target: Path) -> list[dict[str, str]]:
    assert main(["export", str(folder), "-o", str(target)]) == 0
    return list(csv.DictReader(target.open()))


def test_an_evaluation_between_two_logged_steps_has_a_row_of_its_own(log_writer: LogWriter, tmp_path: Path) -> None:
    log_writer.run()
    log_writer.eval(0, 0.5)
    for step in (10, 20, 30):
        log_writer.steps([1e-3], first=step)
    for step, auroc in ((20, 0.7), (25, 0.75), (25, 0.76), (40, 0.8)):
        log_writer.eval(step, auroc)
    rows = exported(log_writer.folder, tmp_path / "metrics.csv")
    assert [(row["step"], row["val/auroc"], row["lr"]) for row in rows] == [
        ("0", "0.5", ""), ("10", "", "0.001"), ("20", "0.7", "0.001"), ("25", "0.75", ""), ("25", "0.76", ""),
        ("30", "", "0.001"), ("40", "0.8", ""),
    ]  # fmt: skip


def test_every_metric_is_exported_under_its_name_and_every_group_has_its_rate(tmp_path: Path) -> None:
    folder = tmp_path / "logs" / "run"
    folder.mkdir(parents=True)
    (folder / "run.jsonl").write_text(
        '{"type":"step","step":1,"lr":0.1,"lrs":[0.1,0.2],"loss":"nan","metrics":{"accuracy":0.5}}\n'
        '{"type":"step","step":2,"lr":0.1}\n'
        '{"type":"step","step":3,"metrics":{"accuracy":0.75,"z":"inf"}}\n'
        '{"type":"eval","step":3,"loss":0.4,"metrics":{"WER":0.12},"ci95":{"WER":[0.1,0.15]}}\n'
    )
    rows = exported(folder, tmp_path / "metrics.csv")
    assert [row["accuracy"] for row in rows] == ["0.5", "", "0.75"] and [row["z"] for row in rows] == ["", "", "inf"]
    assert [row["lr_group_1"] for row in rows] == ["0.2", "0.1", ""]
    assert [row["loss"] for row in rows] == ["nan", "", ""]  # logged as NaN is not the same as not logged
    last = rows[-1]
    assert (last["val/loss"], last["val/WER"], last["val/WER/low"], last["val/WER/high"]) == (
        "0.4",
        "0.12",
        "0.1",
        "0.15",
    )


def test_the_expected_rate_is_that_of_each_attempt_and_of_a_change_within_one(
    log_writer: LogWriter, tmp_path: Path
) -> None:
    from eegwatch.run.records import ScheduleChange

    constant = {"name": "constant", "lr": 0.5, "total_steps": 2000}
    log_writer.run()
    log_writer.healthy(1, 3)
    log_writer.run(attempt=2, step=2)
    log_writer.healthy(3, 4)
    log_writer.add(ScheduleChange(step=4, schedule=constant))
    log_writer.steps([0.5, 0.5], first=5)
    log_writer.add(ScheduleChange(step=6, schedule={"name": "cosine", "unit": "epoch", "max_lr": 1, "total_steps": 0}))
    log_writer.steps([0.5], first=7)
    rows = exported(log_writer.folder, tmp_path / "metrics.csv")
    assert all(row["expected_lr"] == row["lr"] for row in rows[:-1]) and rows[4]["expected_lr"] == "0.5"
    assert rows[-1]["expected_lr"] == ""  # what is no schedule has no rate
