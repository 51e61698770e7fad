"""Commands of the command line to a living daemon: through the control file, with each answer as it comes."""

from __future__ import annotations

import time
from pathlib import Path

from eegpt_daemon.launch import DAEMON_OUT
from eegpt_daemon.refusal import FAILED, NOT_RUNNING, OK, TRY_AGAIN, Refused
from eegwatch.run.control import CONTROL, AnswerWatch, daemon_pid, latest_state, send, unsafe_control
from eegwatch.run.folder import newest_run
from eegwatch.wording import duration, plain

ANSWER_TIMEOUT_S = 600.0  # a resume answers with its first step, and preparation may come before it


def current_run(logs: Path) -> str | None:
    state = latest_state(logs)
    if state is not None and state.run_id is not None:
        return state.run_id
    newest = newest_run(logs)
    return newest.name if newest else None


def require_daemon(logs: Path, instead: str) -> None:
    if daemon_pid(logs) is not None:
        return
    state = latest_state(logs)
    if state is not None and state.state != "exited":
        when = f"its last sign of life was {duration(time.time() - state.time)} ago ({state.state})"
        raise Refused(f"no daemon is running on {logs}: it died; {when}; {instead}", NOT_RUNNING)
    raise Refused(f"no daemon is running on {logs}; {instead}", NOT_RUNNING)


def ask(logs: Path, name: str, **fields: object) -> int:
    """Send one command, print each answer as it comes, and return the exit code for the last."""
    problem = unsafe_control(logs / CONTROL)
    if problem is not None:
        raise Refused(f"the daemon will not obey this file: {problem}")
    watch = AnswerWatch(logs)
    command_id = send(logs, name, current_run(logs), **fields)
    for answer in watch.answers(command_id, ANSWER_TIMEOUT_S, lambda: daemon_pid(logs) is not None):
        effect = ", ".join(f"{key} {value}" for key, value in (answer.effect or {}).items() if value is not None)
        details = "; ".join(part for part in (answer.reason, effect) if part)
        print(f"{name}: {answer.status}" + (f": {plain(details)}" if details else ""), flush=True)
        if answer.status in ("done", "rejected", "failed", "expired"):
            return OK if answer.status == "done" else FAILED
    if daemon_pid(logs) is None:
        raise Refused(f"{name}: the daemon died before it answered; see {logs / DAEMON_OUT}")
    raise Refused(f"{name}: no answer within {ANSWER_TIMEOUT_S:.0f} s; it is still queued", TRY_AGAIN)
