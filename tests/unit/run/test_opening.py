"""A log opened for the screen: what the first frame has read, the application does not read again, and nothing is lost."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from eegwatch.run import opening
from eegwatch.run.folder import RUN_LOG
from eegwatch.run.follow import history_of, side_of
from eegwatch.run.history import KEPT, History, StepBlock
from eegwatch.run.indexer import IndexerProcess
from eegwatch.run.log import AppendLog
from eegwatch.run.opening import keep, open_log, take
from eegwatch.run.records import Step
from eegwatch.tui.session import Session
from tests.bench.open import make_log

STEPS = 30_000


@pytest.fixture(scope="module")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_log(tmp_path_factory.mktemp("long"), STEPS)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EEGWATCH_CACHE", str(tmp_path))


def same(a: History, b: History) -> bool:
    return a.attempts == b.attempts and all(np.array_equal(getattr(a, n), getattr(b, n), equal_nan=True) for n in KEPT)


def read_to_the_end(session: Session) -> None:
    while not session.loaded:
        session.poll()
        if session.waiting:
            time.sleep(0.01)


def test_the_application_goes_on_with_what_the_first_frame_read(long_run: Path) -> None:
    kept = keep(long_run)
    assert kept is not None and kept.soon and not kept.complete
    assert kept.sketch is not None and 200 <= kept.sketch.length < STEPS
    kept.read_on()
    assert kept.complete and kept.sketch is None and same(kept.history, history_of(long_run))
    assert take(long_run) is kept
    assert take(long_run) is not kept  # once


def test_a_session_over_it_knows_the_same_and_judges_every_step(long_run: Path) -> None:
    for soon in (True, False, True):  # parsed, the last records still to be; then from the side file
        kept = keep(long_run)
        assert kept is not None
        if soon and kept.soon:
            kept.read_on()
        session = Session(long_run.parent, long_run, lambda _: None)
        assert session.complete is kept.complete and not session.loaded
        read_to_the_end(session)
        assert same(session.history, history_of(long_run))
        assert session.diagnosis.lr is not None and session.diagnosis.lr.moves()[0] == "ok"
        assert session.follower is not None
        session.follower.close()


def test_a_long_log_is_read_by_a_process_of_its_own(long_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "AT_ONCE_BYTES", 0)
    monkeypatch.setattr(opening, "OWN_PROCESS_BYTES", 0)
    session = Session(long_run.parent, long_run, lambda _: None)
    assert session.sketch is not None and not session.complete
    assert session.follower is not None and session.follower.indexer is not None
    read_to_the_end(session)
    assert session.sketch is None and same(session.history, history_of(long_run))
    assert session.follower.records == STEPS + 1
    session.follower.close()


@pytest.mark.parametrize("beyond", ["nothing", "little", "much"])
def test_of_a_large_side_file_the_skeleton_is_drawn_first_and_all_of_it_next(
    long_run: Path, tmp_path: Path, beyond: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, log = tmp_path / "run", tmp_path / "run" / RUN_LOG
    shutil.copytree(long_run, folder)
    lines = log.read_bytes().splitlines(keepends=True)
    if beyond != "nothing":
        log.write_bytes(b"".join(lines[: STEPS - 5000]))
    session = Session(folder.parent, folder, lambda _: None)
    read_to_the_end(session)
    assert session.follower is not None
    session.follower.close()
    with log.open("ab") as file:
        file.writelines(lines[STEPS - 5000 :] if beyond != "nothing" else [])
    monkeypatch.setattr(opening, "AT_ONCE_SIDE_BYTES", 0)
    if beyond == "much":
        monkeypatch.setattr(opening, "SOON_BYTES", 0)
    kept = keep(folder)
    assert kept is not None and kept.soon and kept.sketch is not None and not kept.history.length
    kept.read_on()
    assert kept.state is not None and not kept.soon
    assert kept.complete == (kept.sketch is None) == (beyond != "much")
    assert bool(kept.verdict) == (beyond == "nothing")
    session = Session(folder.parent, folder, lambda _: None)
    assert session._judged_before == kept.state.end
    read_to_the_end(session)
    assert same(session.history, history_of(folder)) and session.history.step_done == STEPS
    assert session.follower is not None
    session.follower.close()


def test_where_that_process_cannot_write_the_log_is_read_all_the_same(
    long_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "AT_ONCE_BYTES", 0)
    monkeypatch.setattr(opening, "OWN_PROCESS_BYTES", 0)
    holder = open_log(long_run)  # another monitor, whose indexer is done: it holds the lock from its first frame on
    assert holder is not None and holder.follower.indexer is not None
    while holder.follower.indexer.running():
        time.sleep(0.01)
    assert holder.follower.side is not None
    while holder.follower.recalling:
        holder.follower.poll(1 << 18)
    assert holder.follower.side.lock()
    session = Session(long_run.parent, long_run, lambda _: None)
    read_to_the_end(session)
    assert same(session.history, history_of(long_run))
    assert session.follower is not None
    session.follower.close()
    holder.follower.close()


@pytest.mark.parametrize("processors", [1, 2])
def test_where_the_side_file_takes_nothing_every_record_is_read_and_judged_all_the_same(
    long_run: Path, processors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)))
    holder = side_of(long_run)
    assert holder is not None and holder.lock()
    kept = keep(long_run)
    assert kept is not None
    kept.read_on()
    assert sum(len(item) for item in kept.read if isinstance(item, StepBlock)) == STEPS
    session = Session(long_run.parent, long_run, lambda _: None)
    read_to_the_end(session)
    assert same(session.history, history_of(long_run))
    assert session.follower is not None and session.follower.records == STEPS + 1
    session.follower.close()
    holder.close()


def test_a_log_that_goes_on_growing_is_followed_from_where_the_first_frame_left_it(
    long_run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "grows"
    shutil.copytree(long_run, folder)
    kept = keep(folder)
    assert kept is not None
    kept.read_on()
    log = AppendLog(folder / RUN_LOG)
    for n in range(STEPS + 1, STEPS + 50):
        log.append(Step(time=1.7e9 + n, step=n, lr=1e-3, loss=0.5))
    log.close()
    session = Session(folder.parent, folder, lambda _: None)
    while session.history.step_done < STEPS + 49:
        session.poll()
    assert same(session.history, history_of(folder))
    assert session.follower is not None
    session.follower.close()


def test_a_short_log_or_none_is_the_applications(tmp_path: Path) -> None:
    assert open_log(tmp_path) is None
    (tmp_path / RUN_LOG).write_text('{"type":"run"}\n')
    assert keep(tmp_path) is None


def test_an_indexer_of_a_run_that_is_gone_ends(tmp_path: Path) -> None:
    indexer = IndexerProcess(tmp_path / "gone")
    while indexer.running():
        time.sleep(0.01)
    assert not indexer.running()
