"""`eegwatch check`: every detector over a run's log, without a screen, for cron and CI."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eegwatch.diagnosis.engine import Diagnosis, worst
from eegwatch.diagnosis.findings import Finding
from eegwatch.formats import foreign_log
from eegwatch.run.declare import Declaration
from eegwatch.run.folder import RUN_LOG, NotARun, newest_run, resolve
from eegwatch.run.follow import Foreign, OwnLog, RunFollower
from eegwatch.run.history import History
from eegwatch.run.records import End, Run
from eegwatch.wording import json_line, plain

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

    def __init__(
        self, folder: Path, config: Path | None, steps_per_epoch: int | None, foreign: Foreign | None = None
    ) -> None:
        """Raises ConfigError, formats.FormatError."""
        self.folder, self.foreign = folder, foreign
        self.name = foreign.name if foreign else folder.name
        self._declaration = Declaration(config, steps_per_epoch, self.name)
        self._follower = RunFollower(foreign.follow() if foreign else OwnLog(folder), self._declaration)
        self.diagnosis = Diagnosis.of_foreign() if foreign else Diagnosis()
        self.history = History()
        self.ended = False

    @property
    def known(self) -> int:
        return self._follower.records

    def poll(self) -> list[Finding]:
        """Take what is new; returns the findings that changed. Raises ConfigError if an epoch's length is missing."""
        changes: list[Finding] = []
        while True:
            items = self._follower.poll(1 << 20)
            if self._follower.began_anew:
                self.history.clear()
                self.diagnosis = Diagnosis.of_foreign() if self.foreign else Diagnosis()
            for item in items:
                if self._declaration.bare and not self.history.attempts:
                    self.diagnosis = Diagnosis.of_foreign()  # bare step lines: digits and lag unknown
                self.history.append(item)
                self.ended = isinstance(item, End) or (self.ended and not isinstance(item, Run))
                changes += self.diagnosis.feed(item)
            if not self._follower.behind:
                return changes

    def read_to_end(self) -> Checked:
        """Raises NotARun for a file without a single record."""
        self.poll()
        if not self.known:
            if self.foreign is not None and self.foreign.unread is not None:
                raise self.foreign.unread()
            bad = self._follower.bad_lines
            where = self.foreign.path if self.foreign else self.folder / RUN_LOG
            what = f"{bad} lines, none of them a record" if bad else "nothing in it is a step or an evaluation"
            raise NotARun(f"{where}: not a run log: {what}")
        return self.outcome()

    def close(self) -> None:
        self._follower.close()

    def outcome(self) -> Checked:
        reader = self._follower.reader
        disorder = reader.first_disorder
        if disorder is not None:
            disorder = (
                f"{reader.disorder} steps out of order were left out; the first: {disorder} without a new attempt"
            )
        bad = self._follower.bad_lines
        return Checked(self.name, self.diagnosis.findings, bad, disorder, reader.clock_back)


def open_run(
    path: Path, config: Path | None, steps_per_epoch: int | None, patterns: Sequence[re.Pattern[str]] = ()
) -> CheckedRun:
    """The run at PATH (of a log root, the newest), or someone else's log. Raises NotARun, ConfigError, FormatError."""
    foreign = foreign_log(path, patterns)
    if foreign is not None:
        return CheckedRun(foreign.path, config, steps_per_epoch, foreign)
    _, folder = resolve(path)
    folder = folder or newest_run(path)
    if folder is None:
        raise NotARun(f"{path}: holds no run (a folder with {RUN_LOG}), and no log that eegwatch understands")
    return CheckedRun(folder, config, steps_per_epoch)


def follow(runs: list[CheckedRun], *, as_json: bool) -> int:
    """Print findings as they change until every run has ended (or Ctrl-C): 1 if anything is wrong then, else 0."""
    try:
        while True:
            for run in runs:
                for finding in run.poll():
                    if as_json:
                        print(json_line({"run": run.name, "finding": finding.as_dict()}), flush=True)
                    else:
                        print(plain(f"{run.name}  {finding.severity}  {finding.rule}: {finding.message}"), flush=True)
            if all(run.ended for run in runs):
                break
            time.sleep(EVERY_S)
    except KeyboardInterrupt:
        print("", file=sys.stderr)
    return 1 if any(run.outcome().wrong for run in runs) else 0
