"""`metric_stuck` and `overfitting`: what the evaluations on the validation set show.

The declared target decides which metric is followed and in which direction. Patience counts evaluations and the share
of the run that they cover, since ten evaluations an epoch are ten looks at the same model.
"""

from __future__ import annotations

import math

import numpy as np

from eegwatch.diagnosis.alarm import Alarm
from eegwatch.diagnosis.findings import WARNING, Finding
from eegwatch.diagnosis.rules.diverging import noise_at_scales, noise_of
from eegwatch.diagnosis.rules.rule import Attempt, Rule
from eegwatch.diagnosis.rules.trend import Column
from eegwatch.run.history import StepBlock
from eegwatch.run.records import Eval, Run

METRIC_EVALS, METRIC_MARGIN = 6, 0.002
STUCK_SHARE = 0.25  # of the attempt so far, at least
CHANCE_EVALS, CHANCE_NEAR = 10, 0.03
OVERFIT_EVALS, OVERFIT_SHARE = 4, 0.15
OVERFIT_SIGMAS, OVERFIT_RISE = 4.0, 0.1  # of the noise of evaluations; of what the training loss fell meanwhile
OVERFIT_RISE_BESIDE = 0.3  # the same where another metric is the target: calibration is lost before anything else
FALLEN = 0.01  # a score between 0 and 1 that has fallen by so much
LOWER_IS_BETTER = frozenset(
    ["loss", "error", "err", "wer", "cer", "per", "ppl", "perplexity", "mae", "mse", "rmse", "fid", "nll", "bpc"]
)


def goal_of(run: Run | None, name: str) -> float:
    """+1 where more of this metric is better, -1 where less is."""
    goals = getattr(run, "metric_goals", None) or {}
    if isinstance(goals, dict) and name in goals:
        return -1.0 if goals[name] == "min" else 1.0
    return -1.0 if any(word in LOWER_IS_BETTER for word in name.lower().replace("/", "_").split("_")) else 1.0


def target_of(run: Run | None) -> tuple[str, float] | None:
    target = (run.target if run else None) or {}
    return next(iter(target.items()), None)


class MetricStuck(Rule):
    """The target metric has stopped getting better short of its target, or a score has never left chance."""

    name = "metric_stuck"

    def __init__(self, attempt: Attempt, alarm: Alarm, factor: float) -> None:
        super().__init__(attempt, alarm, factor)
        self._steps: list[int] = []
        self._scores: list[float] = []
        self._at_chance: dict[str, list[float]] = {}

    def evaluation(self, record: Eval) -> list[Finding]:
        values = record.values()
        target = target_of(self.attempt.run)
        if target is None:
            return self._chance(record, values)
        name, wanted = target
        score = values.get(name, math.nan)
        if not math.isfinite(score):
            return []
        self._steps.append(record.step)
        self._scores.append(score)
        return self._towards(record, name, wanted)

    def _towards(self, record: Eval, name: str, wanted: float) -> list[Finding]:
        better = goal_of(self.attempt.run, name)
        label = "AUROC" if name == "auroc" else name.replace("_", " ")
        scores = better * np.array(self._scores)
        if scores[-1] >= better * wanted:
            return self.alarm.clear(record.step, f"{label} {self._scores[-1]:.3f} has reached the target {wanted:g}")
        begin = self.attempt.run.step if self.attempt.run else 0
        share = STUCK_SHARE * (record.step - begin)
        recent = sum(1 for step in self._steps if step > record.step - share)
        window = max(round(METRIC_EVALS * self.factor), recent)
        if len(scores) <= window:
            return []
        before, since = float(scores[:-window].max()), self._steps[-window]
        margin = METRIC_MARGIN if abs(wanted) <= 1 else METRIC_MARGIN * abs(wanted)
        # of many noisy evaluations the best lies above their level: what counts is that the level stands, too
        middle = max(1, window // 2)
        rises = np.median(scores[-middle:]) > np.median(scores[-window - middle : -middle]) + margin
        if scores[-window:].max() < before + margin and not rises:
            text = (
                f"{label} has not {'risen above' if better > 0 else 'fallen below'} {better * before:.3f} in {window} "
            )
            return self.alarm.raise_(WARNING, record.step, since, f"{text}evaluations, the target is {wanted:g}")
        word = "rises" if better > 0 else "falls"
        return (
            self.alarm.clear(record.step, f"{label} {word} again: {self._scores[-1]:.3f}") if self.alarm.raised else []
        )

    def _chance(self, record: Eval, values: dict[str, float]) -> list[Finding]:
        """AUROC, or the balanced accuracy of this number of classes, that is at chance since the first evaluation."""
        classes = self.attempt.objective.classes
        for name, chance in (("balanced_accuracy", 1 / (classes or 2)), ("auroc", 0.5)):
            score = values.get(name, math.nan)
            if not math.isfinite(score):
                continue
            scores = self._at_chance.setdefault(name, [])
            scores.append(score)
            label = "AUROC" if name == "auroc" else "balanced accuracy"
            if abs(float(np.median(scores[-3:])) - chance) > CHANCE_NEAR:
                return (
                    self.alarm.clear(record.step, f"{label} has left chance: {score:.3f}") if self.alarm.raised else []
                )
            if len(scores) < CHANCE_EVALS * self.factor or max(abs(s - chance) for s in scores) > 2 * CHANCE_NEAR:
                continue
            half = len(scores) // 2
            if float(np.median(scores[half:])) > float(np.median(scores[:half])) + CHANCE_NEAR / 2:
                continue  # it rises, slowly
            low, high = min(scores), max(scores)
            text = f"{label} is {low:.2f} to {high:.2f} in all {len(scores)} evaluations, chance is {chance:.2g}"
            return self.alarm.raise_(WARNING, record.step, (self.attempt.run.step if self.attempt.run else 0) + 1, text)
        return []


class Overfitting(Rule):
    """The validation result gets worse while the training loss falls."""

    name = "overfitting"

    def __init__(self, attempt: Attempt, alarm: Alarm, factor: float) -> None:
        super().__init__(attempt, alarm, factor)
        self._sum, self._count = 0.0, 0
        self._by = ""  # the result that it was raised for
        self._steps: list[int] = []
        self._train: list[float] = []
        self._values: list[dict[str, float]] = []

    def look(self, part: StepBlock) -> list[Finding]:
        finite = part.loss[np.isfinite(part.loss)]
        self._sum += float(finite.sum(dtype=np.float64))
        self._count += len(finite)
        return []

    def evaluation(self, record: Eval) -> list[Finding]:
        values = {name: value for name, value in record.values().items() if math.isfinite(value)}
        target = target_of(self.attempt.run)
        name = target[0] if target and target[0] in values else "loss"
        if name not in values:
            return []
        train = self._sum / self._count if self._count else math.nan
        self._steps.append(record.step)
        self._train.append(train if math.isfinite(train) or not self._train else self._train[-1])
        self._values.append(values)
        self._sum, self._count = 0.0, 0
        # where the target does not tell, the validation loss may, as long as no score gets better
        names = [name] if name == "loss" or "loss" not in values else [name, "loss"]
        changes: list[Finding] = []
        for one in names:
            changes = changes or self._follow(record, one)
        return changes

    def _follow(self, record: Eval, name: str) -> list[Finding]:
        kept = [i for i, seen in enumerate(self._values) if name in seen]
        if len(kept) <= OVERFIT_EVALS:
            return []
        worse = -goal_of(self.attempt.run, name) * np.array([self._values[i][name] for i in kept])
        train_loss = np.array([self._train[i] for i in kept])
        return self._judge(record, name, worse, train_loss, [self._steps[i] for i in kept])

    def _judge(self, record: Eval, name: str, worse: Column, train: Column, steps: list[int]) -> list[Finding]:
        """`worse`: the metric, its sign turned so that more is worse."""
        best = int(np.argmin(worse))
        # the best of many noisy evaluations lies below their level: compare with the level around it
        level = float(np.median(worse[max(0, best - 1) : best + 2]))
        now = float(np.median(worse[-3:]))
        fell = _near(train, best) - float(np.median(train[-3:]))
        rise, noise = now - level, max(noise_of(worse), noise_at_scales(worse, 1))
        if self.alarm.raised and name == self._by and rise < max(noise, 0.02 * abs(level - now)):
            return self.alarm.clear(record.step, "the validation result is near its best again")
        begin = self.attempt.run.step if self.attempt.run else 0
        patient = len(worse) - 1 - best >= OVERFIT_EVALS
        patient &= record.step - steps[best] >= OVERFIT_SHARE * (record.step - begin)
        share = OVERFIT_RISE if target_of(self.attempt.run) is None else OVERFIT_RISE_BESIDE
        size = FALLEN if name != "loss" else share * max(fell, float(worse[0]) - level)
        if not patient or fell <= 0 or rise <= self.factor * max(OVERFIT_SIGMAS * noise, size):
            return []
        if name == "loss" and self._another_improves(best):
            return []
        label = "validation loss" if name == "loss" else "AUROC" if name == "auroc" else name
        sign = -goal_of(self.attempt.run, name)
        text = f"overfitting: {label} {sign * now:.3f}, at step {steps[best]:,} it was {sign * float(worse[best]):.3f}"
        remedy = f"the checkpoint of step {steps[best]:,} is the better model"
        self._by = name
        return self.alarm.raise_(WARNING, record.step, steps[best], f"{text}, while the training loss falls", remedy)

    def _another_improves(self, best: int) -> bool:
        """The target, or another score, still gets better, though the validation loss does not.

        The target is compared with all that came up to the best validation loss, a score that nobody declared with
        the time before the newest third of the evaluations: a model that is as good as it was does not improve.
        """
        target = target_of(self.attempt.run)
        for name in self.attempt.objective.scores:
            scores = goal_of(self.attempt.run, name) * np.array([seen.get(name, math.nan) for seen in self._values])
            known = scores[np.isfinite(scores)]
            declared = target is not None and target[0] == name
            until = best + 1 if declared else max(best + 1, len(scores) - max(3, len(scores) // 3))
            if len(known) < 4 or not np.isfinite(scores[:until]).any() or not np.isfinite(scores[-3:]).any():
                continue
            if np.nanmedian(scores[-3:]) > np.nanmax(scores[:until]) + max(METRIC_MARGIN, noise_of(known)):
                return True
        return False


def _near(values: Column, at: int) -> float:
    return float(np.median(values[max(0, at - 1) : at + 2]))
