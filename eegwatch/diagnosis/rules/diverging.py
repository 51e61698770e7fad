"""`loss_diverging`: the loss has risen permanently by what training had improved, or is above its first level.

Ratios to the best loss mean nothing: a log-likelihood is negative, a policy's loss is around zero. The yardsticks are
what the run has won (first level less the best), the scatter of single batches, and the noise of a window's mean.
What rises with the learning rate is expected; what jumps and falls again is new data (a curriculum, pruning); what
jumps and stays may be new data too (an augmentation), so the validation loss decides. The losses of adversarial and
reinforcement learning are not judged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from eegwatch.diagnosis.findings import INFO, WARNING, Finding
from eegwatch.diagnosis.rules.objective import FALLS, WANDERS, Objective
from eegwatch.diagnosis.rules.rule import Rule
from eegwatch.diagnosis.rules.trend import Column, Trend, middle
from eegwatch.run.history import StepBlock
from eegwatch.wording import significant

LEAST_BLOCKS = 10
WINDOWS = 24  # at least so many windows over the run, each of whole blocks
SIGMAS = 6.0  # of a window's mean: the best of 24 windows lies two below by chance
LEAST_WINDOWS = 8  # for an estimate of the noise
FAST, FASTER, STOOD = (
    0.15,
    0.1,
    0.9,
)  # of the run so far, and of the blocks between best and rise: what takes longer, or wanders up
# from the best on, is slow
SMALL, LARGE, HALF = 0.15, 0.3, 0.5  # of what was won
WON_SCATTERS = 1.0  # standard deviations of a batch: what a run has won is real from here on
BEYOND = 0.25  # of what was won, above the first level
RATE_RISE = 1.2  # the learning rate against that of the best window
EASED = 0.2  # of the rise: fallen by so much from its highest, the loss is on its way back
WAIT, WAIT_RECORDS, WAIT_SHARE = 3, 250, 0.15  # windows, or records, or share of a short run after a rise: a batch of
# new data (the recordings of one subject, a stage of a curriculum) shows within these that it is one
CERTAIN = 3.0  # a rise of so many times what was won need not be waited for
UNSEEN_FROM = 0.25  # of the attempt: a queue that fills (momentum contrast) raises the loss early
CLEAR = 10.0  # standard deviations of a batch, where nothing shows that the loss is meant to fall
BLOWN_UP, BLOWN_UP_UNKNOWN = 1.5, 5.0  # times what was won, or the first loss: so far above the first level
BEFORE = 0.9  # of the way from its best to its newest level, the loss stood shortly before the best: a cycle
REMEDY = "resume from before it with a lower LR"


def noise_of(windows: Column) -> float:
    """Standard deviation of a window's mean around the trend, from second differences; 0.0 for fewer than 3."""
    if len(windows) < 3:
        return 0.0
    second = np.abs(windows[2:] - 2 * windows[1:-1] + windows[:-2])
    return 1.4826 * middle(second) / math.sqrt(6)


def windows_of(values: Column, width: int) -> Column:
    """Means over windows of this number of blocks, the last one ending with the newest block."""
    count = len(values) // width
    out: Column = values[len(values) - count * width :].reshape(count, width).mean(axis=1)
    return out


@dataclass(frozen=True)
class LossRise:
    """The newest level of the loss against its best one. Indices are of blocks."""

    start: float  # first level
    best: float
    newest: float
    highest: float  # since the best
    noise: float  # standard deviation of a window's mean
    scatter: float  # of single records, lately
    usual_scatter: float  # the same, over the whole attempt
    noise_before: float  # standard deviation of a window's mean up to the best level
    best_at: int
    begin: int  # the rise began after this block
    fast: bool
    faster: bool  # for a loss that nothing shows to be meant to fall
    a_jump: bool
    unseen: bool  # above all that was seen before it, by twice what that spans, after a quarter of the attempt or more
    a_cycle: bool  # shortly before its best the loss was as high as now
    records: int  # since most of the rise was there
    windows: float  # the same, in windows
    width: int  # blocks in a window

    @property
    def lost(self) -> float:
        return self.newest - self.best

    @property
    def won(self) -> float:
        return self.start - self.best

    @property
    def easing(self) -> bool:
        return self.newest < self.highest - max(3 * self.noise, EASED * (self.highest - self.best))


def measure(course: Trend) -> LossRise | None:
    """None while there are too few records to tell a level from noise."""
    level, blocks = course.level, len(course)
    if blocks < LEAST_BLOCKS:
        return None
    width = max(1, blocks // WINDOWS)
    windows = windows_of(level, width)
    best_window = int(windows.argmin())
    best = float(windows[best_window])
    offset = blocks - len(windows) * width
    best_at = offset + best_window * width + width - 1
    short = max(2, width // 2)
    newest = float(min(level[-short:].mean(), level[-2 * short : -short].mean()))
    lost = newest - best
    noise = max(noise_at_scales(level, width), middle(course.scatter) / math.sqrt(width * course.size))
    after = _smoothed(level[best_at:], short)
    below = after < best + 0.25 * lost
    low = np.flatnonzero(below)
    begin = int(low[-1]) if len(low) else 0
    reached = np.flatnonzero(after[begin:] >= best + 0.75 * lost)
    takes = int(reached[0]) if len(reached) else len(after) - begin
    waited = len(after) - 1 - begin - takes
    stood = float(below[: begin + 1].mean()) > STOOD
    span = min(len(after), best_at // 2)
    before = level[max(0, best_at - width - span) : max(1, best_at - width + 1)]
    old = _smoothed(level[: best_at + begin + 1], short)
    return LossRise(
        start=course.lowest_start,
        best=best,
        newest=newest,
        highest=float(after.max()),
        noise=noise,
        scatter=middle(course.scatter[-2 * short :]),
        usual_scatter=middle(course.scatter),
        noise_before=middle(course.scatter[: best_at + 1]) / math.sqrt(width * course.size),
        best_at=best_at,
        begin=best_at + begin,
        fast=stood and takes <= max(2, FAST * blocks),
        faster=stood and takes <= max(2, FASTER * blocks),
        a_jump=takes <= short + 1,
        unseen=best_at + begin > UNSEEN_FROM * blocks and newest > 3 * float(old.max()) - 2 * float(old.min()),
        a_cycle=bool(_smoothed(before, short).max() > best + BEFORE * lost),
        records=waited * course.size,
        windows=waited / width,
        width=width,
    )


def _smoothed(values: Column, width: int) -> Column:
    """Trailing means over this number of neighbours; over fewer at the beginning."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(1, len(values) + 1)
    first = np.maximum(index - width, 0)
    out: Column = (sums[index] - sums[first]) / (index - first)
    return out


def noise_at_scales(level: Column, width: int) -> float:
    """The largest noise of a mean over this many blocks or more: batches of one subject scatter at a larger scale."""
    noise = 0.0
    while width <= len(level) // LEAST_WINDOWS:
        noise = max(noise, noise_of(windows_of(level, width)))
        width *= 2
    return noise


def validation_rose(objective: Objective, since: float, rise: float) -> bool | None:
    """Whether the validation loss rose with the training loss; None without an evaluation on both sides."""
    before = [loss for step, loss in objective.validation if step <= since]
    after = [loss for step, loss in objective.validation if step > since]
    if not before or not after:
        return None
    return after[-1] - min(before) > max(0.25 * rise, 3 * noise_of(np.array(before)))


class LossDiverging(Rule):
    """A loss that is permanently above what training had reached."""

    name = "loss_diverging"

    def learn(self, whole: StepBlock) -> list[Finding]:
        if not self.attempt.grew or self.attempt.objective.kind == WANDERS:
            return []
        course = self.attempt.course
        rise = measure(course)
        if rise is None:
            return []
        step, since = int(course.step[-1]), int(course.step[rise.begin]) + 1
        severity = self._judge(course, rise)
        text = f"the mean loss is {significant(rise.newest)}, its best was {significant(rise.best)} near step "
        text += f"{int(course.step[rise.best_at]):,}"
        if severity == WARNING:
            return self.alarm.raise_(WARNING, step, since, f"loss diverging: {text}", REMEDY)
        if severity == INFO and not self.alarm.raised:
            jump = f"the level of the loss changed at step {since:,}: {text}; the log does not show why"
            return self.alarm.raise_(INFO, step, since, jump)
        if self.alarm.raised and rise.lost < max(0.1 * rise.won, 3 * rise.noise):
            return self.alarm.clear(step, f"the loss is back at its best level at step {step:,}")
        return []

    def _judge(self, course: Trend, rise: LossRise) -> str:
        """WARNING, INFO or nothing."""
        factor, known = self.factor, self.attempt.objective.kind == FALLS
        if self._blown_up(rise, known):
            return WARNING
        if rise.lost < SIGMAS * rise.noise * factor or rise.easing or rise.a_cycle:
            return ""
        beyond = (rise.newest - rise.start) / factor
        won = rise.won > max(SIGMAS * rise.noise, WON_SCATTERS * rise.usual_scatter)
        waited = self._waited(course, rise)
        if won and beyond > max(BEYOND * rise.won, SIGMAS * rise.noise):
            certain = rise.lost > CERTAIN * rise.won + 4 * rise.scatter
            if (known or (rise.faster and beyond > rise.scatter)) and (certain or waited):
                return WARNING
        if not known and rise.unseen and rise.faster and waited and rise.lost > CLEAR * rise.scatter:
            return WARNING
        never_won = max(8 * rise.noise, 4 * rise.scatter, 0.5 * abs(rise.start))
        if known and not won and beyond > never_won and waited:
            return WARNING
        if self._with_the_rate(course, rise) or not won:
            return ""
        return self._lost_ground(course, rise, known, waited)

    def _blown_up(self, rise: LossRise, known: bool) -> bool:
        """The loss shot up far above where it began, and has not come back below that: it need not still rise.

        Seen in real runs with a rate much too high: 1.4, 24, then 7.5; 2.5, 24, then 2.3 after three epochs.
        """
        won = rise.won > max(SIGMAS * rise.noise, WON_SCATTERS * rise.usual_scatter)
        least = max(8 * rise.noise_before, 4 * rise.usual_scatter) + SIGMAS * rise.noise_before
        times = (BLOWN_UP if known else BLOWN_UP_UNKNOWN) * self.factor
        if not (known or (won and rise.faster)) or rise.newest <= rise.start + least:
            return False
        return rise.highest - rise.start > times * max(rise.won, abs(rise.start) if known else 0.0) + least

    def _waited(self, course: Trend, rise: LossRise) -> bool:
        """Whether the loss has been at its new level long enough to exclude a stretch of other data."""
        run = self.attempt.run
        spacing = (float(course.step[-1]) - (run.step if run else 0)) / (len(course) * course.size)
        expected = (run.total_steps if run else None) or 0
        records = min(WAIT_RECORDS, WAIT_SHARE * max(expected / max(spacing, 1), len(course) * course.size))
        return rise.windows >= WAIT and rise.records >= records

    def _lost_ground(self, course: Trend, rise: LossRise, known: bool, waited: bool) -> str:
        share = rise.lost / rise.won / self.factor
        validation = validation_rose(self.attempt.objective, float(course.step[rise.begin]), rise.lost)
        if validation is False:
            return ""
        if validation:
            return WARNING if share > (SMALL if rise.fast else LARGE) else ""
        if not rise.fast:
            return WARNING if known and share > LARGE and rise.lost > rise.scatter else ""
        if not waited or not (
            known or (rise.faster and rise.won > 2 * rise.usual_scatter and rise.lost > CLEAR * rise.scatter)
        ):
            return ""
        if share > LARGE and known and not rise.a_jump and rise.lost > 4 * rise.scatter:
            return WARNING
        if share < HALF:
            return ""
        return INFO if rise.a_jump else WARNING

    def _with_the_rate(self, course: Trend, rise: LossRise) -> bool:
        """The learning rate is above what it was at the best level: a restart, a cycle, a warm-up."""
        rates = course.rate
        then = rates[max(0, rise.best_at - rise.width + 1) : rise.best_at + 1]
        now = rates[-2 * max(2, rise.width // 2) :]
        if not np.isfinite(then).any() or not np.isfinite(now).any():
            return False
        return bool(np.nanmax(now) > RATE_RISE * np.nanmin(then))
