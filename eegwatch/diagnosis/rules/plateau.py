"""`loss_plateau`: the loss has not fallen since the start, or is at chance level for a known number of classes.

Whether a loss is flat is judged by the scatter of single batches. Losses that wander by nature (around zero,
heavy-tailed, those of adversarial and reinforcement learning) are not judged; nor is a run before its rate has been at
its highest.
"""

from __future__ import annotations

import math

import numpy as np

from eegwatch.diagnosis.findings import INFO, WARNING, Finding
from eegwatch.diagnosis.rules.diverging import WINDOWS, noise_of, windows_of
from eegwatch.diagnosis.rules.objective import FALLS, WANDERS, Objective
from eegwatch.diagnosis.rules.rule import Rule
from eegwatch.diagnosis.rules.trend import Trend, middle
from eegwatch.run.history import StepBlock
from eegwatch.wording import significant

LEAST_BLOCKS, LEAST_STEPS = 24, 2_000
FLAT_LEVEL, FLAT_SCATTER = 0.02, 0.2  # a fall of less than 2 % of the level, and a fifth of a batch's scatter
STEADY = 0.4  # scatter over level: most batches of a nearly perfect model have no error, and few a large one
ABOVE_CHANCE = 0.05  # of a score between 0 and 1: a model that has learnt


class LossPlateau(Rule):
    """A loss that stands where it began, or at chance level."""

    name = "loss_plateau"

    def learn(self, whole: StepBlock) -> list[Finding]:
        attempt = self.attempt
        if not attempt.grew or attempt.objective.kind == WANDERS:
            return []
        course, run = attempt.course, attempt.run
        step = int(course.step[-1])
        done, total = step - (run.step if run else 0), (run.total_steps if run else None) or 20_000
        if len(course) < LEAST_BLOCKS or done < min(LEAST_STEPS, total // 4) or _rate_rises(course):
            return []
        text = self._flat(course)
        if not text:
            return self.alarm.clear(step, f"the loss falls at step {step:,}") if self.alarm.raised else []
        severity = WARNING if attempt.objective.kind == FALLS else INFO
        return self.alarm.raise_(severity, step, 1 + (run.step if run else 0), f"not learning: {text}")

    def _flat(self, course: Trend) -> str:
        objective = self.attempt.objective
        windows = windows_of(course.level, max(1, len(course) // WINDOWS))[1:]
        third = len(windows) // 3
        early, late = float(windows[:third].mean()), float(windows[-third:].mean())
        scatter = middle(course.scatter)
        noise = noise_of(windows) * math.sqrt(2 / third)
        fall, factor = abs(early - late), self.factor
        if fall > factor * max(min(FLAT_SCATTER * scatter, FLAT_LEVEL * abs(late)), 1e-3 * abs(late), 2 * noise):
            return ""
        if fall > factor * FLAT_LEVEL * abs(late) or late <= 0 or scatter > STEADY * late:
            return ""
        chance = math.log(objective.classes) if objective.classes else math.nan
        at_chance = abs(late - chance) < max(0.01, 3 * noise)
        fell = course.lowest_start - late > max(2 * scatter, 0.05 * late)  # at first, and has converged
        if not at_chance and (self._late(course) or learnt(objective) or fell):
            return ""
        text = f"the mean loss is {significant(late)}"
        if at_chance:
            return f"{text}, chance for {objective.classes} classes is {chance:.3f}"
        return f"{text}, as it was in the beginning"

    def _late(self, course: Trend) -> bool:
        """The log begins in the middle of the run: how high the loss was before is not known."""
        begun = self.attempt.run.step if self.attempt.run else 0
        return bool(course.step[0] - begun > 3 * (course.step[1] - course.step[0]))


def learnt(objective: Objective) -> bool:
    """An evaluation shows that the model is better than in the beginning, or than chance."""
    losses = [loss for _, loss in objective.validation]
    if len(losses) > 3 and min(losses[-3:]) < losses[0] - max(0.02 * abs(losses[0]), 4 * noise_of(np.array(losses))):
        return True
    for name, scores in objective.scores.items():
        if max(scores[-3:]) > scores[0] + ABOVE_CHANCE:
            return True
        if name in ("auroc", "balanced_accuracy") and np.median(scores) > 0.5 + ABOVE_CHANCE:
            return True
    return False


def _rate_rises(course: Trend) -> bool:
    """Whether the learning rate is at its highest so far: the warm-up continues."""
    rates = course.rate[np.isfinite(course.rate)]
    third = len(rates) // 3
    return third > 0 and bool(rates[-third:].max() > 1.001 * rates[:-third].max())
