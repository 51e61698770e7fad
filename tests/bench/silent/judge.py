"""What `eegwatch check` says of a case's logs, read in this process, and how that compares with the truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eegwatch.check import open_run
from eegwatch.diagnosis.findings import ERROR, WARNING
from eegwatch.run.folder import RUN_LOG
from tests.bench.silent.case import Case

PROVED, FACT, OTHER, MISSED = "proved", "fact", "something else", "missed"
CLEAN, CRASHED = "clean", "crashed"


@dataclass(frozen=True)
class Said:
    """One finding that is bad. `step`: the step at which it was first said; `since`: since when it holds."""

    rule: str
    severity: str
    step: int
    since: int
    message: str


def said_of(logs: Path) -> list[Said]:
    """Every error and warning of the runs below `logs`, healed ones too, each rule once and the gravest form of it."""
    heard: dict[tuple[str, str], Said] = {}
    for folder in sorted(path.parent for path in logs.glob(f"*/{RUN_LOG}")):
        run = open_run(folder, None, None)
        try:
            changes = run.poll()
            outcome = run.outcome()
        finally:
            run.close()
        for finding in [*changes, *outcome.findings, *outcome.past]:
            key = finding.rule, finding.severity
            if finding.severity in (ERROR, WARNING) and (key not in heard or finding.step < heard[key].step):
                heard[key] = Said(finding.rule, finding.severity, finding.step, finding.since_step, finding.message)
    graver = {rule for rule, severity in heard if severity == ERROR}
    return [said for (rule, severity), said in heard.items() if severity == ERROR or rule not in graver]


@dataclass(frozen=True)
class Result:
    """One case as it was played.

    `said`: of the faulty (or healthy) run; `of_reference`: of an error's reference. `identical`: the watched outcomes
    are those of the unwatched training, bit for bit. `real`: the faulty outcome differs from the reference's.
    """

    name: str
    said: tuple[Said, ...]
    of_reference: tuple[Said, ...]
    identical: bool
    real: bool
    seconds: float
    crash: str = ""

    def verdict(self, case: Case) -> str:
        if self.crash:
            return CRASHED
        errors = [each for each in self.said if each.severity == ERROR]
        if not case.is_error:
            return "error" if errors else FACT if self.said else CLEAN
        if any(case.names(each.rule) for each in errors):
            return PROVED
        if any(case.names(each.rule) for each in self.said):
            return FACT
        return OTHER if self.said else MISSED

    def of_the_reference(self) -> str:
        grave = any(each.severity == ERROR for each in self.of_reference)
        return "error" if grave else FACT if self.of_reference else CLEAN

    def step(self, case: Case) -> int | None:
        """The step at which the error was first described; None where it was not."""
        return min((each.step for each in self.said if case.names(each.rule)), default=None)
