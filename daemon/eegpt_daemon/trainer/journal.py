"""The trainer's run log: written by rank 0, and begun anew if it was deleted or rotated during the run."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from eegpt_daemon.trainer import checkpoint as checkpoints
from eegwatch.diagnosis.saved_state import judge_of
from eegwatch.run.folder import CHECKPOINTS, RUN_LOG, HeldFolder, file_hash
from eegwatch.run.indexer import WriterIndex
from eegwatch.run.log import AppendLog
from eegwatch.run.records import Checkpoint, End, Record, Run


class Journal:
    """`write` a record, `sync` them to disk, `say` a line to trainer.log; nothing of it in the other processes."""

    def __init__(self, folder: Path, *, leads: bool, clean: Callable[[str], str] = str) -> None:
        """Raises OSError where the log cannot be opened."""
        self.home = HeldFolder(folder)
        self._log = AppendLog(folder / RUN_LOG) if leads else None
        self._index = WriterIndex(folder, judge_of)
        self.clean = clean
        self._run: Run | None = None  # the attempt's, with all that was added to it
        self._saved: dict[str, Checkpoint] = {}  # by path: this attempt's

    def write(self, record: Record) -> None:
        """Raises OSError on a full disk."""
        if self._log is None:
            return
        if isinstance(record, Run):
            self._run = record
        elif isinstance(record, Checkpoint):
            self._saved[record.path] = record
        self._log.append(record)
        self._index.wrote()
        if isinstance(record, End):
            self._index.close()

    def sync(self, step: int = 0) -> None:
        """Make durable what was written. Raises OSError. `step`: the steps done, for a log that is begun anew."""
        if self._log is None:
            return
        if self._run is not None and self._log.displaced() and self.home.in_place:
            self._begin_anew(step)
        self._log.sync()

    def say(self, text: str) -> None:
        if self._log is not None:
            print(self.clean(text), flush=True)

    def _begin_anew(self, step: int) -> None:
        """The log of this name is another file or none: the attempt, and its checkpoints, so that it can be resumed."""
        assert self._log is not None and self._run is not None
        message = f"{RUN_LOG} was deleted, rotated or replaced: a new one begins at step {step:,}"
        log = AppendLog(self.home.path / RUN_LOG)
        self._log.close()
        self._log, self._index = log, WriterIndex(self.home.path, judge_of)
        log.append(msgspec.structs.replace(self._run, time=time.time(), step=step, notes=[*self._run.notes, message]))
        for path in sorted((self.home.path / CHECKPOINTS).glob("step-*.pt")):
            name = f"{CHECKPOINTS}/{path.name}"
            checkpoint, reached = self._saved.get(name), checkpoints.step_of(path)
            if checkpoint is None and reached is not None:
                checkpoint = Checkpoint(time=time.time(), step=reached, path=name, sha256=file_hash(path))
            if checkpoint is not None:
                log.append(checkpoint)
        self.say(message)
