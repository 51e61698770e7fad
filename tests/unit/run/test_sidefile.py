"""The side file: what it gives back is what the log says; damage and changed logs cost time, never truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eegwatch.run import follow
from eegwatch.run.follow import OwnLog, RunFollower, side_of
from eegwatch.run.history import KEPT, History, StepBlock
from eegwatch.run.sidefile import place_of
from tests.conftest import LogWriter


@pytest.fixture(autouse=True)
def small_logs_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EEGWATCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(follow, "WORTH_IT_BYTES", 0)


@pytest.fixture
def writer(tmp_path: Path) -> LogWriter:
    it = LogWriter(tmp_path / "logs" / "20261124-120000-long")
    it.run()
    it.steps(np.linspace(1e-4, 3e-3, 7000), losses=np.where(np.arange(7000) == 99, np.nan, 0.5))
    it.eval(7000, 0.8)
    it.run(attempt=2, step=6000)
    it.steps(np.linspace(3e-3, 1e-4, 1500), first=6001)
    return it


def read(folder: Path) -> tuple[History, int, RunFollower]:
    """(the history, how many of its steps came from the side file, the follower that read them)."""
    follower, history, recalled = RunFollower(OwnLog(folder), None, side_of(folder)), History(), 0
    while follower.behind:
        from_side = follower.recalling
        for item in follower.poll(1 << 16):
            history.append(item)
            recalled += len(item) if from_side and isinstance(item, StepBlock) else 0
    follower.close()
    return history, recalled, follower


def same(a: History, b: History) -> bool:
    columns = all(np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True) for name in KEPT)
    return columns and a.attempts == b.attempts and a.evals == b.evals and len(a.superseded) == len(b.superseded) == 1


def test_reopened_it_is_the_same_history_without_parsing(writer: LogWriter) -> None:
    first, recalled, follower = read(writer.folder)
    assert recalled == 0
    again, recalled, second = read(writer.folder)
    assert recalled == 8500
    assert same(first, again)
    assert second.records == follower.records and second.reader.last == follower.reader.last == 7500


def test_what_was_written_since_is_read_from_the_log(writer: LogWriter) -> None:
    read(writer.folder)
    writer.steps(np.full(500, 1e-4), first=7501)
    history, recalled, _ = read(writer.folder)
    assert recalled == 8500
    assert history.step_done == 8000


@pytest.mark.parametrize("at", [0.2, 0.6, 0.99])
def test_a_damaged_frame_and_all_after_it_are_read_from_the_log(writer: LogWriter, at: float) -> None:
    first, _, _ = read(writer.folder)
    place = place_of(writer.folder / "run.jsonl")
    data = bytearray(place.read_bytes())
    data[int(len(data) * at)] ^= 0xFF
    place.write_bytes(data)
    again, recalled, _ = read(writer.folder)
    assert recalled < 8500
    assert same(first, again)


def test_a_torn_side_file_is_mended(writer: LogWriter) -> None:
    first, _, _ = read(writer.folder)
    place = place_of(writer.folder / "run.jsonl")
    place.write_bytes(place.read_bytes()[:-1000])
    assert same(first, read(writer.folder)[0])
    history, recalled, _ = read(writer.folder)
    assert recalled == 8500
    assert same(first, history)


@pytest.mark.parametrize("how", ["another file", "shorter", "edited in place"])
def test_a_log_that_is_another_one_is_read_anew(writer: LogWriter, how: str) -> None:
    read(writer.folder)
    log = writer.folder / "run.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    if how == "another file":
        log.unlink()
        log.write_bytes(b"".join(lines[:3000]))
    elif how == "shorter":
        with log.open("r+b") as file:
            file.truncate(len(b"".join(lines[:3000])))
    else:
        with log.open("r+b") as file:
            file.seek(len(b"".join(lines[:-1])))
            file.write(lines[-1].replace(b'"loss":', b'"lozz":'))
    plain = follow.history_of(writer.folder)
    assert np.array_equal(read(writer.folder)[0].step, plain.step)
    assert np.array_equal(read(writer.folder)[0].loss, plain.loss, equal_nan=True)


def test_two_monitors_at_once_read_it_and_one_of_them_writes(writer: LogWriter) -> None:
    read(writer.folder)
    held, other = side_of(writer.folder), side_of(writer.folder)
    assert held is not None and other is not None
    assert sum(1 for _ in held.frames()) == sum(1 for _ in other.frames()) > 0
    assert held.lock() and not other.lock()
    held.close()
    assert other.lock()
    other.close()


def test_what_another_wrote_meanwhile_is_read_before_more_is_written(writer: LogWriter) -> None:
    behind = side_of(writer.folder)
    read(writer.folder)  # another monitor, which wrote the side file
    assert behind is not None and not behind.lock()
    assert sum(1 for _ in behind.frames()) > 0 and behind.lock()
    behind.close()


def test_the_side_file_is_private_and_may_be_deleted(writer: LogWriter) -> None:
    first, _, _ = read(writer.folder)
    place = place_of(writer.folder / "run.jsonl")
    assert place.stat().st_mode & 0o777 == 0o600
    assert place.parent.stat().st_mode & 0o777 == 0o700
    place.unlink()
    assert same(first, read(writer.folder)[0])
