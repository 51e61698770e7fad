"""The supervisor's view of a run: the content of its log, its valid checkpoints, and the guard's findings."""

from __future__ import annotations

import re
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from eegpt_daemon.link import BOTH_DIED, SUPERVISOR_GONE
from eegpt_daemon.script import checkpoints as saved
from eegpt_daemon.supervisor.answers import PatientLog
from eegwatch.diagnosis.engine import Diagnosis
from eegwatch.diagnosis.findings import ERROR, Finding
from eegwatch.run import config as configuration
from eegwatch.run.config import Script
from eegwatch.run.folder import CHECKPOINTS, CONFIG, RUN_LOG, file_hash
from eegwatch.run.items import ItemReader
from eegwatch.run.log import Tail, run_decoder
from eegwatch.run.ranks import RankLogs
from eegwatch.run.records import Checkpoint, DaemonState, End, Eval, Run, RunRecord, Step, number
from eegwatch.schedule import Schedule, declared_base, parse

_NAME = re.compile(rf"{CHECKPOINTS}/step-\d{{8,18}}\.pt")  # judged before any file is touched: a name is anybody's text


class BadCheckpoint(ValueError):
    """A checkpoint that must not be resumed from, and why."""


def _script_of(folder: Path) -> Script | None:
    try:
        return configuration.load(folder / CONFIG, expand=False).script
    except configuration.ConfigError:  # missing or spoiled: what needs it says so
        return None


@dataclass
class WatchedRun:
    """Follow `folder`/run.jsonl; detectors run on it as it grows, and write their findings into it."""

    folder: Path
    say: Callable[[str], None]
    record: Run | None = None  # the newest attempt's
    step: int = 0
    total: int | None = None
    end: End | None = None
    first_step: Step | None = None  # of the newest attempt: what `done` reads back
    tested: Eval | None = None  # the official evaluation, if it was made after the last step
    checkpoints: list[Checkpoint] = field(default_factory=list)  # of the steps that count
    superseded: list[Checkpoint] = field(default_factory=list)  # beyond the step from which a later attempt went on

    def __post_init__(self) -> None:
        self.script = _script_of(self.folder)  # None: this project's own trainer
        self._tail = Tail(self.folder / RUN_LOG)
        self._decoder = run_decoder()
        self._ranks = RankLogs(self.folder)
        self._diagnosis: Diagnosis | None = Diagnosis()  # None: it failed, and training goes on without it
        self._reader = ItemReader()
        self._log: PatientLog | None = None
        self._quiet = False
        self.news: list[Finding] = []  # said since somebody last took them
        self.trouble: str | None = None  # a notice that somebody has still to take

    @property
    def run_id(self) -> str:
        return self.folder.name

    @property
    def attempt(self) -> int:
        return self.record.attempt if self.record else 0

    @property
    def complete(self) -> bool:
        """Whether it has taken all its steps and been evaluated on the official set."""
        all_steps = self.total is not None and self.step >= self.total
        return all_steps and (self.tested is not None or (self.end is not None and self.end.reason == "completed"))

    def catch_up(self) -> None:
        """Read the log so far without writing findings: the log already contains the earlier ones."""
        self._quiet = True
        self.poll()
        self._quiet = False

    def poll(self) -> list[Finding]:
        """Read what is new; returns (and logs) findings of severity error that were raised by it. Raises OSError."""
        raised: list[Finding] = []
        while data := self._tail.read().data:
            records = self._decoder.decode(data)
            for record in records:
                self._take(record)
            for finding in self._diagnosed(records):
                raised += self._say(finding)
        for finding in self._diagnosed_ranks():
            raised += self._say(finding)
        return raised

    def _diagnosed_ranks(self) -> list[Finding]:
        """Findings from the records that other ranks wrote beside the log, after the log was read to its end."""
        return self._isolated(lambda diagnosis: [f for one in self._ranks.read() for f in diagnosis.feed(one)])

    def _take(self, record: RunRecord) -> None:
        if isinstance(record, Step):
            self.step = record.step
            self.first_step = self.first_step or record
            self.tested = None
        elif isinstance(record, Eval):
            if record.split == "eval":
                self.tested = record
        elif isinstance(record, Run):
            self.record, self.step, self.end, self.first_step = record, record.step, None, None
            self.total = record.total_steps
            self.tested = self.tested if self.tested is not None and self.tested.step <= record.step else None
            self.superseded += [c for c in self.checkpoints if c.step > record.step]
            self.checkpoints = [c for c in self.checkpoints if c.step <= record.step]
        elif isinstance(record, Checkpoint):
            self.checkpoints.append(record)
        elif isinstance(record, End):
            self.end = record

    def _diagnosed(self, records: list[RunRecord]) -> list[Finding]:
        """Findings from these records."""
        return self._isolated(
            lambda diagnosis: [f for item in self._reader.items(records) for f in diagnosis.feed(item)]
        )

    def clock(self, now: float, *, training: bool) -> None:
        """Let the detectors see that time passes: a live trainer that writes nothing is stalled."""
        for finding in self._isolated(lambda diagnosis: diagnosis.clock(now, training=training)):
            self._say(finding)

    def _isolated(self, what: Callable[[Diagnosis], list[Finding]]) -> list[Finding]:
        """Run the detectors; if one raises, switch them off for this run. Training continues."""
        if self._diagnosis is None:
            return []
        try:
            return what(self._diagnosis)
        except Exception as error:
            self._diagnosis = None
            trace = traceback.format_exc()
            self.say(f"the detectors are off for {self.run_id}: {type(error).__name__}: {error}\n{trace}")
            self.trouble = f"the detectors are off for this run: {type(error).__name__}: {error}"
            return []

    def _say(self, finding: Finding) -> list[Finding]:
        if self._quiet or self.end is not None:
            return []  # `end` is the last line of an attempt: what is found later, readers find
        self.append(finding.record(time.time()))
        self.news.append(finding)
        return [finding] if finding.severity == ERROR else []

    def append(self, record: Any) -> None:
        """Add a record of the supervisor's own to the run log (a finding, the `end` of a trainer that died)."""
        try:
            if self._log is None:
                self._log = PatientLog(self.folder / RUN_LOG, self.say)
                self._log.anew = self._begun_anew
        except OSError as error:  # the folder was deleted, or is read-only now
            self.say(f"{self.folder / RUN_LOG} cannot be written: {error.strerror}")
            return
        self._log.append(record)

    def _begun_anew(self, words: str) -> None:
        """Begin a log that was deleted or rotated during the run with the records that a resume needs."""
        self.trouble = words
        if self._log is not None and self.record is not None and not (self.folder / RUN_LOG).stat().st_size:
            for record in records_anew(self.record, self.step, self.checkpoints, words):
                self._log.append(record)

    def settle(self) -> bool:
        """Write what a full disk has kept out of the log; True if nothing is left of it."""
        return self._log is None or self._log.settle()

    def close(self) -> None:
        self._tail.close()
        self._ranks.close()
        if self._log is not None:
            self._log.close()

    def interrupted(self, last: DaemonState | None) -> bool:
        """Whether a crash, a reboot or a signal interrupted this run, rather than its completion or a person.

        `last`: the last word of the daemon before.
        """
        if self.script is not None and self.end is not None and self.end.reason == "completed":
            return False  # a script says itself when it is done: it may have stopped early
        if self.complete or self.end is None:
            return not self.complete
        if self.end.error in (BOTH_DIED, SUPERVISOR_GONE):
            return True
        interrupted_by_signal = (
            last is not None and last.state == "exited" and (last.reason or "").startswith(("SIGTERM", "SIGHUP"))
        )
        return interrupted_by_signal and self.end.reason == "stopped"

    # ---- what a resume needs ----

    def declared(self) -> Schedule | None:
        """The author's schedule, without manual changes. Raises ScheduleError if this version cannot read it."""
        return declared_base(parse(self.record.schedule)) if self.record and self.record.schedule else None

    def newest_good(self) -> tuple[str | None, list[str]]:
        """(path of the newest checkpoint that verifies, what was wrong with newer ones).

        What a resume from an earlier one has superseded is not gone back to, unless it is asked for by name.
        """
        if self.script is not None:
            return self._newest_of_script(self.script)
        problems: list[str] = []
        given_up = {c.path for c in self.superseded} - {c.path for c in self.checkpoints}
        folder = self.folder / CHECKPOINTS
        for path in sorted(folder.glob("step-*.pt"), reverse=True):
            name = f"{CHECKPOINTS}/{path.name}"
            if name in given_up:
                continue
            try:
                self.verify(name)
            except BadCheckpoint as error:
                problems.append(str(error))
                continue
            return name, problems
        return None, problems

    def _newest_of_script(self, script: Script) -> tuple[str | None, list[str]]:
        """The newest complete checkpoint of the script."""
        if not script.checkpoints:
            return None, []
        kept = {c.path for c in self.checkpoints} | {self.record.checkpoint if self.record else None}
        given_up = {c.path: c.time for c in self.superseded if c.path not in kept}  # unless written again since
        checkpoint, problems = saved.newest_whole(self.folder, script, without=given_up)
        return (checkpoint.path if checkpoint else self._origin()), problems

    def _origin(self) -> str | None:
        """The parent's checkpoint at which a script's run branched off, if it exists and is complete."""
        first = next(iter(self.checkpoints), None) if self.record and self.record.parent_step is not None else None
        if first is None or saved.whole(self.folder / first.path, 0.0, time.time()) is None:
            return None
        return first.path

    def verify(self, name: str) -> int:
        """The step of a checkpoint whose hash equals that in the run log. Raises BadCheckpoint."""
        if self.script is not None:
            return self._verify_of_script(self.script, name)
        if not _NAME.fullmatch(name) or (self.folder / name).is_symlink():
            raise BadCheckpoint(f"{name[:100]!r} is not a checkpoint of this run; give {CHECKPOINTS}/step-….pt")
        known = [c for c in (*self.superseded, *self.checkpoints) if c.path == name]
        hashes = {c.sha256 for c in known}  # of the file before an evaluation and after it: either is whole
        if not known:
            raise BadCheckpoint(f"{name} is not in the run log: it was not written completely")
        try:
            digest = file_hash(self.folder / name)
        except OSError as error:
            raise BadCheckpoint(f"{name} cannot be read: {error.strerror}") from None
        if None not in hashes and digest not in hashes:
            raise BadCheckpoint(f"{name} is damaged: its hash is not the logged one")
        return known[-1].step

    def _verify_of_script(self, script: Script, name: str) -> int:
        """The recorded step of the script's checkpoint; without a record, the newest step before it."""
        for written, path in saved.candidates(self.folder, script):
            if saved.name_of(self.folder, path) == name:
                if saved.whole(path, written, time.time()) is None:
                    raise BadCheckpoint(f"{name} is incomplete")
                known = [c for c in (*self.superseded, *self.checkpoints) if c.path == name]
                return known[-1].step if known else self.step
        if name == self._origin():
            return self.checkpoints[0].step
        raise BadCheckpoint(f"{name[:100]!r} is not among {script.checkpoints} of this run")

    def checkpoint_step(self, name: str | None) -> int | None:
        """The step of a logged checkpoint; of a file that is overwritten again and again, the newest.

        Of a script's that was written after its runner last looked, as when both are killed: the newest step.
        """
        known = [c.step for c in (*self.superseded, *self.checkpoints) if c.path == name]
        unseen = self.step if name is not None and self.script is not None else None
        return known[-1] if known else unseen

    def asked_for(self) -> list[str]:
        """Checkpoints that a person ordered: they are kept."""
        return sorted({c.path for c in (*self.superseded, *self.checkpoints) if c.command is not None})

    def overrides_until(self, step: int) -> list[dict[str, Any]]:
        """Manual changes that apply at a checkpoint of this step; a change without a first step is ignored."""
        logged = self.record.overrides if self.record else []
        return [o for o in logged if isinstance(o.get("from_step"), int) and o["from_step"] <= step]


def records_anew(run: Run, step: int, checkpoints: list[Checkpoint], words: str) -> list[RunRecord]:
    """The first records of a run log that is begun anew during a run: the attempt and its durable checkpoints."""
    now = time.time()
    return [msgspec.structs.replace(run, time=now, step=step, notes=[*run.notes, words]), *checkpoints]


def numbers(record: Step | None) -> dict[str, Any]:
    """The values that a step read back: what `done` may claim."""
    return {} if record is None else {"lr": number(record.lr), "step": record.step}
