"""Other people's names -> our records: a row of named numbers, in whatever format it came, as steps and evaluations.

Names are matched without case, spaces, dashes and slashes: `learning_rate`, `lr-AdamW`, `Train Loss`, `Grad norm`,
`val/auroc`. Rows of one step are merged, a step is passed on when the next begins (or when the reader asks for all).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from eegwatch.run.records import Eval, Run, RunRecord, Step, finite

STEP_NAMES = {"step", "globalstep", "trainerglobalstep", "iter", "iteration", "it", "niter", "nstep", "trainstep"}
EPOCH_NAMES, BATCH_NAMES = {"epoch", "ep"}, {"batch", "batchidx", "minibatch"}
LR_NAMES = {"lr", "currentlr", "trainlr", "trainlearningrate", "lrcurrent", "optimizerlr", "lrlion"}
LR_BEGINNINGS = ("learningrate", "lrgroup", "lr0", "lradam", "lrsgd", "lrpg")
LOSS_NAMES = {
    "loss",
    "trainloss",
    "trainingloss",
    "losstrain",
    "trainlossstep",
    "trainlossbatch",
    "batchloss",
    "lossstep",
}
NORM_NAMES = {"gradnorm", "gradientnorm", "gnorm", "traingradnorm", "gradnormtotal", "grad2normtotal"}
SPEED_NAMES = {"samplespers", "samplespersecond", "trainsamplespersecond"}
TIME_NAMES = {"time", "timestamp", "walltime"}
EVAL_PREFIX = re.compile(r"^(val|valid|validation|eval|evaluation|test)(?=.)")
EVAL_NAMES = {
    "loss": "loss", "lossepoch": "loss", "auroc": "auroc", "auc": "auroc", "rocauc": "auroc", "aurocepoch": "auroc",
    "balancedaccuracy": "balanced_accuracy", "balacc": "balanced_accuracy", "bacc": "balanced_accuracy",
    "bac": "balanced_accuracy",
}  # fmt: skip
_SMALL = re.compile(r"[^a-z0-9]")
Values = Mapping[str, float]


def meaning(name: str) -> tuple[str, str] | None:
    """("train", "lr"), ("val", "auroc"), ("at", "step") …, or None for a name that says nothing to us."""
    found = _meaning(_SMALL.sub("", name.lower()))
    outer, _, inner = name.rpartition("/")
    if found is None and outer and not EVAL_PREFIX.match(outer.lower() + "/"):
        return _meaning(_SMALL.sub("", inner.lower()))  # `optim/lr`
    return found


def _meaning(key: str) -> tuple[str, str] | None:
    for kind, names in (("step", STEP_NAMES), ("epoch", EPOCH_NAMES), ("batch", BATCH_NAMES), ("time", TIME_NAMES)):
        if key in names:
            return "at", kind
    if key in LR_NAMES or key.startswith(LR_BEGINNINGS):
        return "train", "lr"
    if key in LOSS_NAMES:
        return "train", "loss"
    if key in NORM_NAMES:
        return "train", "grad_norm"
    if key in SPEED_NAMES:
        return "train", "samples_per_s"
    prefix = EVAL_PREFIX.match(key)
    metric = EVAL_NAMES.get(key[prefix.end() :]) if prefix else None
    if metric is not None and prefix is not None:
        return ("eval" if prefix[1] == "test" else "val"), metric
    return None


@dataclass
class RowReader:
    """Collects rows into records. `zero_based`: the log's steps count from 0 (Lightning's do), ours from 1."""

    run_id: str
    zero_based: bool = False
    total_steps: int | None = None
    steps_per_epoch: int | None = None
    epochs: int | None = None
    _at: int | None = None
    _train: dict[str, float] = field(default_factory=dict)
    _time: float = 0.0
    _epoch: int = 0
    _batch: int | None = None
    _said: tuple[int | None, ...] | None = None

    def row(self, row: Mapping[str, float], time: float = 0.0) -> list[RunRecord]:
        """Records that this row completes. Names that say nothing are passed over."""
        at: dict[str, float] = {}
        train: dict[str, float] = {}
        scores: dict[str, dict[str, float]] = {}
        for name, value in row.items():
            what = meaning(name)
            if what is None:
                continue
            kind, metric = what
            if kind == "at":
                at[metric] = value
            elif kind == "train":
                train.setdefault(metric, value)
            else:
                scores.setdefault(kind, {}).setdefault(metric, value)
        return self.facts(at, train, scores, at.get("time", time))

    def facts(
        self,
        at: Values,
        train: Values,
        scores: Mapping[str, Values],
        time: float,
    ) -> list[RunRecord]:
        """The same, of values whose meaning is known."""
        records = self._begin(time)
        step = self._step(at, bool(train))
        if train and step is not None:
            if step != self._at:
                records += self.flush()
                self._at = step
            self._train |= train
            self._time = time
        if scores:
            records += self.flush()
            where = step if step is not None else (self._at or 0)
            for split, values in scores.items():
                known = {name: finite(value) for name, value in values.items()}
                records.append(Eval(time=time, step=where, epoch=self._epoch, split=split, **known))  # type: ignore[arg-type]
        return records

    def flush(self) -> list[RunRecord]:
        """The step that is being collected, if there is one."""
        if self._at is None or not self._train:
            return []
        values, self._train = self._train, {}
        epoch = batch = None
        if self.steps_per_epoch:
            epoch, batch = divmod(self._at - 1, self.steps_per_epoch)
            batch += 1
        loss = values.get("loss")
        step = Step(
            time=self._time,
            step=self._at,
            epoch=epoch,
            batch=batch,
            lr=finite(values.get("lr")),
            loss=msgspec.UNSET if loss is None else finite(loss),
            grad_norm=finite(values.get("grad_norm")),
            samples_per_s=finite(values.get("samples_per_s")),
        )
        return [step]

    def epoch(self, number: int, of: int | None) -> None:
        """The log said "epoch 17/50": `number` counts from 0 here."""
        if number != self._epoch:
            self._epoch, self._batch = number, None
        self.epochs = of or self.epochs

    def _begin(self, time: float) -> list[RunRecord]:
        """A `run` record first, and another where the log has said more of its length since."""
        if self.epochs and self.steps_per_epoch:
            self.total_steps = self.epochs * self.steps_per_epoch
        known = (self.total_steps, self.steps_per_epoch, self.epochs)
        if known == self._said:
            return []
        records = self.flush()
        first = self._said is None
        self._said = known
        begin = Run(
            time=time,
            run_id=self.run_id,
            name=self.run_id,
            attempt=1,
            step=0 if first else (self._at or 0),
            total_steps=self.total_steps,
            steps_per_epoch=self.steps_per_epoch,
            epochs=self.epochs,
        )
        return [*records, begin]

    def _step(self, at: Mapping[str, float], counts: bool) -> int | None:
        """The global step of a row, from 1: its own, or epoch and batch, or one more than before."""
        if "step" in at and math.isfinite(at["step"]):
            return int(at["step"]) + (1 if self.zero_based else 0)
        if "batch" in at and math.isfinite(at["batch"]):
            batch = int(at["batch"])
            if self._batch is not None and batch < self._batch:
                self._epoch += 1  # the counter began again: an epoch that no line announced
            self._batch = batch
            return self._epoch * (self.steps_per_epoch or 0) + batch
        if not counts:
            return self._at
        return (self._at or 0) + 1  # rows without any counter: one a step
