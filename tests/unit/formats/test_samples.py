"""Each kind of log on lines in its framework's form: at once, piece by piece, packed, with its fields in another order."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
import random
from pathlib import Path

import pytest

from eegwatch.formats import find
from eegwatch.run.follow import RunFollower
from eegwatch.run.history import History
from tests.unit.formats.samples import ALL, ROWS, TEXT, Sample, content, drain, read


def expect(history: History, sample: Sample) -> None:
    assert history.step.tolist() == sample.steps
    if sample.loss is not None:
        assert history.loss.tolist() == pytest.approx(sample.loss, rel=1e-6, nan_ok=True)
    if sample.lr is not None:
        assert history.lr.tolist() == pytest.approx(sample.lr, rel=1e-12, nan_ok=True)
    else:
        assert all(math.isnan(lr) for lr in history.lr) or sample.name == "a resume"
    if sample.lrs is not None:
        assert history.lrs is not None and history.lrs.tolist() == sample.lrs
    assert [(e.step, e.split, e.values()) for e in history.evals] == sample.evals
    assert (history.run.total_steps if history.run else None) == sample.total
    for name, values in sample.metrics.items():
        assert history.metrics[name].value.tolist() == values


def by_name(sample: Sample) -> str:
    return sample.name


@pytest.mark.parametrize("sample", ALL, ids=by_name)
def test_a_log_is_read_whole(sample: Sample, tmp_path: Path) -> None:
    foreign, follower, history = read(sample.write(tmp_path))
    expect(history, sample)
    assert follower.reader.disorder == 0 and follower.bad_lines == 0
    assert sample.kind is None or foreign.format == sample.kind


@pytest.mark.parametrize("sample", ALL, ids=by_name)
def test_a_compressed_log_is_read_like_the_log_itself(sample: Sample, tmp_path: Path) -> None:
    path = tmp_path / (sample.file + ".gz")
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt") as file:
        file.write(sample.text)
    expect(read(path)[2], sample)


@pytest.mark.parametrize("sample", ALL, ids=by_name)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_records_do_not_depend_on_how_the_file_grew(sample: Sample, seed: int, tmp_path: Path) -> None:
    path = sample.write(tmp_path / "whole")
    before = content(read(path)[2])
    data = path.read_bytes()
    chance = random.Random(seed)
    growing = tmp_path / "growing" / sample.file
    growing.parent.mkdir(parents=True)
    first = len(data) if sample.file.endswith(".json") and sample.kind not in ("detectron2", "mmcv", "mmengine") else 1
    head = data.find(b"\n") + 1 if first == 1 else first  # what kind it is, is seen once its first line is there
    growing.write_bytes(data[:head])
    foreign = find(growing)
    assert foreign is not None
    if foreign.format not in (find(path) or foreign).format:
        pytest.skip("the first line alone does not tell this kind")
    follower, history = RunFollower(foreign.follow()), History()
    at = head
    while at < len(data):
        drain(follower, history)
        size = chance.choice([1, 7, 40, 200, 1000])
        with growing.open("ab") as file:
            file.write(data[at : at + size])
        at += size
    drain(follower, history)
    os.utime(growing, (1e9, 1e9))  # left alone: what still waits for its step's other values is passed on
    for _ in range(3):
        drain(follower, history)
    assert content(history) == before
    assert follower.reader.disorder == 0


@pytest.mark.parametrize(
    "sample", [s for s in ROWS if s.text.lstrip()[:1] == "{" and s.text.count("\n") > 1], ids=by_name
)
def test_json_fields_may_stand_in_any_order(sample: Sample, tmp_path: Path) -> None:
    chance = random.Random(5)
    lines = []
    for line in sample.text.splitlines():
        try:
            items = list(json.loads(line).items())
        except ValueError:
            pytest.skip("one document, not rows")
        chance.shuffle(items)
        lines.append(json.dumps(dict(items)))
    path = tmp_path / sample.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    expect(read(path)[2], sample)


@pytest.mark.parametrize("sample", [s for s in ROWS if s.file.endswith(".csv") and ";" not in s.text and "#" not in s.text], ids=by_name)  # fmt: skip
def test_columns_may_stand_in_any_order(sample: Sample, tmp_path: Path) -> None:
    rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(sample.text))]
    columns = list(range(len(rows[0])))
    random.Random(7).shuffle(columns)
    path = tmp_path / sample.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(",".join(row[i] for i in columns) + "\n" for row in rows))
    expect(read(path)[2], sample)


@pytest.mark.parametrize("sample", [TEXT[0], TEXT[4], TEXT[10], *ROWS[:3]], ids=by_name)
@pytest.mark.parametrize("ending", ["\r\n", "none at the end"])
def test_line_ends_of_other_systems_and_a_last_line_without_one(sample: Sample, ending: str, tmp_path: Path) -> None:
    path = tmp_path / sample.file
    text = sample.text.replace("\n", "\r\n") if ending == "\r\n" else sample.text.rstrip("\n")
    path.write_bytes(text.encode())
    os.utime(path, (1e9, 1e9))
    expect(read(path)[2], sample)


@pytest.mark.parametrize("sample", [TEXT[0], TEXT[4], *ROWS[:2]], ids=by_name)
@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_log_that_powershell_wrote(sample: Sample, encoding: str, tmp_path: Path) -> None:
    path = tmp_path / sample.file
    path.write_bytes(sample.text.encode(encoding))
    expect(read(path)[2], sample)
