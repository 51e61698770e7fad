"""The rates of all parameter groups, each compared with its own law; a fault of several groups is reported once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from eegwatch.diagnosis.findings import INFO, RESOLVED, WARNING, Cause, Finding
from eegwatch.diagnosis.rate.causes import Situation
from eegwatch.diagnosis.rate.detector import LrWatch
from eegwatch.diagnosis.rate.precision import Precision
from eegwatch.diagnosis.rate.records import Rates
from eegwatch.run.history import StepBlock

LATER_MOVED, OTHERS_MOVED = 0.01, 0.1  # share by which group 0's rate moves while a group without a law stands


@dataclass(frozen=True)
class Group:
    """One parameter group: its name, and what is known of its rates; no `situation` where no law is declared."""

    name: str
    situation: Situation | None


class GroupWatch:
    """Follows every group of one attempt. Group 0 always exists."""

    def __init__(
        self, groups: list[Group], precision: Precision, lags: tuple[int, ...], before: GroupWatch | None = None
    ) -> None:
        """`before`: the watch of the attempt before, whose convention and skipped steps go on."""
        self.groups = groups
        self.watches: dict[int, LrWatch] = {}
        for number, group in enumerate(groups):
            if group.situation is not None:
                old = before.watches.get(number) if before is not None else None
                kept = tuple(old.lags) if old is not None else lags
                watch = LrWatch(group.situation, precision, kept, old.skips if old is not None else None)
                watch.last = old.last if old is not None else None
                self.watches[number] = watch
        self._standing: dict[int, _Standing] = {}
        self._reported: set[int] = set()
        self._first = groups[0].situation.start if groups[0].situation is not None else 0
        self._last_rate = np.nan  # of group 0, in the record before the next block

    def measured_by(self, precision: Precision) -> None:
        """The precision of the log's rates is known now."""
        for watch in self.watches.values():
            watch.measured_by(precision)

    @property
    def several(self) -> bool:
        return len(self.groups) > 1 or bool(self._standing)

    def name(self, number: int) -> str:
        return self.groups[number].name if number < len(self.groups) else f"group {number}"

    def feed(self, block: StepBlock) -> list[Finding]:
        """Take the next records; returns what changed in any group."""
        changes: list[Finding] = []
        for number, watch in self.watches.items():
            changes += self._of_group(number, watch, watch.feed(Rates.of(block, number)))
        if block.lrs is not None:
            for number in range(1, block.lrs.shape[1]):
                if number not in self.watches:
                    changes += self._without_law(number, block)
        self._last_rate = float(block.lr[-1]) if len(block) else self._last_rate
        return changes

    def findings(self) -> list[Finding]:
        """The present findings with their present figures; a fault of several groups once."""
        present: list[Finding] = []
        for number, watch in self.watches.items():
            if watch.fault is not None and not self._shared(number):
                present.append(self._tagged(number, watch.fault.finding()))
            if watch.skips.finding is not None and not number:
                present.append(watch.skips.finding)
        return [*present, *(one.finding for one in self._standing.values() if one.finding is not None)]

    def end(self, step: int, message: str) -> list[Finding]:
        """Resolve all present findings: another attempt or another schedule begins."""
        return [one.resolved(step, message) for one in self.findings()]

    def untold(self) -> list[str]:
        """The reason why something cannot be decided now, as a sentence."""
        reasons = ((number, watch.untold()) for number, watch in self.watches.items())
        return [f"{self.name(n)}: {why}" if self.several else why for n, why in reasons if why is not None]

    # ---- groups with a law ----

    def _of_group(self, number: int, watch: LrWatch, changes: list[Finding]) -> list[Finding]:
        if number == 0:
            return [self._tagged(0, change) for change in changes]
        changes = [change for change in changes if change.rule != "amp_skipped"]  # told of group 0
        if watch.fault is None:
            reported = number in self._reported
            self._reported.discard(number)
            return [self._tagged(number, c) for c in changes if reported and c.severity == RESOLVED]
        if self._shared(number):
            return []
        news = number not in self._reported
        self._reported.add(number)
        if news:
            return [self._tagged(number, watch.fault.finding())]
        return [self._tagged(number, change) for change in changes]

    def _shared(self, number: int) -> bool:
        """Whether an earlier group has the same fault."""
        fault = self.watches[number].fault
        earlier = (watch.fault for other, watch in self.watches.items() if other < number)
        return fault is not None and any(
            one is not None and one.rule == fault.rule and one.since == fault.since for one in earlier
        )

    def _tagged(self, number: int, finding: Finding) -> Finding:
        """The finding with its group, unless it is about all of them."""
        faults = [watch.fault for watch in self.watches.values()]
        same = all(f is not None and f.rule == finding.rule and f.since == finding.since_step for f in faults)
        if not self.several or finding.group is not None or (same and len(faults) == len(self.groups)):
            return finding
        group = self.name(number)
        before = None if finding.resolves is None else replace(finding.resolves, group=group)
        headline = f"{group}: {finding.headline}"
        return replace(finding, group=group, message=f"{group}: {finding.message}", headline=headline, resolves=before)

    # ---- groups without a law ----

    def _without_law(self, number: int, block: StepBlock) -> list[Finding]:
        standing = self._standing.get(number)
        if standing is None:
            first, later = self._first_of_its_own(number, block)
            if first is None:
                return []
            standing = self._standing[number] = _Standing(self.name(number), later)
            block = block[first:]
        rates = Rates.of(block, number)
        return standing.feed(rates, block) if len(rates) else []

    def _first_of_its_own(self, number: int, block: StepBlock) -> tuple[int | None, bool]:
        """(the first record with a rate of this group, None if there is none; whether the group was added later).

        A record without `lrs` has one rate for all groups. Of a group that the run record does not name it says
        nothing: the group may not have been there. Its first sure record is that of a rate unlike group 0's.
        """
        assert block.lrs is not None
        own = block.lrs[:, number]
        declared = number < len(self.groups)
        known = np.flatnonzero(np.isfinite(own) & (declared | (own != block.lr)))
        if not len(known):
            return None, False
        first = int(known[0])
        before = block.lr[first - 1] if first else self._last_rate
        return first, not declared and bool(np.isfinite(before)) and bool(before != own[first])


class _Standing:
    """A group without a law: reported only if its rate is constant while group 0 moves."""

    def __init__(self, name: str, later: bool) -> None:
        """`later`: it was added to the optimizer after the scheduler was built, so torch never moves it."""
        self.name, self.later = name, later
        self.finding: Finding | None = None
        self._since, self._value, self._moved = 0, np.nan, False
        self._least, self._most = np.inf, 0.0

    def feed(self, rates: Rates, block: StepBlock) -> list[Finding]:
        if not self._since:
            self._since, self._value = int(rates.step[0]), float(rates.lr[0])
        self._moved |= bool((rates.lr != self._value).any())
        if self._moved:
            old, self.finding = self.finding, None
            return [] if old is None else [old.resolved(int(rates.step[-1]), f"{self.name}: the rate moves")]
        beside = block.lr[(block.step >= self._since) & np.isfinite(block.lr)]
        if len(beside):
            self._least, self._most = min(self._least, float(beside.min())), max(self._most, float(beside.max()))
        enough = self._most - self._least > (LATER_MOVED if self.later else OTHERS_MOVED) * self._most
        if self.finding is not None or self._value == 0 or not enough:
            return []
        self.finding = self._finding(int(rates.step[-1]))
        return [self.finding]

    def _finding(self, step: int) -> Finding:
        what = f"{self.name}: the rate stays at {self._value:.3g} since step {self._since:,} while group 0's moves"
        if self.later:
            says = "the group was added after the scheduler was built, which does not move it"
            cause = Cause("group_not_scheduled", says, says=says)
            remedy = "build the scheduler after the last group is added, or declare a schedule for the group"
            message = f"{what}: {says}"
            return Finding("lr_stuck", WARNING, step, self._since, message, cause, headline=what, why=says,
                           remedy=remedy, group=self.name)  # fmt: skip
        remedy = "declare the group's schedule (groups in the run record) to have it proved or cleared"
        return Finding("lr_stuck", INFO, step, self._since, f"{what}; no schedule is declared for it", headline=what,
                       remedy=remedy, group=self.name)  # fmt: skip
