"""Loss, gradient, throughput and metric rules: evidence, not proof, and therefore quiet.

Each looks at blocks of steps, not at single batches, and says when it is over. What is usual is learnt from whole
blocks alone, so that the findings are the same whether a log is read at once or as it grows (tested).
`tests/bench/false_alarms.py` measures how often each fires on healthy noisy runs. A person silences a rule, or scales
its threshold, under `detectors:`.
Sources: detection_control.md 2.6 (LS2-LS4, GN1, TH1, TH2); OLMo-core's SkipStepOptimizer for the single spike.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eegwatch.diagnosis.findings import INFO, WARNING, Finding
from eegwatch.diagnosis.noise import batch_loss_band
from eegwatch.run.config import TUNABLE
from eegwatch.run.history import StepBlock
from eegwatch.run.records import Eval, Run, number
from eegwatch.wording import duration

NONE_TRUE = np.empty(0, np.int64)

Settings = Mapping[str, Any]  # rule -> False (silenced) or a factor on its threshold (2.0: half as sensitive)

CHANCE = math.log(2)  # cross-entropy (nats) of a model that knows nothing of two balanced classes
SPIKE_BEYOND, SPIKE_HISTORY, SPIKES_OF_TEN = 10, 1000, 3  # three of ten losses above all of the 10 blocks before
SINGLE_SPIKE_SIGMA, SPIKE_WINDOW = 12.0, 128  # batch losses are skewed: 6 sigma fires on noise, 12 did not (measured)
CUSUM_SLACK, CUSUM_LIMIT, TRAILING, LAG = 0.5, 12.0, 20, 5
CREEP = 1.25  # the newest blocks against the best: a rise too slow for the CUSUM
EXPLODING, EXPLODING_FOR = 100.0, 3  # times the median gradient norm
ZERO_FOR = 5
SLOWER, SLOWER_FOR, BASELINE = 2.0, 3, 8
STALLED_LEAST_S, STALLED_TIMES = 60.0, 20.0
METRIC_EVALS, METRIC_MARGIN = 6, 0.002
OVERFIT_EVALS, OVERFIT_RISE = 4, 1.05
INTERVALS = 200
SCATTER_OF, SCATTER_BEYOND = 1000, 1.5  # newest losses; times the range that batch size and AUROC explain


def _quantile(ordered: NDArray[np.float64], q: float) -> float:
    """np.quantile of sorted values."""
    place = q * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (ordered[high] - ordered[low]) * (place - low))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


class Latch:
    """One finding that is raised once, may be updated, and resolves once."""

    def __init__(self, rule: str, present: dict[str, Finding]) -> None:
        self.rule, self._present = rule, present

    @property
    def up(self) -> bool:
        return self.rule in self._present

    def say(self, severity: str, step: int, since: int, message: str, remedy: str = "") -> list[Finding]:
        """Raise it, unless it is up already with that severity."""
        if self.up and self._present[self.rule].severity == severity:
            return []
        finding = Finding(self.rule, severity, step, since, message, headline=message, remedy=remedy)
        self._present[self.rule] = finding
        return [finding]

    def over(self, step: int, message: str) -> list[Finding]:
        old = self._present.pop(self.rule, None)
        return [old.resolved(step, message)] if old is not None else []


class Blocks:
    """Cuts a stream of columns into blocks of a fixed number of records, whatever sizes it comes in."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._rest: StepBlock | None = None

    def feed(self, block: StepBlock) -> Iterator[tuple[StepBlock, StepBlock | None]]:
        """(part, the whole block that it completes): parts never reach across a boundary."""
        begin = 0
        while begin < len(block):
            waiting = len(self._rest) if self._rest is not None else 0
            part = block[slice(begin, begin + self.size - waiting)]
            begin += len(part)
            joined = _joined(self._rest, part) if self._rest is not None and waiting else part
            whole = len(joined) == self.size
            self._rest = None if whole else joined
            yield part, joined if whole else None


def _joined(a: StepBlock, b: StepBlock) -> StepBlock:
    return StepBlock(**{name: np.concatenate([getattr(a, name), getattr(b, name)]) for name in a.__dict__})


class EvidenceWatch:
    """All rules of this module over one attempt. `present` is the engine's table of findings that are up."""

    def __init__(self, run: Run | None, present: dict[str, Finding], settings: Settings) -> None:
        self.run, self.settings = run, settings
        total = (run.total_steps if run else None) or 100_000
        # the loss falls within a block of a short run, and a long run's blocks must average its noise away
        self.size = int(min(200, max(20, total // 100)))
        self._blocks = Blocks(self.size)
        self._latch = {rule: Latch(rule, present) for rule in TUNABLE}
        self._means: deque[float] = deque(maxlen=TRAILING + LAG)
        self._peaks: deque[float] = deque(maxlen=max(SPIKE_BEYOND, -(-SPIKE_HISTORY // self.size)))
        self._best = math.inf
        self._seen = 0
        self._cusum = 0.0
        self._spike_steps: list[int] = []
        self._recent = np.empty(0, np.float32)
        self._ceiling = self._limit = math.inf
        self._scattered = np.empty(0, np.float32)
        self._quiet_since = 0
        self._norms: deque[float] = deque(maxlen=10)
        self._usual_norm = math.inf
        self._zeros = self._huge = 0
        self._calm = True  # no huge gradient in this block
        self._speeds: list[float] = []
        self._slow = 0
        self._evals: list[Eval] = []
        self._loss_then: list[float] = []
        self._intervals = np.empty(0)
        self._last_time = 0.0
        self._last_step = run.step if run else 0

    def on(self, rule: str) -> bool:
        return self.settings.get(rule, 1.0) is not False

    def factor(self, rule: str) -> float:
        value = self.settings.get(rule, 1.0)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 1.0

    # ---- steps ----

    def steps(self, block: StepBlock) -> list[Finding]:
        changes: list[Finding] = []
        for part, whole in self._blocks.feed(block):
            changes += [*self._spikes(part), *self._gradients(part)]
            if whole is not None:
                changes += [*self._level(whole), *self._speed(whole)]
                changes += [*self._learn_losses(whole), *self._learn_gradients(whole)]
        changes += self._latch["stalled"].over(int(block.step[-1]), f"steps come again since {int(block.step[0]):,}")
        losses = block.loss[-SCATTER_OF:]
        self._scattered = np.concatenate([self._scattered, losses[np.isfinite(losses)]])[-SCATTER_OF:]
        gaps = np.diff(block.time[-INTERVALS:], prepend=self._last_time or block.time[0])
        self._intervals = np.concatenate([self._intervals, gaps[gaps > 0]])[-INTERVALS:]
        self._last_time, self._last_step = float(block.time[-1]), int(block.step[-1])
        return changes

    def _spikes(self, block: StepBlock) -> list[Finding]:
        """Several losses above everything before, or a single one far outside."""
        latch, losses = self._latch["loss_spike"], block.loss
        ceiling, limit = self._ceiling, self._limit
        if not self.on("loss_spike") or ceiling == limit == math.inf:
            return []
        changes: list[Finding] = []
        suspicious = np.flatnonzero(losses > min(ceiling, limit))
        for i in suspicious:
            step, loss = int(block.step[i]), float(losses[i])
            self._quiet_since = step
            if loss > ceiling:
                self._spike_steps = [*(s for s in self._spike_steps if step - s < 10), step]
                if len(self._spike_steps) >= SPIKES_OF_TEN * self.factor("loss_spike"):
                    said = f"{len(self._spike_steps)} of the last 10 losses above {ceiling:.3g}, the highest for long"
                    changes += latch.say(WARNING, step, self._spike_steps[0], f"loss spikes: {said}")
                    continue
            if loss > limit:
                changes += latch.say(INFO, step, step, f"the loss of step {step:,} alone was {loss:.3g}")
        return changes

    def _learn_losses(self, whole: StepBlock) -> list[Finding]:
        """What a spike would have to rise above from now on."""
        latch = self._latch["loss_spike"]
        if not self.on("loss_spike"):
            return []
        ordinary = whole.loss[-SPIKE_WINDOW:]
        ordinary = ordinary[np.isfinite(ordinary) & (ordinary <= self._limit)]
        self._recent = np.concatenate([self._recent, ordinary])[-SPIKE_WINDOW:]
        if len(self._peaks) == self._peaks.maxlen:
            self._ceiling = max(self._peaks)
        if len(self._recent) == SPIKE_WINDOW:
            ordered = np.sort(self._recent.astype(np.float64))
            mean = float(ordered.sum()) / SPIKE_WINDOW
            spread = math.sqrt(max(0.0, float((ordered * ordered).sum()) / SPIKE_WINDOW - mean * mean))
            sigmas = SINGLE_SPIKE_SIGMA * self.factor("loss_spike")
            self._limit = _quantile(ordered, 0.5) + sigmas * (spread + 1e-12)
        last = int(whole.step[-1])
        if latch.up and last - self._quiet_since > 10 * self.size:
            return latch.over(last, f"no loss spike since step {self._quiet_since:,}")
        return []

    def _level(self, block: StepBlock) -> list[Finding]:
        """Divergence by CUSUM over block means, a creeping rise, and a loss that has not left chance."""
        finite = block.loss[np.isfinite(block.loss)].astype(np.float64)
        if not len(finite):
            return []
        # sums and sorted values: np.mean and np.quantile check for longer than a block of 200 takes to add up
        ordered = np.sort(finite)
        mean, step, first = float(finite.sum()) / len(finite), int(block.step[-1]), int(block.step[0])
        # winsorised: one spike of 50 in a block of 200 is a spike, not a new level
        bulk = np.minimum(finite, _quantile(ordered, 0.95))
        clipped = float(bulk.sum()) / len(finite)
        self._peaks.append(float(ordered[-1]))
        self._seen += 1
        changes: list[Finding] = []
        if self.on("loss_diverging"):
            changes += self._diverging(clipped, step, first)
        self._means.append(clipped)
        if len(self._means) >= TRAILING:
            self._best = min(self._best, self._lately())
        if self.on("loss_plateau"):
            changes += self._at_chance(mean, bulk, step)
        return changes

    def _lately(self) -> float:
        return _mean(list(self._means)[-TRAILING:])

    def _diverging(self, mean: float, step: int, first: int) -> list[Finding]:
        latch, factor = self._latch["loss_diverging"], self.factor("loss_diverging")
        if len(self._means) < TRAILING + LAG:
            return []
        means = list(self._means)
        trailing = means[:TRAILING]
        level = _mean(trailing[-TRAILING // 2 :])
        # noise from successive differences: a loss that falls steadily must not count as spread
        spread = math.sqrt(_mean([(b - a) ** 2 for a, b in pairwise(trailing)]) / 2) + 1e-3 * abs(level) + 1e-12
        self._cusum = max(0.0, self._cusum + (mean - level) / spread - CUSUM_SLACK)
        newest = _mean([*means[-3:], mean])
        # twenty blocks against the best twenty: the best single block of real EEG, whose batches share recordings and
        # scatter widely, lies a quarter below the mean of a healthy run
        creeping = self._lately() > CREEP * factor * self._best
        if (self._cusum > CUSUM_LIMIT * factor and newest > 1.02 * level) or creeping:
            rise = newest / self._best - 1 if self._best else math.inf
            said = f"the mean loss is {newest:.3g}, {rise:.0%} above its best"
            return latch.say(WARNING, step, first, f"loss diverging: {said}", "resume from before it with a lower LR")
        if latch.up and newest < 1.05 * self._best:
            self._cusum = 0.0
            return latch.over(step, f"the loss is back at its best level at step {step:,}")
        return []

    def _at_chance(self, mean: float, bulk: NDArray[np.float64], step: int) -> list[Finding]:
        latch = self._latch["loss_plateau"]
        done = step - (self.run.step if self.run else 0)
        total = self.run.total_steps if self.run else None
        if done < min(2000, (total or 20_000) // 4) or self._seen < 10:
            return []
        recent = list(self._means)[-10:]
        off = abs(_mean(recent) - CHANCE)
        allowed = 2.6 / math.sqrt(len(bulk) * len(recent)) * self.factor("loss_plateau")
        # half the range is the most that a standard deviation can be: mostly that is enough to know
        stuck = off < max(allowed * float(bulk.max() - bulk.min()) / 2, 0.002)
        stuck = stuck and off < max(allowed * float(bulk.std()), 0.002)
        if stuck:
            said = f"the mean loss is {_mean(recent):.3f}, chance for two classes is {CHANCE:.3f}"
            return latch.say(WARNING, step, max(1, step - 10 * self.size), f"not learning: {said}")
        return latch.over(step, f"the loss has left chance: {mean:.3f}") if latch.up else []

    def _gradients(self, block: StepBlock) -> list[Finding]:
        norms, changes = block.grad_norm.astype(np.float64), list[Finding]()
        if self.on("grad_zero"):
            latch = self._latch["grad_zero"]
            run = self._run_of(norms == 0, self._zeros)
            self._zeros = int(run[-1]) if len(run) else 0
            if len(run) and run.max() >= ZERO_FOR * self.factor("grad_zero"):
                step = int(block.step[int(np.argmax(run >= ZERO_FOR))])
                said = f"the gradient norm is exactly zero since step {step - ZERO_FOR + 1:,}"
                changes += latch.say(
                    WARNING, step, step - ZERO_FOR + 1, said, "something detached the loss from the model"
                )
        if self.on("grad_exploding"):
            latch, usual = self._latch["grad_exploding"], self._usual_norm
            limit = EXPLODING * self.factor("grad_exploding") * usual
            run = self._run_of((norms > limit) | np.isinf(norms), self._huge)
            self._huge = int(run[-1]) if len(run) else 0
            if len(run) and run.max() >= EXPLODING_FOR:
                step = int(block.step[int(np.argmax(run >= EXPLODING_FOR))])
                norm = norms[int(np.argmax(run >= EXPLODING_FOR))]
                said = f"the gradient norm is {norm:.3g}, the {EXPLODING_FOR}rd so large in a row; usual is {usual:.3g}"
                changes += latch.say(WARNING, step, step - EXPLODING_FOR + 1, said, "lower the LR or clip gradients")
            self._calm &= not len(run)
        return changes

    def _learn_gradients(self, whole: StepBlock) -> list[Finding]:
        """What is a usual norm from now on; and that it is one again."""
        changes: list[Finding] = []
        step = int(whole.step[-1])
        if self._latch["grad_zero"].up and self._zeros == 0:
            changes += self._latch["grad_zero"].over(step, "gradients are no longer zero")
        if self._latch["grad_exploding"].up and self._huge == 0:
            changes += self._latch["grad_exploding"].over(step, "gradient norms are usual again")
        norms = whole.grad_norm
        finite = norms[np.isfinite(norms) & (norms > 0)] if self._calm else norms[:0]
        if len(finite):
            self._norms.append(_quantile(np.sort(finite.astype(np.float64)), 0.5))
            self._usual_norm = _quantile(np.sort(np.array(self._norms)), 0.5)
        self._calm = True
        return changes

    @staticmethod
    def _run_of(true: NDArray[np.bool_], before: int) -> NDArray[np.int64]:
        """Length of the current run of True at each place, continuing a run of `before`; empty if none is True."""
        if not true.any():
            return NONE_TRUE
        index = np.arange(1, len(true) + 1)
        last_false = np.maximum.accumulate(np.where(true, -before, index))
        length: NDArray[np.int64] = index - last_false
        return np.where(true, length, 0)

    def _speed(self, block: StepBlock) -> list[Finding]:
        """Three blocks in a row at half the usual pace; the first block of an attempt warms caches up."""
        if not self.on("throughput_drop"):
            return []
        latch, step = self._latch["throughput_drop"], int(block.step[-1])
        if len(block) < 2:
            return []
        interval = _quantile(np.sort(block.time[1:] - block.time[:-1]), 0.5)
        if interval <= 0:
            return []
        self._speeds.append(interval)
        if len(self._speeds) <= BASELINE:
            return []
        usual = _quantile(np.sort(np.array(self._speeds[1 : BASELINE + 1])), 0.5)
        slow = interval > SLOWER * self.factor("throughput_drop") * usual
        self._slow = self._slow + 1 if slow else 0
        del self._speeds[BASELINE + 1 :]
        if self._slow >= SLOWER_FOR:
            since = step - SLOWER_FOR * self.size + 1
            said = f"{1 / interval:,.3g} steps a second since step {since:,}, {1 / usual:,.3g} before"
            return latch.say(
                WARNING, step, since, f"throughput fell: {said}", "look at the machine: another job, a slow disk"
            )
        return latch.over(step, f"the pace is usual again at step {step:,}") if latch.up and not slow else []

    # ---- evaluations ----

    def evaluation(self, record: Eval) -> list[Finding]:
        if record.split != "val":
            return []
        self._evals.append(record)
        self._loss_then.append(float(np.mean(list(self._means)[-3:])) if self._means else math.nan)
        return [*self._metric(record), *self._overfit(record), *self._scatter(record)]

    def _scatter(self, record: Eval) -> list[Finding]:
        """`loss_unstable`: batch losses scatter more than batch size and AUROC explain. A hint, never an alarm."""
        auroc, run = number(record.auroc), self.run
        if not self.on("loss_unstable") or run is None or not run.batch_size or not math.isfinite(auroc):
            return []
        if len(self._scattered) < SCATTER_OF:
            return []
        low, high = batch_loss_band(round(auroc, 2), run.batch_size * run.accumulate)
        seen = np.quantile(self._scattered, [0.01, 0.99])
        latch, times = self._latch["loss_unstable"], float(seen[1] - seen[0]) / max(high - low, 1e-9)
        if times > SCATTER_BEYOND * self.factor("loss_unstable"):
            said = f"98 % of the newest losses lie in {seen[0]:.2f}–{seen[1]:.2f}, {low:.2f}–{high:.2f} is explained"
            return latch.say(INFO, record.step, record.step, f"the loss scatters widely: {said}")
        return latch.over(record.step, "the loss scatters as batch size and AUROC explain") if latch.up else []

    def _metric(self, record: Eval) -> list[Finding]:
        target = ((self.run.target if self.run else None) or {}).get("auroc")
        if target is None or not self.on("metric_stuck"):
            return []
        latch = self._latch["metric_stuck"]
        scores = [number(e.auroc) for e in self._evals]
        window = round(METRIC_EVALS * self.factor("metric_stuck"))
        if scores[-1] >= target:
            return latch.over(record.step, f"AUROC {scores[-1]:.3f} has reached the target {target:g}")
        if len(scores) <= window:
            return []
        before, since = max(scores[:-window]), self._evals[-window]
        if max(scores[-window:]) < before + METRIC_MARGIN:
            said = f"AUROC has not risen above {before:.3f} in {window} evaluations, the target is {target:g}"
            return latch.say(WARNING, record.step, since.step, said)
        return latch.over(record.step, f"AUROC rises again: {scores[-1]:.3f}") if latch.up else []

    def _overfit(self, record: Eval) -> list[Finding]:
        if not self.on("overfitting"):
            return []
        latch, n = self._latch["overfitting"], OVERFIT_EVALS
        losses = [number(e.loss) for e in self._evals]
        if len(losses) <= n:
            return []
        best = int(np.nanargmin(losses))
        rise = losses[-1] / losses[best] if losses[best] else math.inf
        falling = self._loss_then[-1] < self._loss_then[best]
        if len(losses) - 1 - best >= n and rise > OVERFIT_RISE * self.factor("overfitting") and falling:
            said = f"validation loss {losses[-1]:.3f}, {rise - 1:.0%} above its best at step {self._evals[best].step:,}"
            remedy = f"the checkpoint of step {self._evals[best].step:,} is the better model"
            return latch.say(
                WARNING,
                record.step,
                self._evals[best].step,
                f"overfitting: {said}, while the training loss falls",
                remedy,
            )
        return latch.over(record.step, "validation loss is near its best again") if latch.up and rise < 1.01 else []

    # ---- time ----

    def clock(self, now: float, *, training: bool) -> list[Finding]:
        """`stalled`: no record for far longer than a step takes, outside phases that take their time."""
        if not training or not len(self._intervals) or not self.on("stalled"):
            return []
        usual = float(np.quantile(self._intervals, 0.999))
        limit = max(STALLED_LEAST_S, STALLED_TIMES * usual) * self.factor("stalled")
        if now - self._last_time <= limit:
            return []
        step_takes = duration(usual) if usual > 1 else f"{usual:.2g} s"
        said = f"no step for {duration(now - self._last_time)}, a step takes {step_takes}"
        return self._latch["stalled"].say(WARNING, self._last_step, self._last_step, f"stalled: {said}")
