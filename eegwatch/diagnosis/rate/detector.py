"""Compares the learning rate with the declared schedule, by proof and not by thresholds.

Off schedule: the record's cell misses the declared rate. Stuck: equal logged values while the declared rate moved by
more than the cell is wide. If the run follows its schedule neither can fire (docs/detection.md): the false-alarm
probability is zero. Where the records cannot tell yet (a hold, the floor, few digits), the finding says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eegwatch.diagnosis.findings import Finding
from eegwatch.diagnosis.rate.causes import RELATIVE, Evidence, Sample, Situation
from eegwatch.diagnosis.rate.conventions import Conventions
from eegwatch.diagnosis.rate.fault import Fault, Onset
from eegwatch.diagnosis.rate.precision import FLOAT32, HALF_UNIT, Precision
from eegwatch.diagnosis.rate.records import Rates
from eegwatch.diagnosis.rate.skips import MOVING, Skips
from eegwatch.run.history import StepBlock
from eegwatch.schedule import initial_rate, peak_rate

CURVE_ERROR = 4e-14  # of the peak: two closed forms within 1e-14 of torch's recursion each, twice over
HEALTHY_AGAIN = 2  # records on schedule before a finding resolves: one may be the wrong curve crossing the right one
MOST_PATIENT = 1 << 10  # each fault of an attempt doubles that, up to so many: a log that flaps is not told each time
MOVES_A_FREEZE = 20  # fewer records a value than this, three values long: it moves slowly, it is not frozen
LOOK_AHEAD = 4_000_000  # steps searched for "from when can it be told"
# causes of a rate that is off since the first step, under which the warm-up is there: it is not where it should be
WARMS_UP = ("rate_scaled", "scheduler_stepped_per_microbatch", "scheduler_stepped_per_process")
JUMP = 0.05  # a relative step in the rate that no schedule makes between two records

OK, OFF, STUCK = 0, 1, 2


@dataclass
class _Flat:
    """The current stretch of equal logged values: where it began, and the declared range over it, per convention."""

    value: float
    since: int
    last: int
    records: int
    lags: list[int]
    least: NDArray[np.floating[Any]]
    most: NDArray[np.floating[Any]]


class LrWatch:
    """Follows the rates of one parameter group over one attempt, block by block, at O(1) a record.

    `lags`: positions that the log's convention may add to n - 1. Our own log has {0}; someone else's may hold the
    next rate (+1) or be one behind (-1): the lags that no record refutes stay admissible.
    """

    def __init__(
        self, situation: Situation, precision: Precision, lags: tuple[int, ...] = (0,), skips: Skips | None = None
    ) -> None:
        """`skips`: what the attempt before had lost to the loss scaler; the schedule's state carries that over."""
        self.situation = situation
        self.precision = precision
        self.conventions = Conventions(situation, precision, lags)
        self.skips = Skips(situation, None if skips is None else skips.behind)
        self.sample = Sample()
        self.fault: Fault | None = None
        self.last: tuple[int, float] | None = None  # of the attempt before, until there is a record
        self.records = 0
        self._flat: _Flat | None = None
        self._behind = np.zeros(0, np.int64)  # positions lost to skipped steps, for each record of the newest block
        self._tail: Rates | None = None  # the newest few records
        self._healthy = 0
        self._patience = HEALTHY_AGAIN
        self._on_schedule = 0  # records of this attempt before the first fault

    def measured_by(self, precision: Precision) -> None:
        """Before the first record: how exact the log's rates are."""
        self.precision = precision
        self.conventions = Conventions(self.situation, precision, tuple(self.lags))

    @property
    def lags(self) -> list[int]:
        """The lags that no record has refuted."""
        return self.conventions.lags

    def feed(self, block: StepBlock | Rates) -> list[Finding]:
        """Take the next records; returns what changed: a fault raised, its cause narrowed, or resolved.

        A record without a rate claims nothing; one whose rate is not finite is judged by NumberWatch.
        """
        rates = Rates.of(block) if isinstance(block, StepBlock) else block
        if not len(rates):
            return []
        self.precision.learn(rates.lr)
        self.conventions.settle(rates, first=not self.records)
        changes: list[Finding] = []
        off = self._off(rates, changes)
        stuck, since = self._stuck(rates, off)
        verdicts = np.where(stuck, STUCK, np.where(off, OFF, OK))
        changes += self._judge(rates, self._evidence(rates), verdicts, since)
        self.last = int(rates.step[-1]), float(rates.lr[-1])
        self.records += len(rates)
        return changes

    def _evidence(self, rates: Rates) -> Evidence:
        low, high = self.conventions.cell(rates.lr)
        drift = self._drift(rates) * np.abs(rates.lr)
        return Evidence(rates.step + self.conventions.shift, low - drift, high + drift, rates.position)

    def _drift(self, rates: Rates) -> NDArray[np.floating[Any]]:
        """The largest relative drift by each step of a schedule that is computed by recursion in float32."""
        if self.precision.kind != FLOAT32 or not self.situation.recursive:
            return np.zeros(len(rates))
        drift: NDArray[np.floating[Any]] = np.minimum(HALF_UNIT[FLOAT32] * (rates.step + 1.0), 0.01)
        return drift

    # ---- the two proofs ----

    def _off(self, rates: Rates, changes: list[Finding]) -> NDArray[np.bool_]:
        """Records whose cell misses the declared rate under each convention, and those past the schedule's end."""
        drift = self._drift(rates)
        skipped = self.skips.carried(rates, self.conventions, drift) if not self.records else self.skips.behind
        self._behind = np.full(len(rates), skipped, np.int64)
        changes += self._withdrawn(rates, drift)
        off, first = self.conventions.off(rates, self._behind, drift)
        while first is not None and self.fault is None:
            more = self.skips.explains(rates, first, self.conventions, drift)
            if not more:
                break
            changes += self.skips.add(more, int(rates.step[first]))
            self._behind[first:] += more
            off[first:], after = self.conventions.off(rates[first:], self._behind[first:], drift[first:], whole=False)
            if after == 0:
                break
            first = None if after is None else first + after
        self.skips.seen(rates)
        self.conventions.narrow(rates, self._behind, drift, first)
        past: NDArray[np.bool_] = rates.step > self.situation.end
        return off | past

    def _withdrawn(self, rates: Rates, drift: NDArray[np.floating[Any]]) -> list[Finding]:
        """A freeze of a few steps, after which the schedule goes on behind by as many: the scaler skipped them."""
        self._tail = rates if self._tail is None else self._tail.joined(rates)[slice(-MOVING, None)]
        fault = self.fault
        if fault is None or not fault.may_be_skips(int(rates.step[-1])):
            return []
        tail = self._tail
        more = self.skips.withdraws(tail, self.conventions, np.full(len(tail), drift[-1]), fault.since)
        if not more:
            return []
        self.fault, self._healthy = None, 0
        step = int(tail.step[0])
        self._behind[rates.step >= step] += more
        return [fault.withdraw(step), *self.skips.add(more, step)]

    def _stuck(self, rates: Rates, off: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """(mask of the records that prove a constant rate, step since which each value has been constant)."""
        lr, n = rates.lr, len(rates)
        stuck = np.zeros(n, bool)
        since = rates.step.copy()
        cuts = np.flatnonzero(lr[1:] != lr[:-1]) + 1
        # a stretch of one record is never stuck: only longer ones, the first and the last need a look
        starts = np.concatenate([[0], cuts])
        ends = np.concatenate([cuts, [n]])
        look = np.flatnonzero((ends - starts > 1) | (starts == 0) | (ends == n))
        low, high = self.conventions.cell(lr)
        width = high - low + CURVE_ERROR * self.situation.peak
        lags = self.lags
        expected = self.conventions.expected(rates.step, self._behind)
        recursive = self.precision.kind == FLOAT32 and self.situation.recursive
        for a, b in zip(starts[look], ends[look], strict=True):
            least = np.minimum.accumulate(expected[:, a:b], axis=1)
            most = np.maximum.accumulate(expected[:, a:b], axis=1)
            flat = self._flat
            onset, records = int(rates.step[a]), int(b - a)
            if a == 0 and flat is not None and flat.value == lr[0] and set(lags) <= set(flat.lags):
                same = [flat.lags.index(lag) for lag in lags]
                least = np.minimum(least, flat.least[same, None])
                most = np.maximum(most, flat.most[same, None])
                onset, records = flat.since, flat.records + records
            needed = width[a:b]
            if recursive:  # a float32 recursion loses a move of less than a unit at each step
                needed = needed + (rates.step[a:b] - onset) * 2 * HALF_UNIT[FLOAT32] * np.abs(lr[a:b])
            stuck[a:b] = (most - least).min(0) > needed
            since[a:b] = onset
            if b == n:
                self._flat = _Flat(float(lr[-1]), onset, int(rates.step[-1]), records, lags, least[:, -1], most[:, -1])
        # where steps may have been skipped the lag may change within the stretch: then only an off record counts
        may_skip = (rates.skipped > 0) | rates.overflow | (self.skips.behind > 0)
        if self.conventions.averaged:
            may_skip = np.ones(n, bool)
        return stuck & (~may_skip | off), since

    # ---- from verdicts to findings ----

    def _judge(
        self, rates: Rates, evidence: Evidence, verdicts: NDArray[np.int64], since: NDArray[np.int64]
    ) -> list[Finding]:
        """Faults raised, narrowed and resolved: one piece for each fault and each healthy stretch between them."""
        changes: list[Finding] = []
        begin, n = 0, len(rates)
        while begin < n:
            if self.fault is None:
                wrong = np.flatnonzero(verdicts[begin:])
                end = begin + int(wrong[0]) if len(wrong) else n
                self.sample.add(evidence[begin:end])
                self._on_schedule += end - begin
                begin = end
                if begin == n:
                    break
            end, healed = self._healing(verdicts, begin)
            changes += self._faulty(rates[begin:end], evidence[begin:end], verdicts[begin:end], since[begin:end])
            if healed is not None:
                changes.append(self._resolve(int(rates.step[healed])))
            begin = end
        return changes

    def _healing(self, verdicts: NDArray[np.int64], begin: int) -> tuple[int, int | None]:
        """(end of the faulty piece, first record of the healthy stretch that ended the fault or None)."""
        if self.fault is None:
            self._healthy = 0
        bad = np.flatnonzero(verdicts[begin:] != OK) + begin
        edges = np.concatenate([[begin - 1 - self._healthy], bad, [len(verdicts)]])
        gaps = np.diff(edges) - 1
        long = np.flatnonzero(gaps >= self._patience)
        if not len(long):
            self._healthy = int(gaps[-1])
            return len(verdicts), None
        start = int(edges[long[0]]) + 1
        self._healthy = 0
        return start + self._patience, max(start + self._patience - 1, begin)

    def _faulty(
        self, rates: Rates, evidence: Evidence, verdicts: NDArray[np.int64], since: NDArray[np.int64]
    ) -> list[Finding]:
        """A piece of the log in which a fault is up, or begins."""
        changes: list[Finding] = []
        self.sample.add(evidence)
        bad = np.flatnonzero(verdicts != OK)
        latest = evidence[int(bad[-1]) : int(bad[-1]) + 1] if len(bad) else None
        if self.fault is None:
            assert latest is not None
            first = int(rates.step[0])
            # an off record with the value that fitted before: the declared rate left the cell, the logged one did not
            stood = (verdicts[0] == STUCK or since[0] < first) and first <= self.situation.end
            rule = "lr_stuck" if stood else self._onset_rule(rates)
            onset_step = int(since[0]) if stood else first
            onset = Onset(onset_step, self._on_schedule, self.conventions.shift)
            self.fault = Fault(self.situation, rule, onset, self.sample, evidence, latest)
        else:
            self.fault.look(evidence, latest)
        fault = self.fault
        if not len(bad):
            return changes
        wrong = rates.lr[bad]
        step = int(rates.step[bad[0]])
        if (verdicts == STUCK).any() and fault.rule != "lr_stuck" and fault.values <= 1 and len(np.unique(wrong)) == 1:
            changes.append(fault.rename("lr_stuck", step))
        if fault.rule == "no_warmup" and fault.alive and fault.alive[0].name in WARMS_UP:
            changes.append(fault.rename("lr_off_schedule", step))
        fault.records += len(bad)
        fault.values += int((np.diff(wrong, prepend=np.nan if fault.last is None else fault.last[1]) != 0).sum())
        fault.last = int(rates.step[bad[-1]]), float(wrong[-1])
        if fault.rule == "lr_stuck" and fault.values > 3 and fault.records < MOVES_A_FREEZE * fault.values:
            changes.append(fault.rename("lr_off_schedule", step))
        if fault.news():
            changes.append(fault.finding())
        return changes

    def _resolve(self, step: int) -> Finding:
        assert self.fault is not None
        finding = self.fault.resolve(step)
        self.fault = None
        self._patience = min(2 * self._patience, MOST_PATIENT)
        return finding

    def _onset_rule(self, rates: Rates) -> str:
        """The rule for a rate that is off at its first record: a jump, a missing warm-up, or off schedule."""
        s, step, lr = self.situation, int(rates.step[0]), float(rates.lr[0])
        if self.last is not None and self.last[1] > 0 and step > 1:
            before, expected = (float(rate) for rate in s.expected(np.array([max(self.last[0], 1), step])))
            moved, declared = abs(lr / self.last[1] - 1), abs(expected / before - 1) if before else 0.0
            if moved > JUMP and moved > 2 * declared:
                return "lr_jump"
        elif step == 1:
            phases = s.schedule.phases()
            warms = bool(phases) and phases[0][0] == "warm-up"
            if warms and initial_rate(s.schedule) * 1.5 < lr <= peak_rate(s.schedule) * (1 + RELATIVE):
                return "no_warmup"
        return "lr_off_schedule"

    # ---- what a screen asks ----

    def moves(self) -> tuple[str, int | None]:
        """("ok" | "fault" | "untold", step from which it can be told or None): does the rate move as it should?"""
        if self.fault is not None:
            return "fault", None
        flat = self._flat
        if flat is None:
            return "untold", None
        if flat.records < 2 or flat.last == flat.since:
            return "ok", None
        return "untold", self.tellable_from()

    def tellable_from(self) -> int | None:
        """The first step at which the declared rate will have left the current value's cell; None if it never does."""
        flat = self._flat
        if flat is None:
            return None
        low, high = self.conventions.cell(np.array([flat.value]))
        width = float(high[0] - low[0]) + CURVE_ERROR * self.situation.peak
        least, most = float(flat.least.max()), float(flat.most.min())
        begin, size = flat.last + 1, 256
        end = min(self.situation.total, begin + LOOK_AHEAD)
        while begin <= end:
            steps = np.arange(begin, min(begin + size, end + 1))
            f = self.situation.expected(steps)
            moved = np.maximum(np.maximum.accumulate(f), most) - np.minimum(np.minimum.accumulate(f), least) > width
            if moved.any():
                return int(steps[int(np.argmax(moved))])
            begin, size = begin + len(steps), min(size * 4, 1 << 18)
        return None

    def untold(self) -> str | None:
        """The reason why the records do not decide whether the rate moves; None if they do."""
        state, when = self.moves()
        if state != "untold" or self._flat is None:
            return None
        until = f"until step {when:,}" if when else "to the end of the schedule"
        return f"the declared rate stays within what the log's {self.precision.words} can show {until}"
