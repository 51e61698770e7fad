"""The evaluations of one attempt: predictions kept on disk, `eval` records, and the report on the official set.

The official evaluation set is looked at when training has ended: once with the final model, and once with the best one
where that is another. Each look is counted in its record. With several processes all call these; rank 0 writes.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import msgspec
from torch import Tensor

from eegpt_daemon.data.windows import Windows
from eegpt_daemon.trainer import checkpoint as checkpoints
from eegpt_daemon.trainer.checkpoint import CheckpointError
from eegpt_daemon.trainer.evaluation import (
    BEST,
    FINAL,
    Scored,
    Thresholds,
    predictions_of,
    scored,
    thresholds_of,
)
from eegpt_daemon.trainer.journal import Journal
from eegpt_daemon.trainer.preparation import Prepared
from eegpt_daemon.trainer.saving import EvaluationState
from eegwatch.comparison.seeds import keep_scores
from eegwatch.run.folder import RUN_LOG
from eegwatch.run.records import Eval
from eegwatch.run.results.evaluation_set_uses import uses_of
from eegwatch.scores.predictions import BEST as BEST_FOLDER
from eegwatch.scores.predictions import Predictions
from eegwatch.wording import UserError


class Evaluator:
    """`predict`: the logits of a split by the model as it is; it raises Stopped where a stop came meanwhile."""

    def __init__(
        self, prepared: Prepared, standing: EvaluationState, journal: Journal, predict: Callable[[Windows], Tensor]
    ) -> None:
        self.prepared, self.standing, self.journal, self.predict = prepared, standing, journal, predict
        self.processes, self.learner, self.data = prepared.processes, prepared.learner, prepared.data
        self._newest: Predictions | None = None  # on the validation set, of the newest evaluation
        self._best: Predictions | None = None  # the same of the best model

    def validate(self, val: Windows, step: int) -> Eval:
        """Score the validation set, keep its predictions, log the record."""
        self._newest = self._predictions(val, step)
        self._keep(self._newest, "val")
        return self._log(self._scored(self._newest, "val", thresholds_of(self._newest)))

    def keep_best(self, step: int) -> None:
        """After the ranking is known: keep the predictions of this step's model if it is the best so far."""
        if self._best_step() == step and self._newest is not None and self._newest.step == step:
            self._best = self._newest
            self._keep(self._best, "val", best=True)

    def finish(self, step: int) -> Eval:
        """Report on the official evaluation set: the best model first, the final one last. Raises Stopped."""
        best = self._best_step()
        if best is not None and best != step:
            self._report_best(best, step)
        final = self._report(step, FINAL)
        if best == step:
            for split in ("val", "eval"):
                self._copy_to_best(split)
        if self.processes.leads:
            self._score_series()
        return final

    def _score_series(self) -> None:
        """The mean over the seeds so far, where this run is of a series."""
        try:
            scores = keep_scores(self.journal.home.path)
        except (UserError, OSError) as error:
            self.journal.say(f"the series' scores are not kept: {error}")
            return
        if scores is not None:
            self.journal.say(f"{len(scores.seeds)} seeds so far: evaluation AUROC {scores.text('auroc')}")

    def _best_step(self) -> int | None:
        ranking = self.standing.ranking
        return checkpoints.step_of(ranking[0][1]) if ranking else None

    def _report_best(self, best: int, step: int) -> None:
        """Report with the weights of the best checkpoint, then restore the present weights."""
        name, problem = self.standing.ranking[0][1], ""
        final = self.learner.model()
        try:
            self.learner.set_model(checkpoints.load(self.journal.home.path / name), name)
        except CheckpointError as error:
            problem = str(error)
        try:
            if self.processes.sum([float(bool(problem))])[0]:  # in any process
                message = problem or f"{name} cannot be read by all processes"
                self.journal.say(f"the best model is not evaluated: {message}")
            else:
                self._report(best, BEST)
        finally:
            self.learner.set_model(final, f"the model of step {step}")

    def _report(self, step: int, model: str) -> Eval:
        """Score the official set at the threshold of the same model's validation predictions."""
        best = model == BEST
        kept, val = self._best if best else self._newest, self.data.val
        thresholds: Thresholds = {}
        if val is not None:
            if kept is None or kept.step != step:  # not evaluated at this step, or by an attempt before
                kept = self._predictions(val, step)
                self._keep(kept, "val", best=best)
            thresholds = thresholds_of(kept)
        predictions = self._predictions(self.data.test, step)
        self._keep(predictions, "eval", best=best)
        result = self._scored(predictions, "eval", thresholds, slow=True)
        looks = self._looks() + 1 if self.processes.leads else 1
        which = "best model" if best else "final model"
        self.journal.say(f"the official evaluation set, {which} (step {step}): look {looks} of this run")
        return self._log(Scored(msgspec.structs.replace(result.record, model=model, looks=looks), result.problems))

    def _predictions(self, windows: Windows, step: int) -> Predictions:
        stride = self.prepared.config.data.window_stride
        return predictions_of(self.predict(windows), windows, step, stride)

    def _scored(self, predictions: Predictions, split: str, thresholds: Thresholds, *, slow: bool = False) -> Scored:
        epoch = max(predictions.step - 1, 0) // self.prepared.steps_per_epoch
        state = random.getstate()  # scikit-learn's import draws from it: a resumed run would do so twice
        try:
            return scored(predictions, split, epoch, thresholds, with_intervals=self.processes.leads, slow=slow)
        finally:
            random.setstate(state)

    def _log(self, result: Scored) -> Eval:
        record = result.record
        self.journal.write(record)
        figures = {"AUROC": record.auroc, "balanced accuracy": record.balanced_accuracy}
        shown = " ".join(f"{name} {value:.4f}" for name, value in figures.items() if isinstance(value, float))
        self.journal.say(f"{record.split}: step {record.step} {shown or 'no figure'}")
        for problem in result.problems:
            self.journal.say(f"{record.split}: step {record.step}: {problem}")
        return record

    # ---- files ----

    def _path(self, split: str, *, best: bool = False) -> Path:
        folder = self.journal.home.path
        return (folder / BEST_FOLDER if best else folder) / f"predictions-{split}.npz"

    def _keep(self, predictions: Predictions, split: str, *, best: bool = False) -> None:
        self._write(lambda: predictions.save(self._path(split, best=best)))

    def _copy_to_best(self, split: str) -> None:
        source, target = self._path(split), self._path(split, best=True)
        if source.exists():
            self._write(lambda: Predictions.load(source).save(target))

    def _write(self, save: Callable[[], None]) -> None:
        """Write the predictions; on failure the run continues, since checkpoints allow computing them again."""
        if not self.processes.leads:
            return
        try:
            save()
        except OSError as error:
            self.journal.say(f"predictions are not kept: {error}")

    def _looks(self) -> int:
        return uses_of(self.journal.home.path / RUN_LOG)
