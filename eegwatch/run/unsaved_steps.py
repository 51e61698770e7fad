"""The steps that a stop of a script would lose: those after its newest complete checkpoint."""

from __future__ import annotations

import functools
from pathlib import Path

from eegwatch.run import config as configuration
from eegwatch.run.config import Script
from eegwatch.run.folder import CONFIG, RUN_LOG
from eegwatch.run.log import run_decoder
from eegwatch.run.records import Checkpoint, Run
from eegwatch.run.summary import summarise

MARKS = (b'"type":"run"', b'"type":"checkpoint"')


def script_of(folder: Path) -> Script | None:
    """The script that a run's configuration names; None for this project's own trainer and for foreign logs."""
    try:
        written = (folder / CONFIG).stat().st_mtime_ns
    except OSError:
        return None
    return _script(folder, written)


@functools.lru_cache(maxsize=16)
def _script(folder: Path, written: int) -> Script | None:
    try:
        return configuration.load(folder / CONFIG, expand=False).script
    except configuration.ConfigError:
        return None


def unsaved(folder: Path, step: int, newest: Checkpoint | None) -> str | None:
    """In words; None where the run is not a script's under the daemon, which saves nothing at a stop by itself.

    `step`: the last step taken; `newest`: the checkpoint of the newest step that counts.
    """
    script = script_of(folder)
    if script is None:
        return None
    if not script.checkpoints:
        return f"The script gets {script.stop}; it has no script.checkpoints: what it saves is not known."
    if newest is None:
        return f"The script gets {script.stop}; no checkpoint was seen: all {step:,} steps would be lost."
    beyond = max(0, step - newest.step)
    lie = "1 step lies" if beyond == 1 else f"{beyond:,} steps lie"
    where = f"{newest.path}, step {newest.step:,}"
    return f"The script gets {script.stop}; {lie} beyond its newest complete checkpoint ({where})."


def unsaved_of(folder: Path) -> str | None:
    """The same, from the run log, of which only the lines of attempts and checkpoints are decoded. Raises OSError."""
    decoder, saved = run_decoder(), list[Checkpoint]()
    with (folder / RUN_LOG).open("rb") as log:
        for line in log:
            if not any(mark in line for mark in MARKS):
                continue
            for record in decoder.decode(line):
                if isinstance(record, Run):
                    saved = [c for c in saved if c.step <= record.step]
                elif isinstance(record, Checkpoint):
                    saved.append(record)
    return unsaved(folder, summarise(folder).step, saved[-1] if saved else None)
