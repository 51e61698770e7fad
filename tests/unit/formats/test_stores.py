"""Stores of MLflow, trackio and W&B, written in their forms; event files and W&B's by the libraries where installed."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from eegwatch.formats import find
from eegwatch.formats.kinds.wandb import BLOCK, HEADER, transactions
from eegwatch.run.follow import FormatError, RunFollower
from eegwatch.run.history import History
from tests.unit.formats.samples import content, drain, read


def mlflow_run(folder: Path, steps: range) -> Path:
    run = folder / "mlruns" / "0" / "0263f806"
    (run / "metrics" / "train").mkdir(parents=True, exist_ok=True)
    (run / "meta.yaml").write_text("artifact_uri: file:///x\nrun_id: 0263f806\nstatus: 1\n")
    for name, value, every in (("train/loss", 0.5, 1), ("lr", 0.001, 1), ("val_acc", 0.75, 5)):
        with (run / "metrics" / name).open("a") as file:
            for n in steps:
                if n % every == 0:
                    file.write(f"{1_700_000_000_000 + n} {value / n} {n}\n")
    return run


def test_mlflows_file_store(tmp_path: Path) -> None:
    run = mlflow_run(tmp_path, range(1, 11))
    (run / "metrics" / "system").mkdir()
    (run / "metrics" / "system" / "cpu").write_text("1700000000000 50 1\n")
    foreign, _, history = read(tmp_path)
    assert foreign.format == "MLflow" and foreign.path == run
    assert history.step.tolist() == list(range(1, 11)) and history.loss[0] == 0.5
    assert history.lr.tolist() == [0.001 / n for n in range(1, 11)]
    assert [(e.step, e.values()) for e in history.evals] == [(5, {"acc": 0.15}), (10, {"acc": 0.075})]
    assert history.time[0] == pytest.approx(1_700_000_000.001) and not list(history.metrics)


def test_mlflows_file_store_while_it_grows(tmp_path: Path) -> None:
    run = mlflow_run(tmp_path / "live", range(1, 3))
    foreign = find(run)
    assert foreign is not None
    follower, history = RunFollower(foreign.follow()), History()
    drain(follower, history)
    with (run / "metrics" / "train" / "loss").open("a") as file:
        file.write("1700000000003 0.25 3\n")
    drain(follower, history)
    with (run / "metrics" / "lr").open("a") as file:
        file.write("1700000000003 0.0005 3\n170000000")
    drain(follower, history)
    for path in (run / "metrics").rglob("*"):
        os.utime(path, (1e9, 1e9))
    drain(follower, history)
    assert history.step.tolist() == [1, 2, 3] and history.loss[2] == 0.25 and history.lr[2] == 0.0005


def trackio_project(path: Path, rows: list[tuple[str, int, dict[str, Any]]]) -> None:
    connection = sqlite3.connect(path)
    connection.execute(
        "CREATE TABLE IF NOT EXISTS metrics (id INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT, timestamp TEXT NOT NULL, "
        "run_name TEXT NOT NULL, step INTEGER NOT NULL, metrics TEXT NOT NULL)"
    )
    connection.executemany(
        "INSERT INTO metrics (run_id, timestamp, run_name, step, metrics) VALUES ('x', '2026-01-01T00:00:00+00:00', ?, ?, ?)",
        [(run, step, json.dumps(values)) for run, step, values in rows],
    )
    connection.commit()
    connection.close()


def test_trackios_newest_run(tmp_path: Path) -> None:
    path = tmp_path / "project.db"
    trackio_project(path, [("first", n, {"loss": 9.0}) for n in range(3)])
    trackio_project(path, [("second", n, {"train": {"loss": n / 4, "lr": 0.5**n}, "val/f1": n / 8}) for n in range(4)])
    foreign, _, history = read(tmp_path)
    assert foreign.format == "trackio"
    assert history.step.tolist() == [1, 2, 3, 4] and history.loss.tolist() == [0.0, 0.25, 0.5, 0.75]
    assert history.lr.tolist() == [1.0, 0.5, 0.25, 0.125] and [e.values() for e in history.evals][1] == {"f1": 0.125}


def test_trackio_goes_on_and_begins_another_run(tmp_path: Path) -> None:
    path = tmp_path / "project.db"
    trackio_project(path, [("first", 1, {"loss": 9.0})])
    foreign = find(path)
    assert foreign is not None
    follower, history = RunFollower(foreign.follow()), History()
    drain(follower, history)
    trackio_project(path, [("first", 2, {"loss": 8.0})])
    drain(follower, history)
    assert history.loss.tolist() == [9.0, 8.0]
    trackio_project(path, [("second", 1, {"loss": 7.0}), ("second", 2, {"loss": 6.0})])
    drain(follower, history)
    assert history.loss.tolist() == [7.0, 6.0] and len(history.attempts) == 1


def test_a_database_of_something_else_is_no_log(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "other.db")
    connection.execute("CREATE TABLE people (name TEXT)")
    connection.commit()
    connection.close()
    assert find(tmp_path) is None


def leveldb_log(records: list[bytes]) -> bytes:
    """As LevelDB's log writer cuts records into blocks."""
    data = bytearray(b":W&B\xbe\xef\x00")
    for record in records:
        rest, first = record, True
        while first or rest:
            room = BLOCK - len(data) % BLOCK
            if room < HEADER:
                data += b"\0" * room
                room = BLOCK
            part, rest = rest[: room - HEADER], rest[room - HEADER :]
            kind = (1 if first else 4) if not rest else (2 if first else 3)
            data += b"\0\0\0\0" + len(part).to_bytes(2, "little") + bytes([kind]) + part
            first = False
    return bytes(data)


def test_records_that_span_blocks_and_a_torn_end() -> None:
    records = [bytes([n % 251]) * size for n, size in enumerate([1, 32_750, 7, 100_000, 0, 32_768, 5])]
    data = leveldb_log(records)
    assert list(transactions(data)) == records
    assert list(transactions(data[:-3])) == records[:-1]
    assert list(transactions(b"")) == []


def test_wandbs_own_file(tmp_path: Path) -> None:
    proto = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    records = []
    for n in range(1, 6):
        record = proto.Record()
        record.history.step.num = n
        for name, value in (("_step", n), ("_timestamp", 1.7e9 + n), ("train/loss", 1 / n), ("lr", n / 1024)):
            item = record.history.item.add()
            item.key, item.value_json = name, json.dumps(value)
        records.append(record.SerializeToString())
    path = tmp_path / "run-x.wandb"
    path.write_bytes(leveldb_log(records))
    history = read(path)[2]
    assert history.step.tolist() == [1, 2, 3, 4, 5] and history.lr.tolist() == [n / 1024 for n in range(1, 6)]
    assert content(history)["loss"][0] == 1.0


def test_what_is_missing_to_read_a_wandb_file_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("wandb", "wandb.proto", "wandb.proto.wandb_internal_pb2"):  # as where it is not installed
        monkeypatch.setitem(sys.modules, module, None)
    path = tmp_path / "run-x.wandb"
    path.write_bytes(leveldb_log([b"x"]))
    foreign = find(path)
    assert foreign is not None
    with pytest.raises(FormatError, match="pip install wandb"):
        foreign.follow()
