"""Is the learning rate where the declared schedule says? Proof, not thresholds.

Off schedule: the record's rounding cell misses the declared rate. Stuck: equal printed values while the declared
rate moved by more than the cell is wide. If the run follows its schedule neither can fire (detection_control.md
2.2): the false-alarm probability is zero. What cannot be told yet (a hold, the floor, few digits) is said so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eegwatch.diagnosis.findings import Finding
from eegwatch.diagnosis.rate.causes import RELATIVE, Evidence, Sample, Situation
from eegwatch.diagnosis.rate.fault import Fault
from eegwatch.diagnosis.rate.precision import Precision
from eegwatch.run.history import StepBlock
from eegwatch.schedule import initial_rate, peak_rate

CURVE_ERROR = 4e-14  # of the peak: two closed forms within 1e-14 of torch's recursion each, twice over
HEALTHY_AGAIN = 2  # records on schedule before a finding resolves: one may be the wrong curve crossing the right one
MOVES_A_FREEZE = 20  # fewer records a value than this, three values long: it moves slowly, it is not frozen
LOOK_AHEAD = 4_000_000  # steps searched for "from when can it be told"
JUMP = 0.05  # a relative step in the rate that no schedule makes between two records

OK, OFF, STUCK = 0, 1, 2


@dataclass
class _Flat:
    """The current stretch of equal printed values: where it began, and the declared range over it, per lag."""

    value: float
    since: int
    last: int
    records: int
    least: NDArray[np.floating[Any]]
    most: NDArray[np.floating[Any]]


class LrWatch:
    """Follows one attempt's rates, block by block, at O(1) a record.

    `lags`: positions that the log's convention may add to n - 1. Our own log has {0}; someone else's may hold the
    next rate (+1) or be one behind (-1): the lags that no record refutes stay admissible.
    """

    def __init__(self, situation: Situation, precision: Precision, lags: tuple[int, ...] = (0,)) -> None:
        self.situation = situation
        self.precision = precision
        self.lags = list(lags)
        self.sample = Sample()
        self.fault: Fault | None = None
        self.last: tuple[int, float] | None = None
        self._flat: _Flat | None = None
        self._healthy = 0

    def feed(self, block: StepBlock) -> list[Finding]:
        """Take the next records; returns what changed: a fault raised, its cause narrowed, or resolved.

        A record without a rate claims nothing; one whose rate is not finite is judged by NumberWatch.
        """
        known = np.isfinite(block.lr)
        if not known.all():
            block = block[known]
        if not len(block):
            return []
        self.precision.learn(block.lr)
        low, high = self.precision.cell(block.lr)
        evidence = Evidence(block.step, low, high, block.position)
        expected = np.stack([self.situation.expected(np.maximum(block.step + lag, 1)) for lag in self.lags])
        off = self._off(block, evidence, expected) | (block.step > self.situation.total)
        stuck, since = self._stuck(block, evidence, expected, off)
        verdicts = np.where(stuck, STUCK, np.where(off, OFF, OK))
        changes: list[Finding] = []
        begin = 0
        # stretches of one verdict: a healthy log is a single one
        for end in [*(np.flatnonzero(np.diff(verdicts)) + 1), len(block)]:
            rows = slice(begin, int(end))
            changes += self._stretch(int(verdicts[begin]), block[rows], evidence[rows], int(since[begin]))
            begin = int(end)
        self.last = int(block.step[-1]), float(block.lr[-1])
        return changes

    # ---- the two proofs ----

    def _off(self, block: StepBlock, evidence: Evidence, expected: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
        slack = RELATIVE * np.abs(expected)
        hits = (evidence.low - slack <= expected) & (expected <= evidence.high + slack)
        for i in np.flatnonzero((block.skipped > 0) & ~hits.any(0)):  # the scaler's skips: 0 … m positions behind
            behind = np.linspace(0, int(block.skipped[i]), min(int(block.skipped[i]), 256) + 1)
            could = self.situation.expected(np.maximum(np.floor(block.step[i] - behind), 1).astype(np.int64))
            hits[:, i] = could.min() <= evidence.high[i] and could.max() >= evidence.low[i]
        if len(self.lags) > 1:
            possible = np.logical_and.accumulate(hits, axis=1)
            if possible[:, -1].any():
                self.lags = [lag for lag, alive in zip(self.lags, possible[:, -1], strict=True) if alive]
                off: NDArray[np.bool_] = np.zeros(len(block), bool)
                return off
            first = int(np.argmin(possible.any(0)))
            off = np.logical_not(hits.any(0))
            off[first] = True
            return off
        missed: NDArray[np.bool_] = np.logical_not(hits[0])
        return missed

    def _stuck(
        self, block: StepBlock, evidence: Evidence, expected: NDArray[np.floating[Any]], off: NDArray[np.bool_]
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Which records prove a stand-still, and since which step their value has stood."""
        lr, n = block.lr, len(block)
        stuck = np.zeros(n, bool)
        since = block.step.copy()
        cuts = np.flatnonzero(lr[1:] != lr[:-1]) + 1
        # a stretch of one record is never stuck: only longer ones, the first and the last need a look
        starts = np.concatenate([[0], cuts])
        ends = np.concatenate([cuts, [n]])
        look = np.flatnonzero((ends - starts > 1) | (starts == 0) | (ends == n))
        width = evidence.high - evidence.low + CURVE_ERROR * peak_rate(self.situation.schedule)
        if len(expected) != len(self.lags):  # the lags were narrowed by this very block
            expected = np.stack([self.situation.expected(np.maximum(block.step + lag, 1)) for lag in self.lags])
        for a, b in zip(starts[look], ends[look], strict=True):
            least = np.minimum.accumulate(expected[:, a:b], axis=1)
            most = np.maximum.accumulate(expected[:, a:b], axis=1)
            flat = self._flat
            begun, records = int(block.step[a]), int(b - a)
            if a == 0 and flat is not None and flat.value == lr[0] and len(flat.least) == len(least):
                least = np.minimum(least, flat.least[:, None])
                most = np.maximum(most, flat.most[:, None])
                begun, records = flat.since, flat.records + records
            stuck[a:b] = (most - least).min(0) > width[a:b]
            since[a:b] = begun
            if b == n:
                self._flat = _Flat(float(lr[-1]), begun, int(block.step[-1]), records, least[:, -1], most[:, -1])
        skipping = block.skipped > 0  # the lag may change within the stretch: then only an off record counts
        stuck &= ~skipping | off
        return stuck, since

    # ---- from verdicts to findings ----

    def _stretch(self, verdict: int, block: StepBlock, evidence: Evidence, since: int) -> list[Finding]:
        changes: list[Finding] = []
        if verdict == OK:
            self.sample.add(evidence)
            if self.fault is None:
                return changes
            self._healthy += len(block)
            self.fault.look(evidence)
            if self._healthy >= HEALTHY_AGAIN:
                changes.append(self.fault.resolve(int(block.step[0])))
                self.fault, self._healthy = None, 0
            return changes
        self._healthy = 0
        first, values = int(block.step[0]), len(np.unique(block.lr))
        if self.fault is None:
            # an off record with the value that fitted before: the declared rate left the cell, the logged one did not
            stood = since < first
            rule = "lr_stuck" if verdict == STUCK or stood else self._onset_rule(block)
            begun = since if rule == "lr_stuck" else first
            self.sample.add(evidence)
            self.fault = Fault(self.situation, rule, begun, self.sample, evidence)
        else:
            self.sample.add(evidence)
            if verdict == STUCK and self.fault.rule != "lr_stuck" and self.fault.values <= 1:
                changes.append(self.fault.rename("lr_stuck", first))
            self.fault.look(evidence)
            if self.fault.rule == "no_warmup" and self.fault.alive and self.fault.alive[0].name == "rate_scaled":
                changes.append(self.fault.rename("lr_off_schedule", first))
        fault = self.fault
        fault.records += len(block)
        fault.values += values - (1 if fault.last is not None and fault.last[1] == block.lr[0] else 0)
        fault.last = int(block.step[-1]), float(block.lr[-1])
        if fault.rule == "lr_stuck" and fault.values > 3 and fault.records < MOVES_A_FREEZE * fault.values:
            changes.append(fault.rename("lr_off_schedule", first))
        if fault.news():
            changes.append(fault.finding())
        return changes

    def _onset_rule(self, block: StepBlock) -> str:
        """What to call a rate that is off at its first record: a jump, a missing warm-up, or simply off."""
        s, step, lr = self.situation, int(block.step[0]), float(block.lr[0])
        if self.last is not None and self.last[1] > 0 and step > 1:
            before, expected = s.expected(np.array([self.last[0], step]))
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
        low, high = self.precision.cell(np.array([flat.value]))
        width = float(high[0] - low[0]) + CURVE_ERROR * peak_rate(self.situation.schedule)
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
