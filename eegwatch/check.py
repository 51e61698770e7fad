"""`eegwatch check`: every detector over a run's log, without a screen, for cron and CI."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from eegwatch.diagnosis.engine import Diagnosis, worst
from eegwatch.diagnosis.findings import Finding
from eegwatch.diagnosis.precision import Precision
from eegwatch.run import config as configuration
from eegwatch.run.config import ConfigError
from eegwatch.run.folder import RUN_LOG, NotARun, newest_run, resolve
from eegwatch.run.history import History, Reader
from eegwatch.run.log import Tail, run_decoder
from eegwatch.run.records import End, Run, RunRecord, Step
from eegwatch.schedule import as_dict

EVERY_S = 0.5


@dataclass(frozen=True)
class Checked:
    """The outcome for one run."""

    run: str
    findings: list[Finding]
    bad_lines: int
    disorder: str | None = None
    clock_back: str | None = None

    @property
    def wrong(self) -> bool:
        return worst(self.findings) in ("error", "warning")

    def remarks(self) -> list[str]:
        """What was wrong with the log itself, in words."""
        skipped = f"{self.bad_lines} lines could not be read and were skipped" if self.bad_lines else None
        return [remark for remark in (skipped, self.disorder, self.clock_back) if remark]

    def as_dict(self) -> dict[str, Any]:
        findings = [f.as_dict() for f in self.findings]
        return {"run": self.run, "findings": findings, "bad_lines": self.bad_lines, "remarks": self.remarks()}

    def text(self) -> str:
        lines = [f"{self.run}: nothing wrong"] if not self.wrong else [f"{self.run}:"]
        for finding in self.findings:
            lines.append(f"{finding.severity:7}  {finding.rule}  since step {finding.since_step:,}: {finding.message}")
            if finding.remedy:
                lines.append(f"         {finding.remedy}")
        return "\n".join(lines)


class CheckedRun:
    """One log and its detectors. A `config` declares the schedule where the log has no `run` record that does."""

    def __init__(self, folder: Path, config: Path | None, steps_per_epoch: int | None) -> None:
        self.folder, self.config_path, self.steps_per_epoch = folder, config, steps_per_epoch
        self.config = configuration.load(config, expand=False) if config else None
        self.diagnosis = Diagnosis()
        self.history = History()
        self.known = 0
        self.ended = False
        self._tail = Tail(folder / RUN_LOG)
        self._decoder = run_decoder()
        self._reader = Reader()
        self._declared = False

    def poll(self) -> list[Finding]:
        """Take what is new; returns the findings that changed. Raises ConfigError if an epoch's length is missing."""
        changes: list[Finding] = []
        while data := self._tail.read(1 << 20).data:
            records = self._decoder.decode(data)
            self.known += len(records)
            for item in self._reader.items(self._with_schedule(records)):
                self.history.append(item)
                self.ended = isinstance(item, End) or (self.ended and not isinstance(item, Run))
                changes += self.diagnosis.feed(item)
        return changes

    def _with_schedule(self, records: list[RunRecord]) -> Iterator[RunRecord]:
        """The records, with the configuration's schedule put where the log declares none."""
        for record in records:
            if self.config is not None and isinstance(record, Run) and record.schedule is None:
                yield self._declare(record, record.steps_per_epoch)
            elif self.config is not None and isinstance(record, Step) and not self._declared and not self.history.run:
                self.diagnosis = Diagnosis(Precision(), lags=(0, 1, -1))  # a foreign log: digits and lag unknown
                begin = Run(time=record.time, run_id=self.folder.name, step=record.step - 1)
                yield self._declare(begin, self._epoch_length(record))
                yield record
            else:
                self._declared |= isinstance(record, Run)
                yield record

    def _epoch_length(self, step: Step) -> int | None:
        """Steps an epoch, from a record's own counters: epoch * B + batch == step."""
        if step.epoch and step.batch and (step.step - step.batch) % step.epoch == 0:
            return (step.step - step.batch) // step.epoch
        return None

    def _declare(self, run: Run, known: int | None) -> Run:
        assert self.config is not None
        per_epoch = self.steps_per_epoch or known
        if per_epoch is None:
            raise ConfigError(
                f"{self.config_path}: how long an epoch is, neither it nor the log says: give --steps-per-epoch N"
            )
        self._declared = True
        schedule = configuration.schedule_of(self.config, per_epoch, str(self.config_path))
        epochs = self.config.training.max_epochs
        return msgspec.structs.replace(
            run,
            schedule=as_dict(schedule),
            steps_per_epoch=per_epoch,
            epochs=epochs,
            total_steps=epochs * per_epoch,
            accumulate=self.config.training.gradient_accumulation_steps,
            batch_size=self.config.data.batch_size,
            expected=configuration.expected_rates(self.config) or None,
            detectors=dict(self.config.detectors),
        )

    def read_to_end(self) -> Checked:
        """Raises NotARun for a file without a single record."""
        self.poll()
        if not self.known:
            bad = self._decoder.bad
            what = f"{bad} lines, none of them a record" if bad else "it is empty"
            raise NotARun(f"{self.folder / RUN_LOG}: not a run log: {what}")
        return self.outcome()

    def outcome(self) -> Checked:
        disorder = self._reader.first_disorder
        if disorder is not None:
            disorder = (
                f"{self._reader.disorder} steps out of order were left out; the first: {disorder} without a new attempt"
            )
        return Checked(self.folder.name, self.diagnosis.findings, self._decoder.bad, disorder, self._reader.clock_back)


def open_run(path: Path, config: Path | None, steps_per_epoch: int | None) -> CheckedRun:
    """The run at PATH (of a log root, the newest). Raises NotARun, ConfigError."""
    _, folder = resolve(path)
    folder = folder or newest_run(path)
    if folder is None:
        raise NotARun(f"{path}: holds no run (a folder with {RUN_LOG})")
    return CheckedRun(folder, config, steps_per_epoch)


def follow(runs: list[CheckedRun], *, as_json: bool) -> int:
    """Print findings as they change until every run has ended (or Ctrl-C): 1 if anything is wrong then, else 0."""
    try:
        while True:
            for run in runs:
                for finding in run.poll():
                    if as_json:
                        print(json.dumps({"run": run.folder.name, "finding": finding.as_dict()}), flush=True)
                    else:
                        print(f"{run.folder.name}  {finding.severity}  {finding.rule}: {finding.message}", flush=True)
            if all(run.ended for run in runs):
                break
            time.sleep(EVERY_S)
    except KeyboardInterrupt:
        print("", file=sys.stderr)
    return 1 if any(run.outcome().wrong for run in runs) else 0
