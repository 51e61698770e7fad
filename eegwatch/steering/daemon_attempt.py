"""The attempt that `eegpt-daemon` passes to a script's RunLog: run folder and number of the attempt."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from eegwatch.run.records import Run
from eegwatch.schedule import ScheduleError, as_dict, parse, resumed

RUN, ATTEMPT = "EEGWATCH_RUN", "EEGWATCH_ATTEMPT"


class DaemonAttempt(msgspec.Struct):
    """The attempt that a daemon began: what its `run` record holds beside what the script knows."""

    run: str = ""
    attempt: int = 1
    parent: str | None = None
    parent_step: int | None = None
    checkpoint: str | None = None
    overrides: list[dict[str, Any]] = []
    command: str | None = None
    notes: list[str] = []

    def completed(self, run: Run) -> Run:
        """The script's `run` record with what the daemon knows; a rate that it gave the script is held from here on."""
        overrides = [dict(change) for change in self.overrides]
        schedule = run.schedule
        if overrides and overrides[-1].get("command") == self.command:
            overrides[-1]["from_step"] = run.step
        if overrides and overrides[-1].get("lr") is not None and schedule is not None:
            newest = overrides[-1]
            try:
                held = resumed(
                    parse(schedule), int(newest["from_step"]), newest["lr"], newest.get("then", "hold"),
                    steps_per_epoch=run.steps_per_epoch, force=True,
                )  # fmt: skip
                schedule = as_dict(held)
            except ScheduleError:
                schedule = None  # the rate is not the declared one, and nothing says what it is
        return msgspec.structs.replace(
            run,
            attempt=self.attempt,
            parent=self.parent,
            parent_step=self.parent_step,
            checkpoint=self.checkpoint,
            overrides=overrides,
            command=self.command,
            notes=self.notes,
            schedule=schedule,
        )


def attempt_of_daemon() -> DaemonAttempt | None:
    """The attempt that this process was started for; None outside a daemon. The first RunLog of a process takes it."""
    run = os.environ.pop(RUN, None)
    encoded = os.environ.pop(ATTEMPT, None)
    if run is None or not Path(run).is_dir():
        return None
    try:
        given = msgspec.json.decode(encoded or "{}", type=DaemonAttempt)
    except msgspec.DecodeError:
        given = DaemonAttempt()
    given.run = run
    return given


def goes_on(attempt: int, given: DaemonAttempt | None) -> bool:
    """Whether the steered schedule continues: not if a person ordered this attempt at other rates."""
    return attempt > 1 and (given is None or given.command is None)
