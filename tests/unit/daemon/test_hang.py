"""When a trainer counts as hung, in which phase, and when one that died in its preparation is started again."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from eegpt_daemon.supervisor.hang import PREPARING, WORKING, HangWatch
from eegpt_daemon.supervisor.restarts import PlannedRestart, Restarts
from eegwatch.run.config import Hung, Supervision


@pytest.mark.parametrize("phase", [*WORKING, *PREPARING])
def test_hung_is_hung_in_every_phase(phase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("eegpt_daemon.supervisor.hang.time.monotonic", lambda: now[0])
    watch = HangWatch(Supervision(hung=Hung(after_minutes=0.1)))
    assert watch.look(phase, 1) is None
    now[0] += 5.9
    assert watch.look(phase, 1) is None
    now[0] += 0.2
    assert f"no progress while {phase}" in (watch.look(phase, 1) or "")
    assert watch.look(phase, 2) is None


def test_a_preparation_that_may_wait_for_people_is_never_hung(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("eegpt_daemon.supervisor.hang.time.monotonic", lambda: now[0])
    watch = HangWatch(Supervision(hung=Hung(after_minutes=0.1)), patient=True)
    watch.look("preparing", 1)
    now[0] += 1e6
    assert watch.look("preparing", 1) is None


def test_a_preparation_that_was_killed_is_started_again_but_not_for_ever() -> None:
    restarts = Restarts(Supervision())
    restarts.began(None)
    outcomes: list[Any] = [restarts.after(-signal.SIGKILL, "hung", None, preparing=True) for _ in range(3)]
    assert [isinstance(outcome, PlannedRestart) for outcome in outcomes] == [True, True, False]
    assert isinstance(Restarts(Supervision()).after(1, "exit code 1", None, preparing=True), str)
