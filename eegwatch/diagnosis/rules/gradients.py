"""`grad_zero` and `grad_exploding`: gradients of zero, or far above the usual ones and growing.

Sparse models and losses with a margin have batches without any gradient; how many is learnt, and a zero gradient of a
zero loss is right. The first infinite norms of half precision are skipped steps. A backbone that is unfrozen raises the
norm once and for good; an explosion goes on, or the loss rises with it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from eegwatch.diagnosis.alarm import Alarm
from eegwatch.diagnosis.findings import WARNING, Finding
from eegwatch.diagnosis.rules.diverging import windows_of
from eegwatch.diagnosis.rules.rule import Attempt, Rule
from eegwatch.diagnosis.rules.trend import Trend, middle
from eegwatch.run.history import StepBlock
from eegwatch.wording import significant

ZERO_FOR = 5
BY_CHANCE = math.log(1e-8)  # of so many batches without a gradient in a row, at the share seen before
LEAST_SHARE = 1e-12  # of dead batches; with fewer ZERO_FOR decides. Halved at each block, a share would become 0
NOTHING = 1e-9  # of the loss, or of the usual norm: no training comes of it
LARGE, EXPLODING, LARGE_FOR = 100.0, 500.0, 3  # times the usual norm; unfreezing a backbone was 200
SLOWLY, SLOW_BLOCKS = math.log10(300), 5
HISTORY, LEAST, AFRESH = 512, 64, 32  # newest norms that say what is usual, found anew after so many


def _run_of(true: NDArray[np.bool_], before: int) -> NDArray[np.int64]:
    """Length of the current run of True at each place, continuing a run of `before`."""
    index = np.arange(1, len(true) + 1)
    last_false = np.maximum.accumulate(np.where(true, -before, index))
    return np.where(true, index - last_false, 0)


class GradZero(Rule):
    """So many batches in a row without a gradient as chance does not explain."""

    name = "grad_zero"

    def __init__(self, attempt: Attempt, alarm: Alarm, factor: float) -> None:
        super().__init__(attempt, alarm, factor)
        self._run, self._began = 0, 0  # length of the current run of dead gradients, its first step
        self._counted = 0  # of that run, what `learn` has seen
        self._dead, self._seen, self._longest = 0.5, 1.0, 0  # of the runs that ended
        self._least = 0.0  # norms below are dead

    def look(self, part: StepBlock) -> list[Finding]:
        dead = self._dead_of(part)
        run = _run_of(dead, self._run)
        self._run = int(run[-1])
        if self._run and self._run <= len(part):
            began, self._began = self._began, int(part.step[len(part) - self._run])
        else:
            began = self._began
        needed = self._needed()
        if run.max() < needed:
            return []
        at = int(np.argmax(run >= needed))
        since = int(part.step[at - int(run[at]) + 1]) if run[at] <= at + 1 else began
        step, zero = int(part.step[at]), part.grad_norm[at] == 0
        how = "exactly zero" if zero else f"{significant(part.grad_norm[at], 2)}, nothing beside the loss,"
        text = f"the gradient norm is {how} since step {since:,}"
        return self.alarm.raise_(WARNING, step, since, text, "something detached the loss from the model")

    def _dead_of(self, part: StepBlock) -> NDArray[np.bool_]:
        with np.errstate(invalid="ignore"):
            dead = part.grad_norm <= max(self._least, 0.0)
            tiny = part.grad_norm.astype(np.float64) <= NOTHING * np.abs(part.loss.astype(np.float64))
        out: NDArray[np.bool_] = (dead | tiny) & (part.loss != 0)
        return out

    def _needed(self) -> int:
        by_share = BY_CHANCE / math.log(min(max(self._dead / self._seen, LEAST_SHARE), 0.999))
        return max(math.ceil(ZERO_FOR * self.factor), math.ceil(by_share * self.factor), 3 * self._longest)

    def learn(self, whole: StepBlock) -> list[Finding]:
        dead = self._dead_of(whole)
        alive = whole.grad_norm[~dead & np.isfinite(whole.grad_norm)]
        run = _run_of(dead, self._counted)
        ended = run[:-1][(run[1:] == 0) & (run[:-1] > 0)]
        if self._counted and run[0] == 0:
            ended = np.append(ended, self._counted)
        self._dead += float(ended.sum())
        self._seen += float(ended.sum()) + float((~dead).sum())
        self._longest = max(self._longest, int(ended.max()) if len(ended) else 0)
        self._counted = int(run[-1])
        if self._seen > HISTORY:
            self._dead, self._seen = self._dead / 2, self._seen / 2
        if len(alive):
            self._least = max(0.5 * self._least, NOTHING * middle(alive.astype(np.float64)))
        if self.alarm.raised and self._run == 0:
            return self.alarm.clear(int(whole.step[-1]), "gradients are no longer zero")
        return []


class GradExploding(Rule):
    """Gradient norms that are hundreds of times the usual ones, or grow block by block."""

    name = "grad_exploding"

    def __init__(self, attempt: Attempt, alarm: Alarm, factor: float) -> None:
        super().__init__(attempt, alarm, factor)
        self._recent = np.empty(0)
        self._usual = math.inf
        self._large, self._huge = 0, 0  # lengths of the current runs
        self._began = self._fresh = 0
        self._course = Trend()

    def look(self, part: StepBlock) -> list[Finding]:
        finite = np.isfinite(part.grad_norm)
        norms, steps = part.grad_norm[finite].astype(np.float64), part.step[finite]
        if not len(norms) or self._usual == math.inf:
            return []
        huge = _run_of(norms > EXPLODING * self.factor * self._usual, self._huge)
        large = _run_of(norms > LARGE * self.factor * self._usual, self._large)
        began = self._began
        if 0 < large[-1] <= len(norms):
            self._began = int(steps[len(norms) - int(large[-1])])
        self._huge, self._large = int(huge[-1]), int(large[-1])
        if huge.max() < LARGE_FOR:
            return []
        at = int(np.argmax(huge >= LARGE_FOR))
        since = int(steps[at - int(huge[at]) + 1]) if huge[at] <= at + 1 else began
        text = f"the gradient norm is {significant(norms[at])}, the {LARGE_FOR}rd so large in a row; usual is "
        text += significant(self._usual)
        return self.alarm.raise_(WARNING, int(steps[at]), since, text, "lower the LR or clip gradients")

    def learn(self, whole: StepBlock) -> list[Finding]:
        """Update the usual norm; raise an explosion that shows in the loss or grows slowly; resolve it when it ends."""
        norms = whole.grad_norm.astype(np.float64)
        known = np.isfinite(norms) & (norms > 0)
        step = int(whole.step[-1])
        changes: list[Finding] = []
        if self._large >= LARGE_FOR and not self.alarm.raised and self._loss_rises():
            text = f"the gradient norm is {significant(np.median(norms[known]))} since step {self._began:,}, usual is "
            text += f"{significant(self._usual)}, and the loss rises"
            changes += self.alarm.raise_(WARNING, step, self._began, text, "lower the LR or clip gradients")
        grew = self._course.feed(whole.step[known], np.log10(norms[known]), whole.lr[known])
        slow = self._creeps() if grew else None
        if slow is not None:
            since, times, now = slow
            text = f"the gradient norm has grown {times:,.0f} times since step {since:,}, to {significant(now)}"
            changes += self.alarm.raise_(WARNING, step, since, text, "lower the LR or clip gradients")
        elif self.alarm.raised and self._large == 0 and (grew or not self._course.size > 4):
            changes += self.alarm.clear(step, "gradient norms are usual again")
        self._recent = np.concatenate([self._recent, norms[known]])[-HISTORY:]
        self._fresh += int(known.sum())
        if len(self._recent) >= LEAST and self._fresh >= AFRESH:
            self._usual, self._fresh = middle(self._recent), 0
        return changes

    def _loss_rises(self) -> bool:
        course = self.attempt.course
        if len(course) < 12:
            return False
        before = middle(course.level[-12:-2])
        return bool(course.level[-1] > before + 4 * middle(course.scatter[-12:]))

    def _creeps(self) -> tuple[int, float, float] | None:
        """(since, times, now) of a growth that took many blocks, over what was usual for most of the run."""
        level = self._course.level
        if len(level) < 24:
            return None
        windows = windows_of(level, max(1, len(level) // 24))
        low, now = float(np.quantile(windows, 0.25)), float(min(windows[-2:]))
        limit = SLOWLY + math.log10(self.factor)
        if now - low < limit or now - float(windows[0]) < limit - 0.5:
            return None
        begin = int(np.flatnonzero(windows < low + 0.25 * (now - low))[-1])
        if len(windows) - 1 - begin < SLOW_BLOCKS:
            return None
        width = len(level) // len(windows)
        since = int(self._course.step[max(0, len(level) - (len(windows) - begin) * width)])
        return since, 10 ** (now - low), 10**now
