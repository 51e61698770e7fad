"""Whether a daemon lives and works: the lock shows that it lives, two counters that it makes progress."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from eegwatch.run.control import HEARTBEAT_S, daemon_pid, latest_state
from eegwatch.run.records import DaemonState
from eegwatch.wording import duration

SILENT_S = 5 * HEARTBEAT_S  # a supervisor that has not counted for so long is stopped or hung
HUNG_S = 60.0  # a training loop that has not counted for so long, in a phase that takes milliseconds a step
PREPARING_HUNG_S = 1800.0  # a preparation that has not counted for so long: one count may read gigabytes over NFS


@dataclass(frozen=True)
class Liveness:
    """`word`: training, preparing, …, idle, hung, dead, none. `alive`: is there a daemon to obey a command?

    `since`: the beginning of this state, seconds since the epoch; None if unknown.
    """

    word: str
    detail: str
    alive: bool
    pid: int | None = None
    run_id: str | None = None
    since: float | None = None


class Pulse:
    """Watches one log root's daemon; `take` is cheap enough for once a second.

    The first look believes the wall clock; from then on what moves is timed by `clock` (monotonic seconds), so that a
    clock that is set, forward or back, neither hangs a daemon nor revives one.
    """

    def __init__(self, logs: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.logs = logs
        self._sign = _Seen(clock)  # of life, from the supervisor
        self._progress = _Seen(clock)  # of the training loop

    def take(self) -> Liveness:
        """Never raises: `unknown` where the files cannot be read (another's, a mount that is away)."""
        try:
            pid, state = daemon_pid(self.logs), latest_state(self.logs)
        except OSError as error:
            where = error.filename or self.logs
            return Liveness("unknown", f"{where} cannot be read: {error.strerror}", False)
        run_id = state.run_id if state else None
        if pid is None:
            return self._without_daemon(state, run_id)
        if state is None:
            return Liveness("starting", "the daemon has just started", True, pid, run_id)
        age = self._sign.age((state.time, state.alive, state.pid), time.time() - state.time)
        moved = state.time if state.moved is None else state.moved
        stood = self._progress.age((state.state, state.progress, state.pid), time.time() - moved)
        if age > SILENT_S:
            detail = f"the daemon (pid {pid}) has not counted for {duration(age)}"
            return Liveness("hung", detail, True, pid, run_id, time.time() - age)
        limit = {"training": HUNG_S, "evaluating": HUNG_S, "preparing": PREPARING_HUNG_S}.get(state.state)
        if limit is not None and stood > limit:
            what = "preparation" if state.state == "preparing" else "training loop"
            detail = f"the daemon lives, the {what} has not moved for {duration(stood)}"
            return Liveness("hung", detail, True, pid, run_id, time.time() - stood)
        return Liveness(state.state, state.reason or "", True, pid, run_id, state.since)

    def _without_daemon(self, state: DaemonState | None, run_id: str | None) -> Liveness:
        if state is None:
            return Liveness("none", "no daemon has run here", False)
        ago = duration(time.time() - state.time)
        if state.state == "exited":
            detail = f"no daemon; the last one ended {ago} ago ({state.reason})"
            return Liveness("none", detail, False, None, run_id, state.time)
        detail = f"the daemon died while {state.state}; its last sign of life was {ago} ago"
        return Liveness("dead", detail, False, None, run_id, state.time)


class _Seen:
    """Time without a change: from the reported time at the first look, then by this process's monotonic clock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last: object = None
        self._at = 0.0

    def age(self, value: object, written: float) -> float:
        """Seconds since `value` last changed; `said`: the reported time of the change."""
        if value != self._last:
            self._at = self._clock() - (max(0.0, written) if self._last is None else 0.0)
            self._last = value
        return self._clock() - self._at
