"""Findings that a person dismissed, with person, time and reason, as `intent` records.

A run folder's intents are in its run.jsonl. Those of another program's log, and of a run
log that cannot be written, are in ~/.config/eegwatch/meant.jsonl with the path of the log.
"""

from __future__ import annotations

import getpass
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from eegwatch.run.folder import RUN_LOG
from eegwatch.run.log import AppendLog
from eegwatch.run.records import Intent
from eegwatch.wording import UserError


class NotRecorded(UserError):
    """Neither the log nor the file beside the settings could be written."""


class _Elsewhere(msgspec.Struct, kw_only=True):
    """A line of meant.jsonl: the log, the run in it, and the dismissed finding."""

    log: str
    run_id: str = ""
    intent: Intent


def side_file() -> Path:
    """The file for intents that cannot be written into the log itself."""
    root = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(root).expanduser() / "eegwatch" / "meant.jsonl"


def person() -> str:
    """user@host, for the record."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def append(log: Path, findings: Sequence[tuple[str, int]], step: int, *, reason: str = "", run_id: str = "") -> Path:
    """Record the dismissal of these findings, each as (rule, since_step); returns the file written to.

    `log`: a run folder, whose run.jsonl takes them if it can be written, or another program's log file. `step`: the
    newest step of the run. Raises NotRecorded.
    """
    now, by = time.time(), person()
    intents = [
        Intent(time=now, step=step, rule=rule, since_step=since, by=by, reason=reason) for rule, since in findings
    ]
    own = log / RUN_LOG
    if log.is_dir() and own.is_file():
        try:
            _write(own, intents)
            return own
        except OSError:
            pass  # not ours to write: it is kept beside the settings instead
    path = side_file()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = AppendLog(path)
        try:
            for intent in intents:
                line = _Elsewhere(log=str(log.resolve()), run_id=run_id, intent=intent)
                file.write(msgspec.json.encode(line) + b"\n")
            file.sync()
        finally:
            file.close()
    except OSError as error:
        raise NotRecorded(f"{path}: {error.strerror or error}: it could not be recorded") from error
    return path


def _write(path: Path, intents: list[Intent]) -> None:
    file = AppendLog(path)
    try:
        for intent in intents:
            file.append(intent)
        file.sync()
    finally:
        file.close()


def read(log: Path, run_id: str = "") -> list[Intent]:
    """The intents beside the settings that are about this log, and this run in it; lines that are none are passed over.

    Those in a run.jsonl come with its other records.
    """
    try:
        lines = side_file().read_bytes().splitlines()
    except OSError:
        return []
    name, intents = str(log.resolve()), []
    for line in lines:
        try:
            one = msgspec.json.decode(line, type=_Elsewhere)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        if one.log == name and (not one.run_id or not run_id or one.run_id == run_id):
            intents.append(one.intent)
    return intents
