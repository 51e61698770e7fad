"""Baselines on a run's cache and split: chance, logistic regression, ridge, band power, a random encoder.

Each is fitted on the training windows; what it chooses (lambda, thresholds) it chooses on validation; the evaluation
set is scored once. Ridge is the least-squares fit of the classes (+1, -1 … one column a class, centred) in closed form.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from eegpt_daemon.analysis.cached_run import CachedRun, Say, config_of, folded, open_run
from eegpt_daemon.analysis.objective import Array, Objective
from eegpt_daemon.analysis.optimum import DENSE, LAMBDAS
from eegpt_daemon.analysis.optimum_of_run import lambda_path
from eegpt_daemon.analysis.protocol_card import card, is_tuab
from eegpt_daemon.data import dataset
from eegpt_daemon.data.bandpower import BandPowerStore
from eegpt_daemon.data.corpus import CorpusError
from eegpt_daemon.data.features import FeatureStore
from eegpt_daemon.data.recording import wanted_channels
from eegpt_daemon.data.windows import Windows, WindowStore
from eegpt_daemon.model.encoder import Encoder
from eegpt_daemon.trainer.evaluation import predictions_of, scored, thresholds_of
from eegwatch.run.follow import history_of
from eegwatch.run.records import number
from eegwatch.run.results.baselines import Baselines, Row
from eegwatch.run.results.evaluation_set_uses import record_use
from eegwatch.scores.metrics import metrics_of
from eegwatch.scores.predictions import Predictions, PredictionsError
from eegwatch.wording import count

RANDOM_SEED = dataset.ENCODER_SEED + 1  # another draw than that of a preset


@dataclass
class Fitted:
    """A model's logits, (windows, classes), on the two splits. `lam`: chosen on validation."""

    name: str
    detail: str
    lam: float | None
    val: Array
    test: Array


def baselines_of(folder: Path, kinds: list[str], say: Say) -> Baselines:
    """All rows, of the kinds in FITS that are asked for. Raises the errors of configuration, corpus and encoder."""
    config = config_of(folder)
    if config.data.val_fraction == 0:
        raise CorpusError("data.val_fraction is 0: a baseline chooses its lambda on validation, and there is none")
    if not any(record.split == "eval" for record in history_of(folder).evals):
        raise CorpusError("the run has not reported on the evaluation set yet; the baselines are scored there after it")
    if dataset.through_backbone(config):
        config = copy.deepcopy(config)  # the features of the encoder as it begins, cached
        config.model.probe.use_channel_adapter, config.model.backbone.freeze = False, True
    run = open_run(folder, config, say)
    baselines = Baselines(made=time.time(), card=card(run), tuab=is_tuab(config), rows=_own_rows(run))
    looks = 0
    for kind in kinds:
        for fitted in FITS[kind](run, say):
            if kind != "chance":  # which is the same whatever the set holds
                record_use(run.folder, "baselines", fitted.name)
                looks += 1
            baselines.rows.append(row_of(run, fitted))
            say(f"{fitted.name}: done")
    baselines.remarks.append(f"the evaluation set was looked at {count(looks, 'time')} for these baselines, once each")
    return baselines


def row_of(run: CachedRun, fitted: Fitted) -> Row:
    """Figures of one model: those of the evaluation set at the thresholds that validation fixed."""
    stride, val, test = run.config.data.window_stride, run.data.val, run.data.test
    assert val is not None
    chosen = predictions_of(torch.from_numpy(fitted.val.astype(np.float32)), val, 0, stride)
    seen = predictions_of(torch.from_numpy(fitted.test.astype(np.float32)), test, 0, stride)
    return _row(fitted.name, fitted.detail, fitted.lam, chosen, seen)


def _row(name: str, detail: str, lam: float | None, val: Predictions, test: Predictions) -> Row:
    thresholds = thresholds_of(val)
    on_val = scored(val, "val", 0, thresholds, with_intervals=False).record
    on_test = scored(test, "eval", 0, thresholds).record
    intervals = on_test.ci95 if isinstance(on_test.ci95, dict) else {}
    return Row(
        name=name,
        detail=detail,
        lam=lam,
        val=_plain(on_val.metrics),
        eval=_plain(on_test.metrics),
        ci95={key: [number(low), number(high)] for key, (low, high) in intervals.items()},
    )


def _plain(metrics: object) -> dict[str, float]:
    known = metrics if isinstance(metrics, dict) else {}
    return {key: value for key, value in known.items() if isinstance(value, float)}


def _own_rows(run: CachedRun) -> list[Row]:
    """The run's own models, from the predictions that it kept."""
    rows = []
    for name, place in (("this run, final model", run.folder), ("this run, best on validation", run.folder / "best")):
        try:
            val, test = (Predictions.load(place / f"predictions-{split}.npz") for split in ("val", "eval"))
        except PredictionsError:
            continue
        rows.append(_row(name, f"step {test.step:,}", None, val, test))
    return rows


# ---- the models ----


def chance(run: CachedRun, say: Say) -> list[Fitted]:
    """The class shares of the training windows, for every window."""
    share = np.bincount(run.data.train.y, minlength=run.classes) / len(run.data.train)
    logits = np.log(np.maximum(share, 1e-12))
    val, test = run.data.val, run.data.test
    assert val is not None
    return [Fitted("chance", "class shares of training", None, *(np.tile(logits, (len(w), 1)) for w in (val, test)))]


def logistic(run: CachedRun, say: Say) -> list[Fitted]:
    return [_logistic(run, run.data, "logistic regression at its optimum", "the run's features", say)]


def ridge(run: CachedRun, say: Say) -> list[Fitted]:
    if run.data.train.pack.width > DENSE:
        say(f"ridge: left out: a matrix of {run.data.train.pack.width:,} squared is too large for its closed form")
        return []
    objective = _objective(run, run.data)
    second, first = objective.moments()
    values, vectors = np.linalg.eigh(second)
    val, test = run.data.val, run.data.test
    assert val is not None
    rotated = vectors.T @ first
    candidates = ((lam, vectors @ (rotated / (np.maximum(values, 0) + lam)[:, None])) for lam in LAMBDAS)
    lam, w = _best(candidates, lambda w: objective.margins(w, val), val, run)
    logits = (objective.margins(w, split) for split in (val, test))
    return [Fitted("ridge, closed form", "the run's features", lam, *logits)]


def bandpower(run: CachedRun, say: Say) -> list[Fitted]:
    data = _data(run, BandPowerStore(run.config), say)
    return [_logistic(run, data, "band power, logistic regression", "5 bands a channel", say)]


def random(run: CachedRun, say: Say) -> list[Fitted]:
    """An encoder of the same size with random weights, of another seed where the run's own is random already."""
    if not isinstance(run.encoder, Encoder):
        say("random encoder: left out: how to make one like an encoder of one's own is not known")
        return []
    encoder = Encoder.random_like(run.encoder, wanted_channels(run.config.data), RANDOM_SEED)
    data = _data(run, FeatureStore(run.config, encoder, dataset.best_device()), say)
    return [_logistic(run, data, "random encoder, logistic regression", "same size, no training", say)]


FITS: dict[str, Callable[[CachedRun, Say], list[Fitted]]] = {
    "chance": chance,
    "logistic": logistic,
    "ridge": ridge,
    "bandpower": bandpower,
    "random": random,
}


def _data(run: CachedRun, store: WindowStore, say: Say) -> dataset.TrainingData:
    """The same entries and split in another store."""
    store.open()
    started = time.monotonic()

    def report(what: str, done: int, total: int) -> None:
        nonlocal started
        if time.monotonic() - started > 30:
            started = time.monotonic()
            say(f"{what}: {done:,} of {total:,}")

    data = dataset.windows(run.config, store, run.planned, report, say)
    for ours, theirs in ((data.train, run.data.train), (data.test, run.data.test)):
        if len(ours) != len(theirs) or not np.array_equal(ours.y, theirs.y):
            raise CorpusError(f"{store.folder}: its windows are not those of the run: a recording changed meanwhile")
    return data


def _objective(run: CachedRun, data: dataset.TrainingData) -> Objective:
    return Objective(data.train, run.classes, *folded(data), weighted=run.config.training.weighted_loss)


def _logistic(run: CachedRun, data: dataset.TrainingData, name: str, detail: str, say: Say) -> Fitted:
    val, path = data.val, lambda_path(run, data.train, *folded(data), say)
    assert val is not None
    margins = path.objective.margins
    lam, w = _best(((s.lam, s.w) for s in path.along()), lambda w: margins(w, val), val, run)
    return Fitted(name, detail, lam, margins(w, val), margins(w, data.test))


def _best(
    candidates: Iterable[tuple[float, Array]], logits: Callable[[Array], Array], val: Windows, run: CachedRun
) -> tuple[float, Array]:
    """The (lambda, weights) of the highest AUROC of the validation windows; the larger lambda of two alike."""
    scored: list[tuple[float, float, Array]] = []
    for lam, w in candidates:
        on_val = torch.from_numpy(logits(w).astype(np.float32))
        predictions = predictions_of(on_val, val, 0, run.config.data.window_stride)
        scored.append((metrics_of(predictions.windows(), None).values.get("auroc", 0.0), lam, w))
    _, lam, w = max(scored, key=lambda one: one[:2])
    return lam, w
