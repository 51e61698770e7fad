"""One learning-rate fault from its onset on: the causes that remain, what it costs, and the words for it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from eegwatch.diagnosis.findings import ERROR, WARNING, Cause, Finding
from eegwatch.diagnosis.rate.catalogue import REMEDIES, hypotheses
from eegwatch.diagnosis.rate.causes import RELATIVE, Evidence, Floats, Hypothesis, Sample, Scaled, Situation
from eegwatch.schedule.inverse import position_intervals
from eegwatch.schedule.lengths import has_length
from eegwatch.wording import count_of, deviation, exact_rate, rate

SMALL_COST, EARLY = 0.05, 0.2  # of the rate; of the run
NARROW = 1e-7  # of the rate: a wider cell is print, and a rate is then a range of positions
YOUNG = 64  # steps and records of a fault that may still turn out to be skipped steps
PROVED = 2  # records on schedule that show that an attempt began as it should
MEANT = 'if it is meant to be stepped once an epoch, tell RunLog: unit="epoch", steps_per_epoch=…'
PREDICTIONS = ("rate", "position")  # of a hypothesis
LATE = 10  # rank of a cause that begins inside an attempt, behind all that begin with it


def _ratio(observed: float, expected: float) -> float:
    """observed / expected; 1 where both are 0."""
    if expected == 0:
        return 1.0 if observed == 0 else math.inf
    return observed / expected


def _alternatives(remaining: list[Hypothesis]) -> tuple[str, ...]:
    """Names of what remains beside the likeliest, in order, each once."""
    return tuple(dict.fromkeys(h.name for h in remaining[1:] if h.name != remaining[0].name))


@dataclass(frozen=True)
class Onset:
    """The onset of a fault: its first step, the attempt's records on schedule before it, the log's lag."""

    since: int
    on_schedule: int = 0
    shift: int = 0


class Fault:
    """One learning-rate fault from its onset on: the causes that remain, and the words for them."""

    def __init__(
        self, situation: Situation, rule: str, onset: Onset, sample: Sample, evidence: Evidence, latest: Evidence
    ) -> None:
        """`evidence`: the records from the onset on; `latest`: the newest of them that is off schedule."""
        self.situation = situation
        self.rule = rule
        self.since = onset.since
        self._start = onset
        self.records = 0
        self.values = 0
        self.last: tuple[int, float] | None = None
        self._sample = sample
        self._onset = evidence[slice(0, 1)]
        self._latest = latest
        self._next_fit = 0
        self._reported: tuple[str, str, tuple[str, ...]] | None = None
        self.hypotheses: list[Hypothesis] = []
        self._fit(evidence)

    def look(self, evidence: Evidence, latest: Evidence | None) -> None:
        """Test what remains against new records; if nothing remains, look for parameters again, ever more rarely.

        `latest`: the newest of them that is off schedule, if one is.
        """
        self._latest = latest or self._latest
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
        step = int(self._latest.step[0])
        self._next_fit = step + max(1, (step - self.since) // 2)
        self._fitted = self._latest
        known = self._sample.evidence
        first = self.since + self._start.shift
        self.hypotheses = self._proposals()
        for hypothesis in self.hypotheses:
            begin = int(np.searchsorted(known.step, first)) if known is not None and hypothesis.late else 0
            if known is not None:
                hypothesis.test(known[slice(begin, None)])
            hypothesis.test(evidence)

    def _proposals(self) -> list[Hypothesis]:
        """Every cause, untested, with the parameters that the onset and the newest record at this fit tell."""
        s = self.situation
        proposals = hypotheses(s, self._onset, self._fitted)
        if self._start.on_schedule >= PROVED:
            late = replace(s, start=self.since - 1, restored_position=None, before=None)
            after = hypotheses(late, self._onset, self._fitted, logged=False)
            for hypothesis in after:
                hypothesis.rank += LATE
                hypothesis.late = True
            proposals += after
        return proposals

    def __getstate__(self) -> dict[str, Any]:
        """For `diagnosis.saved_state`, which stores no function: a cause's prediction is rebuilt from its inputs."""
        learnt = [{n: v for n, v in vars(h).items() if n not in PREDICTIONS} for h in self.hypotheses]
        return {**vars(self), "hypotheses": learnt}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.hypotheses = self._proposals()
        for hypothesis, learnt in zip(self.hypotheses, state["hypotheses"], strict=True):
            vars(hypothesis).update(learnt)

    def rename(self, rule: str, step: int) -> Finding:
        old = self.finding()
        self.rule, self._reported = rule, None
        word = "stands still" if rule == "lr_stuck" else "moves, but not along the schedule"
        return old.renamed(step, f"{old.rule} is now {rule}: the rate {word}")

    def may_be_skips(self, step: int) -> bool:
        """Whether the fault is recent and began within an attempt that was on schedule."""
        young = step - self.since <= YOUNG and self.records <= YOUNG
        return young and self._start.on_schedule >= PROVED and self.rule in ("lr_stuck", "lr_off_schedule")

    def withdraw(self, step: int) -> Finding:
        says = "the loss scaler had skipped optimizer steps: the schedule continues with a lag of as many"
        return self.finding().renamed(step, f"{self.rule} since step {self.since:,} is withdrawn: {says}")

    def resolve(self, step: int) -> Finding:
        return self.finding().resolved(
            step,
            f"the learning rate is back on the declared schedule since step {step:,} (was wrong since {self.since:,})",
        )

    @property
    def may_be_meant(self) -> bool:
        """Nobody has said in which unit the schedule counts, and all records are those of a step once an epoch.

        Without steps_per_epoch, the logged positions tell: they are those of a scheduler that is stepped less often.
        """
        s = self.situation
        if not s.unit_assumed:
            return False
        step = self._latest.step
        if s.steps_per_epoch:
            best = self.alive[0] if self.alive else None
            if best is None or (best.name, best.rank) != ("scheduler_stepped_per_epoch", 1) or best.position is None:
                return False
            return float(best.position(step)[0]) == (int(step[0]) - 1) // s.steps_per_epoch
        known = self._latest if self._sample.evidence is None else self._sample.evidence + self._latest
        if np.isnan(known.position).any() or (2 * known.position > known.step - 1).any():
            return False
        own_length = has_length(s.schedule) and s.run_total == s.total  # and the run's is not known
        if known.position[-1] == 0 and not own_length and s.run_total and 3 * step[0] > s.run_total:
            return False  # a run has more than two epochs: it is never stepped
        predicted = s.schedule.rate(known.position)
        slack = RELATIVE * np.abs(predicted)
        return bool(((predicted >= known.low - slack) & (predicted <= known.high + slack)).all())

    def news(self) -> bool:
        """Whether the rule, the likeliest cause or the set of alternatives has changed since the last call."""
        remaining = self.alive
        name = remaining[0].name if remaining else "unknown"
        report = (self.rule, name, (*_alternatives(remaining), str(self.may_be_meant)))
        if report == self._reported:
            return False
        self._reported = report
        return True

    def cause(self) -> Cause:
        step, low, high = (float(v[0]) for v in (self._latest.step, self._latest.low, self._latest.high))
        remaining = self.alive
        logged = float(self._latest.position[0])
        if not remaining and self.may_be_meant:
            says = f"the scheduler has been stepped {count_of(int(logged), 'time')} in {step - 1:,.0f} steps"
            return Cause("scheduler_stepped_per_epoch", f"{says}; {self._seen()}", logged, says=says)
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
            if high - low > NARROW * abs(high):  # printed with few digits: an interval, never a point
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
        intervals = position_intervals(self.situation.schedule, low, high)
        first, last = next(((a, b) for a, b in intervals if a <= at <= b), (int(at), int(at)))
        words = f" (positions {first:,}–{last:,} print alike"
        B = self.situation.steps_per_epoch
        if B and last // B * B >= first and last // B == -(-first // B) and last // B > 0:
            words += f"; one epoch boundary among them, {last // B} × {B:,}"
        return [float(first), float(last)], words + ")"

    @property
    def _newest(self) -> tuple[int, float]:
        """(step, rate) of the newest record that is off schedule, as it was logged."""
        shift = self._start.shift
        return self.last or (int(self._latest.step[0]) - shift, float(self._latest.low[0]))

    def _expected(self, step: int) -> float:
        return float(self.situation.expected(np.array([max(step + self._start.shift, 1)]))[0])

    def _seen(self) -> str:
        step, lr = self._newest
        expected = self._expected(step)
        return f"{exact_rate(lr, expected)} at step {step:,}, expected {exact_rate(expected, lr)}"

    def separates_at(self) -> int | None:
        """The next step at which the remaining causes predict different rates; None if one is left or none differ."""
        remaining = self.alive
        step = int(self._latest.step[0])
        if len({h.name for h in remaining}) < 2 or step >= self.situation.total:
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
        """(observed / expected now, their mean over the rest if nothing is done); inf where 0 is expected."""
        step, lr = self._newest
        now = _ratio(lr, self._expected(step))
        rest = np.unique(np.linspace(min(step, self.situation.total), self.situation.total, 2049).round()).astype(
            np.int64
        )
        expected = self.situation.expected(rest)
        predicted: Floats
        best = self.alive[0] if self.alive else None
        if isinstance(best, Scaled):
            predicted = expected * (best.least + best.most) / 2
        elif best is not None and best.name != "optimizer_steps_skipped":
            predicted = best.rate(rest)
        elif self.rule == "lr_stuck" or not math.isfinite(now):
            predicted = np.full(len(rest), lr)
        else:
            predicted = expected * now
        return now, _ratio(float(predicted.sum()), float(expected.sum()))

    def finding(self) -> Finding:
        """The fault as a finding, with its present figures."""
        cause = self.cause()
        step, lr = self._newest
        expected = self._expected(step)
        now, later = self.cost()
        if self.rule == "lr_stuck":
            what = f"LR stuck at {rate(lr)} since step {self.since:,}"
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
        cost = f"{deviation(now)} now, {deviation(later)} on average if nothing is done"
        if over:
            cost = f"{deviation(now)} at its end"
        slack = RELATIVE * self.situation.peak
        fits = float(self._latest.low[0]) - slack <= expected <= float(self._latest.high[0]) + slack
        held = cause.name == "schedule_overrun" and fits
        if held:  # the schedule has ended and its last rate is held: no wrong rate, but no schedule either
            what = f"LR {rate(lr)} beyond the end of its schedule since step {self.since:,}"
            cost = "nothing is trained at 0" if lr == 0 else "its last rate is held"
        here = f"expected {exact_rate(expected, lr)} at step {step:,}"
        remedy = f"{REMEDIES.get(cause.name, REMEDIES['unknown'])}; {self._which_key(now, later)}"
        meant = self.may_be_meant
        if meant:
            what, cost = "The schedule is read as one of steps", "nothing is wrong if it counts epochs"
        return Finding(
            self.rule,
            WARNING if held or meant else ERROR,
            step,
            self.since,
            f"{what}: {why}; {here}, {cost}",
            cause,
            headline=what,
            here=here,
            cost=cost,
            why=why,
            remedy=f"{MEANT}; else {remedy}" if meant else remedy,
        )

    def _which_key(self, now: float, later: float) -> str:
        """The key to press, by the cost of the fault so far, its future cost, and the rest of the run."""
        done = self.last[0] / self.situation.total if self.last else 0.0
        if self.situation.total <= (self.last[0] if self.last else 0):
            return "the run is over: restart it (r)"
        if abs(now - 1) < SMALL_COST and abs(later - 1) < SMALL_COST:
            return f"the error stays below {100 * SMALL_COST:.0f} %: let it finish, or rejoin the schedule (m)"
        if abs(now - 1) < SMALL_COST:
            return "little is lost so far: rejoin the schedule at the next checkpoint (m)"
        if done < EARLY:
            return "the run is young: restart it (r), or rejoin the schedule (m)"
        return "rejoin the schedule, or resume with an LR of your choice (m)"
