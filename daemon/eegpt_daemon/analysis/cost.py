"""The cost of a fault of the learning rate: the same run trained at its declared rates, and both over more seeds.

The trainer is deterministic to the bit, so the two runs differ by their learning rates only. A fault is
repeated under another seed as it was injected, or by replaying the rates that the log holds. All arms lie in `twin/` of
the run's folder, one that has ended is not trained again, and none is ever the current run of a log root.
"""

from __future__ import annotations

import copy
import time
from pathlib import Path

import numpy as np

from eegpt_daemon.analysis import retrain
from eegpt_daemon.analysis.cached_run import Say, config_of
from eegpt_daemon.analysis.retrain import Rates
from eegpt_daemon.data.corpus import CorpusError
from eegwatch.check import CheckedRun
from eegwatch.diagnosis.findings import RATE
from eegwatch.run import config as configuration
from eegwatch.run.config import Config, Notify
from eegwatch.run.follow import history_of
from eegwatch.run.history import History
from eegwatch.run.results.cost import TWIN, Cost, Difference
from eegwatch.schedule import rate_at
from eegwatch.scores.intervals import differences
from eegwatch.scores.predictions import Predictions, PredictionsError
from eegwatch.scores.resampled_metrics import Resampled

SAME = 1e-9  # relative: a rate as it was logged is the declared one, whatever the rounding of two ways to compute it
MODELS = {"final": "", "best": "best"}  # folder of its predictions, in an arm's
SPLITS = ("val", "eval")
ENDED = ("completed", "early_stopped")


def cost_of(folder: Path, seeds: int, say: Say) -> Cost:
    """Train what is missing, and compare. Raises the errors of configuration and corpus."""
    config, history = config_of(folder), history_of(folder)
    observed, declared = rates_of(config, history)
    cost = Cost(made=time.time(), reason=_nothing_to_tell(history, observed, declared))
    if cost.reason is not None:
        return cost
    wrong = np.abs(observed - declared[: len(observed)]) > SAME * declared.max()
    cost.since, cost.wrong = 1 + int(np.flatnonzero(wrong)[0]), int(wrong.sum())
    cost.fault = fault_of(folder, history)
    replay = None if config.inject else observed
    own = config.experiment.seed
    cost.seeds = [own + i for i in range(max(1, seeds))]
    if replay is not None and len(observed) < len(declared):
        cost.seeds = [own]
        cost.remarks.append(
            f"the run ended early, so its rates are known to step {len(observed):,} only: no other seed can repeat it"
        )
    if config.distributed.nproc_per_node * config.distributed.nnodes > 1:
        cost.remarks.append("the run had several processes; its twin has one, with as many windows a step")
    arms = {seed: _arms(folder, config, seed, replay, say) for seed in cost.seeds}
    for seeds_of_row in ([own], cost.seeds) if len(cost.seeds) > 1 else ([own],):
        cost.rows += _differences([arms[seed] for seed in seeds_of_row])
    if not cost.rows:
        raise CorpusError(
            f"{folder / TWIN}: the retrained runs left no predictions to compare; their trainer.log gives the reason"
        )
    return cost


def rates_of(config: Config, history: History) -> tuple[Rates, Rates]:
    """(the rate that each step of the run used, the declared one of every step), from step 1 on. Raises CorpusError."""
    run = history.run
    if run is None or not run.steps_per_epoch or not history.length:
        raise CorpusError("the run log holds no step: there is nothing to compare")
    if history.step[0] != 1 or len(history.step) != history.step[-1]:
        raise CorpusError("the run log lacks steps: the rates that were used are not all known")
    per_epoch = int(run.steps_per_epoch)
    schedule = configuration.schedule_of(config, per_epoch)
    steps = np.arange(1, per_epoch * config.training.max_epochs + 1)
    declared: Rates = np.asarray(rate_at(schedule, steps, per_epoch), np.float64)
    return history.lr.copy(), declared


def _nothing_to_tell(history: History, observed: Rates, declared: Rates) -> str | None:
    end = history.end
    if end is None or end.reason not in ENDED:
        return "the run has not completed; run the command again when it has"
    if bool((np.abs(observed - declared[: len(observed)]) <= SAME * declared.max()).all()):
        return "the learning rate of every step was the declared one"
    return None


def fault_of(folder: Path, history: History) -> str:
    """The name of what was wrong with the rate: as injected, as a person set it, or as the detectors find it."""
    run = history.run
    if run is not None and run.inject:
        return run.inject
    if run is not None and run.overrides:
        return "manual_override"
    outcome = CheckedRun(folder, None, None).read_to_end()
    faults = [finding for finding in [*outcome.findings, *outcome.past] if finding.family == RATE and finding.bad]
    if not faults:
        return "a learning rate off its schedule"
    return next((finding.cause.name for finding in faults if finding.cause is not None), faults[0].rule)


def arm_config(config: Config, seed: int, *, right: bool) -> Config:
    """The configuration of one retrained run: another seed, the same split, no pacing, no messages, one process."""
    arm_of = copy.deepcopy(config)
    if arm_of.data.split_seed is None:
        arm_of.data.split_seed = config.experiment.seed
    arm_of.experiment.seed, arm_of.experiment.seeds, arm_of.experiment.series = seed, None, None
    arm_of.training.pace_steps_per_s = None
    arm_of.notify = Notify()
    workers = config.distributed.nproc_per_node * config.distributed.nnodes
    arm_of.training.gradient_accumulation_steps *= workers
    arm_of.distributed = type(config.distributed)()
    if right:
        arm_of.inject = None
    return arm_of


def _arms(folder: Path, config: Config, seed: int, replay: Rates | None, say: Say) -> tuple[Path, Path]:
    """(folder of the faulty arm, of the right one) of a seed, both trained."""
    right = folder / TWIN / f"seed-{seed}-right"
    _train(right, arm_config(config, seed, right=True), None, say)
    if seed == config.experiment.seed and (folder / "predictions-eval.npz").exists():
        return folder, right
    faulty = folder / TWIN / f"seed-{seed}-faulty"
    _train(faulty, arm_config(config, seed, right=False), replay, say)
    return faulty, right


def _train(folder: Path, config: Config, rates: Rates | None, say: Say) -> None:
    """Raises CorpusError where the arm does not come to its end."""
    if retrain.ended(folder):
        return
    began = time.monotonic()
    retrain.prepare(folder, config, rates)
    code = retrain.train(folder)
    if not retrain.ended(folder):
        raise CorpusError(
            f"{folder}: the trainer ended with code {code} before the end of the run; its trainer.log gives the reason"
        )
    say(f"{folder.name}: trained in {time.monotonic() - began:.0f} s")


def _differences(arms: list[tuple[Path, Path]]) -> list[Difference]:
    """Every model, split and level that all arms have predictions of."""
    rows = []
    for model, place in MODELS.items():
        for split in SPLITS:
            try:
                pairs = [tuple(_predictions(side / place, split) for side in pair) for pair in arms]
            except PredictionsError:
                continue  # no validation split, or a run of an earlier version
            if len({each.corpus for pair in pairs for each in pair}) > 1:
                raise CorpusError("the arms were evaluated on different recordings: they cannot be paired")
            rows += [_difference(model, split, level, pairs) for level in ("window", "recording")]
    return rows


def _predictions(folder: Path, split: str) -> Predictions:
    return Predictions.load(folder / f"predictions-{split}.npz")


def _difference(model: str, split: str, level: str, pairs: list[tuple[Predictions, ...]]) -> Difference:
    sides = [[Resampled(p.windows() if level == "window" else p.recordings()) for p in side] for side in zip(*pairs)]
    faulty, right = sides
    ones = np.ones((1, len(faulty[0].subjects)))
    difference = differences(faulty, right, ["auroc"], paired_seeds=True)["auroc"]
    means = [float(np.mean([run.values(ones, ["auroc"])["auroc"][0] for run in side])) for side in sides]
    low, high = difference.interval if difference.interval is not None else (None, None)
    return Difference(
        model=model,
        split=split,
        level=level,
        seeds=len(pairs),
        faulty=means[0],
        right=means[1],
        cost=difference.value,
        low=low,
        high=high,
    )
