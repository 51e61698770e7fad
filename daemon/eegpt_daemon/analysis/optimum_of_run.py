"""A run's trained models compared with the optimum of a linear probe, written to `optimum.json` in its folder.

The bound is of linear probes on frozen features. Along lambda, AUROC is measured on validation; the evaluation set is
looked at for the one lambda chosen there, and only once the run has reported its own evaluation.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from eegpt_daemon.analysis.cached_run import CachedRun, Say, Trained, config_of, folded, open_run, trained_models
from eegpt_daemon.analysis.objective import Objective
from eegpt_daemon.analysis.optimum import GAP, LambdaPath, Solution, norm
from eegpt_daemon.data.corpus import CorpusError
from eegpt_daemon.data.windows import Windows
from eegpt_daemon.trainer.evaluation import predictions_of
from eegwatch.run.config import Config
from eegwatch.run.follow import history_of
from eegwatch.run.results.evaluation_set_uses import record_use
from eegwatch.run.results.optimum import ModelGap, OptimumPoint, OptimumResult
from eegwatch.scores.metrics import metrics_of
from eegwatch.wording import duration

SOLVER = 1  # of the solutions kept beside the cache: raise it when they change


def reach_of(folder: Path, say: Say) -> OptimumResult:
    """Everything for one run. Raises the errors of configuration, corpus and encoder."""
    config, began = config_of(folder), time.monotonic()
    reason = unsuited(config)
    if reason is not None:
        return OptimumResult(made=time.time(), reason=reason)
    run = open_run(folder, config, say)
    models = trained_models(folder)
    for model in models:
        if model.data_hash != run.data.hash():
            raise CorpusError(
                f"{model.name} was trained on other features than {run.store.folder} holds now: the encoder's file, "
                "the corpus or a library has changed since; it cannot be compared on these"
            )
    shift, scale = standardiser(run, models)
    path = lambda_path(run, run.data.train, shift, scale, say)
    solutions = path.along()
    reach = OptimumResult(
        made=time.time(),
        windows=len(run.data.train),
        features=path.objective.features,
        classes=path.objective.classes,
        class_weighted=config.training.weighted_loss,
        models=[_standing(path, model) for model in models],
        path=[_point(path.objective, solution, run.data.val) for solution in solutions],
    )
    _choose(run, path, reach)
    reach.seconds = time.monotonic() - began
    say(f"done in {duration(reach.seconds)}; solutions are kept in {path.kept}")
    return reach


def unsuited(config: Config) -> str | None:
    """The reason why the bound for linear probes does not apply to this run's loss; None if it applies."""
    probe, backbone = config.model.probe, config.model.backbone
    if probe.type != "linear":
        return f"model.probe.type is {probe.type}: its loss is not convex in the weights, the optimum is not known"
    if probe.use_channel_adapter:
        return "the channel adapter is trained too: the loss is not convex in its weights, the optimum is not known"
    if not backbone.freeze:
        return "the backbone is trained too: the loss is not convex in its weights, the optimum is not known"
    return None


def standardiser(run: CachedRun, models: list[Trained]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(shift, scale) that the run trains with: of its checkpoint, else of the cache's statistics."""
    return (models[0].shift, models[0].scale) if models else folded(run.data)


def lambda_path(
    run: CachedRun, train: Windows, shift: NDArray[np.float32], scale: NDArray[np.float32], say: Say
) -> LambdaPath:
    """The path of these windows, kept beside their cache under all that it depends on. Raises CorpusError."""
    weighted = run.config.training.weighted_loss
    classes = run.classes
    try:
        objective = Objective(train, classes, shift, scale, weighted=weighted)
    except ValueError as error:
        raise CorpusError(f"{run.config.data.root_dir}: {error}: there is no optimum") from None
    digest = hashlib.sha256(f"{SOLVER} {train.hash()} {classes} {weighted} {GAP}".encode())
    digest.update(shift.tobytes() + scale.tobytes())
    kept = train.pack.path.with_name(f"optimum-{digest.hexdigest()[:16]}.npz")

    def report_solution(solution: Solution) -> None:
        passes = objective.rows_read / len(objective)
        say(
            f"lambda {solution.lam:.2g}: P {solution.objective:.6f}, gap {solution.gap:.0e}, loss {solution.loss:.6f}, "
            f"norm {solution.norm:.3g} ({passes:.0f} passes over {len(objective):,} windows so far)"
        )

    return LambdaPath(objective, kept, on_solution=report_solution)


def _standing(path: LambdaPath, model: Trained) -> ModelGap:
    radius = norm(model.w)
    bound, upper = path.around(radius)
    return ModelGap(
        role=model.role,
        checkpoint=model.name,
        step=model.step,
        loss=path.objective.value(model.w),
        norm=radius,
        lam=bound.lam,
        lower=bound.below(radius),
        upper=upper,
    )


def _point(objective: Objective, solution: Solution, val: Windows | None) -> OptimumPoint:
    windows, recordings = _aurocs(objective, solution, val) if val is not None else (None, None)
    return OptimumPoint(
        lam=solution.lam,
        objective=solution.objective,
        gap=solution.gap,
        loss=solution.loss,
        norm=solution.norm,
        val_auroc=windows,
        val_recording_auroc=recordings,
    )


def _choose(run: CachedRun, path: LambdaPath, reach: OptimumResult) -> None:
    """The lambda of the best validation AUROC (the larger of two alike); its evaluation AUROC where that is due."""
    scored = [point for point in reach.path if point.val_auroc is not None]
    if not scored:
        return
    best = max(scored, key=lambda point: (point.val_auroc, point.lam))
    reach.chosen = best.lam
    if any(record.split == "eval" for record in history_of(run.folder).evals):
        record_use(run.folder, "optimum", f"the optimum at lambda {best.lam:.2g}")
        solution = path.solutions[best.lam]
        best.eval_auroc, best.eval_recording_auroc = _aurocs(path.objective, solution, run.data.test)


def _aurocs(objective: Objective, solution: Solution, windows: Windows) -> tuple[float | None, float | None]:
    """(AUROC of windows, of recordings), the mean over the classes for more than two; None where a class is missing."""
    logits = torch.from_numpy(objective.margins(solution.w, windows).astype(np.float32))
    predictions = predictions_of(logits, windows, 0, 0.0)
    both = (metrics_of(units, None).values.get("auroc") for units in (predictions.windows(), predictions.recordings()))
    return tuple(both)  # type: ignore[return-value]
