"""`eegwatch check`: every detector over a run's log, without a screen, for cron and CI."""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eegwatch.diagnosis.engine import Diagnosis, worst
from eegwatch.diagnosis.findings import Finding
from eegwatch.diagnosis.rate.found_law_text import described
from eegwatch.formats import foreign_log
from eegwatch.run import dismissals
from eegwatch.run.control import DAEMON_LOG
from eegwatch.run.declaration.apply import Declaration, Declared
from eegwatch.run.folder import RUN_LOG, NotARun, newest_run, resolve
from eegwatch.run.follow import ForeignLog, OwnLog, RunFollower
from eegwatch.run.history import History, StepBlock
from eegwatch.run.records import End, Eval, Run
from eegwatch.run.results import evaluation_tables, page_sections
from eegwatch.shell import command
from eegwatch.wording import count, json_line, plain

EVERY_S = 0.5
OVER_AFTER_S = 3600.0  # without a record: the run has ended, though its log does not say so
TOLD_OF_A_RULE = 5  # healed findings of one rule in the text
KEY = re.compile(r" \(([rmsw])\)")  # a key of the screen, as remedies name it
KEY_COMMANDS = {"r": "restart", "m": "resume", "s": "stop", "w": "checkpoint"}


@dataclass(frozen=True)
class Checked:
    """The outcome for one run: present findings, resolved findings, and the rules that could judge it.

    `steps`, `evaluations`: how many records were read. `schedule`: the run record's object with its `source`, None
    where none is known. `checked`: the rules that had records to judge; `skipped`: [{"rule", "why"}] of the others.
    """

    run: str
    findings: list[Finding]
    past: list[Finding]
    steps: int
    evaluations: int
    checked: list[str]
    skipped: list[dict[str, str]]
    schedule: dict[str, Any] | None
    bad_lines: int
    disorder: str | None = None
    clock_back: str | None = None
    watched: list[str] = field(default_factory=list)  # of the watcher: what it did not read, what it cost
    watcher: dict[str, Any] = field(default_factory=dict)  # what it cost, as its newest record of that has it
    beside: str | None = None  # of a file of hyperparameters that the records contradict
    law_in_words: str | None = None  # of a schedule that was found
    logs: Path | None = None  # the log root of a daemon that can be commanded
    computed: list[str] = field(default_factory=list)  # what commands of the daemon found out afterwards

    @property
    def wrong(self) -> bool:
        """Whether a finding is present, or a proved one was present earlier. Withdrawn evidence does not count."""
        return self.wrong_now or any(finding.bad and finding.is_fact for finding in self.past)

    @property
    def wrong_now(self) -> bool:
        return worst(self.findings) in ("error", "warning")

    def remarks(self) -> list[str]:
        """Irregularities of the log itself, as sentences."""
        skipped = f"{self.bad_lines} lines could not be read and were skipped" if self.bad_lines else None
        return [remark for remark in (skipped, self.disorder, self.clock_back, self.beside) if remark]

    def as_dict(self) -> dict[str, Any]:
        """The object of `--json`, as docs/check.md describes it. Healed findings follow the present ones."""
        findings = [f.as_dict() | {"until_step": f.until_step} for f in [*self.findings, *self.past]]
        for finding in findings:
            finding["remedy"] = in_shell_words(finding["remedy"] or "", self.logs) or None
        return {
            "run": self.run,
            "verdict": self.verdict(),
            "findings": findings,
            "steps": self.steps,
            "evaluations": self.evaluations,
            "schedule": self.schedule,
            "checked": self.checked,
            "skipped": self.skipped,
            "bad_lines": self.bad_lines,
            "remarks": self.remarks(),
            "watcher": self.watcher or None,
            "computed": self.computed,
        }

    def text(self) -> str:
        """For people: the verdict first, then each finding, then what the verdict covers."""
        lines = [f"{self.run}: {self.verdict()}"]
        for finding in self.findings:
            lines.append(f"{finding.severity:7}  {finding.rule}  since step {finding.since_step:,}: {finding.message}")
            if finding.remedy:
                lines.append(f"         {in_shell_words(finding.remedy, self.logs)}")
        counts: Counter[str] = Counter()
        for finding in self.past:
            counts[finding.rule] += 1
            if counts[finding.rule] <= TOLD_OF_A_RULE:
                span = f"step {finding.since_step:,} to {finding.until_step or finding.step:,}"
                lines.append(f"healed   {finding.rule}  {span} ({finding.severity}): {finding.message}")
        more = {rule: number - TOLD_OF_A_RULE for rule, number in counts.items() if number > TOLD_OF_A_RULE}
        lines += [f"healed   {rule}  {number} more times (--json lists them)" for rule, number in more.items()]
        return "\n".join([*lines, *(f"         {line}" for line in [*self.covered(), *self.computed])])

    def verdict(self) -> str:
        """The verdict as a sentence, without the name of the run."""
        if not self.steps:
            return f"no training record was read ({count(self.evaluations, 'evaluation')}): nothing could be checked"
        read = f"{count(self.steps, 'step')} and {count(self.evaluations, 'evaluation')} read"
        healed = sum(finding.bad for finding in self.past)
        if self.wrong_now:
            more = f", {healed} that healed" if healed else ""
            return f"{count(sum(f.bad for f in self.findings), 'finding')} now{more}; {read}"
        if healed:
            return f"nothing wrong now, {count(healed, 'finding')} that healed; {read}"
        return f"nothing wrong; {read}"

    def covered(self) -> list[str]:
        """The coverage of the verdict: the schedule of the comparison, the rules that ran, and those that could not."""
        if self.schedule is None:
            law = (
                "no schedule is declared: whether the learning rate is right cannot be decided (--config declares one)"
            )
        else:
            length = (
                f" over {self.schedule['total_steps']:,}" if isinstance(self.schedule.get("total_steps"), int) else ""
            )
            unit = f" {self.schedule.get('unit', 'step')}s" if length else ""
            source = {
                "declared": "declared in the log",
                "config": "declared by a configuration",
                "found": "found from the log",
            }
            law = f"schedule: {self.schedule.get('name')}{length}{unit}, {source[self.schedule['source']]}"
            if self.law_in_words is not None:
                law = f"schedule: {self.law_in_words}, {source['found']}"
        whys: dict[str, list[str]] = {}
        for one in self.skipped:
            whys.setdefault(one["why"], []).append(one["rule"])
        ran = [f"checked: {', '.join(self.checked)}"] if self.checked else []
        return [law, *self.watched, *ran, *(f"not checked: {', '.join(rules)} ({why})" for why, rules in whys.items())]


def in_shell_words(remedy: str, logs: Path | None = None) -> str:
    """A remedy without the keys of the screen: with the command of the shell where a daemon's log root is given."""

    def command_of(match: re.Match[str]) -> str:
        if logs is None:
            return ""
        return f" ({command('eegpt-daemon', KEY_COMMANDS[match[1]], '--logs', logs)})"

    return KEY.sub(command_of, remedy)


class CheckedRun:
    """One log and its detectors. A `config` declares the schedule where the log has no `run` record that does."""

    def __init__(
        self, folder: Path, config: Declared | None, steps_per_epoch: int | None, foreign: ForeignLog | None = None
    ) -> None:
        """Raises ConfigError, formats.FormatError."""
        self.folder, self.foreign = folder, foreign
        self.name = foreign.name if foreign else folder.name
        self._declaration = Declaration(config, steps_per_epoch, self.name, foreign.path if foreign else None)
        self._follower = RunFollower(foreign.follow() if foreign else OwnLog(folder), self._declaration)
        self.diagnosis = Diagnosis.of_foreign(foreign.format) if foreign else Diagnosis()
        self.history = History()
        self.ended = False
        self.steps = self.evaluations = 0  # records read, those that a resume has superseded included

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
                self.steps = self.evaluations = 0
                self.diagnosis = Diagnosis.of_foreign(self.foreign.format) if self.foreign else Diagnosis()
            for item in items:
                if self._declaration.bare and not self.history.attempts:
                    self.diagnosis = Diagnosis.of_foreign()  # bare step lines: digits and lag unknown
                self.history.append(item)
                self.steps += len(item) if isinstance(item, StepBlock) else 0
                self.evaluations += isinstance(item, Eval)
                self.ended = isinstance(item, End) or (self.ended and not isinstance(item, Run))
                changes += self.diagnosis.feed(item)
            if not self._follower.behind:
                return changes + self._meant()

    def _meant(self) -> list[Finding]:
        """Dismissals that could not be written into the log itself."""
        run = self.history.run
        written = dismissals.read(self.folder, run.run_id if run is not None else "")
        fresh = [intent for intent in written if intent not in self.diagnosis.intents]
        return self.diagnosis.intend(fresh) if fresh else []

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
        self.diagnosis.settle(over=time.time() - self.history.last_time > OVER_AFTER_S)
        checked, skipped = self.diagnosis.coverage()
        commanded = self.foreign is None and (self.folder.parent / DAEMON_LOG).exists()
        return Checked(
            run=self.name,
            findings=self.diagnosis.findings,
            past=self.diagnosis.past,
            steps=self.steps,
            evaluations=self.evaluations,
            checked=checked,
            skipped=skipped,
            schedule=self._schedule(),
            bad_lines=self._follower.bad_lines,
            disorder=disorder,
            clock_back=reader.clock_back,
            watched=list(self.diagnosis.silent.remarks()),
            watcher=dict(self.diagnosis.silent.cost),
            beside=self._declaration.remark,
            law_in_words=described(self.diagnosis.law) if self.diagnosis.law is not None else None,
            logs=self.folder.parent if commanded else None,
            computed=[]
            if self.foreign
            else [*evaluation_tables.lines(self.history.evals, self.folder), *page_sections.lines(self.folder)],
        )

    def _schedule(self) -> dict[str, Any] | None:
        """The schedule that the newest records are compared with, and its source."""
        run = self.history.run
        changes = self.history.schedules
        declared = changes[-1].schedule if changes else run.schedule if run is not None else None
        if declared is None:
            law = self.diagnosis.law
            return None if law is None else law.as_dict()
        return declared | {"source": "config" if self._declaration.applied else "declared"}


def open_run(
    path: Path, config: Declared | None, steps_per_epoch: int | None, patterns: Sequence[re.Pattern[str]] = ()
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


def follow(runs: list[CheckedRun], *, as_json: bool, now: bool = False) -> int:
    """Print findings as they change until every run has ended (or Ctrl-C).

    Returns 1 if anything is wrong then or was wrong (`now`: is wrong then), else 0.
    """
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
    outcomes = [run.outcome() for run in runs]
    return 1 if any(outcome.wrong_now if now else outcome.wrong for outcome in outcomes) else 0
