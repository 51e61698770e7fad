"""The side file that a writer leaves: whatever happens to log and side file, what is read through it is what the log says."""

from __future__ import annotations

import fcntl
import os
import termios
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eegwatch.run import follow, indexer, parsing
from eegwatch.run.folder import RUN_LOG
from eegwatch.run.follow import OwnLog, RunFollower, side_of
from eegwatch.run.history import KEPT, History
from eegwatch.run.indexer import WriterIndex, write_side_file
from eegwatch.run.log import AppendLog
from eegwatch.run.records import (
    Checkpoint,
    End,
    Eval,
    Finding,
    Intent,
    Record,
    Run,
    ScheduleChange,
    Step,
    System,
    Watch,
)
from eegwatch.run.sidefile import beside
from eegwatch.runlog import RunLog


@pytest.fixture(autouse=True)
def small_and_eager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short logs have a side file too, of small frames, and a writer takes all the time it wants."""
    monkeypatch.setenv("EEGWATCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(follow, "WORTH_IT_BYTES", 0)
    monkeypatch.setattr(indexer, "WORTH_IT_BYTES", 1 << 13)
    monkeypatch.setattr(follow, "FRAME_RECORDS", 40)
    monkeypatch.setattr(indexer, "FRAME_RECORDS", 40)
    monkeypatch.setattr(indexer, "LOOK_RECORDS", 16)
    monkeypatch.setattr(indexer, "SHARE", 1e9)


GROUPS = [{"name": "body", "schedule": None}, {"name": "head", "schedule": None}]


class RandomRun:
    """A run of random records by a writer that crashes, goes back, and shares its log with others."""

    def __init__(self, folder: Path, seed: int) -> None:
        folder.mkdir(parents=True)
        self.folder, self.random, self.step, self.attempt = folder, np.random.default_rng(seed), 0, 1
        self.log, self.index = AppendLog(folder / RUN_LOG), WriterIndex(folder)
        self.write(Run(run_id=folder.name, groups=GROUPS))

    def write(self, record: Record) -> None:
        self.log.append(record)
        self.index.wrote()

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.step += int(self.random.choice([1, 1, 1, 2, 0 if self.random.random() < 0.02 else 1]))
            self.write(self._step())
            if self.random.random() < 0.02:
                self.write(self._other())
            if self.random.random() < 0.005:
                self.log.write(b'{"type":"step","step":"no number"}\n')

    def _step(self) -> Step:
        draw = self.random
        fields: dict[str, Any] = {"lr": float(draw.random()), "position": float(self.step - 1)}
        if draw.random() < 0.9:
            fields["loss"] = float(draw.choice([draw.normal(), np.nan, np.inf]))
        if draw.random() < 0.1:
            fields |= {"lrs": [0.1, float(draw.random())], "skipped": 3, "metrics": {"acc": float(draw.random())}}
        if draw.random() < 0.1:
            fields |= {"grad_norm": float("nan"), "lr": None, "position": None}
        return Step(time=1e9 + self.step * float(draw.choice([0.1, 0.1, -3])), step=self.step, **fields)

    def _other(self) -> Record:
        step = self.step
        others: list[Record] = [
            Eval(step=step, auroc=0.5, metrics={"f1": 0.25}), System(step=step, cpu_percent=3.0),
            Checkpoint(step=step, path="x"), Watch(step=step, look="update", values={"a": [1]}),
            Finding(rule="r", severity="error", step=step, since_step=1, message="é"),
            ScheduleChange(step=step), Intent(step=step, rule="r", since_step=1), End(step=step, reason="stopped"),
        ]  # fmt: skip
        return others[int(self.random.integers(len(others)))]

    # ---- what may happen ----

    def crash(self) -> None:
        """The process is gone, its lock with it; another attempt goes on from an earlier step."""
        if self.index._follower is not None and self.index._follower.side is not None:
            self.index._follower.side.close()
        self.log.close()
        if self.random.random() < 0.5:
            with (self.folder / RUN_LOG).open("ab") as file:
                file.write(b'{"type":"step","ti')
        self.attempt += 1
        self.step = int(self.random.integers(self.step + 1))
        self.log, self.index = AppendLog(self.folder / RUN_LOG), WriterIndex(self.folder)
        self.write(Run(run_id=self.folder.name, attempt=self.attempt, step=self.step, groups=GROUPS))

    def end(self) -> None:
        self.write(End(step=self.step, reason="completed"))
        self.index.close()

    def another_writes(self) -> None:
        other = AppendLog(self.folder / RUN_LOG)
        other.append(Finding(rule="r", severity="error", step=self.step, since_step=1, message="of the daemon"))
        other.close()

    def tear_the_side_file(self) -> None:
        place = beside(self.folder / RUN_LOG)
        if place.exists():
            os.truncate(place, int(self.random.integers(place.stat().st_size + 1)))

    def damage_the_side_file(self) -> None:
        place = beside(self.folder / RUN_LOG)
        if place.exists() and place.stat().st_size:
            data = bytearray(place.read_bytes())
            data[int(self.random.integers(len(data)))] ^= 0xFF
            place.write_bytes(bytes(data))

    def truncate_the_log(self) -> None:
        size = (self.folder / RUN_LOG).stat().st_size
        os.truncate(self.folder / RUN_LOG, int(self.random.integers(size // 2, size)))

    def rewrite_the_log(self) -> None:
        """Other bytes under the same name: the same lines with the last digits of their rates cut."""
        log = self.folder / RUN_LOG
        lines = log.read_bytes().replace(b'"reason":"stopped"', b'"reason":"failed"').split(b"\n")
        with log.with_suffix(".new").open("wb") as file:
            file.write(b"\n".join(line.replace(b'"time":1', b'"time":2') for line in lines))
        log.with_suffix(".new").replace(log)


EVENTS = [
    RandomRun.crash, RandomRun.another_writes, RandomRun.tear_the_side_file, RandomRun.damage_the_side_file,
    RandomRun.truncate_the_log, RandomRun.rewrite_the_log,
]  # fmt: skip


def read(folder: Path, *, side: bool) -> tuple[History, RunFollower, int]:
    """(history, follower, items that the side file gave)."""
    follower, history = RunFollower(OwnLog(folder), None, side_of(folder) if side else None), History()
    recalled = 0
    while follower.behind:
        recalling = follower.recalling
        for item in follower.poll(1 << 14):
            history.append(item)
            recalled += recalling
    counted = (follower.records, follower.bad_lines)
    follower.close()
    assert counted == (follower.records, follower.bad_lines)
    return history, follower, recalled


def assert_the_same(folder: Path) -> int:
    (a, by_side, recalled), (b, by_log, _) = read(folder, side=True), read(folder, side=False)
    for name in KEPT:
        assert getattr(a, name).tobytes() == getattr(b, name).tobytes(), name
    for name in ("attempts", "evals", "checkpoints", "findings", "system", "ends", "end", "progress", "schedules",
                 "intents", "watched", "last_time", "length"):  # fmt: skip
        assert getattr(a, name) == getattr(b, name), name
    assert (a.lrs is None) == (b.lrs is None)
    assert a.lrs is None or b.lrs is None or a.lrs.tobytes() == b.lrs.tobytes()
    assert a.metrics.keys() == b.metrics.keys()
    for name, series in a.metrics.items():
        assert series.step.tobytes() == b.metrics[name].step.tobytes()
        assert series.value.tobytes() == b.metrics[name].value.tobytes()
    assert [s.loss.tobytes() for s in a.superseded] == [s.loss.tobytes() for s in b.superseded]
    assert (by_side.records, by_side.bad_lines) == (by_log.records, by_log.bad_lines)
    assert vars(by_side.reader) == vars(by_log.reader)
    return recalled


@pytest.mark.parametrize("seed", range(600 if os.environ.get("EEGWATCH_FULL") else 8))
def test_bit_by_bit_what_the_log_says_whatever_happened(tmp_path: Path, seed: int) -> None:
    run = RandomRun(tmp_path / "run", seed)
    happens = np.random.default_rng(1000 + seed)
    for _ in range(4):
        run.steps(int(happens.integers(20, 200)))
        EVENTS[int(happens.integers(len(EVENTS)))](run)
        if happens.random() < 0.5:
            assert_the_same(run.folder)  # a monitor looks, while it runs
    run.steps(int(happens.integers(20, 200)))
    run.end()
    for _ in range(2):  # the second time after a monitor has mended it
        assert_the_same(run.folder)


def test_of_an_undisturbed_run_every_item_comes_from_it(tmp_path: Path) -> None:
    run = RandomRun(tmp_path / "run", 1)
    run.steps(1000)
    run.end()
    assert beside(run.folder / RUN_LOG).stat().st_mode & 0o777 == 0o600
    assert assert_the_same(run.folder) > 10
    assert RunFollower(OwnLog(run.folder), None, side_of(run.folder)).poll(1)  # and nothing is left to parse:
    _, follower, _ = read(run.folder, side=True)
    assert follower.offset == (run.folder / RUN_LOG).stat().st_size


@pytest.mark.parametrize("two", [False, True])
@pytest.mark.parametrize("seed", range(100 if os.environ.get("EEGWATCH_FULL") else 3))
def test_a_process_of_its_own_writes_the_same_in_pieces(
    tmp_path: Path, seed: int, two: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer, "WORTH_IT_BYTES", 1 << 40)  # its writer leaves none
    monkeypatch.setattr(parsing, "PIECE_BYTES", int(np.random.default_rng(seed).integers(100, 9000)))
    monkeypatch.setattr(parsing, "SEARCH_BYTES", 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1} if two else {0})
    run = RandomRun(tmp_path / "run", seed)
    for what in (RandomRun.another_writes, RandomRun.crash, RandomRun.crash):
        run.steps(150)
        what(run)
        write_side_file(run.folder)  # what was written since
    run.log.write(b'{"type":"step","st')
    assert assert_the_same(run.folder) > 10


def test_a_log_without_a_whole_line_has_an_empty_side_file(tmp_path: Path) -> None:
    (tmp_path / RUN_LOG).write_bytes(b"x" * 10_000)
    write_side_file(tmp_path)
    assert assert_the_same(tmp_path) == 0


def test_a_runlog_leaves_it_and_a_short_run_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = RunLog(tmp_path / "logs")
    for _ in range(500):
        log.step(loss=0.5, lr=0.1)
    log.end()
    assert beside(log.folder / RUN_LOG).exists() and assert_the_same(log.folder) > 0
    monkeypatch.setattr(indexer, "WORTH_IT_BYTES", 1 << 22)
    short = RunLog(tmp_path / "logs")
    for _ in range(500):
        short.step(loss=0.5, lr=0.1)
    short.end()
    assert not beside(short.folder / RUN_LOG).exists()


def test_a_side_file_that_cannot_be_written_costs_the_training_nothing(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "logs")
    beside(log.folder / RUN_LOG).mkdir()
    for _ in range(500):
        log.step(loss=0.5, lr=0.1)
    log.end()
    history, _, _ = read(log.folder, side=False)
    assert history.step_done == 500 and history.end is not None


def test_a_writer_takes_no_more_than_its_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexer, "SHARE", 1e-9)
    run = RandomRun(tmp_path / "run", 2)
    run.steps(2000)  # after its first look it would rest for years
    history, _, recalled = read(run.folder, side=True)
    assert recalled <= 3 and history.length > 1000


@pytest.mark.parametrize("kept", [0, 3])
def test_a_helper_that_dies_costs_its_pieces_to_be_parsed_again(
    tmp_path: Path, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer, "WORTH_IT_BYTES", 1 << 40)
    monkeypatch.setattr(parsing, "PIECE_BYTES", 2000)
    run = RandomRun(tmp_path / "run", 5)
    run.steps(400)
    send, parse = parsing._send, parsing._Parser.piece

    def dies(parser: Any, bounds: Any, queue: Any, pipe: int) -> None:
        """In the helper alone: after so many pieces."""
        left = [kept]

        def piece(self: Any, begin: int, end: int) -> Any:
            if not left[0]:
                os._exit(3)
            left[0] -= 1
            return parse(self, begin, end)

        monkeypatch.setattr(parsing._Parser, "piece", piece)
        send(parser, bounds, queue, pipe)

    monkeypatch.setattr(parsing, "_send", dies)
    fd = os.open(run.folder / RUN_LOG, os.O_RDONLY)
    size = os.fstat(fd).st_size
    by_two = list(parsing.pieces(fd, 0, size, two=True))
    by_one = list(parsing.pieces(fd, 0, size, two=False))
    os.close(fd)
    assert [p[:3] for p in by_two] == [p[:3] for p in by_one] and len(by_one) > 10
    for a, b in zip(by_two, by_one, strict=True):
        assert parsing.packed(a.items) == parsing.packed(b.items)


@pytest.mark.parametrize("ahead", [0, 1 << 25])
def test_the_second_process_parses_on_before_the_first_asks(
    tmp_path: Path, ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parsing, "PIECE_BYTES", 2000)
    monkeypatch.setattr(parsing, "SENT_AHEAD_BYTES", 1 << 12)  # a piece or two
    monkeypatch.setattr(parsing, "KEPT_AHEAD_BYTES", ahead)
    run = RandomRun(tmp_path / "run", 6)
    run.steps(600)
    fd = os.open(run.folder / RUN_LOG, os.O_RDONLY)
    size = os.fstat(fd).st_size
    took: list[int] = []
    take = parsing._Queue.take

    def counted(self: Any) -> int | None:
        number = take(self)
        took.extend([] if number is None else [number])
        return number

    monkeypatch.setattr(parsing._Queue, "take", counted)  # this process's alone: the other counts in its own memory
    found = parsing.pieces(fd, 0, size, two=True)
    if ahead:
        queue = found.gi_frame.f_locals["queue"]  # type: ignore[attr-defined]
        while fcntl.ioctl(queue._read, termios.FIONREAD, b"\0\0\0\0") != b"\0\0\0\0":
            time.sleep(0.01)  # until none is left for this one
    by_two, by_one = list(found), list(parsing.pieces(fd, 0, size, two=False))
    os.close(fd)
    assert (not took) == bool(ahead)
    assert [p[:3] for p in by_two] == [p[:3] for p in by_one] and len(by_one) > 10
    for a, b in zip(by_two, by_one, strict=True):
        assert parsing.packed(a.items) == parsing.packed(b.items)
