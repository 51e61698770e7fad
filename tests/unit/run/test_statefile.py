"""What the detectors knew, kept beside the side file: the verdict through it is the verdict from the log, or there is none."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eegwatch.diagnosis.saved_state import Judge, judge_of
from eegwatch.run import indexer, opening, statefile
from eegwatch.run.folder import RUN_LOG
from eegwatch.run.follow import OwnLog, RunFollower
from eegwatch.run.indexer import WriterIndex
from eegwatch.run.records import Checkpoint, Record, Run, Step
from eegwatch.run.sidefile import SideFile, beside
from eegwatch.runlog import RunLog
from eegwatch.tui.session import Session
from tests.unit.run.test_indexer import RandomRun, small_and_eager

__all__ = ["small_and_eager"]  # a fixture: short logs have a side file too
FULL = bool(os.environ.get("EEGWATCH_FULL"))


@pytest.fixture(autouse=True)
def short_logs_are_opened_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "WORTH_IT_BYTES", 0)


def by_the_log(folder: Path) -> Judge:
    judge, follower = Judge(), RunFollower(OwnLog(folder))
    while follower.behind:
        for item in follower.poll(1 << 14):
            judge.feed(item)
    follower.close()
    return judge


def opened(folder: Path) -> tuple[Session, bool]:
    """(the run on the screen, judged to its end; was a kept state taken?)"""
    session = Session(folder.parent, folder, lambda _: None)
    taken = session._judged_before > 0
    while not session.loaded:
        session.poll()
    return session, taken


def close(session: Session) -> None:
    assert session.follower is not None
    session.follower.close()


def verdict(judge: Judge) -> tuple[Any, ...]:
    """What is wrong, since when and why, and what could be judged.

    Not the figures of the moment: a block of steps is told with its last one, and the pieces of a file that grew are
    others than those of one that is read at once.
    """
    findings = [(f.rule, f.severity, f.since_step, f.cause and f.cause.name) for f in judge.diagnosis.findings]
    return findings, judge.diagnosis.coverage()


def schedule_of(total: int) -> dict[str, Any]:
    return {"name": "one_cycle", "total_steps": total, "max_lr": 3e-3, "pct_start": 0.1}


class WrongRun(RandomRun):
    """A declared run whose rate freezes; in other ways as random as the others."""

    def __init__(self, folder: Path, seed: int, frozen_at: int) -> None:
        super().__init__(folder, seed)
        self.frozen_at = frozen_at
        self.write(Run(run_id=folder.name, attempt=1, total_steps=2000, steps_per_epoch=100,
                       schedule=schedule_of(2000)))  # fmt: skip

    def _other(self) -> Record:
        return Checkpoint(step=self.step, path="x")

    def _step(self) -> Step:
        from eegwatch.schedule import parse

        at = min(self.step, self.frozen_at)
        rate = float(parse(schedule_of(2000)).rate(np.array([at - 1]))[0])
        return Step(time=1e9 + self.step, step=self.step, lr=rate, position=float(self.step - 1), loss=0.5)


@pytest.mark.parametrize("seed", range(60 if FULL else 4))
def test_through_it_the_verdict_is_that_of_the_log_whatever_happens_to_the_log(tmp_path: Path, seed: int) -> None:
    run = WrongRun(tmp_path / "run", seed, frozen_at=200 if seed % 2 else 1 << 40)
    happens = np.random.default_rng(seed)
    events: list[Callable[[RandomRun], None]] = [
        RandomRun.crash, RandomRun.another_writes, RandomRun.tear_the_side_file, RandomRun.truncate_the_log,
        RandomRun.rewrite_the_log, RandomRun.damage_the_side_file,
    ]  # fmt: skip
    for _ in range(3):
        run.steps(int(happens.integers(100, 300)))
        session, _ = opened(run.folder)
        assert verdict(session.judge) == verdict(by_the_log(run.folder))
        close(session)
        events[int(happens.integers(len(events)))](run)
    run.steps(100)
    run.end()
    for _ in range(2):
        session, _ = opened(run.folder)
        assert verdict(session.judge) == verdict(by_the_log(run.folder))
        close(session)


@pytest.fixture
def frozen(tmp_path: Path) -> WrongRun:
    run = WrongRun(tmp_path / "run", 3, frozen_at=150)
    run.steps(600)
    run.end()
    return run


def test_opened_again_nothing_is_judged_again_and_the_events_are_there(frozen: WrongRun) -> None:
    first, taken = opened(frozen.folder)
    assert not taken and [f.rule for f in first.diagnosis.findings if f.bad] == ["lr_stuck"]
    close(first)
    kept = opening.keep(frozen.folder)
    assert kept is not None and kept.verdict.startswith("✖ LR stuck")
    again, taken = opened(frozen.folder)
    assert taken and verdict(again.judge) == verdict(first.judge) and again.events == first.events
    assert [f.as_dict() for f in again.diagnosis.findings] == [f.as_dict() for f in first.diagnosis.findings]
    assert again.diagnosis.lr is not None and again.diagnosis.lr.fault is not None
    close(again)


def test_what_came_since_is_judged_on(frozen: WrongRun) -> None:
    close(opened(frozen.folder)[0])
    frozen.frozen_at = 1 << 40
    frozen.steps(300)
    frozen.log.sync()
    kept = opening.keep(frozen.folder)
    assert kept is not None and kept.verdict == ""
    again, taken = opened(frozen.folder)
    assert taken and verdict(again.judge) == verdict(by_the_log(frozen.folder))
    assert not [f for f in again.diagnosis.findings if f.rule == "lr_stuck"]
    close(again)


@pytest.mark.parametrize("how", ["another rule", "damaged", "of another user", "gone"])
def test_a_state_of_other_rules_or_of_others_is_not_taken(
    frozen: WrongRun, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    close(opened(frozen.folder)[0])
    side = SideFile(frozen.folder / RUN_LOG)
    place = statefile.place_of(side)
    assert statefile.read_state(side) is not None and place.stat().st_mode & 0o777 == 0o600
    if how == "another rule":
        monkeypatch.setattr(statefile, "rules_hash", lambda: b"changed")
    elif how == "damaged":
        data = bytearray(place.read_bytes())
        data[len(data) // 2] ^= 0xFF
        place.write_bytes(data)
    elif how == "of another user":
        place.chmod(0o666)
    else:
        place.unlink()
    assert statefile.read_state(side) is None
    side.close()
    session, taken = opened(frozen.folder)
    assert not taken and verdict(session.judge) == verdict(by_the_log(frozen.folder))
    close(session)


def test_every_source_of_the_detectors_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = Path(statefile.__file__).parents[1]
    sources = {path for name in ("diagnosis", "schedule") for path in (package / name).rglob("*.py")}
    read: set[Path] = set()
    read_bytes = Path.read_bytes

    def counted(path: Path) -> bytes:
        read.add(path)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", counted)
    assert statefile.rules_hash.__wrapped__() == statefile.rules_hash()
    assert sources <= read and package / "run/items.py" in read


def test_it_lies_beside_the_side_file(frozen: WrongRun) -> None:
    assert beside(frozen.folder / RUN_LOG).exists()
    close(opened(frozen.folder)[0])
    assert (frozen.folder / "run.verdict").exists()


@pytest.mark.parametrize("seed", range(40 if FULL else 3))
def test_a_writer_leaves_it_as_it_goes_through_crashes_too(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer, "KEEP_EVERY", 3)
    run = WrongRun(tmp_path / "run", seed, frozen_at=200)
    run.index = WriterIndex(run.folder, judge_of)
    happens = np.random.default_rng(seed)
    for event in (RandomRun.crash, RandomRun.another_writes, RandomRun.crash):
        run.steps(int(happens.integers(100, 300)))
        event(run)
        run.index = WriterIndex(run.folder, judge_of) if event is RandomRun.crash else run.index
    run.steps(200)
    run.end()
    kept = opening.keep(run.folder)
    assert kept is not None and kept.verdict
    session, taken = opened(run.folder)
    assert taken and verdict(session.judge) == verdict(by_the_log(run.folder))
    close(session)


def test_a_runlog_leaves_it(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "logs", schedule=schedule_of(600), total_steps=600)
    for step in range(600):
        log.step(loss=0.5 + step % 7, lr=1e-4)
    log.end()
    kept = opening.keep(log.folder)
    assert kept is not None and kept.verdict.startswith("✖ LR")


def test_at_the_end_of_a_run_whose_steps_came_too_fast_the_judge_catches_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer, "MOST_UNJUDGED", 4)
    run = WrongRun(tmp_path / "run", 3, frozen_at=200)
    run.index._over = True
    run.steps(2000)
    index = WriterIndex(run.folder, judge_of)  # nothing of it is read yet
    run.log.append(Checkpoint(step=run.step, path="x"))
    index.close()
    kept = opening.keep(run.folder)
    assert kept is not None and kept.verdict.startswith("✖ LR")
