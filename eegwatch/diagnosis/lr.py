"""Is the learning rate where the declared schedule says? Proof, not thresholds.

Off schedule: the record's rounding cell misses the declared rate. Stuck: equal printed values while the declared
rate moved by more than the cell is wide. If the run follows its schedule neither can fire (detection_control.md
2.2): the false-alarm probability is zero. What cannot be told yet (a hold, the floor, few digits) is said so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eegwatch.diagnosis.causes import RELATIVE, REMEDIES, Evidence, Hypothesis, Sample, Situation, hypotheses
from eegwatch.diagnosis.findings import ERROR, Cause, Finding
from eegwatch.diagnosis.precision import Precision
from eegwatch.run.history import StepBlock
from eegwatch.schedule import initial_rate, peak_rate
from eegwatch.schedule.inverse import position_intervals
from eegwatch.wording import deviation, exact_rate, rate

CURVE_ERROR = 4e-14  # of the peak: two closed forms within 1e-14 of torch's recursion each, twice over
HEALTHY_AGAIN = 2  # records on schedule before a finding resolves: one may be the wrong curve crossing the right one
MOVES_A_FREEZE = 20  # fewer records a value than this, three values long: it moves slowly, it is not frozen
LOOK_AHEAD = 4_000_000  # steps searched for "from when can it be told"
JUMP = 0.05  # a relative step in the rate that no schedule makes between two records

SMALL_COST, EARLY = 0.05, 0.2  # of the rate; of the run
LATE = 10  # rank of a cause that begins inside an attempt, behind all that begin with it

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
        """Take the next records; returns what changed: a fault raised, its cause narrowed, or resolved."""
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


def _alternatives(remaining: list[Hypothesis]) -> tuple[str, ...]:
    """Names of what remains beside the likeliest, in order, each once."""
    return tuple(dict.fromkeys(h.name for h in remaining[1:] if h.name != remaining[0].name))


class Fault:
    """One learning-rate fault from its onset on: the causes that remain, and the words for them."""

    def __init__(self, situation: Situation, rule: str, since: int, sample: Sample, onset: Evidence) -> None:
        self.situation = situation
        self.rule = rule
        self.since = since
        self.records = 0
        self.values = 0
        self.last: tuple[int, float] | None = None
        self._sample = sample
        self._onset = onset[slice(0, 1)]
        self._latest = onset[slice(-1, None)]
        self._next_fit = 0
        self._told: tuple[str, str, tuple[str, ...]] | None = None
        self.hypotheses: list[Hypothesis] = []
        self._fit(onset)

    def look(self, evidence: Evidence) -> None:
        """Test what remains against new records; if nothing remains, look for parameters again, ever more rarely."""
        self._latest = evidence[slice(-1, None)]
        for hypothesis in self.hypotheses:
            hypothesis.test(evidence)
        if not self.alive and int(self._latest.step[0]) >= self._next_fit:
            self._fit(evidence)

    @property
    def alive(self) -> list[Hypothesis]:
        return sorted((h for h in self.hypotheses if h.alive), key=lambda h: h.rank)

    def _fit(self, evidence: Evidence) -> None:
        """Propose every cause anew, tested on the attempt's sample and on the newest records.

        A fault that begins inside an attempt may be a resume that nobody logged: those causes are tested from
        the onset on only, and come second.
        """
        s, step = self.situation, int(self._latest.step[0])
        self._next_fit = step + max(1, (step - self.since) // 2)
        known = self._sample.evidence
        proposals = hypotheses(s, self._onset, self._latest)
        for hypothesis in proposals:
            if known is not None:
                hypothesis.test(known)
            hypothesis.test(evidence)
        if self.since > s.start + 1:
            late = replace(s, start=self.since - 1, restored_position=None)
            after = hypotheses(late, self._onset, self._latest)
            for hypothesis in after:
                hypothesis.rank += LATE
                hypothesis.says += " (no resume is logged there)"
                if known is not None:
                    hypothesis.test(known[slice(int(np.searchsorted(known.step, self.since)), None)])
                hypothesis.test(evidence)
            proposals += after
        self.hypotheses = proposals

    def rename(self, rule: str, step: int) -> Finding:
        old = self.finding()
        self.rule, self._told = rule, None
        word = "stands still" if rule == "lr_stuck" else "moves, but not along the schedule"
        return old.resolved(step, f"{old.rule} is now {rule}: the rate {word}")

    def resolve(self, step: int) -> Finding:
        return self.finding().resolved(
            step,
            f"the learning rate is back on the declared schedule since step {step:,} (was wrong since {self.since:,})",
        )

    def news(self) -> bool:
        """Has the rule, the likeliest cause or the set of alternatives changed since it was last asked?"""
        remaining = self.alive
        told = (self.rule, remaining[0].name if remaining else "unknown", _alternatives(remaining))
        if told == self._told:
            return False
        self._told = told
        return True

    def cause(self) -> Cause:
        step, low, high = (float(v[0]) for v in (self._latest.step, self._latest.low, self._latest.high))
        remaining = self.alive
        logged = float(self._latest.position[0])
        if not remaining:
            where = position_intervals(self.situation.schedule, low, high)
            span = [where[0][0], where[-1][1]] if where else None
            says = "none of the known causes explains the records"
            between = None if span is None else [float(p) for p in span]
            return Cause("unknown", f"{says}; {self._seen()}", between, says=says)
        best = remaining[0]
        names = _alternatives(remaining)
        killed = {h.name: h.killed_at for h in self.hypotheses if h.killed_at is not None}
        killed = {name: at for name, at in killed.items() if name != best.name and name not in names}
        position: float | list[float] | None = None if np.isnan(logged) else logged
        evidence = f"{best.says}: {self._seen()}"
        if best.position is not None:
            at = float(best.position(self._latest.step)[0])
            evidence += f"; the rate is that of position {at:,.0f}, where a healthy run is at {step - 1:,.0f}"
            position = at if position is None else position
            if high > low:  # printed with few digits: an interval, never a point
                position, words = self._interval(at, low, high)
                evidence += words
        for other in remaining[1:]:
            if other.name == best.name and other.position is not None and other.rank < best.rank + LATE:
                at = float(other.position(self._latest.step)[0])
                evidence += f"; or, less likely, {other.says} (position {at:,.0f} of {other.last + 1:,.0f})"
        return Cause(
            best.name,
            evidence,
            position,
            names,
            best.says,
            self.separates_at(),
            {name: at for name, at in killed.items() if at is not None},
        )

    def _interval(self, at: float, low: float, high: float) -> tuple[list[float], str]:
        """The positions around `at` whose rates print alike, and the epoch boundary among them if it is one."""
        found = position_intervals(self.situation.schedule, low, high)
        first, last = next(((a, b) for a, b in found if a <= at <= b), (int(at), int(at)))
        words = f" (positions {first:,}–{last:,} print alike"
        B = self.situation.steps_per_epoch
        if B and last // B * B >= first and last // B == -(-first // B) and last // B > 0:
            words += f"; one epoch boundary among them, {last // B} × {B:,}"
        return [float(first), float(last)], words + ")"

    def _seen(self) -> str:
        step, lr = self.last or (int(self._latest.step[0]), float(self._latest.low[0]))
        expected = float(self.situation.expected(step))
        return f"{exact_rate(lr, expected)} at step {step:,}, expected {exact_rate(expected, lr)}"

    def separates_at(self) -> int | None:
        """The next step at which the remaining causes predict different rates; None if one is left or none differ."""
        remaining = self.alive
        step = int(self._latest.step[0])
        if len({h.name for h in remaining}) < 2:
            return None
        half = float(self._latest.high[0] - self._latest.low[0]) / 2
        B = self.situation.steps_per_epoch
        near = np.arange(step + 1, min(step + 4097, self.situation.total + 1))
        edges = np.arange(step // B + 1, step // B + 65) * B + 1 if B else np.empty(0, np.int64)
        steps = np.unique(np.concatenate([near, edges[edges <= self.situation.total]])).astype(np.int64)
        if not len(steps):
            return None
        names = [h.name for h in remaining]
        rates = np.stack([h.rate(steps) for h in remaining])
        best = rates[0]
        differ = np.zeros(len(steps), bool)
        for name, curve in zip(names[1:], rates[1:], strict=True):
            if name != names[0]:
                differ |= np.abs(curve - best) > 2 * half + RELATIVE * np.abs(best)
        return int(steps[int(np.argmax(differ))]) if differ.any() else None

    def cost(self) -> tuple[float, float]:
        """(observed / expected now, their mean over the rest of the run if nothing is done)."""
        step, lr = self.last or (int(self._latest.step[0]), float(self._latest.low[0]))
        now = lr / float(self.situation.expected(step))
        rest = np.unique(np.linspace(step, self.situation.total, 2049).round().astype(np.int64))
        expected = self.situation.expected(rest)
        remaining = self.alive
        if remaining and remaining[0].name not in ("rate_scaled", "optimizer_steps_skipped"):
            predicted = remaining[0].rate(rest)
        else:
            predicted = np.full(len(rest), lr) if self.rule == "lr_stuck" else expected * now
        return now, float(predicted.sum() / expected.sum())

    def finding(self) -> Finding:
        """The fault in words, with the figures of this moment."""
        cause = self.cause()
        step, lr = self.last or (int(self._latest.step[0]), float(self._latest.low[0]))
        expected = float(self.situation.expected(step))
        now, later = self.cost()
        if self.rule == "lr_stuck":
            what = f"LR frozen at {rate(lr)} since step {self.since:,}"
        elif self.rule == "lr_jump":
            what = f"LR jumped off its schedule at step {self.since:,}: {exact_rate(lr, expected)}"
        elif self.rule == "no_warmup":
            what = f"LR began without warm-up: {exact_rate(lr, expected)}"
        else:
            what = f"LR off schedule since step {self.since:,}: {exact_rate(lr, expected)}"
        why = cause.says
        others = {h.name: h.says for h in reversed(self.alive) if h.name in cause.alternatives}
        if others:
            says = list(others.values())
            why += f", or {says[0]}" if len(says) == 1 else f", or one of {len(says)} other causes"
            if cause.separates_at:
                why += f" (step {cause.separates_at:,} will tell)"
        over = step >= self.situation.total
        cost = (
            f"{deviation(now)} at its end" if over else f"{deviation(now)} now, {deviation(later)} on average if left"
        )
        here = f"expected {exact_rate(expected, lr)} at step {step:,}"
        return Finding(
            self.rule,
            ERROR,
            step,
            self.since,
            f"{what}: {why}; {here}, {cost}",
            cause,
            headline=what,
            here=here,
            cost=cost,
            why=why,
            remedy=f"{REMEDIES.get(cause.name, REMEDIES['unknown'])}; {self._which_key(now, later)}",
        )

    def _which_key(self, now: float, later: float) -> str:
        """What to press: by what the fault has cost so far, what it will cost, and how much of the run is left."""
        done = self.last[0] / self.situation.total if self.last else 0.0
        if self.situation.total <= (self.last[0] if self.last else 0):
            return "the run is over: restart it (r)"
        if abs(now - 1) < SMALL_COST and abs(later - 1) < SMALL_COST:
            return f"the error stays below {SMALL_COST:.0%}: let it finish, or rejoin the schedule (m)"
        if abs(now - 1) < SMALL_COST:
            return "little is lost so far: rejoin the schedule at the next checkpoint (m)"
        if done < EARLY:
            return "the run is young: restart it (r), or rejoin the schedule (m)"
        return "rejoin the schedule, or resume with an LR of your choice (m)"
