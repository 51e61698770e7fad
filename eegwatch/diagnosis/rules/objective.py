"""Whether training should lower a loss, as far as the log shows.

The losses of adversarial and reinforcement learning wander: a generator's rises as its discriminator learns, DQN's with
the values it learns. A curve alone does not tell them from a supervised one that diverges; the names beside it do, and
so does an evaluation that measures a loss or an accuracy.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from eegwatch.run.records import Eval, Run

FALLS, WANDERS, UNKNOWN = "falls", "wanders", "unknown"

# words in the names of runs, scripts and metrics; a metric's name may also say it in two words (loss_d, ep_rew)
_RUNS = frozenset(
    [
        "gan",
        "wgan",
        "dcgan",
        "cgan",
        "lsgan",
        "stylegan",
        "stylegan2",
        "cyclegan",
        "biggan",
        "pix2pix",
        "adversarial",
        "rl",
        "dqn",
        "ddqn",
        "ppo",
        "sac",
        "td3",
        "a2c",
        "a3c",
        "ddpg",
        "trpo",
        "impala",
        "reinforce",
        "rainbow",
        "actor",
        "critic",
        "policy",
    ]
)
_METRICS = _RUNS | frozenset(
    [
        "discriminator",
        "generator",
        "disc",
        "gen",
        "errd",
        "errg",
        "lossd",
        "lossg",
        "dloss",
        "gloss",
        "reward",
        "rewards",
        "return",
        "returns",
        "episode",
        "episodes",
        "rollout",
        "ep",
        "rew",
        "td",
        "advantage",
        "fid",
    ]
)
_PAIRS = re.compile(r"(^|[^a-z])((d|g|td|q|value|actor|critic|policy)_?loss|loss_?(d|g|td|q))($|[^a-z])")
_SCORES = frozenset(
    [
        "acc",
        "accuracy",
        "balanced",
        "top1",
        "top5",
        "f1",
        "precision",
        "recall",
        "auc",
        "auroc",
        "auprc",
        "ap",
        "map",
        "kappa",
        "wer",
        "cer",
        "per",
        "bleu",
        "rouge",
        "ppl",
        "perplexity",
        "dice",
        "iou",
        "miou",
        "mae",
        "mse",
        "rmse",
        "r2",
        "exact",
        "match",
        "em",
        "pck",
    ]
)


def _words(text: str) -> list[str]:
    return re.split(r"[^a-z0-9]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", text).lower())


class Objective:
    """The kind of loss of one attempt: `kind` is FALLS, WANDERS or UNKNOWN."""

    def __init__(self, run: Run | None) -> None:
        config = (run.config if run else None) or {}
        self.classes = _classes(config)
        target = (run.target if run else None) or {}
        if self.classes is None and "auroc" in target:
            self.classes = 2
        self._falls = bool(target) or self.classes is not None
        names = [run.name, run.run_id, *run.argv[:1]] if run else []
        self._wanders = any(word in _RUNS for text in names for word in _words(text))
        self.validation: list[tuple[int, float]] = []  # (step, loss) of each evaluation that measured one
        self.scores: dict[str, list[float]] = {}

    @property
    def kind(self) -> str:
        return WANDERS if self._wanders else FALLS if self._falls else UNKNOWN

    def see_metrics(self, names: Iterable[str]) -> None:
        """The names of what is logged beside the loss."""
        if not self._wanders:
            self._wanders = any(_PAIRS.search(n.lower()) or not _METRICS.isdisjoint(_words(n)) for n in names)

    def see_evaluation(self, record: Eval) -> None:
        values = {name: value for name, value in record.values().items() if math.isfinite(value)}
        self.see_metrics(values)
        for name, value in values.items():
            if name == "loss":
                self.validation.append((record.step, value))
            elif not _SCORES.isdisjoint(_words(name)):
                self.scores.setdefault(name, []).append(value)
            self._falls |= name == "loss" or name in self.scores


def _classes(config: dict[str, Any]) -> int | None:
    """The number of classes, where the configuration says it."""
    for key, value in config.items():
        if isinstance(value, dict):
            inner = _classes(value)
            if inner is not None:
                return inner
        elif key in ("n_classes", "num_classes", "num_labels") and isinstance(value, int) and value > 1:
            return value
    return None
