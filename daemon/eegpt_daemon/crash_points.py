"""The named boundaries of supervisor and trainer at which a test can make them die (eegwatch.run.crash_points)."""

from __future__ import annotations

from eegwatch.run.crash_points import VARIABLE as VARIABLE
from eegwatch.run.crash_points import point as point

POINTS = (
    "command.after_read", "command.after_accept", "command.after_act", "command.before_answer", "command.after_answer",
    "run.after_folder", "run.after_config", "attempt.after_spawn", "attempt.after_run_record",
    "checkpoint.after_write", "checkpoint.after_fsync", "checkpoint.after_rename", "checkpoint.after_folder_fsync",
    "checkpoint.after_record", "end.after_record",
)  # fmt: skip
