"""Is anybody training this run? The lock says whether a daemon lives, two counters whether it works."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from eegwatch.run.control import HEARTBEAT_S, daemon_pid, latest_state
from eegwatch.run.records import DaemonState
from eegwatch.wording import duration

SILENT_S = 5 * HEARTBEAT_S  # a supervisor that has not counted for so long is stopped or hung
HUNG_S = 60.0  # a training loop that has not counted for so long, in a phase that takes milliseconds a step


@dataclass(frozen=True)
class Liveness:
    """`word`: training, preparing, …, idle, hung, dead, none. `alive`: is there a daemon to obey a command?"""

    word: str
    detail: str
    alive: bool
    pid: int | None = None
    run_id: str | None = None


class Pulse:
    """Watches one log root's daemon; `take` is cheap enough for once a second."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self._progress: tuple[str, int | None] | None = None
        self._moved_at = time.time()

    def take(self, now: float | None = None) -> Liveness:
        now = time.time() if now is None else now
        pid, state = daemon_pid(self.logs), latest_state(self.logs)
        run_id = state.run_id if state else None
        if pid is None:
            return self._without_daemon(state, now, run_id)
        if state is None:
            return Liveness("starting", "the daemon has just started", True, pid, run_id)
        if (state.state, state.progress) != self._progress:
            self._progress, self._moved_at = (state.state, state.progress), now
        age = now - state.time
        if age > SILENT_S:
            return Liveness("hung", f"the daemon (pid {pid}) has not counted for {duration(age)}", True, pid, run_id)
        if state.state in ("training", "evaluating") and now - self._moved_at > HUNG_S:
            stood = duration(now - self._moved_at)
            return Liveness("hung", f"the daemon lives, the training loop has not moved for {stood}", True, pid, run_id)
        return Liveness(state.state, state.reason or "", True, pid, run_id)

    def _without_daemon(self, state: DaemonState | None, now: float, run_id: str | None) -> Liveness:
        if state is None:
            return Liveness("none", "no daemon has run here", False)
        ago = duration(now - state.time)
        if state.state == "exited":
            return Liveness("none", f"no daemon; the last one ended {ago} ago ({state.reason})", False, None, run_id)
        return Liveness("dead", f"the daemon died; its last sign of life was {ago} ago", False, None, run_id)
