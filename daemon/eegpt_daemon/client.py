"""Commands of the command line to a living daemon: through the control file, with each answer as it comes."""

from __future__ import annotations

import math
import time
from pathlib import Path

from eegpt_daemon.errors import FAILED, NOT_RUNNING, OK, TRY_AGAIN, Refused
from eegpt_daemon.launch import DAEMON_OUT, current_run
from eegwatch.run.control import CONTROL, AnswerWatch, daemon_pid, latest_state, send, unsafe_control
from eegwatch.wording import duration, exact, plain

ANSWER_TIMEOUT_S = 600.0  # a resume answers with its first step, and preparation may come before it


def require_daemon(logs: Path, instead: str) -> None:
    if daemon_pid(logs) is not None:
        return
    state = latest_state(logs)
    if state is not None and state.state != "exited":
        when = f"its last sign of life was {duration(time.time() - state.time)} ago ({state.state})"
        raise Refused(f"no daemon is running on {logs}: it died; {when}; {instead}", NOT_RUNNING)
    raise Refused(f"no daemon is running on {logs}; {instead}", NOT_RUNNING)


def _short(value: object) -> str:
    """A value that was read back, as people write it: 3e-4, not 2.9999999999999997e-4 as float64 has it."""
    return exact(float(f"{value:.12g}")) if isinstance(value, float) and math.isfinite(value) else str(value)


def send_command(logs: Path, name: str, **fields: object) -> int:
    """Send one command, print each answer as it comes, and return the exit code for the last."""
    problem = unsafe_control(logs / CONTROL)
    if problem is not None:
        raise Refused(f"the daemon will not obey this file: {problem}")
    watch = AnswerWatch(logs)
    command_id = send(logs, name, current_run(logs), **fields)
    for answer in watch.answers(command_id, ANSWER_TIMEOUT_S, lambda: daemon_pid(logs) is not None):
        effect = ", ".join(
            f"{key} {_short(value)}" for key, value in (answer.effect or {}).items() if value is not None
        )
        details = "; ".join(part for part in (answer.reason, effect) if part)
        print(f"{name}: {answer.status}" + (f": {plain(details)}" if details else ""), flush=True)
        if answer.status in ("done", "rejected", "failed", "expired"):
            return OK if answer.status == "done" else FAILED
    if daemon_pid(logs) is None:
        raise Refused(f"{name}: the daemon died before it answered; see {logs / DAEMON_OUT}")
    raise Refused(f"{name}: no answer within {ANSWER_TIMEOUT_S:.0f} s; it is still queued", TRY_AGAIN)
