"""Plain text logs of training scripts: `Batch 49450/58285 - Loss: 0.4210 - LR: 2.84e-03`, tqdm bars, `AUROC: 0.8`.

A line is searched for counters (batch, step, epoch, `123/273 [`), and for `name: value` or `name=value` pairs whose
names mean something. A carriage return ends a line as well: a progress bar is its last state. Where that is not enough,
a pattern of the user's with named groups is tried first: step, epoch, batch, batches, lr, loss, grad_norm, val_loss, …
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Sequence

from eegwatch.formats.rows import RowReader, meaning
from eegwatch.run.records import RunRecord
from eegwatch.wording import UserError

NUMBER = r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|nan|inf(?:inity)?)"
_EPOCH = re.compile(r"\bepochs?\b\s*[:=#\[]?\s*(\d+)\s*(?:(?:/|of)\s*(\d+))?", re.IGNORECASE)
_BATCH = re.compile(r"\b(?:batch|minibatch)(?:es)?\b\s*[:=#\[]?\s*(\d+)\s*(?:(?:/|of)\s*(\d+))?", re.IGNORECASE)
_STEP = re.compile(
    r"\b(?:global[ _]?step|step|iter(?:ation)?)\b\s*[:=#\[]?\s*(\d+)\s*(?:(?:/|of)\s*(\d+))?", re.IGNORECASE
)
_BAR = re.compile(r"(\d+)/(\d+)\s*\[[\d:?]+<")
_PAIR = re.compile(rf"([A-Za-z][A-Za-z0-9_/ .\-]*?)\s*[:=]\s*({NUMBER})(?![\w.])", re.IGNORECASE)
_EVAL_LINE = re.compile(r"\b(val|valid|validation|eval|evaluation|test)\b", re.IGNORECASE)
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,6}))?")
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
GROUPS = (
    "step",
    "epoch",
    "epochs",
    "batch",
    "batches",
    "lr",
    "loss",
    "grad_norm",
    "val_loss",
    "auroc",
    "balanced_accuracy",
)


class PatternError(UserError):
    """A pattern of the user's that cannot be used: which, and why."""


def compile_patterns(patterns: Sequence[str]) -> list[re.Pattern[str]]:
    """Raises PatternError for what is no regular expression or names no group that we know."""
    compiled = []
    for text in patterns:
        try:
            pattern = re.compile(text)
        except re.error as error:
            raise PatternError(f"--pattern {text}: not a regular expression: {error}") from None
        unknown = sorted(set(pattern.groupindex) - set(GROUPS))
        if unknown or not pattern.groupindex:
            what = f"(?P<{unknown[0]}>…) is no name that is known" if unknown else "it names no group"
            raise PatternError(f"--pattern {text}: {what}; write (?P<lr>…), one of {', '.join(GROUPS)}")
        compiled.append(pattern)
    return compiled


class TextDecoder:
    """Lines to records; `bad` stays 0: a text log may hold anything. `clock`: the time of lines that name none."""

    bad = 0

    def __init__(self, run_id: str, clock: Callable[[], float], patterns: Sequence[re.Pattern[str]] = ()) -> None:
        self.reader, self.clock, self.patterns = RowReader(run_id), clock, patterns
        self._epoch_unit: int | None = None  # the smallest epoch number said: scripts count from 0 or from 1

    def decode(self, data: bytes) -> list[RunRecord]:
        records: list[RunRecord] = []
        now = self.clock()
        for line in re.split(r"[\r\n]+", data.decode("utf-8", "replace")):
            if line.strip():
                records += self._line(_ESCAPE.sub("", line), now)
        return records + self.reader.flush()

    def _line(self, line: str, now: float) -> list[RunRecord]:
        when = _TIME.search(line)
        time = _timestamp(when) if when else now
        if when:
            line = line[: when.start()] + line[when.end() :]
        for pattern in self.patterns:
            found = pattern.search(line)
            if found:
                return self._given({k: v for k, v in found.groupdict().items() if v is not None}, time)
        at: dict[str, float] = {}
        epoch, batch, step, bar = _EPOCH.search(line), _BATCH.search(line), _STEP.search(line), _BAR.search(line)
        if epoch:
            self._announce(int(epoch[1]), int(epoch[2]) if epoch[2] else None)
        counter = batch or bar
        if step:
            at["step"] = float(step[1])
            self.reader.total_steps = int(step[2]) if step[2] and not self.reader.epochs else self.reader.total_steps
        elif counter and (batch or _PAIR.search(line)):
            at["batch"] = float(counter[1])
            self.reader.steps_per_epoch = int(counter[2]) if counter[2] else self.reader.steps_per_epoch
        train, scores = self._values(line)
        if not train and not scores:
            return []
        if not scores and not at and ("loss" not in train or "lr" not in train):
            return []  # "best loss: 0.3", "LR: 0.003" in a banner: no step
        return self.reader.facts({} if scores else at, train, scores, time)

    def _values(self, line: str) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        train: dict[str, float] = {}
        evals: dict[str, float] = {}
        split = _EVAL_LINE.search(line)
        for name, text in _PAIR.findall(line):
            words = name.strip(" -.|,")
            what = meaning(words) or meaning(re.split(r" - |\s{2,}|[,|]", words)[-1].strip(" -"))
            value = float(text)
            if split is not None and (what is None or what == ("train", "loss")):
                last = re.split(r" - |\s{2,}|[,|]", words)[-1]
                what = meaning("val " + re.sub(_EVAL_LINE, "", last)) or what
            if what is None or what[0] == "at":
                continue
            (train if what[0] == "train" else evals).setdefault(what[1], value)
        if not evals:
            return train, {}
        name = "eval" if split is not None and split[1].lower() == "test" else "val"
        return {}, {name: evals}

    def _announce(self, number: int, of: int | None) -> None:
        self._epoch_unit = number if self._epoch_unit is None else min(self._epoch_unit, number)
        first = 0 if self._epoch_unit == 0 else 1
        self.reader.epoch(number - first, of)

    def _given(self, found: dict[str, str], time: float) -> list[RunRecord]:
        values = {}
        for name, text in found.items():
            try:
                values[name] = float(text)
            except ValueError:
                continue  # the group matched something that is no number here
        if "epoch" in values:
            epochs = values.get("epochs")
            self._announce(int(values["epoch"]), int(epochs) if epochs else None)
        if "batches" in values:
            self.reader.steps_per_epoch = int(values["batches"])
        at: dict[str, float] = {name: values[name] for name in ("step", "batch") if name in values}
        train: dict[str, float] = {name: values[name] for name in ("lr", "loss", "grad_norm") if name in values}
        scores = {"loss": "val_loss", "auroc": "auroc", "balanced_accuracy": "balanced_accuracy"}
        evals = {name: values[group] for name, group in scores.items() if group in values}
        return self.reader.facts(at, train, {"val": evals} if evals else {}, time)


def _timestamp(m: re.Match[str]) -> float:
    year, month, day, hour, minute, second = (int(m[i]) for i in range(1, 7))
    micro = int((m[7] or "0").ljust(6, "0"))
    try:
        return datetime.datetime(year, month, day, hour, minute, second, micro).timestamp()
    except ValueError:
        return 0.0
