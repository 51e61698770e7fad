"""run.jsonl of a script that writes none: what it prints, or a log of a known kind that it writes, as our records.

The `run` record is written at the first step that is read, with the declared schedule and the length that the output
says; once more where the output says its length later. A script that uses RunLog writes run.jsonl itself: then this
one writes checkpoints, and the end of a script that did not write its own.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from eegpt_daemon.link import Attempt
from eegpt_daemon.script.ending import LastLines
from eegpt_daemon.script.log_file import LogFile
from eegpt_daemon.script.saving import StepTimes
from eegwatch.diagnosis.rate.precision import PRINTED as PRECISION_OF_TEXT
from eegwatch.formats.lines import LINE_KINDS
from eegwatch.formats.patterns import compile_patterns
from eegwatch.formats.row_reader import RowReader
from eegwatch.formats.text import TextDecoder
from eegwatch.run.config import Config, ConfigError, expected_rates, schedule_of
from eegwatch.run.folder import RUN_LOG
from eegwatch.run.follow import FormatError
from eegwatch.run.log import AppendLog, Tail, each_record, run_decoder
from eegwatch.run.records import Checkpoint, End, Eval, Record, Run, RunRecord, Step
from eegwatch.schedule import Schedule, ScheduleError, as_dict, resumed

RUNLOG, PRINTED, FILE = "RunLog", "what the script prints", "a log that the script writes"
COARSE_S = 0.1  # the times of files come from a coarser clock, up to 10 ms behind
LATELY_S = 5.0  # a record whose own time lies further back was stamped by another clock
FROM_ZERO = "the output numbers epochs from 0"  # said in the run's notes: a resume begins in the middle
QUIET_S = 1.0  # a step whose values may stand in several lines is passed on after so long a silence
READ_BYTES = 1 << 20
EVALUATIONS_ALONE = 3  # after so many epochs without a step, evaluations are all that a script prints
COUNTS_ANEW = 0.5  # a resumed script whose first step lies below this share of its checkpoint's counts from 0 again


class ScriptLog:
    """Records of one attempt. `source` says where they come from, None before the first step is read."""

    def __init__(self, folder: Path, attempt: Attempt, config: Config) -> None:
        """Raises OSError, PatternError."""
        self.folder, self.attempt, self.config = folder, attempt, config
        self.source: str | None = None
        self.trouble: str | None = None
        self._log = AppendLog(folder / RUN_LOG)
        self._others = Tail(folder / RUN_LOG, os.path.getsize(folder / RUN_LOG))
        self._decoder = run_decoder()
        self._offset = 0
        self._early: list[Eval] = []
        self._evals_alone = False
        self._declared: tuple[int | None, int | None] | None = None  # steps of the run and of an epoch
        self._from_zero = False
        self._precision = PRECISION_OF_TEXT
        self._begun_at = self._checkpoint_step()
        self.steps = StepTimes(self._begun_at)
        self.last = LastLines()
        self._overrides = attempt.overrides
        self._any_step = self._announced = False
        self._length: int | None = None
        self._ended = False
        assert config.script is not None
        self._script = config.script
        self._patterns = compile_patterns(config.script.pattern)
        self._text = self._decoder_of_text()
        if self._from_zero:
            self._text.reader.counter.count_epochs_from_zero()
        self._file = LogFile(folder, config.script, self._patterns)
        self._fed_at = 0.0
        self._started_at = time.time() - COARSE_S
        self._pass_over_the_old()

    @property
    def step(self) -> int:
        """The newest step that is known."""
        return self.steps.newest

    @property
    def read(self) -> bool:
        """Was a step of this attempt read?"""
        return self.source is not None and self._any_step

    @property
    def total(self) -> int | None:
        """The length of the run in steps, where it is known."""
        return self._length

    @property
    def per_epoch(self) -> int | None:
        """Steps of an epoch, where they are known."""
        total, printed = self._declared or (None, None)
        return printed or self._epoch_of(total)

    def _decoder_of_text(self) -> TextDecoder:
        return TextDecoder(RowReader(self.folder.name), time.time, self._patterns, [make() for make in LINE_KINDS])

    def _checkpoint_step(self) -> int:
        """The step of the checkpoint that the attempt starts from; if it was not recorded, the newest step before it.

        The run keeps the length that the attempt before has learned until the output says another.
        """
        if self.attempt.checkpoint is None:
            return 0
        saved, newest = None, 0
        for record in each_record(self.folder / RUN_LOG, run_decoder()):
            if isinstance(record, Checkpoint) and record.path == self.attempt.checkpoint:
                saved = record.step
            elif isinstance(record, Step):
                newest = record.step
            elif isinstance(record, Run) and FROM_ZERO in record.notes:
                self._from_zero = True
            if isinstance(record, Run) and (record.total_steps or record.steps_per_epoch):
                self._declared = (record.total_steps, record.steps_per_epoch)
        return newest if saved is None else saved

    # ---- what comes in ----

    def line(self, text: str) -> None:
        """A line that the script printed."""
        if self.source in (RUNLOG, FILE) or self._script.log:
            self.last.add(text, stepped=False)
            return
        now = time.time()
        self._fed_at = now
        before = self.step
        self._take(PRINTED, self._text.line(text, now))
        self.last.add(text, stepped=self.step > before)

    def look(self) -> None:
        """Take the lines that waited for a pause in the output; check whether the script writes its own log."""
        self._look_for_runlog()
        if self.source == RUNLOG:
            return
        if self.source in (None, PRINTED) and time.time() - self._fed_at > QUIET_S:
            self._take(PRINTED, self._text.reader.flush())
        if self.source in (None, FILE):
            self._look_for_file()

    def _look_for_runlog(self) -> None:
        """Records in run.jsonl that are not ours: a `run` record of another process is RunLog's."""
        for record in self._decoder.decode(self._others.read(READ_BYTES).data):
            if isinstance(record, Run) and record.pid != os.getpid():
                self.source, self._length, self._declared = RUNLOG, record.total_steps, None
            elif isinstance(record, Step):
                self._saw(record.step, record.time)
            elif isinstance(record, End):
                self._ended = self.source == RUNLOG

    def _look_for_file(self) -> None:
        try:
            if self.source is None:
                self._file.find(since=self._started_at)
            self._take(FILE, self._file.read())
        except (OSError, FormatError) as error:
            self.trouble = str(error)

    def _pass_over_the_old(self) -> None:
        """Skip the steps of earlier attempts in a log that the script continues to write."""
        if self.attempt.attempt == 1:
            return
        try:
            self._file.skip_earlier()
        except (OSError, FormatError) as error:
            self.trouble = str(error)

    # ---- what goes out ----

    def _take(self, source: str, records: Iterable[RunRecord]) -> None:
        for record in records:
            if isinstance(record, Run):
                self._declare(record)
            elif isinstance(record, Step):
                self._take_step(source, record)
            elif isinstance(record, Eval) and self.source == source:
                self._take_eval(record)
            elif isinstance(record, Eval) and self.source is None:
                self._take_early(source, record)

    def _take_early(self, source: str, record: Eval) -> None:
        """An evaluation before any step: a script may print nothing else, a line an epoch."""
        self._early.append(record)
        if len({early.step for early in self._early}) < EVALUATIONS_ALONE:
            return
        self._look_for_runlog()
        if self.source is not None:
            return
        self.source = source
        self._begin()
        if self._begun_at and self._early[0].step < COUNTS_ANEW * self._begun_at:
            self._offset = self._begun_at
        self._evals_alone = True
        for early in self._early:
            self._take_eval(early)

    def _take_eval(self, record: Eval) -> None:
        step = max(record.step + self._offset, self._begun_at)
        if self._evals_alone and step > self.step:
            self._saw(step, record.time)
        self.append(msgspec.structs.replace(record, step=step))

    def _take_step(self, source: str, record: Step) -> None:
        if self.source is None:
            self._look_for_runlog()  # it wrote its `run` record before its first step was printed
            if self.source == RUNLOG:
                return
            self.source = source
            if self._begun_at and record.step < COUNTS_ANEW * self._begun_at:
                self._offset = self._begun_at
            self.steps.newest = record.step + self._offset - 1
            self._overrides = self._from_here(self.step)
            self._begin()
        step = record.step + self._offset
        if step > self.step:
            self._saw(step, record.time)
            self.append(msgspec.structs.replace(record, step=step, **self._place(step)))

    def _saw(self, step: int, when: float) -> None:
        """A step; by its own time where that is no other clock's."""
        now = time.time()
        self.steps.add(when if now - LATELY_S < when <= now else now, step)
        self._any_step = True

    def _place(self, step: int) -> dict[str, int | None]:
        """Epoch and batch of a step, where the length of an epoch is known."""
        per_epoch = self.per_epoch
        if not per_epoch:
            return {"epoch": None, "batch": None}
        epoch, before = divmod(step - 1, per_epoch)
        return {"epoch": epoch, "batch": before + 1}

    def _from_here(self, step: int) -> list[dict[str, Any]]:
        """The changes so far; the change by this attempt begins at the first step that its script reports."""
        *earlier, newest = self.attempt.overrides or [{}]
        if newest.get("command") is None or newest["command"] != self.attempt.command:
            return self.attempt.overrides
        return [*earlier, newest | {"from_step": step}]

    def _declare(self, declared: Run) -> None:
        """Declare the length found in the output; write a second `run` record if it appears after the first step."""
        self._precision = declared.lr_precision or PRECISION_OF_TEXT
        lengths = (declared.total_steps, declared.steps_per_epoch)
        changed = lengths != self._declared
        self._declared = lengths
        if self.source is not None and changed:
            self._begin()

    def _begin(self) -> None:
        epochs = self.config.training.max_epochs
        total, per_epoch = self._declared or (None, None)
        per_epoch = per_epoch or self._epoch_of(total)
        schedule, notes = self._schedule(per_epoch)
        self._announced = True
        source = f"read from {self.source}" if self.source else "no step was read yet"
        zero = [FROM_ZERO] if self._text.reader.counter.epochs_from_zero else []
        counted = f"; its steps count from 0 again, {self._offset:,} are added" if self._offset else ""
        if per_epoch and (self._offset or total is None or "max_epochs" in declared_keys(self.config)):
            total = epochs * per_epoch
        self._length = total
        self.append(
            Run(
                time=time.time(),
                run_id=self.folder.name,
                attempt=self.attempt.attempt,
                name=self.config.experiment.name,
                step=self.step,
                total_steps=total,
                steps_per_epoch=per_epoch,
                epochs=epochs if per_epoch else None,
                accumulate=self.config.training.gradient_accumulation_steps,
                schedule=None if schedule is None else as_dict(schedule),
                target=_target(self.config),
                expected=expected_rates(self.config) or None,
                parent=self.attempt.parent,
                parent_step=self.attempt.parent_step,
                checkpoint=self.attempt.checkpoint,
                overrides=self._overrides,
                command=self.attempt.command,
                detectors=dict(self.config.detectors),
                notes=[*self.attempt.notes, source + counted, *zero, *notes],
                pid=os.getpid(),
                host=socket.gethostname(),
                versions={"python": sys.version.split()[0]},
                lr_precision=self._precision,
                argv=list(self.config.script.command) if self.config.script else [],
            )
        )

    def _epoch_of(self, total: int | None) -> int | None:
        """The steps of an epoch where the output does not say them: from the run's length and the declared epochs.

        Output of one line an epoch counts epochs: each is a step.
        """
        if self._text.reader.counter.unit == "epoch":
            return 1
        epochs = self.config.training.max_epochs
        return total // epochs if total and "max_epochs" in declared_keys(self.config) and not total % epochs else None

    def _schedule(self, per_epoch: int | None) -> tuple[Schedule | None, list[str]]:
        """The declared schedule with the manual changes so far; None where its length is not known yet."""
        if "scheduler" not in declared_keys(self.config):
            return None, []
        if per_epoch is None:
            return None, ["the length of an epoch is not known from the output: the declared schedule is not drawn yet"]
        if per_epoch == 1 and self.config.training.scheduler.unit != "epoch":
            return None, [
                "the output counts epochs, and the declared schedule counts steps: it is not drawn; declare "
                "`unit: epoch` if the script steps its scheduler once an epoch"
            ]
        try:
            schedule = declared = schedule_of(self.config, per_epoch)
            for change in self._overrides:
                schedule = resumed(
                    declared, int(change["from_step"]), change.get("lr"), change.get("then", "hold"),
                    steps_per_epoch=per_epoch, force=True,
                )  # fmt: skip
        except (ConfigError, ScheduleError) as error:
            return None, [str(error)]
        return schedule, []

    def announce(self) -> None:
        """The `run` record, before anything else of an attempt of which no step was read yet."""
        if self.source is None and not self._announced:
            self._begin()

    def append(self, record: Record) -> None:
        """Write a record; on a full disk the record is lost and the script continues."""
        try:
            self._log.mend()
            self._log.append(record)
        except OSError as error:
            self.trouble = f"run.jsonl cannot be written: {error.strerror}"

    def drain(self) -> None:
        """Take all that is left to read."""
        if self.source in (None, PRINTED):
            self._take(PRINTED, [*self._text.drain(), *self._text.reader.flush()])
        self.look()

    def read_last_lines(self) -> None:
        """Read the last lines of a script that writes its output into a file, as if it had printed them."""
        if self.source != FILE:
            return
        try:
            lines = self._file.last_lines()
        except OSError as error:
            self.trouble = str(error)
            return
        text = self._decoder_of_text()
        for line in lines:
            before = text.reader.counter.step
            text.line(line, 0.0)
            self.last.add(line, stepped=text.reader.counter.step > before)

    def end(self, reason: str, error: str | None) -> None:
        """The last record of the attempt, unless RunLog wrote it."""
        self.drain()
        if self.source is None:  # no step was read: the attempt still has a first line
            self.source = PRINTED
            self._begin()
        if not self._ended:
            self.append(End(time=time.time(), step=self.step, reason=reason, error=error))
            self._ended = True


def _target(config: Config) -> dict[str, float] | None:
    auroc = config.target_metrics.auroc
    return None if auroc is None else {"auroc": auroc}


def declared_keys(config: Config) -> set[str]:
    """The parts of `training` that the author wrote: a default schedule is not a declaration."""
    default: dict[str, Any] = msgspec.to_builtins(Config().training)
    given: dict[str, Any] = msgspec.to_builtins(config.training)
    return {key for key in given if given[key] != default[key]}
