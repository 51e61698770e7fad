"""The meaning of a name in a log: a counter, the rate, the loss, or a metric under its own name.

A name is cut into words (`lr-AdamW/pg1` -> lr, adam, w, pg, 1; `valLoss` -> val, loss); the word that names the split
(train, val, test) is taken out, and the rest decides. What no table knows is a metric.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from eegwatch.formats.languages import in_english

TRAIN, VAL, TEST = "train", "val", "eval"  # the official test set is called "eval" in our records
SPLITS = {
    "train": TRAIN, "training": TRAIN, "trn": TRAIN, "tr": TRAIN,
    "val": VAL, "valid": VAL, "validation": VAL, "validating": VAL, "dev": VAL, "eval": VAL, "evaluation": VAL,
    "evaluating": VAL, "vld": VAL, "cv": VAL,
    "test": TEST, "testing": TEST, "tst": TEST,
}  # fmt: skip
ANYWHERE = {"train", "training", "val", "valid", "validation", "eval", "evaluation", "test"}

# counters, by their letters without any separator
STEPS = {
    "globalstep": 0, "trainerglobalstep": 0, "numupdates": 0, "currentsteps": 0, "optimizerstep": 0, "numupdate": 0,
    "step": 1, "iter": 2, "iteration": 2, "iters": 2, "iterations": 2, "it": 2, "niter": 2, "nstep": 2, "steps": 2,
    "stepnum": 2, "iternum": 2, "stepid": 2, "currentstep": 1, "currentiter": 2, "curiter": 2, "currentiteration": 2,
    "stepidx": 2, "iteridx": 2, "update": 4, "updates": 4, "totaltimesteps": 3, "timestepstotal": 3, "timesteps": 3,
    "totaltimestep": 3, "timestep": 3, "numenvstepssampledlifetime": 3, "totalenvsteps": 3, "totalenvinteracts": 3,
}  # fmt: skip
TOTALS = {
    "totalsteps", "maxsteps", "maxiters", "maxiter", "totaliters", "totaliterations", "maxiterations",
    "numtrainingsteps", "totaltrainingsteps", "numiterations", "totaloptimizationsteps", "maxtrainsteps",
}  # fmt: skip
EPOCHS = {"epoch", "ep", "epochnum", "currentepoch", "epochidx", "epochid", "epochnumber", "curepoch"}
EPOCH_TOTALS = {"epochs", "totalepochs", "maxepochs", "numepochs", "maxepoch", "numtrainepochs"}
BATCHES = {
    "batch",
    "batchidx",
    "minibatch",
    "batches",
    "batchid",
    "batchnum",
    "ministep",
    "currentbatch",
    "batchnumber",
}
TIMES = {"time", "timestamp", "walltime", "ts", "datetime", "date", "createdat", "loggedat"}
PASSED_OVER = {"eta", "etaseconds", "percentage", "nparameters", "elapsedtime", "remainingtime", "index", "unnamed0"}

RATE_OWNERS = {
    "current", "cur", "now", "last", "optimizer", "optim", "opt", "model", "effective", "scheduled", "scheduler",
    "sched", "x", "params", "hyperparameters", "charts", "trainer", "this", "new", "step", "epoch", "avg", "average",
    "mean", "global", "info", "stats", "metrics", "lion", "adam", "sgd", "learner", "default", "policy", "log",
    "monitoring", "misc", "other", "general", "hyperparams", "hparams",
}  # fmt: skip
NO_RATE = {
    "min", "max", "initial", "init", "peak", "target", "start", "end", "final", "scale", "mult", "multiplier", "decay",
    "factor", "ratio", "gamma", "warmup", "schedule", "best", "drop", "reduction", "weight", "wd",
}  # fmt: skip
LOSS_RANKS = {
    ("loss",): 0,
    ("loss", "step"): 1, ("loss", "batch"): 1, ("batch", "loss"): 1, ("step", "loss"): 1, ("loss", "iter"): 1,
    ("loss", "value"): 1, ("minibatch", "loss"): 1,
    ("total", "loss"): 2, ("loss", "total"): 2, ("tot", "loss"): 2, ("loss", "tot"): 2, ("loss", "all"): 2,
    ("all", "loss"): 2, ("overall", "loss"): 2, ("combined", "loss"): 2, ("loss", "sum"): 2, ("sum", "loss"): 2,
    ("full", "loss"): 2, ("final", "loss"): 2, ("loss", "combined"): 2, ("loss", "overall"): 2, ("losses",): 2,
    ("avg", "loss"): 3, ("average", "loss"): 3, ("mean", "loss"): 3, ("loss", "avg"): 3, ("loss", "mean"): 3,
    ("loss", "average"): 3, ("running", "loss"): 3, ("smoothed", "loss"): 3, ("smooth", "loss"): 3,
    ("lm", "loss"): 3,
    ("reduced", "loss"): 3, ("avg", "total", "loss"): 3, ("total", "loss", "step"): 1, ("loss", "running"): 3,
    ("lm", "loss", "value"): 3, ("global", "avg", "loss"): 3, ("global", "loss"): 3, ("main", "loss"): 3,
    ("loss", "epoch"): 5, ("epoch", "loss"): 5, ("total", "loss", "epoch"): 5, ("avg", "epoch", "loss"): 5,
    ("epoch", "avg", "loss"): 5, ("epoch", "mean", "loss"): 5,
    ("cost",): 6, ("avg", "cost"): 6, ("average", "cost"): 6, ("objective",): 6,
    ("xent",): 6, ("cross", "entropy"): 6, ("nll",): 6, ("crossentropy",): 6,
}  # fmt: skip
BATCH, AVERAGE, EPOCH_MEAN = 1, 3, 5
COMPONENT = 9  # one loss of several: it stands for the loss only where it is alone
NO_LOSS = {
    "scale", "scaler", "weight", "weights", "std", "var", "best", "min", "max", "lowest", "prev", "coef", "lambda",
    "ratio", "count", "factor", "coefficient",
}  # fmt: skip
GRAD_NORMS = {
    ("grad", "norm"), ("gradient", "norm"), ("gnorm",), ("gradnorm",), ("grad", "norm", "total"), ("total", "norm"),
    ("grad", "2", "norm", "total"), ("grad", "2.0", "norm", "total"), ("total", "grad", "norm"),
    ("global", "grad", "norm"), ("grad", "norm", "avg"), ("avg", "grad", "norm"), ("gradients", "norm"),
    ("grad", "norm", "step"), ("grad", "norm", "mean"), ("norm", "grad"), ("norm", "gradient"),
    ("grad", "l", "2", "norm"),
    ("grad", "2", "0", "norm", "total"),
}  # fmt: skip
SPEEDS = {"samplespers", "samplespersecond", "samplespersec", "samplessec", "samplesperss", "examplespersecond"}
FIELDS = {
    "auroc": "auroc", "auc": "auroc", "rocauc": "auroc", "aurocepoch": "auroc", "aucroc": "auroc",
    "balancedaccuracy": "balanced_accuracy", "balacc": "balanced_accuracy", "bacc": "balanced_accuracy",
    "bac": "balanced_accuracy", "balancedacc": "balanced_accuracy",
}  # fmt: skip
# what makes a line of text an evaluation or a training record, though it names neither a loss nor a rate
METRIC_WORDS = {
    "acc", "accuracy", "acc1", "acc5", "top1", "top5", "f1", "auc", "auroc", "kappa", "map", "ap", "miou", "iou",
    "dice", "bleu", "wer", "cer", "ppl", "perplexity", "prec", "precision", "recall", "mse", "mae", "rmse", "r2",
    "psnr", "ssim", "reward", "return", "returns", "score", "bpb", "bpc", "rouge", "meteor", "pck", "mcc",
    "specificity", "sensitivity", "auprc", "fid", "loss", "hd95", "ndcg", "mrr", "elbo", "nll", "pearson",
    "spearman", "corr", "eer",
}  # fmt: skip
NO_RESULT = {  # last words of settings, not of results: `eval_accumulation_steps`
    "size", "steps", "num", "count", "weight", "every", "interval", "threshold", "window", "tokens", "mode", "path",
    "type", "strategy", "delay", "patience", "alpha", "beta", "gamma", "coef", "scale", "scaler", "factor",
    "coefficient",
}  # fmt: skip
# a line with one of these and without a counter is a configuration, whatever rate stands in it
SETTINGS = {
    "momentum", "weight_decay", "weight decay", "batch_size", "batch size", "bs", "dropout", "seed", "num_workers",
    "workers", "warmup_epochs", "warmup_steps", "warmup", "beta1", "beta2", "betas", "eps", "epsilon", "hidden_size",
    "num_layers", "patience", "train_batch_size", "eval_batch_size", "max_len", "max_length", "num_classes", "wd",
}  # fmt: skip
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_GROUP = re.compile(r"(?:pg|group|paramgroup|g)_?(\d+)$|^(?:lr|learning_?rate)_?(\d+)$", re.IGNORECASE)


class Role(NamedTuple):
    """What a value is. `kind`: step, steps (how many in all), epoch, epochs, batch, batches, time, skip, lr, loss,
    grad_norm, samples_per_s or metric. `split` is None where the name says none. `rank`: the smaller, the surer.
    `group`: of the optimizer's parameter groups, where the name has one."""

    kind: str
    split: str | None
    name: str
    rank: int = 0
    group: int | None = None
    setting: bool = False  # the name of a hyperparameter


@lru_cache(8192)
def words_of(name: str) -> tuple[str, ...]:
    return tuple(word.lower() for word in _WORD.findall(name))


@lru_cache(8192)
def role(name: str) -> Role:
    """The role of a name; every name has one, a metric's if nothing else."""
    name = in_english(name)
    words = words_of(name)
    letters = "".join(words)
    split, rest, own = None, words, name.strip()
    at = next((i for i in (0, len(words) - 1) if words and words[i] in SPLITS), None)
    if at is None:
        at = next((i for i, word in enumerate(words) if word in ANYWHERE), None)
    if at is not None and len(words) > 1:
        split, rest = SPLITS[words[at]], words[:at] + words[at + 1 :]
        own = _without(own, words[at], last=at == len(words) - 1 and at > 0)
    if name.startswith("metrics/") and name[8:].lower().startswith(
        ("map", "precision", "recall", "mar", "accuracy_top")
    ):
        return Role("metric", VAL, name[8:])  # YOLO's results
    counter = _counter(letters, split, "".join(rest)) or _counter("".join(words_of(name.rpartition("/")[2])), split, "")
    if counter is not None:
        return counter
    group = _rate(name, rest)
    if group is not None:
        return Role("lr", split, own, *group)
    if (loss := _loss(rest)) is not None:
        return Role("loss", split, own, loss)
    if rest in GRAD_NORMS or (len(rest) > 2 and rest[1:] == ("grad", "norm") and rest[0] in RATE_OWNERS):
        return Role("grad_norm", split, own)
    if "".join(rest) in SPEEDS:
        return Role("samples_per_s", split, own)
    return Role("metric", split, own, setting=own.lower() in SETTINGS)


def _counter(letters: str, split: str | None, rest: str) -> Role | None:
    if letters in PASSED_OVER:
        return Role("skip", split, letters)
    for key in (letters, rest if split == TRAIN else ""):
        if key in STEPS:
            return Role("step", split, key, STEPS[key])
        if key in EPOCHS:
            return Role("epoch", split, key)
        if key in BATCHES:
            return Role("batch", split, key)
    if rest in STEPS and split is not None:
        return Role("step", split, rest, STEPS[rest] + 5)
    if letters in TOTALS:
        return Role("steps", None, letters)
    if letters in EPOCH_TOTALS:
        return Role("epochs", None, letters)
    return Role("time", split, letters) if letters in TIMES else None


def _rate(name: str, words: tuple[str, ...]) -> tuple[int, int | None] | None:
    """(rank, group) of a learning rate's name."""
    if words[:2] == ("learning", "rate"):
        before: tuple[str, ...] = ()
        after = words[2:]
    elif "lr" in words:
        at = words.index("lr")
        before, after = words[:at], words[at + 1 :]
    elif "lrs" in words and len(words) <= 2:
        return 0, None
    elif ("learning", "rate") in pairwise(words):
        at = words.index("learning")
        before, after = words[:at], words[at + 2 :]
    else:
        return None
    if NO_RATE & {*before, *after}:
        return None
    match = _GROUP.search(name.rpartition("/")[2]) or _GROUP.search(name)
    group = int(match[1] or match[2]) if match else None
    if before == ("base",):
        return 1, group
    if set(before) <= RATE_OWNERS:
        return 0, group
    return 2, group


def _loss(words: tuple[str, ...]) -> int | None:
    rank = LOSS_RANKS.get(words)
    if rank is None and len(words) > 1 and words[0] in RATE_OWNERS | {"losses"}:
        rank = LOSS_RANKS.get(words[1:])
    if rank is None and words[:1] == ("losses",):
        return COMPONENT
    if rank is None and len(words) > 1 and words[0] == "l" and words[1].isalpha() and not NO_LOSS & set(words):
        return LOSS_RANKS.get(("loss", *words[1:]), COMPONENT)  # BasicSR: `l_pix`, `l_g_gan`, `l_total`
    if rank is None and ("loss" in words or "losses" in words) and not NO_LOSS & set(words):
        return COMPONENT
    return rank


def _without(name: str, word: str, last: bool) -> str:
    """A name without the word of its split: `val/box_loss` -> `box_loss`, `Val Acc` -> `Acc`, `loss_val` -> `loss`."""
    matches = list(re.finditer(re.escape(word), name, re.IGNORECASE))
    match = matches[-1] if last else matches[0]
    before, after = name[: match.start()].rstrip(" _/.-:#"), name[match.end() :].lstrip(" _/.-:#")
    return f"{before}/{after}" if before and after else before or after or name


def meaning(name: str) -> tuple[str, str] | None:
    """("train", "lr"), ("val", "auroc"), ("at", "step") …, or None for a name that is only a metric or nothing."""
    parsed = role(name)
    if parsed.kind in ("step", "epoch", "batch", "time"):
        return "at", parsed.kind
    if parsed.kind == "lr" or (parsed.kind in ("grad_norm", "samples_per_s") and parsed.split in (TRAIN, None)):
        return "train", parsed.kind
    if parsed.kind == "loss" and parsed.rank < COMPONENT:
        return parsed.split or TRAIN, "loss"
    field = FIELDS.get("".join(words_of(parsed.name)))
    return (parsed.split, field) if field and parsed.split in (VAL, TEST) else None


def is_metric(name: str) -> bool:
    """Whether this is the name of a metric, so that a line with it is a record."""
    words = words_of(name)
    if words == ("per",):
        return True  # the phone error rate
    if len(words) > 1 and words[-1] in NO_RESULT:
        return False
    known = METRIC_WORDS & {*words, "".join(words)} or _pairs(words) & METRIC_WORDS
    return bool(known) and not (known == {"loss"} and NO_LOSS & set(words))


def _pairs(words: tuple[str, ...]) -> set[str]:
    return {a + b for a, b in pairwise(words)}
